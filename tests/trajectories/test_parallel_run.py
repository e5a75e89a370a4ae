"""Runs on real weights: seeds, batches, events, cancelling, early stop, memory, bad input."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any, Never

import pytest

from edgedistill.errors import BudgetError, ContextLengthError, GenerationError, OutOfMemoryError, UsageError
from edgedistill.trajectories import TrajectoryOptions, memory, run, solve, stream
from edgedistill.trajectories.decode import one_by_one
from edgedistill.trajectories.memory import plan_memory

HARD = "Tom has 345 cards. He buys 6 packs of 14 cards, then loses 27 cards. How many cards does he have?"
EASY = "What is 12 + 30?"
STORY = (
    "Mia has 14 apples. Then Mia finds 3 bags of 6 apples. Mia gives away 7 apples. How many apples does Mia have now?"
)
OFF = TrajectoryOptions(count=4, early_stop="off")


@pytest.fixture(scope="module")
def sampling(reasoner):
    return reasoner.default_settings.replace(seed=3, temperature=1.0, max_new_tokens=160)


def tokens(result):
    return [trajectory.tokens for trajectory in result.trajectories]


def test_the_same_seed_gives_the_same_trajectories_whatever_their_number(reasoner, sampling) -> None:
    few = solve(reasoner, HARD, options=OFF, settings=sampling, numerics="exact")
    many = solve(
        reasoner, HARD, options=TrajectoryOptions(count=9, early_stop="off"), settings=sampling, numerics="exact"
    )
    one = solve(reasoner, HARD, options=TrajectoryOptions(count=1), settings=sampling, numerics="exact")
    assert tokens(few) == tokens(many)[:4]
    assert tokens(one) == tokens(few)[:1]
    assert len(set(tokens(many))) > 1
    other = solve(reasoner, HARD, options=OFF, settings=sampling.replace(seed=4), numerics="exact")
    assert tokens(other) != tokens(few)


def test_the_first_trajectory_is_the_answer_to_the_same_seed_alone(reasoner, sampling) -> None:
    alone = reasoner.generate(HARD, settings=sampling, numerics="exact")
    first = solve(reasoner, HARD, options=OFF, settings=sampling, numerics="exact").trajectories[0]
    assert (first.tokens, first.text, first.reasoning, first.answer) == (
        alone.tokens, alone.text, alone.reasoning, alone.answer,
    )  # fmt: skip
    assert first.reasoning_tokens == alone.stats.reasoning_tokens


@pytest.mark.parametrize("penalty", [1.0, 1.1])
def test_waves_and_one_after_the_other_give_the_same_trajectories(reasoner, sampling, monkeypatch, penalty) -> None:
    settings = sampling.replace(repetition_penalty=penalty)
    options = TrajectoryOptions(count=5, early_stop="off", vote="confidence")
    together = solve(reasoner, HARD, options=options, settings=settings, numerics="exact")
    monkeypatch.setattr(memory, "plan_memory", lambda **k: plan_memory(**{**k, "available": 1_900_000, "held": 0}))
    waves = solve(reasoner, HARD, options=options, settings=settings, numerics="exact")
    assert 1 < waves.stats.rows < 5
    monkeypatch.setattr(run._Run, "_decoding", lambda self, decoder, start, rows: one_by_one(decoder, start))
    alone = solve(reasoner, HARD, options=options, settings=settings, numerics="exact")
    for other in (waves, alone):
        assert tokens(other) == tokens(together)
        assert other.vote.tallies[0].weight == pytest.approx(together.vote.tallies[0].weight, rel=1e-4)
    assert "decoded at a time" in waves.notes[0]


def test_events_join_to_the_trajectories(reasoner, sampling) -> None:
    texts: defaultdict[int | None, str] = defaultdict(str)
    counts: defaultdict[int | None, int] = defaultdict(int)
    kinds = []
    for event in stream(reasoner, HARD, options=OFF, settings=sampling):
        kinds.append(event.kind)
        if event.kind in ("reasoning", "answer", "marker"):
            texts[event.index] += event.text
            counts[event.index] += event.tokens
    result = event.result
    assert kinds[0] == "prefill"
    assert kinds[-2:] == ["vote", "done"]
    assert kinds.count("finished") == 4
    for trajectory in result.trajectories:
        assert texts[trajectory.index] == trajectory.text
        assert counts[trajectory.index] <= len(trajectory.tokens)
    lengths = [len(trajectory.tokens) for trajectory in result.trajectories]
    assert result.stats.trajectory_tokens == sum(lengths)


def test_a_decided_vote_cuts_the_rest_and_keeps_the_verdict(reasoner, sampling) -> None:
    full = solve(reasoner, STORY, options=TrajectoryOptions(count=12, early_stop="off"), settings=sampling)
    short = solve(reasoner, STORY, options=TrajectoryOptions(count=12), settings=sampling)
    assert (short.final, short.decided_by, short.vote.tied) == (full.final, "majority", ())
    assert short.vote.cut > 0
    assert short.stats.trajectory_tokens < full.stats.trajectory_tokens
    for trajectory in short.trajectories:
        whole = full.trajectories[trajectory.index].tokens
        assert trajectory.tokens == whole[: len(trajectory.tokens)]
        assert trajectory.vote is None or trajectory.kind == "answered"


def test_cancelling_keeps_and_labels_what_there_is(reasoner, sampling) -> None:
    cancel, seen = threading.Event(), 0
    for event in stream(reasoner, HARD, options=OFF, settings=sampling, cancel=cancel):
        seen += event.kind == "reasoning"
        if seen > 40:
            cancel.set()
    result = event.result
    assert result.cancelled
    open_ones = [trajectory for trajectory in result.trajectories if trajectory.kind == "cancelled"]
    assert open_ones
    assert all(trajectory.text and trajectory.vote is None for trajectory in open_ones)
    assert result.vote.cancelled == len(open_ones)
    again = solve(reasoner, HARD, options=OFF, settings=sampling)
    assert not again.cancelled


def test_cancelling_before_the_first_token(reasoner, sampling) -> None:
    cancel = threading.Event()
    cancel.set()
    result = solve(reasoner, HARD, options=OFF, settings=sampling, cancel=cancel)
    assert {trajectory.kind for trajectory in result.trajectories} == {"cancelled"}
    assert (result.answer, result.decided_by, result.winner) == ("", "none", None)


# What onnxruntime says, with its own type, and what Python and its libraries raise.
FAILURES = (
    RuntimeError("Non-zero status code returned while running MatMulNBits node. Status Message: std::bad_alloc"),
    RuntimeError("bfc_arena.cc:360 AllocateRawInternal Failed to allocate memory for requested buffer of size 131072"),
    MemoryError(),
)


@pytest.mark.parametrize("failure", FAILURES, ids=["kernel", "arena", "python"])
@pytest.mark.parametrize("rows", [1, 4])
def test_what_there_is_when_the_memory_runs_out_is_kept(reasoner, sampling, monkeypatch, failure, rows) -> None:
    """One after the other some have ended by then, together none has."""
    full = solve(reasoner, HARD, options=OFF, settings=sampling)
    session = type(reasoner.session.raw)
    real, runs = session.run_with_iobinding, []

    def failing(self, *arguments):
        runs.append(1)
        if len(runs) > (200 if rows == 1 else 30):
            raise failure
        return real(self, *arguments)

    if rows == 1:
        monkeypatch.setattr(run._Run, "_decoding", lambda self, decoder, start, rows: one_by_one(decoder, start))
    monkeypatch.setattr(session, "run_with_iobinding", failing)
    events = []
    with pytest.raises(OutOfMemoryError, match=r"of 4 trajectories had ended.*--trajectories") as raised:
        for event in stream(reasoner, HARD, options=OFF, settings=sampling):
            events.append(event)  # kept although it ends with an error
    result = events[-1].result
    assert [event.kind for event in events].count("finished") == 4
    assert raised.value.message in result.notes
    assert not result.cancelled
    ended = [one for one in result.trajectories if one.kind != "cancelled"]
    assert bool(ended) == (rows == 1)
    assert result.vote.cancelled == 4 - len(ended) > 0
    assert any(one.text for one in result.trajectories if one.kind == "cancelled")
    if rows > 1:
        for one, whole in zip(result.trajectories, full.trajectories, strict=True):
            assert 0 < len(one.tokens) < len(whole.tokens)
            assert one.tokens == whole.tokens[: len(one.tokens)]
    monkeypatch.setattr(session, "run_with_iobinding", real)
    assert len(solve(reasoner, HARD, options=OFF, settings=sampling).trajectories) == 4  # the model goes on


def test_an_error_that_is_no_memorys_is_raised_as_it_is(reasoner, sampling, monkeypatch) -> None:
    def failing(self, *arguments) -> Never:
        raise RuntimeError("Invalid rank for input")

    monkeypatch.setattr(type(reasoner.session.raw), "run_with_iobinding", failing)
    with pytest.raises(GenerationError, match="ONNX Runtime failed: Invalid rank") as raised:
        solve(reasoner, HARD, options=OFF, settings=sampling)
    assert not isinstance(raised.value, OutOfMemoryError)


def test_a_pass_that_runs_out_of_memory_leaves_the_vote(reasoner, sampling, monkeypatch) -> None:
    def failing(*arguments, **settings) -> Never:
        raise OutOfMemoryError("The KV cache cannot grow.")

    monkeypatch.setattr(type(reasoner), "stream", failing)  # on the object it would stay behind the test
    result = solve(reasoner, EASY, options=TrajectoryOptions(count=4, deliberate=True), settings=sampling)
    assert (result.deliberation, result.decided_by) == (None, "majority")
    assert result.notes[-1] == "The memory ran out in the deliberation: the vote stands."


def test_truncated_trajectories_never_win(reasoner, sampling) -> None:
    result = solve(reasoner, HARD, options=OFF, settings=sampling.replace(max_new_tokens=5))
    assert result.vote.truncated == 4
    assert (result.decided_by, result.answer) == ("none", "")


def test_a_stop_string_ends_one_trajectory_only(reasoner, sampling) -> None:
    result = solve(reasoner, EASY, options=OFF, settings=sampling.replace(stop=("}",)))
    assert {trajectory.finish for trajectory in result.trajectories} == {"stop_string"}
    assert all("}" not in trajectory.text for trajectory in result.trajectories)


@pytest.mark.parametrize("count", [0, -1, 65, 10**9, 2.5, True])
def test_absurd_numbers_of_trajectories_are_refused(count) -> None:
    with pytest.raises(UsageError, match="expected 1 to 64"):
        TrajectoryOptions(count=count)


@pytest.mark.parametrize(
    "options",
    [
        {"vote": "loudest"},
        {"early_stop": "soon"},
        {"answers": "checks"},
        {"measure": "feeling"},
        {"error_rate": 0.0},
        {"error_rate": 0.7},
        {"keep": 0.0},
        {"keep": float("nan")},
        {"window": 0},
        {"deliberation_tokens": 0},
        {"vote": "confidence", "early_stop": "exact"},
    ],
)
def test_options_out_of_range_are_refused(options) -> None:
    with pytest.raises(UsageError):
        TrajectoryOptions(**options)


def test_equal_trajectories_are_refused(reasoner, sampling) -> None:
    with pytest.raises(GenerationError, match="leave a choice"):
        stream(reasoner, EASY, settings=sampling.replace(temperature=0.0))


def test_a_prompt_longer_than_the_context(reasoner, sampling) -> None:
    with pytest.raises(ContextLengthError, match="context"):
        solve(reasoner, "9 " * 3000, settings=sampling)


# ---- memory --------------------------------------------------------------------------------------------------------

PLAN: dict[str, Any] = {
    "tokens": 990, "step": 100, "context": 4000, "bytes_per_token": 10_000, "vocab_size": 100, "profile": {},
    "predicted": {},
}  # fmt: skip


def test_memory_lowers_the_rows_and_says_so() -> None:
    row = 1000 * 10_000 + 1600  # a cache grows by 100 tokens
    plenty = plan_memory(count=8, available=20 * row, **PLAN)
    assert (plenty.rows, plenty.note, plenty.pass_tokens) == (8, "", 4000)
    tight = plan_memory(count=8, available=5 * row, **PLAN)
    assert tight.rows == 3  # nine tenths of what is free, and the prompt's own cache
    assert "3 are decoded at a time. All 8 are made and vote." in tight.note
    single = plan_memory(count=8, available=int(2.5 * row), **PLAN)
    assert (single.rows, single.pass_tokens) == (1, int(0.9 * 2.5 * row - 1600) // 10_000)
    assert "one after the other" in single.note
    with pytest.raises(BudgetError, match="A trajectory of up to 990 tokens"):
        plan_memory(count=8, available=row, **PLAN)


def test_one_trajectory_takes_the_path_of_a_batch_where_there_is_room() -> None:
    row = 1000 * 10_000 + 1600
    for sequences, rows in ((9, 2), (3, 2), (2, 1), (1, 1)):
        plan = plan_memory(count=1, available=int(1.2 * sequences * row), **PLAN)
        assert (plan.rows, plan.note) == (rows, "")


def test_what_an_earlier_prompt_left_allocated_counts_once() -> None:
    row = 1000 * 10_000 + 1600
    for held, rows in ((0, 3), (row, 4), (3 * row, 4)):
        assert plan_memory(count=8, available=5 * row, held=held, **PLAN).rows == rows


def test_a_quantized_cache_fits_more_at_a_time() -> None:
    memory: dict[str, Any] = {"count": 8, "available": 3 * 10_000_000}
    assert plan_memory(**memory, **PLAN).rows == 1
    assert plan_memory(**memory, **{**PLAN, "bytes_per_token": 2_500}).rows == 8


def test_the_bytes_of_a_plan_are_those_that_are_taken(reasoner, sampling, monkeypatch) -> None:
    plans, held = [], []
    monkeypatch.setattr(
        memory,
        "plan_memory",
        lambda **k: (held.append(k["held"]), plans.append(plan_memory(**k)), plans[-1])[-1],  # type: ignore[func-returns-value]
    )
    # Decoded to the last token that the plan is for.
    settings = sampling.replace(ignore_eos=True, max_new_tokens=300)
    for count in (1, 5):
        result = solve(reasoner, HARD, options=TrajectoryOptions(count=count, early_stop="off"), settings=settings)
        rows, taken = plans[-1].rows, result.stats.kv_bytes
        assert result.stats.rows == count
        assert taken <= rows * plans[-1].row_bytes + max(plans[-1].row_bytes, held[-1])
        assert taken > rows * (plans[-1].row_bytes - 16 * reasoner.bundle.manifest.model.vocab_size)


def test_a_pass_that_does_not_fit_the_memory_leaves_the_vote(reasoner, sampling, monkeypatch) -> None:
    monkeypatch.setattr(memory, "plan_memory", lambda **k: plan_memory(**{**k, "available": 700_000, "held": 0}))
    options = TrajectoryOptions(count=4, deliberate=True)
    result = solve(reasoner, EASY, options=options, settings=sampling)
    assert (result.stats.rows, result.deliberation, result.decided_by) == (1, None, "majority")
    assert "of the memory that is free allow" in result.notes[-1]
    assert "the vote stands" in result.notes[-1]


def test_the_profiles_budget_counts_when_it_is_the_smaller_one() -> None:
    profile = {"name": "small", "target": {"ram_gb": 0.2}}
    plan = {**PLAN, "profile": profile, "predicted": {"ram_bytes": 170_000_000, "kv_bytes": 10_000_000}}
    found = plan_memory(count=8, available=10**12, **plan)
    assert found.rows == 2
    assert "profile small" in found.note
