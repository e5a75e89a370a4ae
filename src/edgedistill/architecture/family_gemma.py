"""Rows of ``family_table`` for the generations of Gemma, each a change of the one before it."""

from __future__ import annotations

from dataclasses import replace

from edgedistill.architecture.family import Family, Key

_ATTENTION_BIAS = Key("attention_bias", False)

GEMMA = Family(
    head_dim=256,
    qkv_bias=_ATTENTION_BIAS,
    o_bias=_ATTENTION_BIAS,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
    activation="gelu_pytorch_tanh",
    activation_key="hidden_activation",
    norm_offset=1.0,
    scaled_embedding=True,
)
GEMMA2 = replace(
    GEMMA,
    kv_heads=4,
    norm_placement="sandwich",
    windows="pattern",
    sliding_window=4096,
    full_every=2,
    attention_scale_base=Key("query_pre_attn_scalar", 256),
    caps=True,
    attn_softcap=50.0,
    final_softcap=30.0,
)

GEMMA3 = replace(
    GEMMA2,
    rope_theta=1e6,
    max_position_embeddings=131072,
    qk_norm="head",
    full_every=6,
    sliding_rope="local_base",
    attn_softcap=None,
    final_softcap=None,
    # transformers' Gemma 3 keeps this key and never applies it: neither reading would be safe.
    refused={"attn_logit_softcapping": "a logit cap that Gemma 3 does not apply"},
)
GEMMA3N = replace(
    GEMMA2,
    kv_heads=2,
    norm_offset=0.0,
    rope_theta=1e6,
    max_position_embeddings=32768,
    qk_norm="head",
    full_every=5,
    sliding_window=512,
    sliding_rope="local_base",
    attention_scale_base=None,
    attention_scale=1.0,
    attn_softcap=None,
    own_sizes=True,
    shared_layers=15,
    altup=True,
    # Of layers that read another's keys and values; and a scale that there may be for nothing.
    ignored=(
        *(f".self_attn.{name}.{kind}" for name in ("k_proj", "v_proj") for kind in ("weight", "bias")),
        ".self_attn.k_norm.weight",
        ".altup.correct_output_scale",
    ),
    refused={"attn_logit_softcapping": "a logit cap that Gemma 3n does not apply"},
)
GEMMA4 = replace(
    GEMMA3N,
    kv_heads=4,
    rope_theta=10000.0,
    max_position_embeddings=131072,
    full_every=6,
    sliding_rope="same",
    final_softcap=None,
    shared_layers=0,
    full_head_dim=512,
    layer_scalars=True,
    altup=False,
    rope_parameters={
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
    },
    refused={
        "attn_logit_softcapping": "a logit cap that Gemma 4 does not apply",
        "enable_moe_block": "a mixture of experts gated by GELU, which ONNX Runtime has no kernel for",
    },
)
