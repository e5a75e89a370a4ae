"""The further pass: what it is shown, its prompt file, and what happens when it cannot be made or says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.errors import GenerationError, TemplateError, UsageError
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.runtime.events import Generation
from edgedistill.trajectories import TrajectoryOptions, solve
from edgedistill.trajectories.deliberate import PassPrompt, Serializer, load_prompt, prune, share_out
from edgedistill.trajectories.result import Trajectory
from edgedistill.trajectories.vote import Ballot, majority
from edgedistill.verify.models.bundle import BundleModel
from edgedistill.verify.models.procedure import ProcedureModel
from edgedistill.verify.suites.registry import load_suite
from edgedistill.verify.types import Procedure

QUESTION = "What is 48 + 37 - 20?"
DELIBERATE = TrajectoryOptions(count=4, deliberate=True)


@pytest.fixture(scope="module")
def sampling(reasoner):
    return reasoner.default_settings.replace(seed=3, temperature=0.8, max_new_tokens=200)


def made(index, reasoning, answer, vote="65"):
    return Trajectory(index, "answered", vote, reasoning + answer, reasoning, answer, (1,) * 20, 10, "stop")


def answering(monkeypatch, reasoner, text, finish="stop"):
    """Let the pass say ``text``; returns the questions it was given."""
    asked = []
    original = type(reasoner).stream

    def scripted(self, messages, **arguments):
        asked.append(messages[-1]["content"])
        for event in original(self, "What is 1 + 1?", **{**arguments, "thinking": None}):
            if event.generation is None:
                continue
            values = {name: getattr(event.generation, name) for name in ("tokens", "numerics", "stats")}
            done = Generation(text=text, reasoning="", answer=text, finish_reason=finish, **values)
            yield type(event)("answer", text=text)
            yield type(event)("done", generation=done)

    monkeypatch.setattr(type(reasoner), "stream", scripted)
    return asked


def test_the_deliberation_answers(reasoner, sampling, monkeypatch) -> None:
    asked = answering(monkeypatch, reasoner, r"All attempts are wrong: \boxed{1234}.")
    result = solve(reasoner, QUESTION, options=DELIBERATE, settings=sampling)
    assert (result.decided_by, result.final, result.winner) == ("deliberation", "1234", None)
    assert result.answer == r"All attempts are wrong: \boxed{1234}."
    assert result.vote.answer != "1234"  # the vote is a signal and stays on record
    assert result.stats.pass_tokens == len(result.deliberation.tokens) > 0
    (prompt,) = asked
    assert QUESTION in prompt
    for trajectory in result.trajectories:
        assert trajectory.answer in prompt
    assert f"attempts conclude {result.vote.answer}" in prompt


@pytest.mark.parametrize(
    ("text", "finish", "note"),
    [
        ("I do not know.", "stop", "no answer"),
        (r"\boxed{1234}", "length", "ran out of tokens"),
        ("", "stop", "no answer"),
    ],
)
def test_a_deliberation_without_an_answer_leaves_the_vote(reasoner, sampling, monkeypatch, text, finish, note) -> None:
    answering(monkeypatch, reasoner, text, finish)
    result = solve(reasoner, QUESTION, options=DELIBERATE, settings=sampling)
    assert (result.decided_by, result.final) == ("majority", result.vote.answer)
    assert note in result.notes[-1]
    assert "the vote stands" in result.notes[-1]


def test_the_real_pass_runs_and_is_repeatable(reasoner, sampling) -> None:
    first, second = (
        solve(reasoner, QUESTION, options=DELIBERATE, settings=sampling, numerics="exact") for _ in range(2)
    )
    assert first.deliberation.tokens == second.deliberation.tokens
    assert first.stats.pass_tokens > 0


def test_verification_scores_the_deliberation_and_the_vote_before_it(reasoner) -> None:
    (prompt,) = load_suite("arithmetic").prompts[:1]
    settings = DrawSettings(temperature=0.9, top_k=20, max_new_tokens=200, seed=7)
    for answer in ProcedureModel(BundleModel(reasoner), Procedure("deliberate", 2)).draw([prompt], 2, settings):
        assert answer.trial.pass_tokens > 0
        assert answer.sample.tokens == answer.trial.trajectory_tokens + answer.trial.pass_tokens
        assert isinstance(answer.trial.vote, bool)


def test_a_context_that_is_too_short_falls_back_to_the_vote(reasoner, sampling) -> None:
    long = "Mia has 14 apples. " * 110 + "How much is 12 + 30?"  # the pass states the question twice
    result = solve(reasoner, long, options=DELIBERATE, settings=sampling.replace(max_new_tokens=60))
    assert result.deliberation is None
    assert result.decided_by in ("majority", "none")
    assert any("the vote stands" in note for note in result.notes)


def test_free_form_replies_are_picked_by_the_model(reasoner, sampling, monkeypatch) -> None:
    asked = answering(monkeypatch, reasoner, "Reply 2")
    result = solve(reasoner, QUESTION, options=TrajectoryOptions(count=4, answers="free"), settings=sampling)
    assert result.decided_by == "universal"
    second = asked[0].partition("Reply 2:\n")[2]
    assert second.startswith(result.trajectories[result.winner or 0].answer)


def test_free_form_replies_without_a_pick_stand_by_their_likeness(reasoner, sampling, monkeypatch) -> None:
    answering(monkeypatch, reasoner, "no idea")
    result = solve(reasoner, QUESTION, options=TrajectoryOptions(count=4, answers="free"), settings=sampling)
    assert (result.decided_by, result.selection.answer) == ("similarity", "no idea")
    assert result.answer == result.trajectories[result.winner or 0].answer


def test_raw_prompts_have_no_pass(reasoner, sampling) -> None:
    with pytest.raises(GenerationError, match="raw"):
        solve(reasoner, "1 + 1 =", options=DELIBERATE, settings=sampling, raw=True)


# ---- what is shown -------------------------------------------------------------------------------------------------


def test_pruning_keeps_the_conclusions_and_both_ends(reasoner) -> None:
    prompt = load_prompt(None, "deliberate.jinja")
    count = lambda messages: len(reasoner.encode(reasoner.render(messages)))  # noqa: E731
    serializer = Serializer([{"role": "user", "content": QUESTION}], count, reasoner.tokenizer)
    long = "It begins here. " + "Then 1 + 1 = 2. " * 200 + "It ends there."
    given_ones = [made(0, long, "The answer is 65."), made(1, "Short.", "It is 65."), made(2, long, "I say 66.", "66")]
    votes = majority([Ballot(t.index, "answered", t.vote) for t in given_ones])
    shown = serializer.fit(prompt, given_ones, room=500, seed=1, vote=votes)
    text = shown.messages[-1]["content"]
    assert shown.tokens == count(shown.messages) <= 500
    assert shown.pruned
    for part in ("It begins here.", "It ends there.", "Short.", "The answer is 65.", "It is 65.", "I say 66.", "[...]"):
        assert part in text
    orders = {serializer.fit(prompt, given_ones, room=500, seed=seed, vote=votes).order for seed in range(20)}
    assert len(orders) > 1
    assert serializer.fit(prompt, given_ones, room=500, seed=1, vote=votes) == shown
    assert serializer.fit(prompt, given_ones, room=100, seed=1, vote=votes) is None


@given(st.lists(st.integers(0, 500), min_size=1, max_size=12), st.integers(0, 3000))
def test_shares_add_up_and_nobody_gets_more_than_needed(sizes, available) -> None:
    shares = share_out(sizes, available)
    assert sum(shares) <= available
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))
    if sum(sizes) <= available:
        assert shares == sizes
    cut = [share for share, size in zip(shares, sizes, strict=True) if share < size]
    assert not cut or max(shares) <= max(cut) + 1


@given(st.text(max_size=200), st.integers(0, 80))
def test_pruned_texts_come_from_the_text(reasoner, text, budget) -> None:
    pruned = prune(reasoner.tokenizer, text, budget)
    head, gap, tail = pruned.partition(" [...] ")
    assert text.startswith(head)
    assert not gap or text.rstrip().endswith(tail.rstrip())


# ---- the prompt file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ question }}", "'trajectories'"),
        ("{% for t in trajectories %}{{ t.answer }}{% endfor %}", "'question'"),
        ("{{ question }} {{ trajectories }} {{ majorty }}", "'majorty'"),
        ("{{ question }}{% for t in trajectories %}{{ t.thoughts }}{% endfor %}", "thoughts"),
        ("{{ question }} {% for t in trajectories %}", "line 1"),
        ("{{ question }}{{ trajectories }}{{ ''.__class__ }}", "cannot be rendered"),
        ("{{ question }}{{ trajectories }}{{ 1 / 0 }}", "cannot be rendered"),
        ("{{ question }}{{ trajectories }}{{ majority.answer }}", "{% if majority %}"),
    ],
)
def test_a_prompt_with_a_mistake_is_refused_before_anything_runs(source, message, tmp_path, reasoner) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(source)
    with pytest.raises(TemplateError, match=r"mine\.jinja") as caught:
        solve(reasoner, QUESTION, options=TrajectoryOptions(deliberate=True, prompt=path))
    assert message in str(caught.value)


def test_a_prompt_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(TemplateError, match="cannot be read"):
        load_prompt(tmp_path / "missing.jinja", "deliberate.jinja")
    (tmp_path / "binary.jinja").write_bytes(b"\xff\xfe{{")
    with pytest.raises(TemplateError, match="UTF-8"):
        load_prompt(tmp_path / "binary.jinja", "deliberate.jinja")
    with pytest.raises(UsageError, match="without deliberation"):
        TrajectoryOptions(prompt=tmp_path / "mine.jinja")


def test_the_users_prompt_is_used(reasoner, sampling, monkeypatch, tmp_path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("MINE {{ question }}{% for t in trajectories %} <{{ t.answer }}>{% endfor %}")
    asked = answering(monkeypatch, reasoner, r"\boxed{5}")
    solve(reasoner, QUESTION, options=TrajectoryOptions(count=2, deliberate=True, prompt=path), settings=sampling)
    assert asked[0].startswith(f"MINE {QUESTION} <")


def test_the_shipped_prompts_work_without_a_majority() -> None:
    for name in ("deliberate.jinja", "select.jinja"):
        prompt = load_prompt(None, name)
        text = prompt.render(question="Q?", trajectories=[{"number": 1, "reasoning": "", "answer": "A"}], majority=None)
        assert "Q?" in text
        assert "A" in text
    assert (
        PassPrompt("{{ question }}{{ trajectories | length }}", "x").render(
            question="Q", trajectories=[{}, {}], majority=None
        )
        == "Q2"
    )
