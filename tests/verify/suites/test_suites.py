"""Built-in suites are right, reproducible and complete; broken suites are refused."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from edgedistill.errors import SuiteError
from edgedistill.verify.suites.arithmetic import arithmetic_suite
from edgedistill.verify.suites.arithmetic_problems import BANDS, KINDS
from edgedistill.verify.suites.checks import OWN as CHECKS
from edgedistill.verify.suites.checks import follows, holds, sentences, validate
from edgedistill.verify.suites.instructions import instruction_suite
from edgedistill.verify.suites.registry import BUILT_IN, lacking_prompts, load_suite, require_gold, validate_suite
from edgedistill.verify.types import Check, Message, Prompt, Suite


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_suites_load_and_have_every_variant(name: str) -> None:
    suite = load_suite(name)
    kinds = Counter(variant.variant for variant in suite.variants)
    assert kinds["paraphrase"] == len(suite.prompts)
    assert kinds["changed-number"] > len(suite.prompts) / 3
    assert kinds["empty"] == 1
    texts = [prompt.messages[-1].content for prompt in (*suite.prompts, *suite.variants)]
    assert len(set(texts)) > 0.95 * len(texts)
    assert load_suite(name).sha256 == suite.sha256


def test_the_hash_covers_the_content_and_not_the_name() -> None:
    suite = arithmetic_suite()
    assert replace(suite, name="other").sha256 == suite.sha256
    changed = replace(suite.prompts[0], answer="0")
    assert replace(suite, prompts=(changed, *suite.prompts[1:])).sha256 != suite.sha256
    assert arithmetic_suite(seed=1).sha256 != suite.sha256


def test_the_default_arithmetic_suite_stays_as_baselines_know_it() -> None:
    assert arithmetic_suite().sha256.startswith("6bb2309261b9")


def test_arithmetic_of_another_seed_and_size_by_its_name() -> None:
    """More prompts than the default's are what a sequential gate needs to pass."""
    larger = load_suite("arithmetic-seed0x80")
    assert (larger.name, len(larger.prompts)) == ("arithmetic-seed0x80", 400)
    assert set(arithmetic_suite().prompts) <= set(larger.prompts)
    assert load_suite(arithmetic_suite(seed=7, per_band=2).name).sha256 == arithmetic_suite(seed=7, per_band=2).sha256
    assert load_suite("arithmetic-seed0x30").name == "arithmetic"
    for name in ("arithmetic-seed0x0", "arithmetic-seed0x201"):
        with pytest.raises(SuiteError, match="expected 1 to 200"):
            load_suite(name)


def test_arithmetic_answers_by_an_independent_calculator() -> None:
    checked = 0
    suite = arithmetic_suite(seed=5, per_band=60)
    for prompt in (*suite.prompts, *suite.variants):
        found = re.fullmatch(r"What is ([\d+*/ -]+)\?", prompt.messages[0].content)
        if found:
            assert eval(found.group(1)) == int(prompt.answer or "")  # digits and operators only
            checked += 1
    assert checked > 100


def test_arithmetic_bands_kinds_and_answers() -> None:
    suite = arithmetic_suite()
    assert Counter(prompt.tags[0] for prompt in suite.prompts) == dict.fromkeys(BANDS, 30)
    golds = Counter(prompt.answer for prompt in suite.prompts)
    assert golds.most_common(1)[0][1] <= 5, "a constant answer must not be right often"
    assert all(int(prompt.answer or "-1") > 0 for prompt in suite.prompts)
    assert {family for kinds in KINDS.values() for family in {kind.family for kind in kinds}} == {
        "expression",
        "word",
        "compare",
        "units",
    }


def test_variants_keep_or_change_the_answer_as_they_say() -> None:
    suite = arithmetic_suite()
    gold = {prompt.id: prompt.answer for prompt in suite.prompts}
    for variant in suite.variants:
        if variant.variant == "paraphrase":
            assert variant.answer == gold[variant.variant_of or ""]
        elif variant.variant == "changed-number":
            assert variant.answer != gold[variant.variant_of or ""]


MEETS_AND_MISSES: dict[str, tuple[dict[str, Any], str, str]] = {
    "words-at-least": ({"n": 3}, "one two three", "one two"),
    "words-at-most": ({"n": 2}, "one two", "one two three"),
    "sentences": ({"n": 2}, "It rains. Does it?", "It rains."),
    "paragraphs": ({"n": 2}, "a\n\nb", "a\nb"),
    "lines": ({"n": 2}, "a\nb", "a\nb\nc"),
    "bullets": ({"n": 2}, "- a\n- b", "- a\nb"),
    "numbered-list": ({"n": 2}, "1. a\n2. b", "1. a\n3. b"),
    "lowercase": ({}, "all small", "Not small"),
    "uppercase": ({}, "LOUD!", "Loud"),
    "contains": ({"words": ("sea", "sun")}, "Sun over the sea.", "Sunny sea"),
    "avoids": ({"words": ("blue",)}, "bluebird", "so Blue."),
    "word-count": ({"word": "home", "n": 2}, "home, sweet home", "home"),
    "starts-with": ({"text": "In autumn"}, "In Autumn leaves fall", "Leaves fall in autumn"),
    "ends-with": ({"text": "Bye."}, "Well then. Bye.", "Bye. Now"),
    "quoted": ({}, '"yes"', 'yes "no"'),
    "no-commas": ({}, "a b", "a, b"),
    "no-digits": ({}, "seven", "7"),
    "no-letter": ({"letter": "o"}, "the sun is warm", "OK"),
    "json": ({"keys": ("a", "b")}, '{"a": 1, "b": [2]}', '{"a": 1}'),
    "title": ({}, "<<Snow>>\nIt fell.", "It fell. <<Snow>>"),
    "placeholders": ({"n": 2}, "Dear [name], on [date]", "Dear [name]"),
    "separator": ({"text": "***"}, "a *** b", "a *** b *** c"),
    "one-of": ({"options": ("yes", "no")}, "Yes.", "yes and no"),
    "comma-list": ({"n": 3}, "red, green, blue", "red, green"),
}


