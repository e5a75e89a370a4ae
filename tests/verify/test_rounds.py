"""Replies in rounds: a run that fails early, a time budget that ends it, and error rates that neither spoils."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, cast

import pytest
from report_support import identity, make_suite

from edgedistill.errors import EXIT_INCONCLUSIVE
from edgedistill.progress import NullProgress
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.verify.gate.decide import Levels, decide
from edgedistill.verify.gate.endpoints import Margins
from edgedistill.verify.metrics.paired import compare
from edgedistill.verify.models.bundle import BundleModel
from edgedistill.verify.options import VerifyOptions
from edgedistill.verify.pilot import pilot_prompts
from edgedistill.verify.rounds import Drawing, Round, draw_in_rounds, in_turns, levels_of, schedule
from edgedistill.verify.run import verify_models
from edgedistill.verify.sampling.deadline import Deadline, TimeUpError
from edgedistill.verify.sampling.protocol import SampledModel
from edgedistill.verify.stages import Run
from edgedistill.verify.stats.answer_counts import by_prompt
from edgedistill.verify.suites.registry import load_suite
from edgedistill.verify.types import Drawn, Sample

SUITE = make_suite(60)
SECONDS = 1.0  # of a reply of a simulated model


class Clock:
    """Time that passes when somebody says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Simulated:
    """Right with a probability; the noise of a sample is its own, whoever draws it. A reply takes a second."""

    name: str
    skill: float
    clock: Clock = field(default_factory=Clock)
    drawn: int = 0
    cancel: Any = None
    can_draw = can_score = True
    score_rows = 1

    @property
    def identity(self) -> Any:
        return identity(self.name)

    def draw(
        self, prompts: Any, samples: int, settings: DrawSettings, *, done: Any = (), **_: object
    ) -> Iterator[Drawn]:
        for prompt in prompts:
            for index in range(samples):
                if (prompt.id, index) in done:
                    continue
                if self.cancel is not None and self.cancel.is_set():
                    return
                self.clock.now += SECONDS
                self.drawn += 1
                rng = Random(f"{settings.seed} {prompt.id} {index}")
                right = rng.random() < self.skill
                answer = prompt.answer if right else str(1000 + rng.randrange(3))
                yield Drawn(Sample(prompt.id, index, "parsed", answer, "", 20, 0, False, 0.0, right), (1,) * 20, "stop")


def drawing(
    before: float, after: float, samples: int, *, seed: int = 0, budget: float | None = None, prompts: int = 60
) -> tuple[Drawing, Run, Simulated]:
    clock = Clock()
    reference, bundle = Simulated("reference", before, clock), Simulated("bundle", after, clock)
    options = VerifyOptions(samples=samples, screen=False)
    run = Run(SUITE, DrawSettings(seed=seed), options, None, NullProgress(), clock=clock)
    chosen = SUITE.prompts[:prompts]
    pilot = pilot_prompts(chosen) if budget is not None else ()
    if budget is not None:
        for model, is_reference in ((reference, True), (bundle, False)):
            run.draw_anew(cast("SampledModel", model), pilot, 2, reference=is_reference)
        run.deadline = Deadline(budget, clock)
    theirs, ours = cast("SampledModel", reference), cast("SampledModel", bundle)
    return draw_in_rounds(run, theirs, ours, chosen, Margins(), options, pilot), run, bundle


def verdict(found: Drawing) -> str:
    before, after = (by_prompt(one.sample for one in part) for part in (found.reference_drawn, found.bundle_drawn))
    return decide(compare(before, after, limit=64), Margins(), levels=found.levels).outcome


@pytest.mark.parametrize(("prompts", "samples"), [(2, 2), (4, 8), (60, 16), (150, 512), (13, 2), (40, 4), (30, 9)])
def test_rounds_grow_to_the_whole_run(prompts: int, samples: int) -> None:
    for budget in (False, True):
        found = schedule(prompts, samples, budget=budget)
        assert found[-1] == Round(prompts, samples)
        assert found == sorted(set(found)), "each is larger than the one before"
        assert all(one.prompts >= 2 and one.samples >= 2 for one in found)
    order = in_turns(SUITE.prompts[:prompts], 4)
    assert sorted(p.id for p in order) == sorted(p.id for p in SUITE.prompts[:prompts])


def test_looks_double_and_a_budget_is_cut_in_parts() -> None:
    assert [one.samples for one in schedule(60, 32, budget=False)] == [4, 8, 16, 32]
    assert [one.samples for one in schedule(60, 6, budget=False)] == [6]
    assert [one.samples for one in schedule(60, 32, budget=True)] == [8, 16, 24, 32]
    assert schedule(40, 2, budget=True) == [Round(10, 2), Round(20, 2), Round(30, 2), Round(40, 2)]
    assert [p.id for p in in_turns(SUITE.prompts[:8], 4)][:2] == [SUITE.prompts[0].id, SUITE.prompts[4].id]


@pytest.mark.parametrize("looks", [0, 1, 3])
@pytest.mark.parametrize("ends", [0, 1, 4])
def test_the_levels_of_all_looks_are_alpha_together(looks: int, ends: int) -> None:
    before, last = levels_of(0.05, looks=looks, ends=ends)
    assert looks * before.beyond + last.beyond == pytest.approx(0.05)
    assert ends * before.within + last.within == pytest.approx(0.05)
    assert ends or last.within == 0.05, "looking for failure costs no pass"


def test_a_damaged_bundle_ends_early_and_says_when() -> None:
    found, _, bundle = drawing(0.95, 0.5, 64)
    assert verdict(found) == "fail"
    assert found.ended.startswith("Stopped after 4 of 64 samples of each of 60 prompts: the bundle was shown to be")
    assert "accuracy" in found.ended
    assert bundle.drawn == 4 * 60


