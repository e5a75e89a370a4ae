"""Configs of models with recurrent layers: what their layers are, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hybrid_checkpoints import GRANITE4_H, LFM2, QWEN3_5

from edgedistill.architecture.families import build_spec
from edgedistill.architecture.recurrent import GatedDeltaSpec, Mamba2Spec, ShortConvSpec
from edgedistill.errors import CheckpointError, UnsupportedModelError

COMMON = {"vocab_size": 320, "num_attention_heads": 4, "num_key_value_heads": 2}


def spec_of(base: dict[str, Any], **overrides: Any) -> Any:
    return build_spec({key: value for key, value in (COMMON | base | overrides).items() if value is not ...})


def test_lfm2_in_both_spellings() -> None:
    spec = spec_of(LFM2)
    assert [type(layer.recurrent) for layer in spec.layers] == [ShortConvSpec, type(None)] * 2
    assert spec.attention_layers == (1, 3)
    assert spec.states == (("0.conv", (2, 64)), ("2.conv", (2, 64)))
    assert spec.state_bytes == 2 * 2 * 64 * 4
    assert spec.kv_bytes_per_token() == 2 * 2 * 2 * 16 * 4
    first = {"layer_types": ..., "full_attn_idxs": [1, 3], "block_ff_dim": 96, "intermediate_size": ..., "theta": 5e5}
    older = spec_of(LFM2, **first, tie_embedding=True)
    assert older.states == spec.states
    assert (older.intermediate_size, older.tie_word_embeddings) == (96, True)
    assert older.layers[1].rope is not None
    assert older.layers[1].rope.inv_freq[1] == pytest.approx(5e5 ** (-1 / 8))


def test_lfm2_works_out_its_inner_size() -> None:
    adjusted = {"block_auto_adjust_ff_dim": True, "intermediate_size": 6656, "block_multiple_of": 256}
    assert spec_of(LFM2, **adjusted).intermediate_size == 4608  # LFM2-350M
    assert spec_of(LFM2, **adjusted | {"block_ffn_dim_multiplier": None}).intermediate_size == 4437


def test_qwen3_5_every_fourth_layer_is_attention() -> None:
    spec = spec_of(QWEN3_5, num_hidden_layers=8)
    delta = GatedDeltaSpec(2, 4, 16, 16, 4)
    assert [layer.recurrent for layer in spec.layers] == [delta, delta, delta, None] * 2
    assert delta.states[1].shape == (4, 16, 16)
    assert spec.output_gate
    assert [layer.recurrent is None for layer in spec_of(QWEN3_5, full_attention_interval=2).layers] == [
        False,
        True,
    ] * 2


def test_granite_4_h_in_every_spelling() -> None:
    spec = spec_of(GRANITE4_H)
    mamba = Mamba2Spec(heads=8, head_size=16, state_size=24, kernel=4)
    assert [layer.recurrent for layer in spec.layers] == [mamba, None, mamba, mamba]
    assert [state.shape for state in mamba.states] == [(3, 2 * 64 + 2 * 24), (8, 16, 24)]
    assert spec.experts is None
    newer = ["linear_attention", "full_attention", "linear_attention", "linear_attention"]
    unlimited = {"time_step_limit": [0.0, {"__float__": "Infinity"}], "mamba_d_head": "auto"}
    assert spec_of(GRANITE4_H, layer_types=newer, **unlimited) == spec
    assert spec_of(GRANITE4_H, layer_types=..., layers_block_type=GRANITE4_H["layer_types"]) == spec
    experts = spec_of(GRANITE4_H, num_local_experts=6, intermediate_size=48)
    assert experts.experts.shared_size == 96
    assert all(layer.mixture for layer in experts.layers)
    alone = spec_of(GRANITE4_H, layer_types=["attention"] * 4)
    assert alone.attention_layers == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("base", "overrides", "error", "words"),
    [
        (LFM2, {"layer_types": ["conv"] * 4}, UnsupportedModelError, "no layer of full attention"),
        (LFM2, {"layer_types": ["conv", "mamba", "conv", "full_attention"]}, UnsupportedModelError, "type mamba"),
        (LFM2, {"layer_types": ["conv", "full_attention"]}, CheckpointError, "list of 4"),
        (LFM2, {"conv_L_cache": 1}, CheckpointError, "conv_L_cache = 1"),
        (QWEN3_5, {"linear_num_value_heads": 3}, CheckpointError, "3 value heads cannot share 2 key heads"),
        (GRANITE4_H, {"layer_types": ["mamba"] * 4}, UnsupportedModelError, "no layer of full attention"),
        (GRANITE4_H, {"layer_types": ...}, CheckpointError, "no layer_types"),
        (GRANITE4_H, {"mamba_n_groups": 2}, UnsupportedModelError, "2 groups of heads"),
        (GRANITE4_H, {"time_step_limit": [0.001, 0.1]}, UnsupportedModelError, "time_step_limit = .0.001, 0.1."),
        (GRANITE4_H, {"mamba_d_head": 24}, CheckpointError, "8 Mamba heads of 24 elements do not make up 128"),
        (GRANITE4_H, {"mamba_d_conv": 1}, CheckpointError, "mamba_d_conv = 1"),
        ({"model_type": "nemotron_h"}, {}, UnsupportedModelError, "Mamba layers"),
        ({"model_type": "qwen3_next"}, {}, UnsupportedModelError, "in an order that is not known"),
    ],
)
def test_what_is_refused(base: dict[str, Any], overrides: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        spec_of(base, **overrides)
