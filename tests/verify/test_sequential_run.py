"""A sequential run stops when nothing is open: neither an endpoint nor the collapse verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, cast

import pytest
from report_support import LOOSE, identity, make_suite

from edgedistill.progress import NullProgress
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.verify import stages as stages_module
from edgedistill.verify.options import VerifyOptions
from edgedistill.verify.report.build import Provenance, analyse
from edgedistill.verify.report.extras import ModelSamples
from edgedistill.verify.sampling.protocol import SampledModel
from edgedistill.verify.stages import Run
from edgedistill.verify.types import Drawn, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.verify.report.model import VerifyReport

SUITE = make_suite(400)
SAMPLES = 8
OPTIONS = VerifyOptions(samples=SAMPLES, sequential=True)


@dataclass
class Simulated:
    """Right with a probability, else one of three wrong answers; the noise of a sample is its own, whoever draws it."""

    name: str
    skill: float
    asked: list[str] = field(default_factory=list)
    can_draw = can_score = True
    score_rows = 1

    @property
    def identity(self) -> Any:
        return identity(self.name)

    def draw(self, prompts: Any, samples: int, settings: DrawSettings, **_: object) -> Iterator[Drawn]:
        self.asked += [prompt.id for prompt in prompts]
        for prompt in prompts:
            for index in range(samples):
                rng = Random(f"{settings.seed} {prompt.id} {index}")
                right = rng.random() < self.skill
                answer = prompt.answer if right else str(1000 + rng.randrange(3))
                sample = Sample(prompt.id, index, "parsed", answer, "", 20, 0, False, 0.0, right)
                yield Drawn(sample, (1,) * 20, "stop")


def run(before: float, after: float, seed: int) -> tuple[VerifyReport, int, Run]:
    """The report of a sequential run, and how many prompts it asked."""
    reference, bundle = Simulated("reference", before), Simulated("bundle", after)
    stages = Run(SUITE, DrawSettings(seed=seed, max_new_tokens=40), OPTIONS, None, NullProgress())
    theirs, ours, state = stages.until_decided(
        cast(SampledModel, reference), cast(SampledModel, bundle), SUITE.prompts, LOOSE
    )
    assert reference.asked == bundle.asked
    report = analyse(
        SUITE, stages.settings_of(LOOSE), ModelSamples(bundle.identity, ours),
        ModelSamples(reference.identity, theirs), margins=LOOSE, provenance=Provenance.here(), sequential=state,
        notes=stages.notes,
    )  # fmt: skip
    return report, len(bundle.asked), stages


NEAR_A_THRESHOLD = (0.74, 0.70)
"""Two samples agree with probability 0.57 and 0.52; from 0.5 on a model counts as consistent."""


@pytest.mark.parametrize("seed", [0, 1, 6])
def test_it_goes_on_while_only_the_collapse_verdict_is_open(seed: int) -> None:
    report, asked, _ = run(*NEAR_A_THRESHOLD, seed)
    assert report.gate is not None
    assert report.gate.sequential is not None
    assert report.gate.sequential.outcome == "pass"
    assert report.gate.sequential.prompts <= 40 < asked < len(SUITE.prompts)
    assert report.gate.result.outcome == "pass"
    assert report.gate.result.prompts == asked
    passed = report.gate.sequential.prompts
    assert f"The endpoints had passed after {passed} prompts; {asked - passed} more were asked" in report.notes[0]


def test_it_stops_at_once_where_nothing_is_open() -> None:
    report, asked, _ = run(0.9, 0.9, 0)
    assert report.gate is not None
    assert (report.gate.result.outcome, asked, report.notes) == ("pass", 30, ())


def test_it_stops_at_once_where_an_endpoint_fails() -> None:
    report, asked, _ = run(0.9, 0.4, 0)
    assert report.gate is not None
    assert (report.gate.result.outcome, report.notes) == ("fail", ())
    assert asked < 100


def test_it_ends_where_the_prompts_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages_module, "collapse_is_open", lambda *_, **__: True)
    short = make_suite(60)
    reference, bundle = Simulated("reference", 0.9), Simulated("bundle", 0.9)
    stages = Run(short, DrawSettings(max_new_tokens=40), OPTIONS, None, NullProgress())
    _, ours, state = stages.until_decided(
        cast(SampledModel, reference), cast(SampledModel, bundle), short.prompts, LOOSE
    )
    assert (state.outcome, len(ours)) == ("pass", 60 * SAMPLES)
