"""Prefixes of training wrappers, heads that only claim to be tied, tensors that nothing reads, misnamed directories."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from checkpoint_fixtures import write_directory, write_safetensors

from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import CheckpointError, UnsupportedModelError
from edgedistill.export.plan import canonical

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "model")


def rewrite(model: Path, **changed: np.ndarray) -> dict[str, np.ndarray]:
    with open_checkpoint(str(model)) as checkpoint:
        tensors = {n: checkpoint.tensors.read_rows(n, 0, checkpoint.tensors.info(n).shape[0])
                   for n in checkpoint.tensors.names()}  # fmt: skip
    return tensors | changed


@pytest.mark.parametrize("prefix", ["base_model.model.", "_orig_mod.", "module.", "language_model."])
def test_prefixes_of_wrappers(model: Path, prefix: str) -> None:
    tensors = rewrite(model)
    write_safetensors(model / "model.safetensors", {f"{prefix}{name}": t for name, t in tensors.items()})
    with open_checkpoint(str(model)) as checkpoint:
        assert sorted(checkpoint.tensors.names()) == sorted(tensors)
        canonical(checkpoint)


def test_a_head_that_differs_from_a_tied_embedding_keeps_its_weights(model: Path) -> None:
    config = json.loads((model / "config.json").read_text()) | {"tie_word_embeddings": True}
    (model / "config.json").write_text(json.dumps(config))
    tensors = rewrite(model)
    head = tensors["model.embed_tokens.weight"] + 1
    write_safetensors(model / "model.safetensors", tensors | {"lm_head.weight": head})
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.config["tie_word_embeddings"] is False
        assert any("lm_head" in note for note in checkpoint.notes)


def test_a_tensor_that_nothing_reads_is_refused_unless_allowed(model: Path) -> None:
    extra = np.zeros(4, np.float32)
    tensors = rewrite(model, **{"model.layers.0.self_attn.q_proj.bias": extra})
    write_safetensors(model / "model.safetensors", tensors)
    with open_checkpoint(str(model)) as checkpoint:
        with pytest.raises(CheckpointError, match=r"q_proj\.bias.*--allow-unused"):
            canonical(checkpoint)
        assert any("q_proj.bias" in note for note in canonical(checkpoint, allow_unused=True).notes)


def test_a_reward_model_is_refused(model: Path) -> None:
    tensors = rewrite(model, **{"score.weight": np.zeros((1, 48), np.float32)})
    write_safetensors(model / "model.safetensors", tensors)
    with pytest.raises(UnsupportedModelError, match="scores"):
        open_checkpoint(str(model))


def test_the_only_checkpoint_of_a_training_run(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    model.rename(run / "checkpoint-500")
    with open_checkpoint(str(run)) as checkpoint:
        assert any("checkpoint-500" in note for note in checkpoint.notes)
    write_directory(run / "checkpoint-900")
    with pytest.raises(CheckpointError, match="checkpoint-500, checkpoint-900"):
        open_checkpoint(str(run))
