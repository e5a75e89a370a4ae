"""The sampler of a reference is audited like the bundle's, before its samples are believed or stored."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from report_support import make_report

from edgedistill.errors import EXIT_USAGE, VerifyError
from edgedistill.verify import create_baseline as baseline_runs
from edgedistill.verify import run_procedures as procedure_runner
from edgedistill.verify import stages
from edgedistill.verify.options import VerifyOptions
from edgedistill.verify.references.baseline import BaselineModel
from edgedistill.verify.references.baseline_file import Baseline
from edgedistill.verify.references.open import open_reference
from edgedistill.verify.report.ci import job_summary
from edgedistill.verify.report.gate_text import samplers_text
from edgedistill.verify.run import verify_models
from edgedistill.verify.stats.sampler_audit import ChiSquare, SamplerAudit
from edgedistill.verify.suites.registry import load_suite
from edgedistill.verify.types import Procedure

OPTIONS = VerifyOptions(
    preset="fast", prompts=8, samples=2, temperature=1.2, top_k=0, top_p=1.0, max_new_tokens=120, seed=3
)
SAME_WHATEVER_THE_SEED = "different seeds gave the same tokens"


class SeedIgnored:
    """The fault that toolkits have shipped: every sample under every seed gets the same noise."""

    def keys(self, seed, prompt_id, indices):
        return np.full(len(indices), 12345, dtype=np.uint64)


@pytest.fixture
def undrawn(sampled, monkeypatch):
    """A reference whose sampler ignores its seed; no sample may be stored of it."""
    monkeypatch.setattr(stages, "collect", lambda *_: pytest.fail("samples were drawn"))
    return sampled("fp32", noise=SeedIgnored())


def test_an_unsound_reference_stops_the_run(sampled, undrawn) -> None:
    with pytest.raises(VerifyError, match=f"The sampler of fp32 failed.*{SAME_WHATEVER_THE_SEED}") as raised:
        verify_models(sampled(), undrawn, load_suite("arithmetic"), OPTIONS)
    assert raised.value.exit_code == EXIT_USAGE
    assert "\n" not in raised.value.message


def test_no_baseline_is_made_with_an_unsound_sampler(undrawn, monkeypatch) -> None:
    monkeypatch.setattr(baseline_runs, "open_reference", lambda *_, **__: undrawn)
    monkeypatch.setattr(undrawn, "close", lambda: None)  # of the session's fixture
    with pytest.raises(VerifyError, match=SAME_WHATEVER_THE_SEED):
        baseline_runs.make_baseline("fp32", options=OPTIONS)


def test_an_unsound_reference_of_a_mode_stops_the_run(reasoner, undrawn, monkeypatch) -> None:
    monkeypatch.setattr(procedure_runner, "open_reference", lambda *_: undrawn)
    monkeypatch.setattr(undrawn, "close", lambda: None)
    with pytest.raises(VerifyError, match=SAME_WHATEVER_THE_SEED):
        procedure_runner.verify_procedure(reasoner("int4-b32"), Procedure("single"), reference="fp32", options=OPTIONS)


def test_the_original_in_pytorch_is_audited(sampled, reasoner, monkeypatch) -> None:
    pytest.importorskip("torch")
    with closing(open_reference("hf", reasoner("fp32"), stream=False)) as original:
        report = verify_models(sampled(), original, load_suite("arithmetic"), replace(OPTIONS, prompts=2))
        assert report.reference_sampler is not None
        assert report.reference_sampler.varies
        assert report.reference_sampler != report.sampler
        cast(Any, original).noise = SeedIgnored()
        with pytest.raises(VerifyError, match=SAME_WHATEVER_THE_SEED):
            verify_models(sampled(), original, load_suite("arithmetic"), replace(OPTIONS, prompts=2))


def test_stored_samples_have_no_sampler(sampled, prompts) -> None:
    suite = replace(load_suite("arithmetic"), prompts=prompts, variants=())
    model = sampled("fp32")
    settings = OPTIONS.draw_settings(suite.sampling, model.generation_defaults)
    drawn = list(model.draw(prompts, 2, settings))
    stored = BaselineModel(Baseline.create(model, suite, prompts, settings, drawn, scored_samples=1))
    report = verify_models(sampled(), stored, suite, replace(OPTIONS, prompts=None))
    assert report.sampler is not None
    assert report.reference_sampler is None
    assert samplers_text(report).endswith("of the reference: not audited.")


def test_what_was_found_is_said() -> None:
    sound = SamplerAudit(True, True, ChiSquare(3.0, 4, 0.5578))
    report = replace(make_report(), sampler=sound, reference_sampler=replace(sound, varies=None))
    text = samplers_text(report)
    assert text == (
        "Samplers audited: the same seed repeats, seeds differ, chi-square p 0.558; of the reference: the same seed "
        "repeats, too little choice to tell seeds apart, chi-square p 0.558."
    )
    assert text in job_summary(report)
    alone = replace(make_report(audit=True), sampler=sound)
    assert samplers_text(alone) == "Sampler audited: the same seed repeats, seeds differ, chi-square p 0.558."
    assert samplers_text(make_report()) == ""
