"""The table of families: what each ``model_type`` fixes, read from transformers' ``models/<type>`` (configuration for
defaults, modeling for the arithmetic).

To add one: a row here, a row in ``gguf.architectures`` if llama.cpp knows it, a random config in the parity tests.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgedistill.architecture.family import Experts, Family, Key, Recurrent
from edgedistill.architecture.family_gemma import GEMMA, GEMMA2, GEMMA3, GEMMA3N, GEMMA4

_ATTENTION_BIAS = Key("attention_bias", False)
_MLP_BIAS = Key("mlp_bias", False)
_USE_BIAS = Key("use_bias", False)
_EPS_5 = Key("rms_norm_eps", 1e-5)
_LAYER_NORM_EPS = Key("layer_norm_eps", 1e-5)


def _rope(kind: str, factor: float, original: int, **others: float) -> dict[str, Any]:
    return {"rope_type": kind, "factor": factor, "original_max_position_embeddings": original, **others}


_LLAMA = Family(qkv_bias=_ATTENTION_BIAS, o_bias=_ATTENTION_BIAS, mlp_bias=_MLP_BIAS, max_position_embeddings=2048)
_QWEN3 = Family(
    kv_heads=32,
    head_dim=128,
    qkv_bias=_ATTENTION_BIAS,
    o_bias=_ATTENTION_BIAS,
    qk_norm="head",
    windows="optional",
    sliding_window=4096,
)
_OLMO2 = replace(_LLAMA, mlp_bias=False, norm_eps=_EPS_5, norm_placement="post", qk_norm="full")
_GLM = Family(
    kv_heads=2,
    head_dim=128,
    max_position_embeddings=131072,
    norm_eps=Key("rms_norm_eps", 1.5625e-7),
    qkv_bias=Key("attention_bias", True),
    interleaved_rope=True,
    partial_rotary=0.5,
    fused_gate_up="mlp.gate_up_proj",
)

_GRANITE = replace(
    _LLAMA,
    embedding_scale=Key("embedding_multiplier", 1.0),
    residual_scale=Key("residual_multiplier", 1.0),
    attention_scale=Key("attention_multiplier", 1.0),
    logits_divisor=Key("logits_scaling", 1.0),
)
_GRANITE_EXPERTS = Experts(
    count=Key("num_local_experts", 8),
    active=Key("num_experts_per_tok", 2),
    router="block_sparse_moe.router.layer",
    stacked=("block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight"),
)
_GRANITE_SHARED = replace(
    _GRANITE_EXPERTS,
    shared=Key("shared_intermediate_size", 0),
    shared_names=("shared_mlp.input_linear", "shared_mlp.output_linear"),
)
_NORMALIZED = Key("norm_topk_prob", False)
_SHARED_EXPERT = ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj")
_QWEN3_5 = Family(
    kv_heads=4,
    head_dim=256,
    norm_offset=1.0,
    qk_norm="head",
    qkv_bias=_ATTENTION_BIAS,
    o_bias=_ATTENTION_BIAS,
    output_gate=True,
    partial_rotary=0.25,
    recurrent=Recurrent("linear_attention", attention_every=4),
)
_LFM2 = Family(
    kv_heads=8,
    rope_theta=1e6,
    max_position_embeddings=128000,
    tie_word_embeddings=True,
    norm_eps=Key("norm_eps", 1e-5),
    qk_norm="head",
    recurrent=Recurrent("conv", attention_list="full_attn_idxs"),
    adjusted_mlp=True,
    names={
        "input_layernorm": "operator_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.o_proj": "self_attn.out_proj",
        "self_attn.q_norm": "self_attn.q_layernorm",
        "self_attn.k_norm": "self_attn.k_layernorm",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
        "model.norm": "model.embedding_norm",
    },
)

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": Family(kv_heads=8, windows="all", sliding_window=4096, max_position_embeddings=131072),
    "ministral": Family(
        kv_heads=8, windows="pattern", sliding_window=4096, full_every=0, max_position_embeddings=131072
    ),
    "ministral3": Family(
        kv_heads=8,
        head_dim=128,
        rope_theta=1e6,
        rope_parameters=_rope("yarn", 16.0, 16384, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1),
        max_position_embeddings=262144,
        norm_eps=_EPS_5,
        windows="all",
    ),
    "qwen2": Family(kv_heads=32, qkv_bias=True, windows="optional", sliding_window=4096),
    "qwen3": _QWEN3,
    "qwen3_moe": replace(
        _QWEN3,
        head_dim=None,
        kv_heads=4,
        windows="optional_all",
        experts=Experts(size=Key("moe_intermediate_size", 768), normalized=_NORMALIZED, some_layers=True),
    ),
    "qwen2_moe": Family(
        kv_heads=16,
        qkv_bias=Key("qkv_bias", True),
        refused={"use_sliding_window": "windows, in other layers by each version of transformers"},
        experts=Experts(
            count=Key("num_experts", 60),
            active=Key("num_experts_per_tok", 4),
            size=Key("moe_intermediate_size", 1408),
            normalized=_NORMALIZED,
            some_layers=True,
            shared=Key("shared_expert_intermediate_size", 5632),
            shared_names=_SHARED_EXPERT,
            shared_gate="mlp.shared_expert_gate",
        ),
    ),
    "olmoe": Family(
        max_position_embeddings=4096,
        norm_eps=_EPS_5,
        qk_norm="full",
        qkv_bias=_ATTENTION_BIAS,
        o_bias=_ATTENTION_BIAS,
        experts=Experts(count=Key("num_experts", 64), normalized=_NORMALIZED),
        refused={"clip_qkv": "clipped queries, keys and values"},
    ),
    "mixtral": Family(
        kv_heads=8,
        rope_theta=1e6,
        max_position_embeddings=131072,
        norm_eps=_EPS_5,
        windows="all",
        experts=Experts(
            count=Key("num_local_experts", 8),
            active=Key("num_experts_per_tok", 2),
            router="block_sparse_moe.gate",
            separate=(
                "block_sparse_moe.experts.{}.w1",
                "block_sparse_moe.experts.{}.w3",
                "block_sparse_moe.experts.{}.w2",
            ),
        ),
    ),
    "gpt_oss": Family(
        kv_heads=8,
        head_dim=64,
        rope_theta=150000.0,
        rope_parameters=_rope("yarn", 32.0, 4096, truncate=False),
        max_position_embeddings=131072,
        norm_eps=_EPS_5,
        qkv_bias=Key("attention_bias", True),
        o_bias=Key("attention_bias", True),
        windows="pattern",
        sliding_window=128,
        full_every=2,
        attention_sinks=True,
        experts=Experts(
            count=Key("num_local_experts", 128),
            active=Key("num_experts_per_tok", 4),
            router="mlp.router",
            transposed=True,
            bias=True,
            limit=Key("swiglu_limit", 7.0),
            sigmoid_scale=Key("swiglu_alpha", 1.702),
            up_offset=1.0,
        ),
    ),
    "smollm3": Family(
        kv_heads=4,
        rope_theta=2e6,
        qkv_bias=_ATTENTION_BIAS,
        o_bias=_ATTENTION_BIAS,
        mlp_bias=_MLP_BIAS,
        tie_word_embeddings=True,
        windows="optional",
        no_rope="interval",
    ),
    "gemma": replace(GEMMA, kv_heads=16, activation_key="hidden_act"),
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "gemma3n_text": GEMMA3N,
    "gemma4_text": GEMMA4,
    "granite": _GRANITE,
    "granitemoe": replace(_GRANITE, mlp_bias=False, no_rope="stated", experts=_GRANITE_EXPERTS),
    "granitemoeshared": replace(_GRANITE, mlp_bias=False, no_rope="stated", experts=_GRANITE_SHARED),
    # Granite 4: with Mamba layers (-h) or without, with experts beside the shared MLP or without.
    "granitemoehybrid": replace(
        _GRANITE,
        mlp_bias=False,
        intermediate_size="shared_intermediate_size",
        no_rope="unless_stated",
        fused_gate_up="shared_mlp.input_linear",
        names={"mlp.down_proj": "shared_mlp.output_linear"},
        experts=replace(_GRANITE_SHARED, optional=True, shared=Key("shared_intermediate_size", 1024)),
        recurrent=Recurrent("mamba", also="linear_attention"),
    ),
    # MiniCPM 1 and 2, and 4 as far as its attention is dense. Read from the model's own code, transformers has none.
    "minicpm": replace(
        _LLAMA,
        mlp_bias=False,
        tie_word_embeddings=True,
        embedding_scale=Key("scale_emb", 1.0),
        residual_scale=Key("scale_depth", 1.0, over=("num_hidden_layers", 0.5)),
        logits_scale=Key("dim_model_base", 1.0, over=("hidden_size", 1.0)),
        refused={"sparse_config": "attention to chosen blocks of a long text"},
    ),
    "olmo2": _OLMO2,
    "olmo3": replace(
        _OLMO2, rope_theta=5e5, windows="pattern", sliding_window=4096, full_every=4, sliding_rope="unscaled"
    ),
    "exaone4": Family(
        kv_heads=32,
        max_position_embeddings=2048,
        norm_eps=_EPS_5,
        norm_placement="post",
        qk_norm="head",
        windows="pattern",
        sliding_window=4096,
        full_every=4,
        no_rope="full_layers",
    ),
    "ernie4_5": Family(
        kv_heads=2,
        head_dim=128,
        rope_theta=500000.0,
        max_position_embeddings=131072,
        tie_word_embeddings=True,
        norm_eps=_EPS_5,
        qkv_bias=_USE_BIAS,
        o_bias=_USE_BIAS,
        mlp_bias=_USE_BIAS,
        interleaved_rope=True,
    ),
    "hunyuan_v1_dense": Family(
        rope_alpha=True,
        max_position_embeddings=2048,
        norm_eps=_EPS_5,
        qkv_bias=_ATTENTION_BIAS,
        o_bias=_ATTENTION_BIAS,
        qk_norm="head_after_rope",
        names={"self_attn.q_norm": "self_attn.query_layernorm", "self_attn.k_norm": "self_attn.key_layernorm"},
    ),
    "glm": _GLM,
    "glm4": replace(
        _GLM,
        norm_placement="sandwich",
        names={
            "post_attention_layernorm": "post_self_attn_layernorm",
            "pre_feedforward_layernorm": "post_attention_layernorm",
            "post_feedforward_layernorm": "post_mlp_layernorm",
        },
    ),
    "phi3": Family(
        max_position_embeddings=4096,
        norm_eps=_EPS_5,
        partial_rotary=1.0,
        windows="all",
        fused_qkv="self_attn.qkv_proj",
        fused_gate_up="mlp.gate_up_proj",
    ),
    "cohere2": Family(
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        norm="layer",
        norm_eps=_LAYER_NORM_EPS,
        parallel=True,
        qkv_bias=_ATTENTION_BIAS,
        o_bias=_ATTENTION_BIAS,
        interleaved_rope=True,
        windows="pattern",
        sliding_window=4096,
        full_every=4,
        no_rope="full_layers",
        logits_scale=Key("logit_scale", 0.0625),
    ),
    "seed_oss": Family(
        kv_heads=8,
        head_dim=128,
        max_position_embeddings=524288,
        qkv_bias=Key("attention_bias", True),
        o_bias=Key("attention_out_bias", False),
        mlp_bias=_MLP_BIAS,
    ),
    "apertus": Family(
        rope_theta=12e6,
        rope_parameters=_rope("llama3", 8.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0),
        max_position_embeddings=65536,
        activation="xielu",
        norm_eps=_EPS_5,
        qk_norm="head",
        gated_mlp=False,
        qkv_bias=_ATTENTION_BIAS,
        o_bias=_ATTENTION_BIAS,
        names={"input_layernorm": "attention_layernorm", "post_attention_layernorm": "feedforward_layernorm"},
        # Constants of the activation that checkpoints carry; other values are refused where they are read.
        ignored=("mlp.act_fn.beta", "mlp.act_fn.eps"),
    ),
    "arcee": Family(
        max_position_embeddings=4096,
        activation="relu2",
        norm_eps=_EPS_5,
        gated_mlp=False,
        qkv_bias=_ATTENTION_BIAS,
        o_bias=_ATTENTION_BIAS,
        mlp_bias=_MLP_BIAS,
    ),
    "nemotron": Family(
        max_position_embeddings=4096,
        activation="relu2",
        norm="layer",
        norm_bias=True,
        norm_offset=1.0,
        norm_eps=Key("norm_eps", 1e-5),
        gated_mlp=False,
        partial_rotary=0.5,
        qkv_bias=_ATTENTION_BIAS,
        o_bias=_ATTENTION_BIAS,
        mlp_bias=_MLP_BIAS,
    ),
    "stablelm": Family(
        kv_heads=32,
        max_position_embeddings=4096,
        norm="layer",
        norm_bias=True,
        norm_eps=_LAYER_NORM_EPS,
        parallel=Key("use_parallel_residual", False),
        partial_rotary=0.25,
        qkv_bias=Key("use_qkv_bias", False),
        refused={"qk_layernorm": "a norm of its own for every head"},
    ),
    "bitnet": Family(
        rope_theta=500000.0,
        max_position_embeddings=2048,
        activation="relu2",
        norm_eps=_EPS_5,
        qkv_bias=_ATTENTION_BIAS,
        o_bias=_ATTENTION_BIAS,
        sub_norms=True,
    ),
    "helium": Family(
        kv_heads=20,
        head_dim=128,
        rope_theta=100000.0,
        max_position_embeddings=4096,
        norm_eps=Key("rms_norm_eps", 1e-8),
        qkv_bias=_ATTENTION_BIAS,
        mlp_bias=_MLP_BIAS,
        interleaved_rope=True,
    ),
    "qwen3_5_text": _QWEN3_5,
    "qwen3_5_moe_text": replace(
        _QWEN3_5,
        kv_heads=2,
        intermediate_size="moe_intermediate_size",
        experts=Experts(
            count=Key("num_experts", 256),
            size=Key("moe_intermediate_size", 512),
            shared=Key("shared_expert_intermediate_size", 512),
            shared_names=_SHARED_EXPERT,
            shared_gate="mlp.shared_expert_gate",
        ),
    ),
    "lfm2": _LFM2,
    "lfm2_moe": replace(
        _LFM2,
        adjusted_mlp=False,
        experts=Experts(
            count=Key("num_experts", 32),
            active=Key("num_experts_per_tok", 4),
            size=Key("moe_intermediate_size", 1792),
            normalized=Key("norm_topk_prob", True),
            dense_first=Key("num_dense_layers", 2),
            router="feed_forward.gate",
            separate=("feed_forward.experts.{}.w1", "feed_forward.experts.{}.w3", "feed_forward.experts.{}.w2"),
            stacked=("feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"),
            sigmoid=True,
            selection=(Key("use_expert_bias", True), "feed_forward.expert_bias"),
            scaling=Key("routed_scaling_factor", 1.0),
        ),
    ),
}
