"""Gemma 4's layers as config.json describes them: sizes, shared keys, the second embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgedistill.architecture.families import build_spec
from edgedistill.architecture.weights import logical_weights
from edgedistill.errors import CheckpointError, EdgedistillError, UnsupportedModelError

CONFIG: dict[str, Any] = {
    "model_type": "gemma4_text",
    "vocab_size": 60,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "global_head_dim": 32,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "num_kv_shared_layers": 2,
    "use_double_wide_mlp": True,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 64,
}


def test_what_each_layer_has() -> None:
    spec = build_spec(CONFIG)
    assert spec.attention_layers == (0, 1, 2, 3)
    assert spec.head_dims == (16, 32, 16, 32, 16, 32)
    assert spec.keys_of == (0, 1, 2, 3, 2, 3)
    assert spec.kv_bytes_per_token() == 4 * 2 * 2 * (16 + 32 + 16 + 32)
    shapes = {weight.name: weight.shape for weight in logical_weights(spec)}
    assert shapes["layers.1.attn.qkv"] == (2 * 128, 48)
    assert shapes["layers.5.attn.query"] == (128, 48)
    assert "layers.5.attn.k_norm" not in shapes
    assert shapes["layers.3.mlp.up"] == (80, 48)
    assert shapes["layers.4.mlp.up"] == (160, 48)
    assert shapes["per_layer.embed"] == (64, 6 * 8)


def test_proportional_rope_has_the_low_frequencies_of_the_whole_head() -> None:
    spec = build_spec(CONFIG)
    local, full = spec.layers[0].rope, spec.layers[1].rope
    assert local is not None
    assert full is not None
    np.testing.assert_allclose(local.inv_freq, 10000.0 ** -(np.arange(8) / 8), rtol=1e-6)
    np.testing.assert_allclose(full.inv_freq, [*1e6 ** -(np.arange(4) / 16), *[0.0] * 12], rtol=1e-6)


def test_sizes_by_layer_say_the_same_as_one_size() -> None:
    sized = {name: value for name, value in CONFIG.items() if name != "global_head_dim"}
    by_layer = {str(index): {"head_dim": 32} for index in (1, 3, 5)}
    assert build_spec(sized | {"per_layer_config": by_layer}) == build_spec(CONFIG)
    assert build_spec(sized).head_dims[1] == 512


def test_heads_that_are_stored_once_and_read_as_often_as_the_others() -> None:
    shared = {"attention_k_eq_v": True, "num_global_key_value_heads": 1, "use_bidirectional_attention": "vision"}
    spec = build_spec(CONFIG | shared)
    assert [layer.kv_repeats for layer in spec.layers] == [1, 2] * 3
    assert [layer.values_are_keys for layer in spec.layers] == [False, True] * 3
    sized = {name: value for name, value in (CONFIG | shared).items() if "global" not in name}
    by_layer = {f"0{index}": {"head_dim": 32, "num_key_value_heads": 1} for index in (1, 3, 5)}
    assert build_spec(sized | {"per_layer_config": by_layer}) == spec


def test_without_a_second_embedding() -> None:
    spec = build_spec(CONFIG | {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0})
    assert not any("per_layer" in weight.name for weight in logical_weights(spec))
    assert spec.keys_of == ()
    assert spec.has_own_sizes


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"num_kv_shared_layers": 6}, CheckpointError, "num_kv_shared_layers = 6 for 6 layers"),
        ({"num_kv_shared_layers": -1}, CheckpointError, "num_kv_shared_layers = -1"),
        ({"num_kv_shared_layers": 1.5}, CheckpointError, "num_kv_shared_layers = 1.5"),
        ({"num_kv_shared_layers": 5}, CheckpointError, "layer 1 has no layer of its kind before it"),
        ({"layer_types": ["full_attention"] * 5 + ["sliding_attention"]}, CheckpointError, "the last has a window"),
        ({"vocab_size_per_layer_input": 59}, UnsupportedModelError, "59 rows in the embedding of the layers"),
        ({"per_layer_config": {"0": {"head_dim": 32}}}, UnsupportedModelError, "sizes of its own for layer 0"),
        ({"per_layer_config": {"1": {"intermediate_size": 1}}}, UnsupportedModelError, "for layer 1"),
        (
            {"attention_k_eq_v": True, "num_global_key_value_heads": 3},
            UnsupportedModelError,
            "have 3 key/value heads, the others 2",
        ),
        ({"per_layer_config": {"\u00b2": {"head_dim": 32}}}, CheckpointError, "0 sizes of heads for 1 layers"),
        ({"per_layer_config": {"1" * 5000: {"head_dim": 32}}}, CheckpointError, "0 sizes of heads for 1 layers"),
        ({"per_layer_config": {"1": {"head_dim": 32}}}, CheckpointError, "1 sizes of heads for 1 layers"),
        ({"global_head_dim": 24}, UnsupportedModelError, "heads have 24 elements"),
        ({"per_layer_config": {"1": 32}}, CheckpointError, "an object is expected"),
        ({"use_bidirectional_attention": "all"}, UnsupportedModelError, "bidirectional attention"),
        ({"enable_moe_block": True}, UnsupportedModelError, "gated by GELU, which ONNX Runtime has no kernel for"),
    ],
)
def test_refused(values: dict[str, Any], error: type[EdgedistillError], message: str) -> None:
    with pytest.raises(error, match=message):
        build_spec(CONFIG | values)
