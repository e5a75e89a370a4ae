"""math-verify's opinion on the keys of one prompt: what is asked, what is merged, and limits that hold."""

from __future__ import annotations

from typing import Any

import pytest

from edgedistill.errors import ChildError, MissingExtraError
from edgedistill.verify.metrics.second_opinion import Opinion, second_opinion
from edgedistill.verify.sampling import second_opinion as asking
from edgedistill.verify.sampling.answers import answer_of
from edgedistill.verify.sampling.second_opinion import MOST_KEYS, ask, jobs
from edgedistill.verify.types import Message, Prompt, Sample


def prompt(name: str, answer: str | None = None, **more: Any) -> Prompt:
    return Prompt(name, (Message("user", f"{name}?"),), answer, **more)


def samples(of: Prompt, *replies: str) -> list[Sample]:
    return [
        Sample(
            prompt_id=of.id, index=index, kind="parsed" if key else "unparsed", answer=key, text=reply, tokens=3,
            reasoning_tokens=0, unclosed=False, repetition=0.0, correct=None if of.answer is None else key == of.answer,
            loose=None,
        )
        for index, reply in enumerate(replies)
        for key in [answer_of(of, reply)]
    ]  # fmt: skip


FACTORED = prompt("factored", "(x+1)^2")
LETTERS = prompt("letters", "B", choices=("red", "blue"), extract="choice")
SAME = prompt("same", "4")
DRAWN = [
    *samples(FACTORED, r"\boxed{(x+1)^2}", r"\boxed{x^2+2x+1}", r"\boxed{x^2+1}", "The answer is $1+2x+x^2$."),
    *samples(LETTERS, "A", "B", "A", "A"),
    *samples(SAME, "4", "4.0", "Lima", "4"),
]


def test_what_is_asked() -> None:
    """Prompts with several keys that are numbers or formulas, the right one first, as replies spell them."""
    (job,) = jobs([FACTORED, LETTERS, SAME], DRAWN)
    name, keys, texts = job
    assert (name, keys[0], len(keys)) == ("factored", "(x+1)^2", 3)
    assert texts[1] == "x^2+2x+1"
    many = samples(FACTORED, *(rf"\boxed{{x+{n}}}" for n in range(20)))
    assert [len(keys) for _, keys, _ in jobs([FACTORED], many)] == [MOST_KEYS]


def test_keys_of_one_meaning_are_merged_into_the_right_one() -> None:
    pytest.importorskip("math_verify")
    opinion = ask([FACTORED, LETTERS, SAME], DRAWN)
    assert opinion.judge.startswith("math-verify ")
    assert (opinion.asked, opinion.pairs, opinion.equal, opinion.undecided) == (1, 3, 1, 0)
    assert list(opinion.same) == ["factored"]
    assert set(opinion.same["factored"].values()) == {"(x+1)^2"}


def test_a_computation_without_end_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits end it, and what is not decided in them stays as it was."""
    pytest.importorskip("math_verify")
    towers = ["9^{9^{9^{9^{9}}}}", "9^{9^{9^{9^{8}}}}", "3"]
    monkeypatch.setattr(asking, "jobs", lambda *_: iter([("factored", towers, towers)]))
    monkeypatch.setattr(asking, "MOST_SECONDS", 4)
    opinion = ask([FACTORED], DRAWN)
    assert (opinion.pairs, opinion.equal, opinion.same) == (3, 0, {})


def test_a_process_that_is_ended_leaves_its_pairs_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("math_verify")

    def ended(*_: Any, **__: Any) -> Any:
        raise ChildError("it took more than 1 s")
        yield

    monkeypatch.setattr(asking, "iterate_in_child", ended)
    opinion = ask([FACTORED], DRAWN)
    assert (opinion.pairs, opinion.undecided, opinion.same) == (3, 3, {})


def test_consistency_with_and_without() -> None:
    groups = {"factored": DRAWN[:4], "same": DRAWN[8:]}
    golds = {"factored": "(x+1)^2", "same": "4"}
    keys = sorted({sample.answer for sample in groups["factored"] if sample.answer})
    expanded = next(key for key in keys if "2x" in key)
    plain = second_opinion(groups, golds, Opinion("judge"), level=0.95)
    merged = second_opinion(
        groups, golds, Opinion("judge", {"factored": {expanded: "(x+1)^2"}}, 1, 3, 1), level=0.95
    )  # fmt: skip
    assert (plain.moved, merged.moved) == (0, 2)
    assert merged.agreement.value > plain.agreement.value
    assert merged.entropy.value < plain.entropy.value
    assert plain.accuracy is not None
    assert merged.accuracy is not None
    assert (plain.accuracy.value, merged.accuracy.value) == (0.5, 0.75)


def test_a_missing_library_is_said_before_anything_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="math-verify") as raised:
        ask([], [])
    assert "the extra 'math'" in (raised.value.hint or "")
