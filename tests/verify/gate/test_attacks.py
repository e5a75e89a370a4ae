"""Harm that is hidden on purpose, or by the way samples and suites are made: none of it may pass unseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated import TRUNCATED, UNPARSED, draw, sample

from edgedistill.errors import VerifyError
from edgedistill.verify.gate.decide import GateResult, decide
from edgedistill.verify.gate.endpoints import Margins
from edgedistill.verify.metrics.lost_prompts import lost_prompts
from edgedistill.verify.metrics.paired import compare
from edgedistill.verify.metrics.suite_summary import summarise_suite
from edgedistill.verify.options import wider_margins
from edgedistill.verify.population import distinct
from edgedistill.verify.references.top_tokens import coarse_divergence, top_tokens
from edgedistill.verify.types import Message, Prompt, Sample, Suite

LIMIT = 512
Groups = dict[str, list[Sample]]


def gate(before: Groups, after: Groups, **options: object) -> GateResult:
    return decide(compare(before, after, limit=LIMIT), Margins(), **options)  # type: ignore[arg-type]


def outcome(result: GateResult, name: str) -> str:
    return next(row.outcome for row in result.endpoints if row.name == name)


def answers(rows: list[str], samples: int, gold: list[str] | None = None, tokens: int = 100) -> Groups:
    """Every sample of a prompt gives the prompt's answer."""
    return {
        f"p{at}": [sample(f"p{at}", index, row, gold[at] if gold else None, tokens) for index in range(samples)]
        for at, row in enumerate(rows)
    }


def test_harm_on_a_single_prompt_is_named_whatever_its_share() -> None:
    for prompts, expected in ((20, "fail"), (40, "inconclusive"), (150, "pass")):
        gold = [f"g{i}" for i in range(prompts)]
        before, after = answers(gold, 128, gold), answers(["wrong", *gold[1:]], 128, gold)
        result = gate(before, after)
        assert outcome(result, "accuracy") == expected, "5, 2.5 and .67 points of these prompts"
        suite = Suite("s", tuple(Prompt(name, (Message("user", name),), gold[at]) for at, name in enumerate(before)))
        left, right = (
            summarise_suite(suite, [one for group in groups.values() for one in group]) for groups in (before, after)
        )
        (lost,) = lost_prompts(left.prompts, right.prompts, before, after, dict(zip(before, gold, strict=True)))
        assert (lost.prompt_id, lost.beyond_noise) == ("p0", True)


@pytest.mark.parametrize("gold", [True, False])
def test_harm_on_one_class_of_answers_fails(*, gold: bool) -> None:
    """A twelfth of the prompts has the label D, which became C; everything else is as it was."""
    labels = ["D" if at % 12 == 0 else "ABC"[at % 3] for at in range(60)]
    after = ["C" if label == "D" else label for label in labels]
    right = labels if gold else None
    result = gate(answers(labels, 32, right), answers(after, 32, right))
    assert {outcome(result, "distance"), result.outcome} == {"fail"}
    assert outcome(result, "agreement") == outcome(result, "entropy") == "pass"


@pytest.mark.parametrize("garbage", [TRUNCATED, UNPARSED])
def test_harm_on_long_replies_alone_fails(garbage: str) -> None:
    """Six of sixty prompts need five times the tokens, and their replies no longer end with an answer."""
    long = {f"p{at}" for at in range(0, 60, 10)}
    before = {
        name: [replace(one, tokens=500 if name in long else 100) for one in group]
        for name, group in answers([f"a{i}" for i in range(60)], 32).items()
    }
    after = {
        name: [replace(sample(name, one.index, garbage), tokens=one.tokens) if name in long else one for one in group]
        for name, group in before.items()
    }
    result = gate(before, after)
    assert outcome(result, "garbage") == "fail"
    assert outcome(result, "tokens") == "pass", "as long as before"


