"""Calibrated export of a whole tiny model: parts against the whole graph, resuming, and what calibration gains."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_fixtures import write_directory
from exporting import export

from edgedistill.bundle.manifest import Manifest
from edgedistill.errors import EdgedistillError
from edgedistill.export.calibrate import gptq_layers as layerwise
from edgedistill.export.mixed_precision.choose import CALIBRATED
from edgedistill.quantize.gptq import GptqOptions, Moments
from edgedistill.runtime.model import open_bundle
from edgedistill.traces.traces import Traces

FORMAT = "int4-b32-asym-gptq"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(
        "tiny-reasoner", tmp_path_factory.mktemp("reference") / "fp32", profile="reference-fp32", check=False
    ).path


@pytest.fixture(scope="module")
def texts(reference: Path) -> tuple[Traces, Traces]:
    """Calibration and held-out traces of tiny-reasoner."""
    from edgedistill.traces.generate import self_generated

    with open_bundle(reference) as model:
        first, second = (self_generated(model, sequences=n, length=128, seed=n, cache=False) for n in (24, 10))
        return first, second


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of four layers, for what does not depend on what a model says."""
    return write_directory(tmp_path_factory.mktemp("small") / "model", num_hidden_layers=4)


def noise(checkpoint: Path, seed: int = 0) -> Traces:
    """512 random tokens."""
    ids = np.random.default_rng(seed).integers(3, 300, (8, 64))
    tokenizer = hashlib.sha256((checkpoint / "tokenizer.json").read_bytes()).hexdigest()
    return Traces(tuple(ids), (0,) * 8, tokenizer, "noise")


def log_probabilities(bundle: Path, traces: Traces) -> np.ndarray:
    with open_bundle(bundle) as model:
        parts = []
        for ids in traces.sequences:
            for scores in model.session.decoder().score(ids[None, :-1], chunk=256):
                logits = scores.logits.astype(np.float64)
                logits -= logits.max(1, keepdims=True)
                parts.append(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
    return np.concatenate(parts)


def mean_kl(reference: np.ndarray, other: np.ndarray) -> float:
    return float((np.exp(reference) * (reference - other)).sum(1).mean())


def test_calibration_gains_on_held_out_text(reference: Path, texts: tuple[Traces, Traces], tmp_path: Path) -> None:
    calibration, held_out = texts
    truth = log_probabilities(reference, held_out)
    plain = export("tiny-reasoner", tmp_path / "plain", format=FORMAT, check=False)
    assert {w.format.method for w in plain.manifest.weights if not w.format.is_float} == {"search"}
    assert plain.manifest.calibration == {}
    solved = export("tiny-reasoner", tmp_path / "solved", format=FORMAT, calibration=calibration, check=False)
    assert solved.manifest.calibration["sha256"] == calibration.sha256
    assert solved.manifest.calibration["failed"] == {}
    assert not list(solved.path.glob(".*"))
    before = mean_kl(truth, log_probabilities(plain.path, held_out))
    after = mean_kl(truth, log_probabilities(solved.path, held_out))
    assert after < 1.3 * CALIBRATED * before, f"{after / before:.2f} left"  # what budgets take to be left


def test_an_interrupted_calibration_goes_on_to_the_same_bytes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = noise(small)
    whole = export(small, tmp_path / "whole", format=FORMAT, calibration=calibration, check=False)

    def interrupt(self: Any, index: int, tap: str, *rest: Any) -> object:
        if index == 2 and tap.endswith("gated"):
            raise KeyboardInterrupt
        return moments(self, index, tap, *rest)

    moments = layerwise._Run._moments
    with monkeypatch.context() as patch:
        patch.setattr(layerwise._Run, "_moments", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export(small, tmp_path / "part", format=FORMAT, calibration=calibration, check=False)
    assert not (tmp_path / "part").exists()
    resumed = export(small, tmp_path / "part", format=FORMAT, calibration=calibration, check=False)
    assert resumed.reused_weights > 10
    assert (resumed.path / "weights.bin").read_bytes() == (whole.path / "weights.bin").read_bytes()


def test_a_resumed_calibration_knows_what_could_not_be_solved(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = noise(small)
    interrupted_at: set[int] = set()

    def unsolvable(self: Any, index: int, tap: str, *rest: Any) -> Moments:
        if index in interrupted_at:
            raise KeyboardInterrupt
        found = moments(self, index, tap, *rest)
        if index == 0 and tap.endswith("gated"):
            second = np.full_like(found.second, 1e6)
            np.fill_diagonal(second, 1)  # no damping makes this positive definite
            return replace(found, second=second)
        return found

    moments = layerwise._Run._moments
    monkeypatch.setattr(layerwise._Run, "_moments", unsolvable)

    def exported(name: str) -> dict[str, str]:
        made = export(small, tmp_path / name, format=FORMAT, calibration=calibration, check=False)
        return made.manifest.calibration["failed"]

    whole = exported("whole")
    assert list(whole) == ["layers.0.mlp.down"]
    for index in (1, 2):
        interrupted_at = {index}
        with pytest.raises(KeyboardInterrupt):
            exported("part")
    interrupted_at = set()
    assert exported("part") == whole


def test_other_calibration_is_another_plan(small: Path, tmp_path: Path) -> None:
    first = export(small, tmp_path / "a", format=FORMAT, calibration=noise(small), check=False)
    other = export(small, tmp_path / "b", format=FORMAT, calibration=noise(small, seed=1), check=False)
    assert (first.path / "weights.bin").read_bytes() != (other.path / "weights.bin").read_bytes()


def test_options_reach_the_manifest(small: Path, tmp_path: Path) -> None:
    made = export(
        small,
        tmp_path / "out",
        format=FORMAT,
        calibration=noise(small),
        gptq=GptqOptions(act_order=True, sweeps=1),
        check=False,
    )
    stored = Manifest.from_json((made.path / "manifest.json").read_text())
    assert stored.calibration["gptq"]["act_order"] is True
    assert stored.calibration["tokens"] == 512
    with pytest.raises(EdgedistillError):
        export(small, tmp_path / "out", format=FORMAT, check=False)
