"""Graphs that never end or want all memory, in real ONNX: a trial ends them, and what is sound is tried once."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import here
from endless_graphs import endless, growing, huge

from edgedistill.bundle.bundle import Bundle
from edgedistill.bundle.manifest import Manifest
from edgedistill.errors import BundleError, ExportError
from edgedistill.export import trial_run
from edgedistill.progress import NullProgress
from edgedistill.runtime import trial
from edgedistill.runtime.trial import limits, require_tried


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path / "cache"))


SECONDS, GIB = 2.0, 1 << 30


def test_a_graph_that_never_ends_is_ended(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(endless(tiny_bundle_dir, tmp_path / "endless"), check="full")
    with pytest.raises(BundleError, match=r"endless does not decode 8 tokens within limits: it took longer than 2 s"):
        require_tried(bundle, limit=(SECONDS, 4 * GIB))


def test_a_graph_that_wants_terabytes_is_refused(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(huge(tiny_bundle_dir, tmp_path / "huge"), check="full")
    with pytest.raises(BundleError, match=r"^huge does not"):
        require_tried(bundle)


def test_a_graph_that_takes_more_and_more_is_ended(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(growing(tiny_bundle_dir, tmp_path / "growing"), check="full")
    with pytest.raises(BundleError, match=r"^growing does not"):
        require_tried(bundle, limit=(300.0, GIB))


def test_what_is_sound_is_tried_once(tiny_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(tiny_bundle_dir, check="full")
    require_tried(bundle)
    monkeypatch.setattr(trial, "run_in_child", None)  # it would fail
    require_tried(bundle)


def test_a_trial_has_time_and_memory_for_large_bundles() -> None:
    seconds, memory = limits(5 << 30)
    assert seconds > 600
    assert memory > 4 * (5 << 30)


def test_an_export_whose_graph_never_ends_is_no_bundle(
    tiny_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = endless(tiny_bundle_dir, tmp_path / "endless")
    monkeypatch.setattr(trial_run, "limits", lambda size: (SECONDS, 4 * GIB))
    manifest = Manifest.from_json((bundle / "manifest.json").read_bytes())
    with pytest.raises(ExportError, match="took longer than 2 s"):
        trial_run.checked(bundle, manifest, progress=NullProgress())


@pytest.mark.slow
def test_commands_end_at_their_limits(tiny_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = endless(tiny_bundle_dir, tmp_path / "endless")
    message = here("run", bundle, "hello", "--time-limit", SECONDS).one_error()
    assert "took longer than 2 s" in message
    monkeypatch.setattr(trial, "_TIME_S", SECONDS)
    cache = str(tmp_path / "cache")
    trial.remember(Bundle.open(tiny_bundle_dir))
    for command in (("audit", bundle), ("verify", tiny_bundle_dir, "--reference", bundle)):
        assert "endless does not decode 8 tokens" in here(*command, EDGEDISTILL_CACHE=cache).one_error()
    grows = growing(tiny_bundle_dir, tmp_path / "growing")
    result = here("run", grows, "hello", "--memory-limit", "2", "--time-limit", "300")
    assert "more than 2000000000 bytes" in result.one_error()


def test_a_command_within_its_limits_says_and_returns_what_it_would_without(tiny_bundle_dir: Path) -> None:
    result = here(
        "run", tiny_bundle_dir, "hello", "-n", "3", "--seed", "1", "--time-limit", "300", "--memory-limit", "8"
    )
    assert result.code == 0
    assert result.out == here("run", tiny_bundle_dir, "hello", "-n", "3", "--seed", "1").out
    assert "expected a positive number" in here("run", tiny_bundle_dir, "x", "--time-limit", "-1").one_error()
    missing = here("run", tiny_bundle_dir / "nothing", "x", "--time-limit", "300")
    assert missing.code == 2
