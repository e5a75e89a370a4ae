"""Tiny random checkpoints with recurrent layers, written without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from checkpoint_fixtures import CONFIG, write_directory, write_safetensors

if TYPE_CHECKING:
    from pathlib import Path

_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

LFM2: dict[str, Any] = {
    "model_type": "lfm2",
    "architectures": ["Lfm2ForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    "conv_L_cache": 3,
    "norm_eps": 1e-5,
    "block_auto_adjust_ff_dim": False,
    "max_position_embeddings": 512,
}


QWEN3_5: dict[str, Any] = {
    "model_type": "qwen3_5_text",
    "architectures": ["Qwen3_5ForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "head_dim": 32,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "max_position_embeddings": 512,
}


GRANITE4_H: dict[str, Any] = {
    "model_type": "granitemoehybrid",
    "architectures": ["GraniteMoeHybridForCausalLM"],
    "hidden_size": 64,
    "shared_intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_local_experts": 0,
    "layer_types": ["mamba", "attention", "mamba", "mamba"],
    "mamba_n_heads": 8,
    "mamba_d_state": 24,
    "mamba_d_conv": 4,
    "attention_multiplier": 0.3,
    "residual_multiplier": 0.6,
    "logits_scaling": 0.7,
    "max_position_embeddings": 512,
}


def qwen3_5_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint's tensors."""
    c = CONFIG | config
    hidden, inner, head = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * head, c["num_key_value_heads"] * head
    heads, values = c["linear_num_value_heads"], c["linear_num_value_heads"] * c["linear_value_head_dim"]
    channels = 2 * c["linear_num_key_heads"] * c["linear_key_head_dim"] + values
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c["vocab_size"], hidden)}
    for index in range(c["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        if (index + 1) % 4:
            own = f"{layer}.linear_attn"
            shapes |= {
                f"{own}.in_proj_qkv.weight": (channels, hidden),
                f"{own}.in_proj_z.weight": (values, hidden),
                f"{own}.in_proj_b.weight": (heads, hidden),
                f"{own}.in_proj_a.weight": (heads, hidden),
                f"{own}.conv1d.weight": (channels, 1, c["linear_conv_kernel_dim"]),
                f"{own}.A_log": (heads,),
                f"{own}.dt_bias": (heads,),
                f"{own}.norm.weight": (c["linear_value_head_dim"],),
                f"{own}.out_proj.weight": (hidden, values),
            }
        else:
            shapes |= {
                f"{layer}.self_attn.q_proj.weight": (2 * q, hidden),
                f"{layer}.self_attn.k_proj.weight": (kv, hidden),
                f"{layer}.self_attn.v_proj.weight": (kv, hidden),
                f"{layer}.self_attn.o_proj.weight": (hidden, q),
                f"{layer}.self_attn.q_norm.weight": (head,),
                f"{layer}.self_attn.k_norm.weight": (head,),
            }
        shapes |= {
            f"{layer}.input_layernorm.weight": (hidden,),
            f"{layer}.post_attention_layernorm.weight": (hidden,),
            f"{layer}.mlp.gate_proj.weight": (inner, hidden),
            f"{layer}.mlp.up_proj.weight": (inner, hidden),
            f"{layer}.mlp.down_proj.weight": (hidden, inner),
        }
    return shapes | {"model.norm.weight": (hidden,)}


def lfm2_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint's tensors."""
    c = CONFIG | config
    hidden, inner, head = c["hidden_size"], c["intermediate_size"], c["hidden_size"] // c["num_attention_heads"]
    kv = c["num_key_value_heads"] * head
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c["vocab_size"], hidden)}
    for index, kind in enumerate(c["layer_types"]):
        layer = f"model.layers.{index}"
        if kind == "conv":
            shapes |= {
                f"{layer}.conv.in_proj.weight": (3 * hidden, hidden),
                f"{layer}.conv.conv.weight": (hidden, 1, c["conv_L_cache"]),
                f"{layer}.conv.out_proj.weight": (hidden, hidden),
            }
        else:
            shapes |= {
                f"{layer}.self_attn.q_proj.weight": (hidden, hidden),
                f"{layer}.self_attn.k_proj.weight": (kv, hidden),
                f"{layer}.self_attn.v_proj.weight": (kv, hidden),
                f"{layer}.self_attn.out_proj.weight": (hidden, hidden),
                f"{layer}.self_attn.q_layernorm.weight": (head,),
                f"{layer}.self_attn.k_layernorm.weight": (head,),
            }
        shapes |= {
            f"{layer}.operator_norm.weight": (hidden,),
            f"{layer}.ffn_norm.weight": (hidden,),
            f"{layer}.feed_forward.w1.weight": (inner, hidden),
            f"{layer}.feed_forward.w3.weight": (inner, hidden),
            f"{layer}.feed_forward.w2.weight": (hidden, inner),
        }
    return shapes | {"model.embedding_norm.weight": (hidden,)}


