"""The pilot: what it predicts, what it chooses for a budget, and that it stops a run that can measure nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgedistill.errors import UsageError, VerifyError
from edgedistill.units import parse_seconds
from edgedistill.verify.create_baseline import make_baseline
from edgedistill.verify.models.bundle import BundleModel
from edgedistill.verify.options import PRESETS, AuditOptions, VerifyOptions
from edgedistill.verify.pilot import Pilot, choose, plan_text, roughly
from edgedistill.verify.references.baseline import BaselineModel
from edgedistill.verify.run import verify_models
from edgedistill.verify.suites.registry import load_suite

PLAN = PRESETS["default"]
SLOW = Pilot(4.0, 2.0, 1.0, 0.05, True, (100, 300, 200, 400), 400)


@pytest.mark.parametrize("budget", [60.0, 600.0, 1200.0, 7200.0, 36_000.0, 400_000.0])
def test_what_is_chosen_fits_and_uses_the_budget(budget: float) -> None:
    size = choose(SLOW, budget, prompts=150, samples=256, limit=None, plan=PLAN)
    used = SLOW.seconds(size.prompts, size.samples, 4 * size.scored_prompts)
    assert used <= budget
    assert used > 0.7 * budget or (size.prompts, size.samples) == (150, 256)
    assert 2 <= size.prompts <= 150
    assert 2 <= size.samples <= 256


def test_prompts_come_before_samples() -> None:
    sizes = [choose(SLOW, budget, prompts=150, samples=256, limit=None, plan=PLAN) for budget in (1800, 9000, 90_000)]
    assert [size.prompts for size in sizes] == [31, 150, 150]
    assert [size.samples for size in sizes] == [8, 8, 85]


def test_replies_are_shortened_only_where_nothing_else_fits() -> None:
    loops = replace(SLOW, lengths=(40, 60, 50, 2000), longest=60)
    assert choose(loops, 36_000.0, prompts=150, samples=16, limit=2048, plan=PLAN).tokens is None
    size = choose(loops, 120.0, prompts=150, samples=16, limit=2048, plan=PLAN)
    assert size.tokens == 75
    assert size.prompts * size.samples > 100
    assert choose(loops, 120.0, prompts=150, samples=16, limit=None, plan=PLAN).tokens is None


def test_a_budget_that_holds_nothing_is_refused_with_the_reason() -> None:
    with pytest.raises(VerifyError, match=r"A reply of both models takes about 6.* 2 prompts with 2 samples"):
        choose(SLOW, 10.0, prompts=150, samples=16, limit=None, plan=PLAN)


def test_the_plan_says_how_long_and_what_it_shows() -> None:
    text = plan_text(SLOW, 150, 64, PLAN)
    assert text.startswith(
        "Plan: 150 prompts, 64 samples of each, about 16 h 05 min; can show accuracy to about 0.6 points"
    )
    assert "35 min would do for 3 points (--time-budget)" in text
    assert "would do" not in plan_text(SLOW, 30, 8, PLAN)
    assert "share of equal answers" in plan_text(replace(SLOW, gold=False), 30, 8, PLAN)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (40, "40 s"), (1490, "25 min"), (7800, "2 h 10 min"), (7200, "2 h")]
)
def test_durations_as_people_plan(seconds: float, text: str) -> None:
    assert roughly(seconds) == text


def test_durations_are_read() -> None:
    found = [parse_seconds(text) for text in ("90", "90s", "20m", "1h30m", "1.5h")]
    assert found == [90, 90, 1200, 5400, 5400]
    for text in ("", "m", "20x", "-3s", "1m2h"):
        with pytest.raises(ValueError):
            parse_seconds(text)


def test_a_budget_excludes_numbers() -> None:
    for wrong in ({"prompts": 30}, {"samples": 4}, {"time_budget": 0.0}, {"procedure": "vote"}):
        with pytest.raises(UsageError):
            VerifyOptions(**{"time_budget": 60.0, **wrong})  # type: ignore[arg-type]


class Heard:
    """Takes the plan, and counts what is sampled."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def begin(self, *_: Any) -> None: ...

    def advance(self, _: int) -> None: ...

    def end(self) -> None: ...

    def note(self, sentence: str) -> None:
        self.sentences.append(sentence)


def test_a_run_is_cut_to_its_budget_and_says_so(
    sampled: Callable[..., BundleModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("edgedistill.verify.plan"), "MOST_SAMPLES", 20)
    heard = Heard()
    model = sampled()
    options = VerifyOptions(preset="fast", time_budget=1e6)
    suite = load_suite("arithmetic")
    short = replace(suite, prompts=suite.prompts[:3], variants=(), sampling=replace(suite.sampling, max_new_tokens=90))
    report = verify_models(model, model, short, options, progress=heard)
    assert report.suite.prompts == 3
    assert report.settings.samples == 20, "an unlimited budget takes what is worth taking"
    assert any("A pilot of 12 replies chose 3 prompts with 20 samples" in note for note in report.notes)
    assert heard.sentences[0].startswith("Plan: 3 prompts, 20 samples of each, about ")


def test_a_budget_takes_all_that_a_baseline_of_any_size_holds(
    sampled: Callable[..., BundleModel], reasoner: Callable[[str], Path]
) -> None:
    held = AuditOptions(prompts=5, samples=3, max_new_tokens=90)
    reference = BaselineModel(make_baseline(reasoner("int4-b32"), options=held, scored_samples=1))
    report = verify_models(sampled(), reference, load_suite("arithmetic"), VerifyOptions(time_budget=1e6))
    assert (report.suite.prompts, report.settings.samples) == (5, 3)
    assert "chose 5 prompts with 3 samples each" in " ".join(report.notes)


class PlannedError(Exception):
    """Ends a run where its plan is said."""


@pytest.mark.parametrize("sequential", [False, True])
def test_a_verdict_about_prompts_like_these_asks_prompts_enough_and_says_so(
    sampled: Callable[..., BundleModel], *, sequential: bool
) -> None:
    class Ends(Heard):
        def note(self, sentence: str) -> None:
            super().note(sentence)
            if sentence.startswith("Plan: "):
                raise PlannedError

    heard, model = Ends(), sampled()
    options = VerifyOptions(preset="fast", estimand="population", sequential=sequential, max_new_tokens=90)
    with pytest.raises(PlannedError):
        verify_models(model, model, load_suite("arithmetic"), options, progress=heard)
    told, plan = heard.sentences[0], heard.sentences[-1]
    prompts = int(plan.split()[1])
    assert 225 < prompts < 400, "of 150, and more than the preset takes"
    assert f"with {prompts} prompts" in told
    assert "a probability of about 80 %" in told


def test_a_run_without_answers_stops_after_the_pilot(
    sampled: Callable[..., BundleModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    draw = BundleModel.draw

    def counted(self: BundleModel, prompts: Any, samples: int, *args: Any, **more: Any) -> Any:
        drawn.append(len(prompts) * samples)
        return draw(self, prompts, samples, *args, **more)

    monkeypatch.setattr(BundleModel, "draw", counted)
    model = sampled()
    options = VerifyOptions(preset="fast", max_new_tokens=3)
    with pytest.raises(VerifyError, match="None of the 32 replies of the reference has an answer"):
        verify_models(model, model, load_suite("arithmetic"), options)
    assert sum(drawn) < 100, "of 4,800"
