"""Gemma 3n as config.json describes it: streams, MLPs of their own sizes, the share of gates that counts."""

from __future__ import annotations

from typing import Any

import pytest

from edgedistill.architecture.families import build_spec
from edgedistill.architecture.weights import logical_weights
from edgedistill.errors import CheckpointError

CONFIG: dict[str, Any] = {
    "model_type": "gemma3n_text",
    "vocab_size": 70,
    "hidden_size": 48,
    "intermediate_size": [80, 64, 80, 80, 64, 80],
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 64,
    "activation_sparsity_pattern": [0.95, 0.5, 0.0, 0.0, 0.0, 0.0],
}


def test_what_each_layer_has() -> None:
    spec = build_spec(CONFIG)
    assert spec.keys_of == (0, 1, 2, 3, 2, 3)
    assert spec.attention_scale == 1.0
    assert spec.final_logit_softcapping == 30.0
    # The normal distribution's quantile, from a table of it.
    assert spec.layers[0].gate_deviations == pytest.approx(1.6448536, abs=1e-7)
    assert [layer.gate_deviations for layer in spec.layers[1:]] == [0.0, None, None, None, None]
    local, full = spec.layers[0].rope, spec.layers[1].rope
    assert local is not None
    assert full is not None
    assert (local.inv_freq[4], full.inv_freq[4]) == pytest.approx((1e4**-0.5, 1e6**-0.5))
    shapes = {weight.name: weight.shape for weight in logical_weights(spec)}
    assert shapes["layers.0.mlp.up"] == (80, 48)
    assert shapes["layers.4.mlp.up"] == (64, 48)
    assert shapes["per_layer.embed"] == (64, 6 * 8)
    assert shapes["altup.in"] == (3 * 48, 48)
    assert shapes["altup.out.2"] == (48, 48)
    assert shapes["layers.5.altup.predict"] == (16, 4)
    assert shapes["layers.5.laurel.left"] == (64, 48)


def test_defaults_where_the_config_is_silent() -> None:
    silent = ("layer_types", "num_kv_shared_layers", "activation_sparsity_pattern", "vocab_size_per_layer_input")
    large = {"num_hidden_layers": 30, "intermediate_size": 80}
    spec = build_spec({key: value for key, value in CONFIG.items() if key not in silent} | large)
    assert [layer.index for layer in spec.layers if layer.sliding_window is None] == [4, 9, 14, 19, 24, 29]
    assert spec.attention_layers == tuple(range(15))
    assert [layer.gate_deviations is not None for layer in spec.layers] == [True] * 10 + [False] * 20
    assert spec.per_layer_vocab == 262144
    assert spec.altup is not None
    assert (spec.altup.streams, spec.altup.active, spec.altup.scaled, spec.altup.laurel_rank) == (4, 0, True, 64)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"altup_num_inputs": 1}, "altup_num_inputs = 1 and altup_active_idx = 0"),
        ({"altup_num_inputs": 65}, "altup_num_inputs = 65; at most 64"),
        ({"altup_active_idx": 4}, "altup_num_inputs = 4 and altup_active_idx = 4"),
        ({"altup_active_idx": 0.5}, "altup_active_idx = 0.5"),
        ({"laurel_rank": 0}, "laurel_rank = 0"),
        ({"intermediate_size": [80] * 5}, "a list of 6 values is expected"),
        ({"intermediate_size": [80] * 5 + [None]}, "intermediate_size = None; a positive integer"),
        ({"activation_sparsity_pattern": 0.95}, "a list of 6 values is expected"),
        ({"activation_sparsity_pattern": [0.0] * 5 + [1.0]}, "activation_sparsity_pattern = 1 for layer 5"),
        ({"activation_sparsity_pattern": [-0.1] + [0.0] * 5}, "activation_sparsity_pattern = -0.1 for layer 0"),
        ({"hidden_size_per_layer_input": 0}, "hidden_size_per_layer_input = 0"),
        ({"num_kv_shared_layers": 6}, "num_kv_shared_layers = 6 for 6 layers"),
        ({"num_kv_shared_layers": 5}, "layer 1 has no layer of its kind before it"),
    ],
)
def test_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        build_spec(CONFIG | values)