def test_a_slight_damage_takes_more_looks() -> None:
    found, _, _ = drawing(0.95, 0.9, 64)
    assert verdict(found) == "fail"
    assert 4 < found.samples < 64


def test_an_equal_bundle_passes_as_often_as_without_looks() -> None:
    """The same replies, tested once at alpha: the same verdict, whatever the seed."""
    passes = 0
    for seed in range(12):
        found, _, bundle = drawing(0.97, 0.965, 16, seed=seed)
        assert not found.ended
        assert (found.samples, bundle.drawn) == (16, 16 * 60)
        assert found.levels == Levels(within=0.05, beyond=0.025)
        before, after = (by_prompt(one.sample for one in part) for part in (found.reference_drawn, found.bundle_drawn))
        plain = decide(compare(before, after, limit=64), Margins())
        assert [row.outcome for row in plain.endpoints] == [
            row.outcome for row in decide(compare(before, after, limit=64), Margins(), levels=found.levels).endpoints
        ]
        passes += plain.outcome == "pass"
    assert passes >= 10, "not by never passing"


def test_looking_at_a_loss_of_the_margin_fails_rarely() -> None:
    early = sum(bool(drawing(0.5, 0.48, 32, seed=seed, prompts=20)[0].ended) for seed in range(25))
    assert early <= 2  # at 5 % three or more of 25 have a probability of .13, and these tests err far less


def test_a_time_budget_ends_the_run_with_what_was_decided() -> None:
    """Of 60 prompts with 16 samples, 4 rounds of 480 replies, time is for two and a half."""
    found, _, bundle = drawing(0.97, 0.97, 16, budget=16 + 2.5 * 480)
    assert (found.samples, len(found.prompts)) == (8, 60)
    assert found.ended.startswith("The time budget ended after 8 of 16 samples of each of 60 prompts. By then ")
    assert "shown to be within its margin: " in found.ended or "not decided: " in found.ended
    assert bundle.clock.now <= 16 + 2.5 * 480 + SECONDS, "no round was finished for its own sake"
    assert {one.sample.index for one in found.bundle_drawn} == set(range(8)), (
        "the cut round's short replies do not count"
    )


def test_a_failing_bundle_fails_within_its_time_budget() -> None:
    found, _, _ = drawing(0.97, 0.4, 16, budget=16 + 1.5 * 480)
    assert verdict(found) == "fail"


def test_few_samples_of_many_prompts_are_cut_by_prompts() -> None:
    found, _, _ = drawing(0.97, 0.97, 2, budget=16 + 100)
    assert found.ended.startswith("The time budget ended after 2 samples of each of 15 of 60 prompts.")
    assert [prompt.id for prompt in found.prompts] == [prompt.id for prompt in SUITE.prompts[::4]]
    assert verdict(found) == "inconclusive"


def test_a_budget_that_ends_in_the_first_round_leaves_the_pilot() -> None:
    found, run, _ = drawing(0.97, 0.97, 16, budget=16 + 50)
    assert (found.samples, len(found.prompts)) == (2, 4)
    assert "after 2 of 16 samples of each of 4 of 60 prompts" in found.ended
    assert verdict(found) == "inconclusive"
    assert run.deadline is not None
    assert run.deadline.is_set()


class Ticking:
    """Every look at it takes a while, and later on a longer one, as on a machine that others begin to use."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step
        self.sentences: list[str] = []

    def __call__(self) -> float:
        self.now += self.step
        return self.now

    def begin(self, *_: Any) -> None: ...

    def advance(self, _: int) -> None: ...

    def end(self) -> None: ...

    def note(self, sentence: str) -> None:
        """The plan: from now on everything takes thirty times as long."""
        self.sentences.append(sentence)
        self.step *= 30


def test_a_wrong_prediction_ends_a_real_run_at_its_budget(sampled: Callable[..., BundleModel]) -> None:
    suite = load_suite("arithmetic")
    short = replace(suite, prompts=suite.prompts[:40], variants=(), sampling=replace(suite.sampling, max_new_tokens=90))
    clock, model, budget = Ticking(0.01), sampled(), 40.0
    report = verify_models(
        model, model, short, VerifyOptions(preset="fast", time_budget=budget), progress=clock, clock=clock
    )
    assert clock.sentences, "a plan was made"
    assert report.gate is not None
    assert report.gate.result.outcome != "pass"
    assert any(note.startswith("The time budget ended after ") for note in report.notes)
    assert clock.now < 1.15 * budget


def test_a_budget_that_ends_in_the_audit_is_named(sampled: Callable[..., BundleModel]) -> None:
    clock, model = Ticking(1.0), sampled()
    with pytest.raises(TimeUpError, match=r"^inconclusive: the time budget ended in the audit of the sampler"):
        verify_models(model, model, load_suite("arithmetic"), VerifyOptions(time_budget=5.0), clock=clock)


class SlowReplies(Ticking):
    """No time passes but while replies of the run are drawn."""

    def begin(self, stage: str, *_: Any) -> None:
        self.step = 10.0 if stage.startswith("sampling") else 0.0


def test_a_budget_that_ends_in_the_pilot_is_named_and_is_no_usage_error(sampled: Callable[..., BundleModel]) -> None:
    clock, model = SlowReplies(0.0), sampled()
    options = VerifyOptions(time_budget=100.0)
    with pytest.raises(TimeUpError, match=r"^inconclusive: the time budget of 2 min ended in the pilot") as caught:
        verify_models(model, model, load_suite("arithmetic"), options, progress=clock, clock=clock)
    assert caught.value.exit_code == EXIT_INCONCLUSIVE