def granite4_h_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint's tensors."""
    c = CONFIG | config
    hidden, inner, heads = c["hidden_size"], c["shared_intermediate_size"], c["mamba_n_heads"]
    kv, channels = c["num_key_value_heads"] * c["head_dim"], 2 * hidden + 2 * c["mamba_d_state"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c["vocab_size"], hidden)}
    for index, kind in enumerate(c["layer_types"]):
        layer = f"model.layers.{index}"
        if kind == "mamba":
            shapes |= {
                f"{layer}.mamba.in_proj.weight": (2 * hidden + channels + heads, hidden),
                f"{layer}.mamba.conv1d.weight": (channels, 1, c["mamba_d_conv"]),
                f"{layer}.mamba.conv1d.bias": (channels,),
                f"{layer}.mamba.A_log": (heads,),
                f"{layer}.mamba.dt_bias": (heads,),
                f"{layer}.mamba.D": (heads,),
                f"{layer}.mamba.norm.weight": (2 * hidden,),
                f"{layer}.mamba.out_proj.weight": (hidden, 2 * hidden),
            }
        else:
            shapes |= {
                f"{layer}.self_attn.q_proj.weight": (hidden, hidden),
                f"{layer}.self_attn.k_proj.weight": (kv, hidden),
                f"{layer}.self_attn.v_proj.weight": (kv, hidden),
                f"{layer}.self_attn.o_proj.weight": (hidden, hidden),
            }
        shapes |= {
            f"{layer}.input_layernorm.weight": (hidden,),
            f"{layer}.post_attention_layernorm.weight": (hidden,),
            f"{layer}.shared_mlp.input_linear.weight": (2 * inner, hidden),
            f"{layer}.shared_mlp.output_linear.weight": (hidden, inner),
        }
    return shapes | {"model.norm.weight": (hidden,)}


def write_lfm2(directory: Path, **overrides: Any) -> Path:
    """A random LFM2 of two convolutions and two attention layers."""
    config = LFM2 | overrides
    config["head_dim"] = config["hidden_size"] // CONFIG["num_attention_heads"]
    return _write(directory, config, lfm2_shapes(config), norm=1)


def write_qwen3_5(directory: Path, **overrides: Any) -> Path:
    """A random Qwen3.5 of three gated delta rules and an attention layer."""
    config = QWEN3_5 | overrides
    return _write(directory, config, qwen3_5_shapes(config), norm=0)


def write_granite4_h(directory: Path, **overrides: Any) -> Path:
    """A random Granite 4-h of three Mamba layers and an attention layer without positions."""
    config = GRANITE4_H | overrides
    config["head_dim"] = config["hidden_size"] // CONFIG["num_attention_heads"]
    return _write(directory, config, granite4_h_shapes(config), norm=1)


def _write(directory: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]], *, norm: float) -> Path:
    """Logits spread as in a trained model; ``norm`` is the mean of the norms' weights."""
    write_directory(directory, **config)
    (directory / "chat_template.jinja").write_text(_TEMPLATE)
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes.items():
        noise = rng.standard_normal(shape, dtype=np.float32)
        mean = 1 if "linear_attn.norm" in name else norm
        tensors[name] = mean + noise * np.float32(0.05) if "norm" in name else noise / np.float32(np.sqrt(shape[-1]))
    write_safetensors(directory / "model.safetensors", tensors)
    return directory


WRITERS = {"granite4_h": write_granite4_h, "lfm2": write_lfm2, "qwen3_5": write_qwen3_5}
