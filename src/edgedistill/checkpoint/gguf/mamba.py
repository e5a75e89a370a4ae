"""The Mamba 2 layers of Granite 4-h in a GGUF file: metadata, and what the converter changed in their tensors.

``ssm_a`` holds -exp(A); it and ``ssm_d`` have one column, and the rows of ``ssm_norm`` are the groups of heads. Other
layers have keys and values; their order of rows is that of Llama, though nothing is rotated.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgedistill.checkpoint.gguf.tensors import GgufPart
from edgedistill.errors import CheckpointError

if TYPE_CHECKING:
    from edgedistill.checkpoint.gguf.header import GgufTensor, Keys

NAMES = {
    "ssm_in": "mamba.in_proj",
    "ssm_conv1d": "mamba.conv1d",
    "ssm_dt": "mamba.dt_bias",
    "ssm_a": "mamba.A_log",
    "ssm_d": "mamba.D",
    "ssm_norm": "mamba.norm",
    "ssm_out": "mamba.out_proj",
}
_VECTORS = ("mamba.A_log", "mamba.D", "mamba.norm")


def mamba_config(keys: Keys, hidden: int) -> dict[str, Any]:
    """Sizes as config.json has them; raises CheckpointError where they contradict each other."""
    heads, inner = keys.integer("ssm.time_step_rank"), keys.integer("ssm.inner_size")
    if not (heads and hidden) or inner % heads or inner % hidden:
        raise CheckpointError(
            f"The GGUF file states Mamba layers of {inner} elements in {heads} heads, for a hidden size of {hidden}.",
            hint="Download it again.",
        )
    shared = keys.integer("expert_shared_feed_forward_length", 0)
    return {
        "mamba_n_heads": heads,
        "mamba_d_head": inner // heads,
        "mamba_expand": inner // hidden,
        "mamba_d_state": keys.integer("ssm.state_size"),
        "mamba_d_conv": keys.integer("ssm.conv_kernel"),
        "mamba_n_groups": keys.integer("ssm.group_count"),
        "num_local_experts": keys.integer("expert_count", 0),
        # Without experts, the shared MLP is the only one.
        "shared_intermediate_size": shared or keys.integer("feed_forward_length"),
        # What the converter says of RoPE: false, but for Bamba.
        "position_embedding_type": "rope" if keys.flag("rope.scaling.finetuned", True) else "nope",
    }


def part_of(module: str, stored: GgufTensor) -> GgufPart:
    """How the tensor ``module`` of a Mamba layer comes from the stored one."""
    if module in _VECTORS:
        stored = replace(stored, shape=(math.prod(stored.shape),))
    return GgufPart(stored, logarithm=module == "mamba.A_log")