def test_an_end_token_that_comes_late_fails() -> None:
    """The answers are the same, and every reply goes on for a third of its length."""
    rows = [f"a{i}" for i in range(60)]
    result = gate(answers(rows, 32, rows), answers(rows, 32, rows, tokens=133))
    assert outcome(result, "accuracy") == outcome(result, "distance") == "pass"
    assert {outcome(result, "length"), outcome(result, "tokens")} == {"fail"}


def test_agreement_bought_by_one_answer_for_hard_prompts_fails() -> None:
    """Where the reference wavers the bundle always says 7: as often right, and more consistent."""
    easy, hard = [{f"a{i}": 1.0} for i in range(48)], [{"7": 0.5, f"b{i}": 0.5} for i in range(12)]
    sides = [draw(easy + part, 64, np.random.default_rng(0), tokens=LIMIT / 4) for part in (hard, [{"7": 1.0}] * 12)]
    assert gate(*sides).outcome == "fail"


def test_samples_that_are_paired_with_others_are_refused() -> None:
    """A sample that is missing on each side would shift the pairs that share their noise."""
    groups = answers(["a", "b"], 8)
    shifted = {name: [one for one in group if one.index != 3] for name, group in groups.items()}
    missing = {name: [one for one in group if one.index != 5] for name, group in groups.items()}
    with pytest.raises(VerifyError, match="share their noise"):
        compare(shifted, missing, limit=LIMIT)
    assert compare(shifted, shifted, limit=LIMIT).samples == 7


def test_a_reference_without_shared_noise_decides_by_the_same_rates() -> None:
    """Replies of a server: independent draws of one model do not fail, of a damaged one do."""
    model = [{f"a{i}": 0.9, f"b{i}": 0.1} for i in range(60)]
    worse = [{f"a{i}": 0.6, f"b{i}": 0.4} for i in range(60)]
    before = draw(model, 64, np.random.default_rng(1), tokens=LIMIT / 4)
    results = [gate(before, draw(other, 64, np.random.default_rng(2), tokens=LIMIT / 4)) for other in (model, worse)]
    assert results[0].outcome != "fail"
    assert outcome(results[1], "distance") == "fail"


def test_copies_of_a_question_are_no_further_prompts() -> None:
    asked = [Prompt(f"p{i}", (Message("user", f"question {i % 4}"),), "1") for i in range(200)]
    once, notes = distinct(asked, "population")
    assert [prompt.id for prompt in once] == ["p0", "p1", "p2", "p3"]
    assert "196 of 200 prompts ask what another one asks" in notes[0]
    these, notes = distinct(asked, "suite")
    assert len(these) == 200
    assert "counts as often as it occurs" in notes[0]
    assert distinct(once, "population") == (once, [])
    choices = [replace(asked[0], choices=("a", "b")), replace(asked[0], choices=("c", "d"))]
    assert distinct(choices, "population").notes == [], "the same words with other choices are another question"
    with pytest.raises(VerifyError, match="All 3 prompts ask the same"):
        distinct([asked[0], asked[4], asked[8]], "population")


def test_a_bundle_does_not_choose_its_own_margins_without_a_word() -> None:
    wide = Margins(accuracy=0.5)
    (note,) = wider_margins(wide, {})
    assert "accuracy 0.5 instead of 0.02" in note
    assert wider_margins(wide, {"accuracy": 0.5}) == [], "who asked for it knows"
    assert wider_margins(Margins(accuracy=0.01, shorter_ratio=0.8), {}) == [], "stricter ones need no word"


@pytest.mark.parametrize("part", ["logprobs", "tail"])
def test_stored_distributions_with_nan_are_refused(part: str) -> None:
    logits = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    top = top_tokens(logits, 4)
    broken = getattr(top, part).copy()
    broken.flat[-1] = np.nan
    with pytest.raises(VerifyError, match="NaN"):
        coarse_divergence(replace(top, **{part: broken}), [logits])
    with pytest.raises(VerifyError, match="NaN"):
        coarse_divergence(top, [np.where(np.arange(20) == 3, np.float32(np.nan), logits)])
