"""Tiny random models of every family and every feature that a config can ask for: the cases of the parity tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LEVELS = Path(__file__).parents[2] / "src/edgedistill/architecture/levels.json"
"""What the parity tests have shown, as they write it down."""

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "factor": 2.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}


def _longrope(original: int, pairs_of: int) -> dict[str, Any]:
    """LongRoPE of Phi 3, whose switch lies at ``original`` tokens of a context of 96."""
    pairs = pairs_of // 2
    rope = {
        "rope_type": "longrope",
        "short_factor": [1.0 + 0.1 * i for i in range(pairs)],
        "long_factor": [2.0 + 0.5 * i for i in range(pairs)],
    }
    return {"rope": rope, "original_max_position_embeddings": original}


QWEN3_MOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True, "hidden_size": 64, "head_dim": None}),
    "llama-bias": ("llama", {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "llama-linear": ("llama", {"rope": LINEAR}),
    "llama-llama3": ("llama", {"rope": LLAMA3, "rope_theta": 500000.0}),
    "llama-mha": ("llama", {"num_key_value_heads": 4}),
    # Falcon 3: heads wider together than the hidden size, and a base of its own.
    "falcon3": ("llama", {"hidden_size": 64, "head_dim": 32, "num_attention_heads": 4, "rope_theta": 1000042.0}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-window": ("mistral", {"sliding_window": 7}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-yarn": ("qwen2", {"rope": YARN}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"tie_word_embeddings": True}),
    "qwen3-yarn": ("qwen3", {"rope": YARN | {"attention_factor": 0.9, "beta_fast": 16, "beta_slow": 2}}),
    "qwen3-window": ("qwen3", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2}),
    "qwen3-bias": ("qwen3", {"attention_bias": True}),
    "smollm3": ("smollm3", {"num_hidden_layers": 5}),
    "smollm3-nope": ("smollm3", {"no_rope_layers": [0, 1, 1], "tie_word_embeddings": False, "mlp_bias": True}),
    "gemma2": (
        "gemma2",
        {
            "sliding_window": 6,
            "query_pre_attn_scalar": 20,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": ("gemma3_text", {"num_hidden_layers": 7, "sliding_window": 6, "query_pre_attn_scalar": 20}),
    "gemma3-linear": (
        "gemma3_text",
        {
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "sliding_window": 9,
            "rope_theta": 50000.0,
            "rope_local_base_freq": 500.0,
            "rope": {"rope_type": "linear", "factor": 8.0},
        },
    ),
    "gemma3-caps": (
        "gemma3_text",
        {
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "sliding_window": 9,
            "final_logit_softcapping": 4.0,
        },
    ),
    "gemma4": (
        "gemma4_text",
        {
            "num_hidden_layers": 6,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "global_head_dim": 32,
            "sliding_window": 6,
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 70,
            "final_logit_softcapping": 4.0,
        },
    ),
    "gemma4-plain": (
        "gemma4_text",
        {"num_hidden_layers": 7, "sliding_window": 9, "global_head_dim": 48, "hidden_size_per_layer_input": 0},
    ),
    "gemma3n": (
        "gemma3n_text",
        {
            "num_hidden_layers": 6,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "sliding_window": 6,
            "num_kv_shared_layers": 3,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 70,
            "laurel_rank": 8,
            "activation_sparsity_pattern": [0.95, 0.5, 0.0, 0.0, 0.8, 0.0],
            "final_logit_softcapping": 4.0,
        },
    ),
    "gemma3n-streams": (
        "gemma3n_text",
        {
            "num_hidden_layers": 5,
            "intermediate_size": [80, 48, 80, 64, 80],
            "layer_types": [f"{kind}_attention" for kind in ("sliding", "full", "full", "sliding", "sliding")],
            "sliding_window": 9,
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 67,
            "laurel_rank": 5,
            "altup_num_inputs": 3,
            "altup_active_idx": 1,
            "altup_correct_scale": False,
            "attention_bias": True,
            "rope_theta": 50000.0,
            "rope_local_base_freq": 500.0,
            "rope": {"rope_type": "linear", "factor": 8.0},
        },
    ),
    # As in the largest ones: values are what the keys' matrix gives, and full layers have fewer heads of them.
    "gemma4-keys-as-values": (
        "gemma4_text",
        {
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "global_head_dim": 32,
            "sliding_window": 6,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "use_bidirectional_attention": "vision",
            "hidden_size_per_layer_input": 0,
        },
    ),
    "gemma": ("gemma", {}),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 2.5,
            "residual_multiplier": 0.6,
            "attention_multiplier": 0.3,
            "logits_scaling": 0.7,
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
    "granite-tied": ("granite", {"tie_word_embeddings": True, "logits_scaling": 1.5, "attention_multiplier": 0.25}),
    "granite4": (
        "granitemoehybrid",
        {
            "hidden_size": 64,
            "position_embedding_type": "rope",
            "embedding_multiplier": 2.5,
            "residual_multiplier": 0.6,
            "attention_multiplier": 0.3,
            "logits_scaling": 0.7,
        },
    ),
    "granite4-nope": (
        "granitemoehybrid",
        {
            "hidden_size": 64,
            "tie_word_embeddings": True,
            "attention_multiplier": 0.3,
        },
    ),
    "minicpm": ("minicpm", {"tie_word_embeddings": True, "scale_emb": 3, "scale_depth": 1.1, "dim_model_base": 24}),
    "minicpm-untied": (
        "minicpm",
        {"tie_word_embeddings": False, "scale_emb": 2.5, "scale_depth": 1.4, "dim_model_base": 32, "rope": LINEAR},
    ),
    "olmo2": ("olmo2", {}),
    "olmo2-theta": ("olmo2", {"rope_theta": 500000.0}),
    "olmo3": ("olmo3", {"num_hidden_layers": 5, "sliding_window": 6}),
    "olmo3-yarn": ("olmo3", {"num_hidden_layers": 5, "sliding_window": 6, "rope": YARN | {"attention_factor": 1.2}}),
    "exaone4": ("exaone4", {"num_hidden_layers": 5, "sliding_window": 6}),
    "exaone4-full": ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 3, "rope": LLAMA3}),
    "ernie4_5": ("ernie4_5", {"use_bias": True}),
    "hunyuan": ("hunyuan_v1_dense", {}),
    "hunyuan-alpha": ("hunyuan_v1_dense", {"rope": {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0}}),
    "glm": ("glm", {"head_dim": 32}),
    "glm4": ("glm4", {"head_dim": 32, "attention_bias": False}),
    "phi3": ("phi3", {"hidden_size": 64}),
    "phi3-partial-short": ("phi3", {"hidden_size": 64, "partial_rotary_factor": 0.75, **_longrope(96, 12)}),
    "phi3-partial-long": ("phi3", {"hidden_size": 64, "partial_rotary_factor": 0.75, **_longrope(24, 12)}),
    "phi3-window": ("phi3", {"hidden_size": 64, "sliding_window": 7}),
    "cohere2": ("cohere2", {"num_hidden_layers": 5, "hidden_size": 64, "sliding_window": 6, "logit_scale": 0.5}),
    "seed_oss": ("seed_oss", {}),
    "apertus": ("apertus", {"hidden_size": 64, "rope": LLAMA3}),
    "arcee": ("arcee", {"mlp_bias": True}),
    "nemotron": ("nemotron", {"head_dim": 32}),
    "stablelm": ("stablelm", {"hidden_size": 64, "partial_rotary_factor": 0.5}),
    "stablelm-parallel": ("stablelm", {"hidden_size": 64, "use_parallel_residual": True, "use_qkv_bias": True}),
    "bitnet": ("bitnet", {"hidden_size": 64, "hidden_act": "relu2"}),
    "helium": ("helium", {"hidden_size": 64}),
    "ministral": ("ministral", {"sliding_window": 7}),
    "ministral3": (
        "ministral3",
        {"rope": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.4}, "sliding_window": None},
    ),
}

CASES |= {
    "qwen3_moe": ("qwen3_moe", QWEN3_MOE | {"norm_topk_prob": True}),
    "qwen3_moe-some": (
        "qwen3_moe",
        QWEN3_MOE | {"norm_topk_prob": False, "decoder_sparse_step": 2, "mlp_only_layers": [3], "num_hidden_layers": 5},
    ),
    "qwen2_moe": (
        "qwen2_moe",
        {
            "hidden_size": 64,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 48,
            "norm_topk_prob": False,
        },
    ),
    "granitemoeshared": (
        "granitemoeshared",
        {
            "hidden_size": 64,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 48,
            "residual_multiplier": 0.6,
            "attention_multiplier": 0.3,
        },
    ),
    "olmoe": ("olmoe", {"hidden_size": 64, "num_experts": 6, "num_experts_per_tok": 2}),
    "granitemoe": (
        "granitemoe",
        {
            "hidden_size": 64,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "embedding_multiplier": 2.5,
            "residual_multiplier": 0.6,
            "attention_multiplier": 0.3,
            "logits_scaling": 0.7,
        },
    ),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "gpt_oss": (
        "gpt_oss",
        {
            "num_local_experts": 5,
            "num_experts_per_tok": 3,
            "sliding_window": 6,
            "rope": YARN | {"truncate": False, "beta_fast": 32.0, "beta_slow": 1.0},
        },
    ),
}

LFM2 = {
    "hidden_size": 64,
    "rms_norm_eps": None,
    "norm_eps": 1e-5,
    "num_hidden_layers": 5,
    "layer_types": ["conv", "conv", "full_attention", "conv", "full_attention"],
    "block_auto_adjust_ff_dim": False,
}

CASES |= {
    "lfm2": ("lfm2", LFM2),
    "lfm2-adjusted": (
        "lfm2",
        LFM2
        | {
            "conv_bias": True,
            "conv_L_cache": 4,
            "tie_word_embeddings": False,
            "block_auto_adjust_ff_dim": True,
            "intermediate_size": 300,
            "block_ffn_dim_multiplier": 0.7,
            "block_multiple_of": 32,
            "rope_theta": 5000.0,
        },
    ),
}

LFM2_MOE = LFM2 | {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "num_dense_layers": 2,
}

CASES |= {
    "lfm2_moe": ("lfm2_moe", LFM2_MOE),
    "lfm2_moe-scaled": (
        "lfm2_moe",
        LFM2_MOE
        | {"use_expert_bias": False, "norm_topk_prob": False, "routed_scaling_factor": 1.7, "num_dense_layers": 0},
    ),
}

QWEN3_5 = {
    "num_hidden_layers": 4,
    "head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
}

CASES |= {
    "qwen3_5": ("qwen3_5_text", QWEN3_5),
    "qwen3_5-listed": (
        "qwen3_5_text",
        QWEN3_5
        | {
            "layer_types": ["full_attention", "linear_attention", "linear_attention", "full_attention"],
            "attention_bias": True,
            "tie_word_embeddings": True,
            "linear_num_value_heads": 2,
            "linear_value_head_dim": 16,
            "linear_conv_kernel_dim": 3,
        },
    ),
}

CASES |= {
    "qwen3_5_moe": (
        "qwen3_5_moe_text",
        QWEN3_5
        | {
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 48,
            "linear_value_head_dim": 16,
        },
    )
}

GRANITE4_H = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "layer_types": ["mamba", "mamba", "attention", "mamba"],
    "mamba_d_state": 24,
    "embedding_multiplier": 2.5,
    "residual_multiplier": 0.6,
    "attention_multiplier": 0.3,
    "logits_scaling": 0.7,
}

CASES |= {
    "granite4-h": ("granitemoehybrid", GRANITE4_H),
    "granite4-h-bias": (
        "granitemoehybrid",
        GRANITE4_H
        | {
            "layer_types": ["attention", "mamba", "mamba", "attention"],
            "tie_word_embeddings": True,
            "mamba_conv_bias": False,
            "mamba_proj_bias": True,
            "mamba_n_heads": 6,
            "mamba_expand": 3,
            "mamba_d_conv": 3,
            "position_embedding_type": "rope",
        },
    ),
    "granite4-h-experts": ("granitemoehybrid", GRANITE4_H | {"num_local_experts": 5, "num_experts_per_tok": 2}),
}

NEWER = {"gemma4_text", "lfm2_moe", "ministral3", "qwen3_5_moe_text", "qwen3_5_text"}
"""Families that transformers 4 does not know."""
