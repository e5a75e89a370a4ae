"""Collapse is told from consistency; the audit's controls; diversity, perturbations, the sampler."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from simulated import draw, skilled

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.collapse import collapse_audit
from edgedistill.verify.metrics.collapse_verdict import verdict
from edgedistill.verify.metrics.diversity import MOST_TEXTS, diversity
from edgedistill.verify.metrics.perturbations import perturbation_check, temperature_sweep
from edgedistill.verify.metrics.suite_summary import SuiteResult, summarise_suite
from edgedistill.verify.stats.answer_counts import Tally
from edgedistill.verify.stats.sampler_audit import audit_sampler, chi_square, seeds_differ
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


def sums(distributions: list[dict[str, float]], *, gold: bool = True) -> SuiteResult:
    """On the questions "Add 13 + 107 now", "Add 16 + 109 now" and so on."""
    right = [str(120 + 5 * i) for i in range(len(distributions))]
    prompts = [
        Prompt(f"p{i}", (Message("user", f"Add {13 + 3 * i} + {107 + 2 * i} now"),), right[i] if gold else None)
        for i in range(len(distributions))
    ]
    groups = draw(distributions, SAMPLES, np.random.default_rng(0), gold=right if gold else None)
    return summarise_suite(Suite("s", tuple(prompts)), [s for group in groups.values() for s in group])


@pytest.mark.parametrize("gold", [True, False])
def test_a_copier_is_collapsed_although_its_answers_differ_from_prompt_to_prompt(*, gold: bool) -> None:
    found = sums([{str(107 + 2 * i): 0.97, "x": 0.03} for i in range(PROMPTS)], gold=gold)
    assert found.collapse is not None
    assert found.collapse.ratio.value > 0.9, "information does not show it"
    assert found.copied is not None
    assert found.copied.place == "second number"
    assert found.copied.share.value > 0.9
    assert found.verdict is not None
    assert found.verdict.name == ("collapsed" if gold else None)
    if gold:
        assert found.verdict.certain
    assert "second number of the prompt" in found.verdict_reason
    assert "a copier" in found.verdict_reason


def test_copies_on_a_part_of_the_prompts_are_named_with_their_share() -> None:
    found = sums([{str(13 + 3 * i): 1.0} if i % 7 < 3 else {str(120 + 5 * i): 1.0} for i in range(PROMPTS)])
    assert found.verdict is not None
    assert (found.verdict.name, found.verdict.certain) == ("partly-collapsed", True)
    assert "The first number of the prompt is the answer to 45.0% of the prompts" in found.verdict_reason


def test_right_answers_that_stand_in_the_prompt_are_no_copies() -> None:
    gold = [str(100 + i) for i in range(PROMPTS)]
    prompts = tuple(
        Prompt(f"p{i}", (Message("user", f"Which is larger, {i} or {gold[i]}?"),), gold[i]) for i in range(PROMPTS)
    )
    groups = draw([{right: 0.97, "x": 0.03} for right in gold], SAMPLES, np.random.default_rng(0), gold=gold)
    found = summarise_suite(Suite("s", prompts), [s for group in groups.values() for s in group])
    assert found.copied is not None
    assert found.copied.share.value == 0.0
    assert found.verdict is not None
    assert found.verdict.name == "consistent-correct"
    solver = sums([{str(120 + 5 * i): 0.9, str(121 + 5 * i): 0.1} for i in range(PROMPTS)])
    assert solver.verdict is not None
    assert solver.verdict.name == "consistent-correct"


def test_what_is_the_same_in_all_prompts_is_a_constant_and_no_copy() -> None:
    gold = ["yes", "no"] * 20
    found = judge([{"yes": 1.0}] * PROMPTS, gold)
    assert found.copied is None
    prompts = tuple(Prompt(f"p{i}", (Message("user", "Say 7"),), str(i)) for i in range(PROMPTS))
    groups = draw([{"7": 1.0}] * PROMPTS, 4, np.random.default_rng(0), gold=[str(i) for i in range(PROMPTS)])
    same = summarise_suite(Suite("s", prompts), [s for group in groups.values() for s in group])
    assert same.copied is None
    assert same.verdict is not None
    assert same.verdict.name == "collapsed"
    assert "copier" not in same.verdict_reason


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


def test_diversity_tells_one_text_from_many() -> None:
    same = ["The cat sat on the mat."] * 10
    words = ["alpha", "beta", "gamma", "delta", "zeta", "eta", "theta", "iota", "kappa", "mu", "nu", "xi", "pi", "rho"]
    rng = np.random.default_rng(0)
    different = [f"{a} {b}{i} {c} {i}" for i, (a, b, c) in enumerate(rng.choice(words, size=(10, 3)))]
    assert diversity(same).vendi.value == pytest.approx(1.0)
    assert diversity(["a", "b", "c"]).vendi.value == pytest.approx(3.0)
    assert diversity(["a", "a", "b", "b"]).vendi.value == pytest.approx(2.0)
    assert diversity(different).vendi.value > 6
    assert diversity(same).distinct[0].value == pytest.approx(6 / 70)
    many = diversity([str(i) for i in range(1000)])
    assert (many.texts, round(many.vendi.value)) == (MOST_TEXTS, MOST_TEXTS)
    assert diversity([]).texts == 0


def codes(*answers: int) -> np.ndarray:
    return np.array(answers)


def test_perturbations() -> None:
    prompts = [codes(1, 1, 2), codes(3, 3), codes(-1, -1)]
    found = perturbation_check(
        prompts,
        paraphrases=[codes(1, 1), codes(4, 4), codes(5)],
        changed=[codes(7, 7), codes(3), None],
        empty=codes(3, 3, 1),
        changed_gold=[7, 8, None],
    )
    assert found.paraphrase_keeps.value == 0.5
    assert found.changed_number_changes.value == 0.5
    assert found.changed_number_correct.value == 0.5
    assert found.empty_gives.value == pytest.approx(1 / 3)
    assert found.undecided == 1


def test_temperature_sweep() -> None:
    def at(majority: int, seed: int) -> list[Tally]:
        """Of 16 samples about so many say one thing, half of the others another."""
        rng = np.random.default_rng(seed)
        tops = np.clip(majority + rng.integers(-1, 2, size=30), 2, 14)
        return [Tally(np.array([top, (17 - top) // 2, (16 - top) // 2]), 0, 0) for top in tops]

    rising = {t: at(majority, i) for i, (t, majority) in enumerate({0.3: 14, 0.7: 12, 1.0: 10, 1.5: 8}.items())}
    assert temperature_sweep(rising).sound
    assert "rises with the temperature" in temperature_sweep(rising).sentence
    flat = {t: at(10, i) for i, t in enumerate((0.3, 0.7, 1.0, 1.5))}
    assert not temperature_sweep(flat).rises
    assert "No rise" in temperature_sweep(flat).sentence
    broken = {**rising, 1.0: at(14, 2)}
    assert temperature_sweep(broken).falls == ((0.7, 1.0),)
    assert "falls between the temperatures 0.7 and 1;" in temperature_sweep(broken).sentence
    with pytest.raises(VerifyError, match="at least 2"):
        temperature_sweep({1.0: at(10, 0)})


P = np.array([0.5, 0.3, 0.15, 0.04999, 0.00001])


def test_chi_square_against_scipy_and_its_size() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    p = np.array([0.4, 0.3, 0.2, 0.1])
    counts = rng.multinomial(1000, p)
    theirs = stats.chisquare(counts, p * 1000)
    assert (chi_square(counts, p).statistic, chi_square(counts, p).p_value) == pytest.approx(
        (theirs.statistic, theirs.pvalue)
    )
    rejected = sum(chi_square(rng.multinomial(10_000, P), P).p_value < 0.05 for _ in range(400))
    assert 0.02 < rejected / 400 < 0.085
    assert chi_square(rng.multinomial(10_000, [0.52, 0.28, 0.15, 0.05, 0.0]), P).p_value < 1e-4
    assert chi_square(np.array([5, 5]), np.array([1.0, 0.0])).p_value == 0.0
    assert chi_square(np.array([7]), np.array([1.0])).p_value == 1.0


def test_a_sampler_that_ignores_its_seed_is_stopped() -> None:
    good = np.random.default_rng(0).multinomial(10_000, P)
    first = [[1, 2], [3, 4]]
    stuck = audit_sampler(first, first, [first] * 4, [0.01, 0.02], good, P)
    assert stuck.varies is False
    with pytest.raises(VerifyError, match="different seeds gave the same tokens"):
        stuck.require_sound("m")
    audit_sampler(first, first, [[[1, 2], [3, 5]]], [0.01, 0.02], good, P).require_sound("m")
    drifting = audit_sampler(first, [[1, 2], [3, 9]], [[[0]] * 2], [0.5, 0.5], good, P)
    assert not drifting.sound
    biased = audit_sampler(first, first, [[[0]] * 2], [0.5, 0.5], np.array([10_000, 0, 0, 0, 0]), P)
    assert "chi-square" in biased.problems()[0]


def test_equal_samples_of_a_certain_model_prove_nothing() -> None:
    first = [[1, 2], [3, 4]]
    assert seeds_differ(first, [first] * 4, [0.999, 0.9999]) is None
    assert seeds_differ(first, [first], [0.001, 0.5]) is None, "one repetition of one prompt happens by chance"
    assert seeds_differ(first, [first] * 3, [0.001, 0.5]) is False


def test_free_texts_of_two_kinds_are_not_said_to_ignore_the_question() -> None:
    """A model that says yes or no by the question, in a suite that does not say that these are labels."""
    suite = Suite("s", tuple(replace(prompt, extract="text") for prompt in suite_of(None).prompts))
    model = [{"yes": 1.0} if i % 2 else {"no": 1.0} for i in range(PROMPTS)]
    groups = draw(model, SAMPLES, np.random.default_rng(0))
    found = summarise_suite(suite, [sample for group in groups.values() for sample in group])
    assert found.verdict is not None
    assert "depend on the question" not in found.verdict_reason
    assert "many prompts share an answer" in found.verdict_reason
    assert "gold answers or `choices` would" in found.verdict_reason
