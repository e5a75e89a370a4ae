"""Layers that keep a state of fixed size in place of keys and values: what they are, and what their state is.

A state is all that a layer keeps of the tokens so far. It cannot be cut back: what it was some tokens ago is known
only if it was kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgedistill.checkpoint.config_values import integer, number, per_layer
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgedistill.architecture.family import Recurrent

_HINT = "Try --exporter optimum."
_LONGEST_KERNEL = 64
_NO_LIMIT = (None, [0.0, math.inf], [0.0, {"__float__": "Infinity"}])
"""Bounds of Mamba's time steps that change nothing, in the spellings of transformers 4 and 5."""


@dataclass(frozen=True, slots=True)
class State:
    """A state of a layer: float32 [batch, *shape], called ``name`` within the layer."""

    name: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes for one sequence."""
        return 4 * math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class ShortConvSpec:
    """A gated short convolution (LFM2): out(c * conv(b * x)) with b, c, x = in(hidden).

    The convolution is causal and depthwise over ``kernel`` tokens; its state is the last ``kernel - 1`` of its inputs.
    """

    channels: int
    kernel: int
    bias: bool = False

    @property
    def states(self) -> tuple[State, ...]:
        """Inputs of the convolution, oldest first."""
        return (State("conv", (self.kernel - 1, self.channels)),)


@dataclass(frozen=True, slots=True)
class GatedDeltaSpec:
    """A gated delta rule (Yang et al. 2024, arXiv:2412.06464; Qwen3.5's linear attention) behind a short convolution.

    Queries, keys and values go through a causal depthwise convolution over ``kernel`` tokens and a SiLU; every
    ``value_heads / key_heads`` value heads share a query and a key, of length 1. A head's state S, ``value_size`` by
    ``key_size``, becomes a S + b (v - a S k) k^T with the token's a = exp(-exp(A) softplus(x + dt)) and
    b = sigmoid(y); its output S q / sqrt(key_size) is normed and multiplied by the SiLU of a gate.
    """

    key_heads: int
    value_heads: int
    key_size: int
    value_size: int
    kernel: int

    @property
    def keys(self) -> int:
        """Elements of all keys of a token, and of all queries."""
        return self.key_heads * self.key_size

    @property
    def values(self) -> int:
        """Elements of all values of a token."""
        return self.value_heads * self.value_size

    @property
    def channels(self) -> int:
        """Channels of the convolution: queries, keys, values."""
        return 2 * self.keys + self.values

    @property
    def states(self) -> tuple[State, ...]:
        """Inputs of the convolution, oldest first, and S of every value head."""
        matrix = State("delta", (self.value_heads, self.value_size, self.key_size))
        return (State("conv", (self.kernel - 1, self.channels)), matrix)


@dataclass(frozen=True, slots=True)
class Mamba2Spec:
    """A state space layer (Mamba 2: Dao and Gu 2024, arXiv:2405.21060; Granite 4-h) behind a short convolution.

    x, B and C go through a causal depthwise convolution over ``kernel`` tokens and a SiLU; all heads share B and C. A
    head's state S, ``head_size`` by ``state_size``, becomes exp(-exp(A) t) S + t x B^T with the token's
    t = softplus(y + dt); its output S C + D x is multiplied by the SiLU of a gate, and all heads are normed together.
    ``bias``: of the projections in and out.
    """

    heads: int
    head_size: int
    state_size: int
    kernel: int
    conv_bias: bool = True
    bias: bool = False

    @property
    def values(self) -> int:
        """Elements of x of a token, and of the gate."""
        return self.heads * self.head_size

    @property
    def channels(self) -> int:
        """Channels of the convolution: x, B, C."""
        return self.values + 2 * self.state_size

    @property
    def states(self) -> tuple[State, ...]:
        """Inputs of the convolution, oldest first, and S of every head."""
        matrix = State("ssm", (self.heads, self.head_size, self.state_size))
        return (State("conv", (self.kernel - 1, self.channels)), matrix)


RecurrentSpec = ShortConvSpec | GatedDeltaSpec | Mamba2Spec


def recurrent_layers(
    config: Mapping[str, Any], recurrent: Recurrent | None, count: int, hidden_size: int
) -> tuple[RecurrentSpec | None, ...]:
    """What each layer has in place of attention; None: it is an attention layer.

    Raises:
        CheckpointError: The config contradicts itself.
        UnsupportedModelError: All layers are recurrent.
    """
    if recurrent is None:
        return (None,) * count
    kinds = per_layer(config, "layer_types", count) or per_layer(config, "layers_block_type", count)
    if kinds is None and recurrent.attention_every:
        every = integer(config, "full_attention_interval", recurrent.attention_every)
        kinds = tuple(recurrent.layer_type if (i + 1) % every else "full_attention" for i in range(count))
    elif kinds is None and recurrent.attention_list:
        listed = config.get(recurrent.attention_list)
        chosen = set(listed) if isinstance(listed, list | tuple) else set(range(count))
        kinds = tuple("full_attention" if index in chosen else recurrent.layer_type for index in range(count))
    if kinds is None:
        raise CheckpointError(f"config.json has no layer_types; expected {count} of them.", hint="Download it again.")
    if not {"full_attention", "attention"}.intersection(kinds):
        raise UnsupportedModelError(
            "The model has no layer of full attention; at least one is expected beside the recurrent ones.", hint=_HINT
        )
    if not set(recurrent.layer_types).intersection(kinds):
        return (None,) * count
    known: dict[str, Callable[[Mapping[str, Any], int], RecurrentSpec]]
    known = {"conv": _short_conv, "linear_attention": _gated_delta, "mamba": _mamba2}
    spec = known[recurrent.layer_type](config, hidden_size)
    return tuple(spec if kind in recurrent.layer_types else None for kind in kinds)


def _short_conv(config: Mapping[str, Any], hidden_size: int) -> ShortConvSpec:
    return ShortConvSpec(hidden_size, _kernel(config, "conv_L_cache", 3), bool(config.get("conv_bias", False)))


def _gated_delta(config: Mapping[str, Any], _hidden_size: int) -> GatedDeltaSpec:
    spec = GatedDeltaSpec(
        integer(config, "linear_num_key_heads", 16),
        integer(config, "linear_num_value_heads", 32),
        integer(config, "linear_key_head_dim", 128),
        integer(config, "linear_value_head_dim", 128),
        _kernel(config, "linear_conv_kernel_dim", 4),
    )
    if spec.value_heads % spec.key_heads:
        raise CheckpointError(f"{spec.value_heads} value heads cannot share {spec.key_heads} key heads evenly.")
    return spec


def _mamba2(config: Mapping[str, Any], hidden_size: int) -> Mamba2Spec:
    heads, inner = integer(config, "mamba_n_heads", 128), integer(config, "mamba_expand", 2) * hidden_size
    stated = config.get("mamba_d_head", "auto")
    size = inner // heads if stated in ("auto", None) else integer(config, "mamba_d_head")
    if heads * size != inner:
        raise CheckpointError(f"{heads} Mamba heads of {size} elements do not make up {inner} of them.")
    if (groups := integer(config, "mamba_n_groups", 1)) != 1:
        # transformers 4 norms all groups together, 5 each by itself: neither reading would be safe.
        raise UnsupportedModelError(f"The Mamba layers have {groups} groups of heads; one is expected.", hint=_HINT)
    if config.get("time_step_limit") not in _NO_LIMIT:
        raise UnsupportedModelError(
            f"config.json has time_step_limit = {config['time_step_limit']!r}; no limit (0 to Infinity) is expected.",
            hint=_HINT,
        )
    return Mamba2Spec(
        heads,
        size,
        integer(config, "mamba_d_state", 256),
        _kernel(config, "mamba_d_conv", 4),
        bool(config.get("mamba_conv_bias", True)),
        bool(config.get("mamba_proj_bias", False)),
    )


def _kernel(config: Mapping[str, Any], key: str, default: int) -> int:
    kernel = integer(config, key, default)
    if not 2 <= kernel <= _LONGEST_KERNEL:
        raise CheckpointError(
            f"config.json has {key} = {kernel}; a kernel of 2 to {_LONGEST_KERNEL} tokens is expected.",
            hint="Compare config.json with the original model's.",
        )
    return kernel


def adjusted_mlp(config: Mapping[str, Any], size: int) -> int:
    """Inner size of LFM2's MLP: two thirds of the stated size, times a factor, rounded up to a multiple."""
    if not config.get("block_auto_adjust_ff_dim", True):
        return size
    size = int(2 * size / 3)
    factor = config.get("block_ffn_dim_multiplier", 1.0)
    if factor is None:
        return size
    multiple = integer(config, "block_multiple_of", 256)
    return -(-int(number(config, "block_ffn_dim_multiplier", 1.0) * size) // multiple) * multiple
