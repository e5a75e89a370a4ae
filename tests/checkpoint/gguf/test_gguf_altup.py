"""Gemma 3n's metadata in a GGUF file: what the file says, and what llama.cpp knows without it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType

from edgedistill.checkpoint.gguf.altup import altup_config
from edgedistill.checkpoint.gguf.header import GgufHeader, GgufTensor, Keys
from edgedistill.errors import CheckpointError

LAYERS = 30
SHAPES: dict[str, tuple[int, ...]] = {
    "per_layer_token_embd.weight": (320, LAYERS * 8),
    "blk.0.laurel_l.weight": (16, 64),
    "blk.0.altup_correct_scale.weight": (64,),
}
DEVIATIONS = np.array([1.6448536] * 10 + [-math.inf] * 20, np.float32)


def config_of(shapes: dict[str, tuple[int, ...]] = SHAPES, **changed: Any) -> dict[str, Any]:
    values = {
        "block_count": LAYERS,
        "attention.sliding_window": 512,
        "embedding_length_per_layer_input": 8,
        "altup.num_inputs": 4,
        "altup.active_idx": 0,
        "activation_sparsity_scale": DEVIATIONS,
    } | {name.replace("__", "."): value for name, value in changed.items()}
    metadata = {f"gemma3n.{name}": value for name, value in values.items() if value is not None}
    metadata["general.architecture"] = "gemma3n"
    kind = GGMLQuantizationType.F32
    tensors = {name: GgufTensor(name, shape, kind, 0, 4 * math.prod(shape)) for name, shape in shapes.items()}
    return altup_config(Keys(metadata), GgufHeader(metadata, tensors))


def test_what_llama_cpp_knows_without_metadata() -> None:
    config = config_of()
    assert config["num_kv_shared_layers"] == 10
    assert config["final_logit_softcapping"] == 30.0
    assert (config["rope_theta"], config["rope_local_base_freq"]) == (1e6, 1e4)
    assert [index for index, kind in enumerate(config["layer_types"]) if kind == "full_attention"] == [*range(4, 30, 5)]


def test_what_the_file_says() -> None:
    pattern = np.array([True, False] * 15)
    config = config_of(attention__shared_kv_layers=4, attention__sliding_window_pattern=pattern)
    assert config["num_kv_shared_layers"] == 4
    assert config["layer_types"] == ["sliding_attention", "full_attention"] * 15
    assert config["activation_sparsity_pattern"][:10] == pytest.approx([0.95] * 10, abs=1e-7)
    assert config["activation_sparsity_pattern"][10:] == [0.0] * 20
    assert (config["vocab_size_per_layer_input"], config["laurel_rank"]) == (320, 16)
    assert config["altup_correct_scale"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"altup__num_inputs": None}, "altup.num_inputs is missing"),
        ({"attention__sliding_window": None}, "attention.sliding_window is missing"),
        ({"activation_sparsity_scale": None}, "activation_sparsity_scale is missing, expected a number for each of 30"),
        ({"activation_sparsity_scale": DEVIATIONS[:5]}, "a number for each of 30 layers"),
        ({"activation_sparsity_scale": np.full(30, np.nan, np.float32)}, "a number for each of 30 layers"),
        ({"shapes": {"blk.0.laurel_l.weight": (16, 64)}}, "no tensor per_layer_token_embd.weight"),
        ({"shapes": {"per_layer_token_embd.weight": (320, 240)}}, "no tensor blk.0.laurel_l.weight"),
    ],
)
def test_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        config_of(**changed)
