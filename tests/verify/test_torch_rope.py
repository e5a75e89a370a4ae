"""The original in PyTorch, by whichever transformers is installed, of a checkpoint that another version saved."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from parity_support import random_tokens, reference_logits, save_random_model

from edgedistill.checkpoint.rope_spelling import readable_rope
from edgedistill.checkpoint.safetensors import open_safetensors
from edgedistill.errors import UnsupportedModelError
from edgedistill.verify.models.torch_weights import build_module, empty_module

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("transformers")

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "theta": ("olmo2", {"rope_theta": 500000.0}),
    "yarn": ("qwen3", {"rope_theta": 70000.0, "rope": YARN}),
    "partial": ("glm", {"rope_theta": 70000.0, "head_dim": 32}),
    "local": ("gemma3_text", {"num_hidden_layers": 7, "rope_theta": 5e5, "rope_local_base_freq": 500.0}),
}


def in_the_spelling_of_5(config: dict[str, Any]) -> dict[str, Any]:
    """``config`` with all of its RoPE in ``rope_parameters``."""
    if "rope_parameters" in config:
        return config
    values = {k: v for k, v in config.items() if k not in ("rope_theta", "rope_scaling", "rope_local_base_freq")}
    full = {"rope_type": "default"} | (config.get("rope_scaling") or {}) | {"rope_theta": config["rope_theta"]}
    if "partial_rotary_factor" in values:
        full["partial_rotary_factor"] = values.pop("partial_rotary_factor")
    if local := config.get("rope_local_base_freq"):
        both = {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": local}}
        return values | {"rope_parameters": both}
    return values | {"rope_parameters": full}


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_in_the_spelling_of_transformers_5(name: str, tmp_path: Path) -> None:
    kind, overrides = CASES[name]
    model = save_random_model(tmp_path, kind, **overrides)
    config = in_the_spelling_of_5(json.loads((tmp_path / "config.json").read_text()))
    assert "rope_theta" not in config
    tensors = open_safetensors(tmp_path)
    try:
        checkpoint: Any = SimpleNamespace(config=config, tensors=tensors)
        tokens = random_tokens(40)
        found = reference_logits(build_module(checkpoint, stream=False), tokens)
    finally:
        tensors.close()
    np.testing.assert_allclose(found, reference_logits(model, tokens), atol=1e-4)


def test_types_and_parameters_that_the_installed_version_cannot_read() -> None:
    checkpoint: Any = SimpleNamespace(config={"model_type": "of_tomorrow"})
    with pytest.raises(UnsupportedModelError, match="does not know models of type of_tomorrow"):
        empty_module(checkpoint)
    params = {"full_attention": {"rope_theta": 1.0}, "sliding_attention": {"rope_theta": 2.0}}
    with pytest.raises(UnsupportedModelError, match="each kind of layer"):
        readable_rope({"rope_parameters": params}, {"rope_theta"})
