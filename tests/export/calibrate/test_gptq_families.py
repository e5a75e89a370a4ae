"""Calibration of layers that are built otherwise than Llama's: the error that it minimises falls."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoint_fixtures import tokenizer
from exporting import export
from family_cases import CASES
from parity_support import VOCAB, save_random_model

from edgedistill.runtime.model import open_bundle
from edgedistill.traces.traces import Traces

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("olmo2", "cohere2", "nemotron", "glm4", "phi3-partial-long")


def score(path: Path, sequences: list[np.ndarray]) -> np.ndarray:
    with open_bundle(path) as model:
        parts = [part for ids in sequences for part in model.session.decoder().score(ids[None], chunk=64)]
        return np.concatenate([part.logits for part in parts])


@pytest.mark.parametrize("name", NAMES)
def test_the_error_on_the_calibration_data_falls(name: str, tmp_path: Path) -> None:
    kind, values = CASES[name]
    # Wide enough that a block of 32 is not the whole row, and a tokenizer that the bundle can carry.
    wide: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 160, "vocab_size": 320, "num_hidden_layers": 2}
    if name.startswith("phi3"):
        wide |= {"hidden_size": 64}  # its factors are for heads of 16
    save_random_model(tmp_path / "hf", kind, **values | wide)
    content = tokenizer().to_str()
    (tmp_path / "hf" / "tokenizer.json").write_text(content)
    rng = np.random.default_rng(0)
    sequences = [rng.integers(3, VOCAB, 48) for _ in range(24)]
    digest = hashlib.sha256(content.encode()).hexdigest()
    traces = Traces(tuple(sequences), (0,) * len(sequences), digest, "random tokens")
    options: dict[str, Any] = {"format": "int4-b32-asym-acc1", "check": False}
    solved = export(tmp_path / "hf", tmp_path / "solved", calibration=traces, **options)
    assert solved.manifest.calibration["failed"] == {}
    plain = export(tmp_path / "hf", tmp_path / "plain", **options)
    exact = export(tmp_path / "hf", tmp_path / "exact", format="fp32", check=False)
    truth = score(exact.path, sequences)
    before, after = (float(np.square(score(p.path, sequences) - truth).mean()) for p in (plain, solved))
    assert after < 0.9 * before
