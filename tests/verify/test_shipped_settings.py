"""Each model is asked as it is shipped: a bundle that differs beside its weights is measured so, and told why first."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundle_files import copy_bundle, relist

from edgedistill.bundle.bundle import MANIFEST
from edgedistill.bundle.manifest import Manifest
from edgedistill.errors import VerifyError
from edgedistill.verify.create_baseline import make_baseline
from edgedistill.verify.models.bundle import open_sampled
from edgedistill.verify.options import VerifyOptions
from edgedistill.verify.report.ci import job_summary
from edgedistill.verify.report.html import html
from edgedistill.verify.report.model import VerifyReport
from edgedistill.verify.report.tables import settings_text
from edgedistill.verify.run import audit, differences, verify
from edgedistill.verify.suites.registry import load_suite
from edgedistill.verify.types import ShippedDifference

OPTIONS = VerifyOptions(preset="fast", prompts=8, samples=4, max_new_tokens=120)


@pytest.fixture
def changed(reasoner: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of the bundle that ships something else beside its weights."""

    def make(*, generation: dict[str, Any] | None = None, template: str | None = None, ends: Any = None) -> Path:
        contents = {}
        source = reasoner("int4-b32")
        if generation is not None:
            whole = json.loads((source / "generation.json").read_text()) | generation
            contents["generation_json"] = json.dumps(whole).encode()
        out = copy_bundle(source, tmp_path / "changed", **contents)
        if template is not None:
            (out / "chat_template.jinja").write_text(template)
        relist(out)
        if ends is not None:
            path = out / MANIFEST
            manifest = Manifest.from_json(path.read_text())
            model = dataclasses.replace(manifest.model, eos_token_ids=ends(manifest.model.eos_token_ids))
            path.write_text(dataclasses.replace(manifest, model=model).to_json())
        return out

    return make


def compared(bundle: Path, reference: str | Path, **options: Any) -> VerifyReport:
    return verify(bundle, reference=reference, options=replace(OPTIONS, **options))


def test_a_temperature_of_its_own_is_sampled_and_named(
    changed: Callable[..., Path], reasoner: Callable[[str], Path]
) -> None:
    """The weights are the same: whatever changes comes from the settings."""
    bundle, reference = changed(generation={"temperature": 3.0, "top_k": 0, "top_p": 1.0}), reasoner("int4-b32")
    report = compared(bundle, reference)
    assert [one.what for one in report.shipped] == ["temperature", "top_p", "top_k"]
    assert "temperature is 0.6 in the reference and 3 in the bundle; each" in report.shipped[0].sentence
    assert report.settings.temperature == 3.0
    assert report.reference_settings is not None
    assert report.reference_settings.temperature == 0.6
    assert "reference: temperature 0.6" in settings_text(report)
    assert report.gate is not None
    assert report.gate.result.outcome != "pass"
    changed_answers = [row for row in report.prompts if row.distance is not None and row.distance.value > 0.5]
    assert len(changed_answers) > 4
    for page in (job_summary(report), html(report)):
        assert page.index("temperature is 0.6") < page.index(report.claim[:30])

    alike = compared(bundle, reference, same_settings=True)
    assert "both were sampled at 0.6" in alike.shipped[0].sentence
    assert alike.reference_settings is None
    assert alike.settings.temperature == 0.6
    assert alike.pairs is not None
    assert alike.pairs.length_ratio.value == 1.0, "the weights are the same"


@pytest.mark.slow
def test_a_missing_end_token_is_called_that(changed: Callable[..., Path], reasoner: Callable[[str], Path]) -> None:
    bundle = changed(ends=lambda ids: ids[1:])
    report = compared(bundle, reasoner("int4-b32"))
    assert report.shipped[0].what == "end tokens"
    assert "lacks the end token `<|im_end|>`" in report.shipped[0].sentence
    assert report.bundle_result.form.truncated.value > 0.5
    note = next(note for note in report.notes if "bundle's replies have no answer" in note)
    assert "It lacks the end token `<|im_end|>`" in note
    assert "max-new-tokens" not in note
    # Alone, its own template tells.
    with pytest.raises(VerifyError) as raised:
        audit(bundle, options=OPTIONS)
    assert "lacks the end token `<|im_end|>`" in str(raised.value.hint)
    assert "max-new-tokens" not in str(raised.value.hint)


def found_beside(bundle: Path, reference: Path, **options: Any) -> tuple[ShippedDifference, ...]:
    """What is found before anything is drawn."""
    suite = load_suite("arithmetic")
    with open_sampled(reference, threads=1) as theirs, open_sampled(bundle, threads=1) as ours:
        chosen = replace(OPTIONS, **options)
        both = chosen.both_settings(suite.sampling, theirs.generation_defaults, ours.generation_defaults)
        return differences(theirs, ours, both, suite.prompts[:4])


def test_equal_models_ship_the_same(reasoner: Callable[[str], Path]) -> None:
    assert found_beside(reasoner("int4-b32"), reasoner("fp32")) == ()


def test_what_was_asked_for_holds_for_both(changed: Callable[..., Path], reasoner: Callable[[str], Path]) -> None:
    (found,) = found_beside(changed(generation={"temperature": 1.5}), reasoner("int4-b32"), temperature=0.8)
    assert "both were sampled at 0.8" in found.sentence


def test_another_template_is_named_with_a_prompt(changed: Callable[..., Path], reasoner: Callable[[str], Path]) -> None:
    original = (reasoner("int4-b32") / "chat_template.jinja").read_text()
    bundle = changed(template=original.replace("message.role + '", "'system"))
    (found,) = found_beside(bundle, reasoner("int4-b32"))
    assert found.what == "chat template"
    assert "tokens for the reference" in found.sentence
    (bundle / "chat_template.jinja").write_text("{# reformatted #}" + original)
    relist(bundle)
    (found,) = found_beside(bundle, reasoner("int4-b32"))
    assert "every prompt of this run has the same tokens" in found.sentence


@pytest.mark.slow
def test_a_baseline_knows_what_its_model_ships(
    changed: Callable[..., Path], reasoner: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "a.baseline"
    suite = replace(load_suite("arithmetic"), variants=())
    made = make_baseline(reasoner("int4-b32"), suite=suite, options=OPTIONS, scored_samples=1)
    assert made.asked == ("max_new_tokens",)
    made.save(path)
    bundle = changed(generation={"temperature": 3.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 7})
    options = replace(OPTIONS, prompts=None, samples=None, max_new_tokens=None)
    report = verify(bundle, reference=path, suite=suite, options=options)
    assert report.settings.temperature == 3.0
    assert report.settings.max_new_tokens == 120, "asked for when the baseline was made"
    assert report.reference_settings is not None
    assert report.reference_settings.temperature == 0.6
    assert report.gate is not None
    assert report.gate.result.outcome != "pass"
    alike = verify(bundle, reference=path, suite=suite, options=replace(options, same_settings=True))
    assert alike.settings.temperature == 0.6
    assert alike.pairs is not None
    assert alike.pairs.length_ratio.value == 1.0
