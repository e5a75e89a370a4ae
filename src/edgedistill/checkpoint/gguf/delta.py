"""The gated delta rule of Qwen3.5 in a GGUF file: metadata, and what the converter changed in its tensors.

Hugging Face keeps the value heads that share a key head together; llama.cpp wants those of all key heads in turn, so
that its converter put rows, or columns, of heads into another order. ``ssm_a`` holds -exp(A).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgedistill.checkpoint.gguf.header import Keys

    Order = npt.NDArray[np.int64]

NAMES = {
    "post_attention_norm": "post_attention_layernorm",
    "attn_qkv": "linear_attn.in_proj_qkv",
    "attn_gate": "linear_attn.in_proj_z",
    "ssm_beta": "linear_attn.in_proj_b",
    "ssm_alpha": "linear_attn.in_proj_a",
    "ssm_conv1d": "linear_attn.conv1d",
    "ssm_a": "linear_attn.A_log",
    "ssm_dt": "linear_attn.dt_bias",
    "ssm_norm": "linear_attn.norm",
    "ssm_out": "linear_attn.out_proj",
}


def delta_config(keys: Keys) -> dict[str, Any]:
    """Sizes as config.json has them; raises CheckpointError where they contradict each other."""
    heads, values = keys.integer("ssm.time_step_rank"), keys.integer("ssm.inner_size")
    key_heads = keys.integer("ssm.group_count")
    if not (key_heads and heads) or values % heads or heads % key_heads:
        raise CheckpointError(
            f"The GGUF file states {values} values of {heads} heads for {key_heads} key heads.",
            hint="Download it again.",
        )
    return {
        "linear_num_key_heads": key_heads,
        "linear_num_value_heads": heads,
        "linear_key_head_dim": keys.integer("ssm.state_size"),
        "linear_value_head_dim": values // heads,
        "linear_conv_kernel_dim": keys.integer("ssm.conv_kernel"),
        "full_attention_interval": keys.integer("full_attention_interval", 4),
    }


def rows_of(module: str, config: Mapping[str, Any]) -> Order | None:
    """Where each row of a tensor of Hugging Face's is stored; None: in its place."""
    part = module.removeprefix("linear_attn.")
    size = config["linear_value_head_dim"]
    before = 2 * config["linear_num_key_heads"] * config["linear_key_head_dim"]  # queries and keys
    known = {"in_proj_qkv": (before, size), "conv1d": (before, size), "in_proj_z": (0, size)}
    known |= dict.fromkeys(("in_proj_a", "in_proj_b", "A_log", "dt_bias"), (0, 1))
    return _order(config, *known[part]) if part in known else None


def columns_of(module: str, config: Mapping[str, Any]) -> Order | None:
    """The same of columns."""
    return _order(config, 0, config["linear_value_head_dim"]) if module == "linear_attn.out_proj" else None


def _order(config: Mapping[str, Any], before: int, size: int) -> Order:
    """``before`` elements in their place, then heads of ``size`` elements."""
    keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
    heads = np.arange(values).reshape(values // keys, keys).T.reshape(-1)
    inside = (heads[:, None] * size + np.arange(size)).reshape(-1)
    return np.concatenate([np.arange(before), before + inside]).astype(np.int64)