@pytest.mark.parametrize("kind", CHECKS)
def test_every_check_can_be_met_and_missed(kind: str) -> None:
    parameters, meets, misses = MEETS_AND_MISSES[kind]
    check = Check(kind, tuple(sorted(parameters.items())))
    validate(check)
    assert holds(check, meets)
    assert not holds(check, misses)
    assert not holds(check, " ")


def test_the_instruction_suite_uses_every_kind_of_check() -> None:
    assert len(CHECKS) >= 15
    assert {check.kind for prompt in instruction_suite().prompts for check in prompt.checks} == set(CHECKS)


def test_changed_numbers_change_the_checks() -> None:
    suite = instruction_suite()
    checks = {prompt.id: prompt.checks for prompt in suite.prompts}
    for variant in suite.variants:
        if variant.variant == "changed-number":
            assert variant.checks != checks[variant.variant_of or ""]
            number = dict(variant.checks[-1 if variant.id.startswith("quoted-words/") else 0].parameters)["n"]
            assert str(number) in variant.messages[0].content


def test_loose_scoring_forgives_wrapping_only() -> None:
    checks = (Check("bullets", (("n", 2),)), Check("no-digits"))
    assert follows(checks, "- a\n- b") == (True, True)
    assert follows((Check("lowercase"),), "Sure!\nall small") == (False, True)
    assert follows((Check("starts-with", (("text", "in"),)),), "**In** time") == (False, True)
    assert follows(checks, "- a\n- b\n- c 4\n- d") == (False, False)
    assert len(sentences("Dr. No? Yes... And 'so'!")) == 4


@pytest.mark.parametrize(
    "check",
    [
        Check("nonsense"),
        Check("sentences"),
        Check("sentences", (("n", -1),)),
        Check("sentences", (("n", True),)),
        Check("sentences", (("n", "3"),)),
        Check("contains", (("words", ()),)),
        Check("no-commas", (("n", 1),)),
    ],
)
def test_checks_that_make_no_sense_are_refused(check: Check) -> None:
    with pytest.raises(SuiteError, match=r"Check `"):
        validate(check)


def _prompt(prompt_id: str, **overrides: object) -> Prompt:
    return Prompt(prompt_id, (Message("user", "?"),), **overrides)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        (Suite("s", ()), "no prompts"),
        (Suite("s", (_prompt("a"), _prompt("a"))), "`a` occurs 2 times"),
        (Suite("s", (_prompt("a"),), (_prompt("b", variant="paraphrase", variant_of="c"),)), "not a prompt of it"),
        (Suite("s", (_prompt("a"),), (_prompt("b"),)), "does not say"),
        (Suite("s", (_prompt("a", answer="1"), _prompt("b"))), "1 of 2 prompts have no gold answer"),
        (Suite("s", (_prompt("a", extract="checks"),)), "has checks without"),
    ],
)
def test_broken_suites_are_refused(suite: Suite, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        validate_suite(suite)


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(SuiteError, match="Did you mean `arithmetic`"):
        load_suite("arithmetik")


def test_metrics_that_need_gold_say_so() -> None:
    with pytest.raises(SuiteError, match="accuracy needs them"):
        require_gold(load_suite("open-ended"), "accuracy")


@pytest.mark.parametrize(
    ("name", "prompts", "told"),
    [
        ("arithmetic", None, []),
        ("arithmetic", 150, []),
        ("arithmetic", 400, [
            "400 prompts were requested, and the suite `arithmetic` has 150. `--suite arithmetic-seed0x80` has 400.",
        ]),
        ("arithmetic-seed7x31", 156, [
            "156 prompts were requested, and the suite `arithmetic-seed7x31` has 155. `--suite "
            "arithmetic-seed7x32` has 160.",
        ]),
        ("arithmetic", 2000, [
            "2000 prompts were requested, and the suite `arithmetic` has 150. `--suite arithmetic-seed0x200` has 1000.",
        ]),
        ("arithmetic-seed1x200", 2000, [
            "2000 prompts were requested, and the suite `arithmetic-seed1x200` has 1000, the most that arithmetic "
            "of one seed can have.",
        ]),
        ("open-ended", 999, ["999 prompts were requested, and the suite `open-ended` has"]),
    ],
)  # fmt: skip
def test_more_prompts_than_there_are_is_said(name: str, prompts: int | None, told: list[str]) -> None:
    suite = load_suite(name)
    found = lacking_prompts(suite, prompts)
    assert [text[: len(start)] for text, start in zip(found, told, strict=True)] == told
    if found and "--suite" in found[0]:
        named = load_suite(found[0].split("`")[-2].removeprefix("--suite "))
        assert len(suite.prompts) < len(named.prompts)
        assert len(named.prompts) >= min(prompts or 0, 1000)


def test_a_file_by_the_name_of_arithmetic_is_no_arithmetic() -> None:
    suite = load_suite("arithmetic")
    suite = replace(suite, prompts=suite.prompts[:9])
    assert lacking_prompts(suite, 10) == ["10 prompts were requested, and the suite `arithmetic` has 9."]
