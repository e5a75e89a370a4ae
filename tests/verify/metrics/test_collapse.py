"""The verdict on simulated models: collapsed, consistent, diffuse, or nothing certain; and the summary of a suite."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from simulated import draw, skilled

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.collapse import collapse_audit
from edgedistill.verify.metrics.collapse_verdict import verdict
from edgedistill.verify.metrics.suite_summary import SuiteResult, summarise_suite
from edgedistill.verify.suites.registry import load_suite
from edgedistill.verify.types import Estimate, Interval, Message, Prompt, Sample, Suite

PROMPTS, SAMPLES = 40, 16


def suite_of(gold: list[str] | None, prompts: int = PROMPTS) -> Suite:
    return Suite(
        "s",
        tuple(Prompt(f"p{i}", (Message("user", str(i)),), gold[i] if gold else None) for i in range(prompts)),
    )


def judge(distributions: list[dict[str, float]], gold: list[str], **options: object) -> SuiteResult:
    groups = draw(distributions, SAMPLES, np.random.default_rng(0), gold=gold)
    return summarise_suite(suite_of(gold, len(gold)), [s for group in groups.values() for s in group], **options)  # type: ignore[arg-type]


GOLD = [f"g{i}" for i in range(PROMPTS)]


def test_a_model_that_says_one_thing_is_collapsed_however_consistent() -> None:
    found = judge([{"42": 1.0}] * PROMPTS, GOLD)
    assert (found.agreement.value, found.entropy.value) == (1.0, 0.0)
    assert found.verdict is not None
    assert (found.verdict.name, found.verdict.certain) == ("collapsed", True)
    assert found.collapse is not None
    assert found.collapse.ratio.value == pytest.approx(0.0, abs=1e-9)
    assert (found.collapse.top_share.value, found.collapse.off_prompt_collision.value) == (1.0, 1.0)
    assert found.collapse.effective_answers.value == pytest.approx(1.0)
    assert found.all_equal_bound == pytest.approx(1 - 0.05 ** (1 / SAMPLES))


def test_a_few_favourite_answers_are_collapse_too() -> None:
    rng = np.random.default_rng(3)
    found = judge([{f"{rng.integers(3)}": 0.95, "x": 0.05} for _ in range(PROMPTS)], GOLD)
    assert found.verdict is not None
    assert found.verdict.name == "collapsed"


def test_confidently_right_and_confidently_wrong() -> None:
    right = judge([{gold: 0.97, "x": 0.03} for gold in GOLD], GOLD)
    wrong = judge([{gold + "1": 0.97, "x": 0.03} for gold in GOLD], GOLD)
    assert right.verdict is not None
    assert wrong.verdict is not None
    assert (right.verdict.name, right.verdict.certain) == ("consistent-correct", True)
    assert (wrong.verdict.name, wrong.verdict.certain) == ("consistent-wrong", True)
    assert right.collapse is not None
    assert right.collapse.ratio.value > 0.9
    assert right.collapse.gold_bits == pytest.approx(math.log2(PROMPTS))


def test_diffuse_and_deterministic() -> None:
    diffuse = judge([{f"{gold}-{k}": 0.1 for k in range(10)} for gold in GOLD], GOLD)
    assert diffuse.verdict is not None
    assert diffuse.verdict.name == "diffuse"
    assert "depend" not in diffuse.verdict.reason
    few = judge([{str(k): 0.25 for k in range(4)}] * PROMPTS, GOLD)
    assert few.verdict is not None
    assert few.verdict.name == "diffuse"
    assert "hardly depend on the question either" in few.verdict.reason
    greedy = judge([{gold: 1.0} for gold in GOLD], GOLD, deterministic=True)
    assert greedy.verdict is not None
    assert greedy.verdict.name == "deterministic-decoding"


def test_garbage_alone_is_not_consistent() -> None:
    found = judge([{"<unparsed>": 1.0}] * PROMPTS, GOLD)
    assert found.verdict is not None
    assert found.verdict.name == "diffuse"
    assert found.accuracy is not None
    assert (found.accuracy.value, found.agreement.value, found.form.unparsed.value) == (0.0, 0.0, 1.0)
    assert found.collapse is not None
    assert found.collapse.garbage.value == 1.0
    assert found.collapse.top_share.value == 0.0


@pytest.mark.parametrize(
    ("texts", "name", "certain"),
    [
        (None, "consistent-correct", True),  # all different
        (1, "collapsed", True),
        (8, "collapsed", True),
        (20, "collapsed", False),  # two prompts share a text with probability 0.05
        (400, "consistent-correct", True),
    ],
)
def test_following_instructions_in_ever_new_words_is_no_collapse(texts: int | None, name: str, certain: bool) -> None:
    """Texts take the place of answers there: all different, they tell nothing, and nothing against the model."""
    suite, rng = load_suite("instructions"), np.random.default_rng(0)

    def text(prompt: Prompt, index: int) -> str:
        return f"{prompt.id} {index}" if texts is None else f"favourite {rng.integers(texts)}"

    samples = [
        Sample(prompt.id, index, "parsed", "follows", text(prompt, index), 9, 0, False, 0.0, True, True)
        for prompt in suite.prompts
        for index in range(SAMPLES)
    ]
    found = summarise_suite(suite, samples).verdict
    assert found is not None
    assert found.certain is certain
    if certain:
        assert found.name == name
    assert "right ones" not in found.reason


def test_without_gold_nothing_is_called_right() -> None:
    groups = draw([{gold: 1.0} for gold in GOLD], 4, np.random.default_rng(0))
    found = summarise_suite(suite_of(None), [s for group in groups.values() for s in group])
    assert found.verdict is not None
    assert found.verdict.name is None
    assert "gold" in found.verdict_reason
    assert (found.accuracy, found.hallucination, found.pass_at) == (None, None, {})


def without_gold(distributions: list[dict[str, float]], samples: int = SAMPLES) -> SuiteResult:
    groups = draw(distributions, samples, np.random.default_rng(0))
    return summarise_suite(suite_of(None, len(groups)), [s for group in groups.values() for s in group])


@pytest.mark.parametrize("yes", [2, 8, 20])
def test_a_healthy_classifier_without_gold_gets_no_word(yes: int) -> None:
    """Two labels tell one bit at most: the yardstick is what such labels could tell, not an answer to each prompt."""
    found = without_gold([{"yes": 0.95, "no": 0.05}] * yes + [{"no": 0.95, "yes": 0.05}] * (PROMPTS - yes))
    assert found.verdict is not None
    assert found.verdict.name is None
    assert ("too little to tell" if yes == 2 else "needs gold answers") in found.verdict_reason


@pytest.mark.parametrize("shares", [(0.9, 0.1), (0.85, 0.1, 0.05)])
def test_labels_that_are_shuffled_are_collapse_without_gold_too(shares: tuple[float, ...]) -> None:
    found = without_gold([{f"label {i}": share for i, share in enumerate(shares)}] * PROMPTS)
    assert found.verdict is not None
    assert (found.verdict.name, found.verdict.certain) == ("collapsed", True)
    assert found.collapse is not None
    assert abs(found.collapse.ratio.value) < 0.1


def test_one_answer_to_everything_may_be_right_where_nothing_says_what_is() -> None:
    found = without_gold([{"safe": 1.0}] * PROMPTS)
    assert found.verdict is not None
    assert (found.verdict.name, found.verdict.certain) == ("collapsed", False)
    assert "gold answers would tell" in found.verdict_reason


@pytest.mark.parametrize("gold", [True, False])
def test_one_answer_to_half_of_all_prompts_is_named_with_its_share(*, gold: bool) -> None:
    distributions = [{"7": 0.98, "x": 0.02} if i % 2 else {right: 0.98, "x": 0.02} for i, right in enumerate(GOLD)]
    found = judge(distributions, GOLD) if gold else without_gold(distributions)
    assert found.verdict is not None
    assert (found.verdict.name, found.verdict.certain) == ("partly-collapsed", gold)
    assert found.collapse is not None
    assert found.collapse.favourite_share is not None
    assert 0.2 < found.collapse.favourite_share.interval.low < 0.5
    assert "`7` is the answer to 4" in found.verdict_reason


def test_errors_of_a_classifier_coincide_and_are_no_collapse() -> None:
    gold = ["yes", "no"] * 20
    found = judge([{"yes": 0.97, "no": 0.03} if i % 8 else {"no": 0.97, "yes": 0.03} for i in range(40)], gold)
    assert found.collapse is not None
    assert found.collapse.favourite_share is None


@pytest.mark.parametrize("prompts", [2, 3, 4])
def test_fewer_prompts_than_five_make_nothing_certain(prompts: int) -> None:
    for distributions in ([{"42": 1.0}] * prompts, [{gold: 1.0} for gold in GOLD[:prompts]]):
        found = judge(distributions, GOLD[:prompts])
        assert found.verdict is not None
        assert not found.verdict.certain


def test_gold_answers_that_are_all_equal_allow_no_audit() -> None:
    found = judge([{"1": 1.0}] * 5, ["1"] * 5)
    assert (found.collapse, found.verdict) == (None, None)
    assert "gold answers are the same" in found.verdict_reason
    with pytest.raises(VerifyError, match="at least 2 prompts"):
        collapse_audit([np.array([0, 0])])


def test_uncertain_verdicts_say_so() -> None:
    near = Estimate(0.52, Interval(0.4, 0.6, 0.95, "x"))
    clear = Estimate(0.9, Interval(0.8, 1.0, 0.95, "x"))
    assert not verdict(clear, near, clear, deterministic=False).certain
    assert verdict(clear, clear, clear, deterministic=False).certain


def test_numbers_of_the_summary() -> None:
    rng = np.random.default_rng(1)
    distributions, gold = skilled(PROMPTS, rng)
    found = judge(distributions, gold)
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(
        np.mean([d[g] for d, g in zip(distributions, gold, strict=True)]), abs=0.08
    )
    passes, votes = ({k: e.value for k, e in at.items()} for at in (found.pass_at, found.majority_at))
    assert passes[1] == pytest.approx(found.accuracy.value)
    assert passes[1] < passes[4] <= passes[16]
    assert votes[16] >= votes[1] == pytest.approx(found.accuracy.value, abs=0.03)
    assert all(
        e.interval is not None and e.value in e.interval for e in (*found.pass_at.values(), *found.majority_at.values())
    )
    for row in found.prompts:
        assert row.mean_reasoning_tokens is not None
        assert row.mean_reasoning_tokens.value == pytest.approx(row.mean_tokens.value / 2, abs=0.5)
        assert row.repetition is not None
        assert (row.unclosed, row.repetition.value) == (row.truncated, 0)
    assert found.prompts[0].samples == SAMPLES
    assert found.suite_sha256 == suite_of(gold).sha256


def test_missing_and_strange_samples_are_refused() -> None:
    suite = suite_of(GOLD)
    groups = draw([{gold: 1.0} for gold in GOLD], 4, np.random.default_rng(0), gold=GOLD)
    rows = [s for group in groups.values() for s in group]
    with pytest.raises(VerifyError, match="`p39` has no samples"):
        summarise_suite(suite, [s for s in rows if s.prompt_id != "p39"])
    with pytest.raises(VerifyError, match="`p39` has samples but is no prompt"):
        summarise_suite(Suite("s", suite.prompts[:39]), rows)
    with pytest.raises(VerifyError, match="at least 2"):
        summarise_suite(suite, [s for s in rows if s.index == 0])


def free_texts(distributions: list[dict[str, float]]) -> SuiteResult:
    """Whole texts are the answers, and nothing says which are right."""
    suite = Suite("s", tuple(replace(prompt, extract="text") for prompt in suite_of(None, len(distributions)).prompts))
    groups = draw(distributions, SAMPLES, np.random.default_rng(0))
    return summarise_suite(suite, [sample for group in groups.values() for sample in group])


@pytest.mark.parametrize("sure", [1.0, 0.93])
def test_a_healthy_classifier_that_writes_its_labels_as_free_texts_gets_no_word(sure: float) -> None:
    """A suite that does not say that these are labels: right and wrong cannot be told, a collapse could."""
    found = free_texts([{word: sure, other: 1 - sure} for word, other in [("yes", "no"), ("no", "yes")] * 20])
    assert found.verdict is not None
    assert found.verdict.name is None
    assert "needs gold answers" in found.verdict_reason
    assert "Many prompts share a text" in found.verdict_reason
    assert "gold answers or `choices` would tell which" in found.verdict_reason


def test_free_texts_that_do_not_depend_on_the_question_are_collapse() -> None:
    for texts in ({"yes": 1.0}, {"I cannot help with that.": 0.97, "Sorry.": 0.03}, {"yes": 0.85, "no": 0.15}):
        found = free_texts([texts] * PROMPTS)
        assert found.verdict is not None
        assert found.verdict.name == "collapsed", texts
        assert "Many prompts share a text" not in found.verdict_reason
    own = free_texts([{f"story {i}": 0.95, f"tale {i}": 0.05} for i in range(PROMPTS)])
    assert own.verdict is not None
    assert own.verdict.name is None
    assert "Many prompts share" not in own.verdict_reason
    wild = free_texts([{f"{i}-{k}": 1 / 500 for k in range(500)} for i in range(PROMPTS)])
    assert wild.verdict is not None
    assert wild.verdict.name == "diffuse"
    assert "depend on the question" not in wild.verdict_reason
