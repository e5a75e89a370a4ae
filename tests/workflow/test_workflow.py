"""An export, the short verification after it, and what of it a bundle keeps, whatever goes wrong."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from bundle_files import opened_graph

from edgedistill.bundle import staging
from edgedistill.bundle.bundle import MODEL_CARD, Bundle
from edgedistill.bundle.verification_record import section, sentence
from edgedistill.errors import UnsupportedModelError
from edgedistill.export.options import ExportOptions
from edgedistill.verify.quick import quick_check
from edgedistill.workflow import export as workflow

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.export.pipeline import ExportResult


@pytest.fixture
def exported(tiny_checkpoint_dir: Path, tmp_path: Path) -> ExportResult:
    """A fresh bundle without a record."""
    return workflow.export(tiny_checkpoint_dir, tmp_path / "bundle", ExportOptions(verify=False, check=False))


def test_the_record_is_in_the_manifest_and_the_card(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    result = workflow.export(tiny_checkpoint_dir, tmp_path / "bundle", ExportOptions(check=False))
    record = result.to_dict()["verification"]
    assert record["status"] == "checked"
    assert 8 <= record["prompts"] <= 30
    assert record["samples"] == 4
    assert record["accuracy"]["value"] < 0.5  # weights are random
    bundle = Bundle.open(result.path, check="full")
    assert bundle.manifest == result.manifest
    assert sentence(record) in (result.path / MODEL_CARD).read_text().replace("\n\nD", "\n\nd")
    assert not list(result.path.glob(".*"))


def test_with_a_reference_the_outcome_is_recorded(tiny_bundle_dir: Path) -> None:
    found = quick_check(tiny_bundle_dir, reference=tiny_bundle_dir, seconds=1e6)  # however slow the machine
    assert found["outcome"] in ("pass", "inconclusive")
    assert f"{found['outcome']} against {tiny_bundle_dir.name}" in sentence(found)
    json.dumps(found, allow_nan=False)


def test_a_slow_or_large_model_is_left_out_and_says_why(tiny_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = quick_check(tiny_bundle_dir, seconds=1e-3)
    assert slow["status"] == "skipped"
    assert "tokens/s" in sentence(slow)
    monkeypatch.setattr("edgedistill.runtime.loading.available_memory", lambda: 1000)
    large = quick_check(tiny_bundle_dir)
    assert large["status"] == "skipped"
    assert "memory" in sentence(large)


def test_a_crash_of_the_verification_leaves_the_bundle(exported: ExportResult, monkeypatch: pytest.MonkeyPatch) -> None:
    (exported.path / opened_graph(exported.path)).write_bytes(b"no graph")  # opening it fails in the other process
    monkeypatch.setattr(Bundle, "open", lambda path: Bundle(path, exported.manifest))
    result = workflow.record_verification(exported)
    assert result.manifest.verification["status"] == "failed"
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert "exit code 1" in workflow.record_verification(result).manifest.verification["reason"]


def test_a_reference_that_does_not_exist_is_in_the_record(exported: ExportResult, tmp_path: Path) -> None:
    result = workflow.record_verification(exported, reference=tmp_path / "none")
    assert result.manifest.verification["status"] == "failed"
    assert "none" in sentence(result.manifest.verification)
    assert Bundle.open(exported.path, check="full").manifest == result.manifest


def test_errors_of_the_export_are_its_own(tmp_path: Path, tiny_checkpoint_dir: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_checkpoint_dir, source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "model_type": "x", "architectures": ["X"]}))
    with pytest.raises(UnsupportedModelError):
        workflow.export(source, tmp_path / "out", ExportOptions(exporter="own"))


def test_a_full_disk_costs_the_record_only(exported: ExportResult, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging, "write_whole", full)
    monkeypatch.setattr(workflow, "_look", lambda *_: {"status": "skipped", "reason": "x"})
    result = workflow.record_verification(exported)
    assert "No space left" in result.manifest.verification["not_recorded"]
    assert Bundle.open(exported.path, check="full").manifest == exported.manifest


def test_words_for_every_kind_of_record() -> None:
    assert sentence({}) == "not done"
    assert sentence({"status": "failed", "reason": "It broke."}) == "failed: It broke"
    record = {"status": "checked", "prompts": 9, "samples": 4, "verdict": None, "accuracy": {"value": None}}
    assert sentence(record) == "no verdict (9 prompts x 4 samples)"
    assert section({"status": "skipped", "reason": "slow"}).endswith("Skipped: slow.\n")
