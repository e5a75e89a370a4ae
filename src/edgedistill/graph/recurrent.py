"""Layers with a state of fixed size: short convolution (LFM2), gated delta rule (Qwen3.5), Mamba 2 (Granite 4-h).

Rows of unequal length are padded on the right, and padding must not enter a state: each row's new state ends with its
own last token that counts. The state that goes in and the one that comes out may be one buffer, so that a state is read
by a single node, before anything is written. onnxruntime's CausalConvWithState does neither, and its CPU kernel takes a
hundred times as long for a chunk of a prompt as the sums and products below. GatedDeltaNet does the delta rule token by
token, the same in any chunking; padding is kept out of its state by gates that leave it as it is. Mamba 2 is its update
rule ``gated``: values t x, keys B, queries C. The time steps t come from LinearAttentionGate, which computes every
element by itself: the bits of onnxruntime's Softplus depend on how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.architecture.recurrent import Mamba2Spec, ShortConvSpec
from edgedistill.graph.builder import MICROSOFT

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from edgedistill.architecture.recurrent import GatedDeltaSpec, RecurrentSpec
    from edgedistill.graph.builder import GraphBuilder
    from edgedistill.graph.weights import WeightEmitter


_END = (1 << 63) - 1
_SHUT = -1e30
"""Before a sigmoid or a softplus: exactly 0, so that a token is neither written into a state nor makes it forget."""


@dataclass(frozen=True, slots=True)
class StateInputs:
    """What recurrent layers share.

    ``past`` gives the state of that name (``3.conv``) float32 [B, *shape] as it is before the new tokens, ``present``
    the output value of the one after them. ``counts`` int32 [B]: how many new tokens of a row enter its states.
    """

    past: Callable[[str], ir.Value]
    present: Callable[[str], ir.Value]
    counts: ir.Value


def recurrent(
    b: GraphBuilder,
    spec: RecurrentSpec,
    weights: WeightEmitter,
    index: int,
    x: ir.Value,
    inputs: StateInputs,
    *,
    eps: float,
) -> tuple[ir.Value, tuple[ir.Value, ...]]:
    """What layer ``index`` makes of ``x`` float32 [B, S, H] in place of attention: float32 [B, S, H], and new states.

    ``eps`` is that of the model's norms.
    """
    if isinstance(spec, ShortConvSpec):
        return _short_conv(b, spec, weights, index, x, inputs)
    if isinstance(spec, Mamba2Spec):
        return _mamba2(b, spec, weights, index, x, inputs, eps)
    return _gated_delta(b, spec, weights, index, x, inputs, eps)


def _short_conv(
    b: GraphBuilder, conv: ShortConvSpec, weights: WeightEmitter, index: int, x: ir.Value, inputs: StateInputs
) -> tuple[ir.Value, tuple[ir.Value, ...]]:
    name = f"layers.{index}.conv"

    def bias(role: str) -> str | None:
        return f"{name}.{role}.bias" if conv.bias else None

    size = conv.channels
    projected = weights.linear(b, x, f"{name}.in", output=f"{name}.in.out", bias=bias("in"))
    sizes = b.constant(f"thirds.{size}", np.array([size] * 3, dtype=np.int64))
    before, after, value = b.op("Split", [projected, sizes], f"{name}.split", outputs=3, axis=-1)
    entering = b.call("Mul", [before, value], f"{name}.entering")
    convolved, state = _causal_conv(b, weights, entering, name, f"{index}.conv", conv.kernel, inputs, bias=conv.bias)
    gated = b.call("Mul", [after, convolved], f"{name}.gated")
    return weights.linear(b, gated, f"{name}.out", output=f"{name}.out.out", bias=bias("out")), (state,)


def _gated_delta(
    b: GraphBuilder,
    delta: GatedDeltaSpec,
    weights: WeightEmitter,
    index: int,
    x: ir.Value,
    inputs: StateInputs,
    eps: float,
) -> tuple[ir.Value, tuple[ir.Value, ...]]:
    name = f"layers.{index}.delta"

    def split(value: ir.Value, what: str, *sizes: int) -> tuple[ir.Value, ...]:
        parts = b.constant(f"delta_{what}_sizes", np.array(sizes, dtype=np.int64))
        return b.op("Split", [value, parts], f"{name}.split.{what}", outputs=len(sizes), axis=-1)

    def heads(value: ir.Value, what: str, count: int, size: int) -> ir.Value:
        shape = b.constant(f"delta_{what}_heads", np.array([0, 0, count, size], dtype=np.int64))
        return b.call("Reshape", [value, shape], f"{name}.{what}")

    projected = weights.linear(b, x, f"{name}.in", output=f"{name}.in.out")
    mixed, gate = split(projected, "parts", delta.channels, delta.values)
    mixed, conv = _causal_conv(b, weights, mixed, name, f"{index}.conv", delta.kernel, inputs, bias=False)
    mixed = _silu(b, mixed, f"{name}.mixed")
    query, key, value = split(mixed, "qkv", delta.keys, delta.keys, delta.values)
    gates = weights.linear(b, x, f"{name}.gates", output=f"{name}.gates.out")
    open_gates = _shut_for_padding(b, gates, x, inputs.counts, name)
    rate, decay = split(open_gates, "gates", delta.value_heads, delta.value_heads)
    vectors = [weights.vector(b, f"{name}.{part}") for part in ("a_log", "dt_bias")]
    operands = [
        heads(query, "q", delta.key_heads, delta.key_size),
        heads(key, "k", delta.key_heads, delta.key_size),
        heads(value, "v", delta.value_heads, delta.value_size),
        None,
        decay,
        rate,
        inputs.past(f"{index}.delta"),
        *vectors,
    ]
    out, state = b.op(
        "GatedDeltaNet", operands, f"{name}.heads", domain=MICROSOFT, outputs=2,
        gate_activation="softplus", beta_activation="sigmoid", qk_l2_norm=1,
    )  # fmt: skip
    _called(state, inputs.present(f"{index}.delta"))
    flat = b.constant("delta_flat", np.array([0, 0, delta.values], dtype=np.int64))
    out = b.call("Reshape", [out, flat], f"{name}.flat")
    norm = weights.vector(b, f"{name}.norm")
    gated = b.call("GatedRMSNorm", [out, norm, gate], f"{name}.gated", domain=MICROSOFT, epsilon=eps, activation="silu")
    return weights.linear(b, gated, f"{name}.out", output=f"{name}.out.out"), (conv, state)


def _mamba2(
    b: GraphBuilder,
    mamba: Mamba2Spec,
    weights: WeightEmitter,
    index: int,
    x: ir.Value,
    inputs: StateInputs,
    eps: float,
) -> tuple[ir.Value, tuple[ir.Value, ...]]:
    name = f"layers.{index}.mamba"
    heads, size = mamba.heads, mamba.state_size

    def split(value: ir.Value, what: str, *sizes: int) -> tuple[ir.Value, ...]:
        parts = b.constant(f"mamba_{what}_sizes", np.array(sizes, dtype=np.int64))
        return b.op("Split", [value, parts], f"{name}.split.{what}", outputs=len(sizes), axis=-1)

    def shaped(value: ir.Value, what: str, *shape: int) -> ir.Value:
        wanted = b.constant(f"mamba_{what}_shape", np.array([0, 0, *shape], dtype=np.int64))
        return b.call("Reshape", [value, wanted], f"{name}.{what}")

    def bias(role: str) -> str | None:
        return f"{name}.{role}.bias" if mamba.bias else None

    def vector(part: str) -> ir.Value:
        return weights.vector(b, f"{name}.{part}")

    projected = weights.linear(b, x, f"{name}.in", output=f"{name}.in.out", bias=bias("in"))
    gate, mixed = split(projected, "parts", mamba.values, mamba.channels)
    mixed, conv = _causal_conv(b, weights, mixed, name, f"{index}.conv", mamba.kernel, inputs, bias=mamba.conv_bias)
    value, key, query = split(_silu(b, mixed, f"{name}.mixed"), "xbc", mamba.values, size, size)
    value = shaped(value, "x", heads, mamba.head_size)
    raw = weights.linear(b, x, f"{name}.gates", output=f"{name}.gates.out", bias=bias("gates"))
    raw = _shut_for_padding(b, raw, x, inputs.counts, name)
    ones = b.constant("mamba_ones", np.ones(heads, dtype=np.float32))
    steps = b.call("LinearAttentionGate", [raw, vector("dt_bias"), ones], f"{name}.time_steps", domain=MICROSOFT)
    operands = [
        shaped(query, "c", 1, size),
        shaped(key, "b", 1, size),
        b.call("Mul", [value, shaped(steps, "time_steps.by_head", heads, 1)], f"{name}.entering"),
        None,
        raw,
        None,
        inputs.past(f"{index}.ssm"),
        vector("a_log"),
        vector("dt_bias"),
    ]
    out, state = b.op(
        "GatedDeltaNet", operands, f"{name}.heads", domain=MICROSOFT, outputs=2,
        update_rule="gated", gate_activation="softplus", scale=1.0,
    )  # fmt: skip
    _called(state, inputs.present(f"{index}.ssm"))
    column = b.constant("mamba_column", np.array([heads, 1], dtype=np.int64))
    skipped = b.call("Mul", [value, b.once("Reshape", [vector("d"), column], f"{name}.d.column")], f"{name}.skipped")
    out = shaped(b.call("Add", [out, skipped], f"{name}.sum.heads"), "flat", mamba.values)
    active = b.call("Mul", [out, _silu(b, gate, f"{name}.gate")], f"{name}.active")
    gated = b.call(
        "SimplifiedLayerNormalization", [active, vector("norm")], f"{name}.gated", axis=-1, epsilon=eps, stash_type=1
    )
    out = weights.linear(b, gated, f"{name}.out", output=f"{name}.out.out", bias=bias("out"))
    return out, (conv, state)


def _silu(b: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    return b.call("Mul", [x, b.call("Sigmoid", [x], f"{name}.sigmoid")], name)


def _shut_for_padding(b: GraphBuilder, gates: ir.Value, x: ir.Value, counts: ir.Value, name: str) -> ir.Value:
    """``gates`` [B, S, n] as they are where a column of ``x`` enters the states, shut elsewhere."""
    shut = b.constant("gates_shut", np.array(_SHUT, dtype=np.float32))
    return b.call("Where", [_counted(b, x, counts, name), gates, shut], f"{name}.gates.counted")


def _counted(b: GraphBuilder, x: ir.Value, counts: ir.Value, name: str) -> ir.Value:
    """Which columns of ``x`` [B, S, ...] enter the states: bool [B, S, 1]."""
    zero, one = (b.constant(f"position_{part}", np.array(v, dtype=np.int64)) for part, v in (("first", 0), ("step", 1)))
    length = b.call("Squeeze", [b.call("Shape", [x], f"{name}.length.nd", start=1, end=2)], f"{name}.length")
    steps = b.call("Range", [zero, length, one], f"{name}.steps")
    last = b.constant("axis_last", np.array([-1], dtype=np.int64))
    here = b.call("Less", [steps, _start(b, counts)], f"{name}.counted")
    return b.call("Unsqueeze", [here, last], f"{name}.counted.nd")


def _causal_conv(
    b: GraphBuilder,
    weights: WeightEmitter,
    x: ir.Value,
    name: str,
    state: str,
    width: int,
    inputs: StateInputs,
    *,
    bias: bool,
) -> tuple[ir.Value, ir.Value]:
    """A causal depthwise convolution of ``x`` float32 [B, S, C] with the kernel ``{name}.kernel`` [C, width].

    Returns float32 [B, S, C] and the new state: the last width - 1 columns that count. Every element is the same sum
    of products, in the same order, whatever is computed with it.
    """
    axis = b.constant("axis_sequence.nd", np.array([1], dtype=np.int64))
    columns = b.call("Concat", [inputs.past(state), x], f"{name}.columns", axis=1)
    kernel = b.once("Transpose", [weights.vector(b, f"{name}.kernel")], f"{name}.kernel.taps", perm=[1, 0])
    taps = b.once_many("Split", [kernel], f"{name}.kernel.tap", width, axis=0, num_outputs=width)
    total: ir.Value | None = None
    for tap, weight in enumerate(taps):
        behind = width - 1 - tap
        first, last = _ints(b, f"first.{tap}", tap), _ints(b, f"behind.{behind}", -behind if behind else _END)
        seen = b.call("Slice", [columns, first, last, axis], f"{name}.seen.{tap}")
        product = b.call("Mul", [seen, weight], f"{name}.product.{tap}")
        total = product if total is None else b.call("Add", [total, product], f"{name}.sum.{tap}")
    assert total is not None
    if bias:
        total = b.call("Add", [total, weights.vector(b, f"{name}.kernel.bias")], f"{name}.sum")
    kept = b.call("GatherND", [columns, _kept(b, inputs.counts, width)], f"{name}.kept", batch_dims=1)
    _called(kept, inputs.present(state))
    return total, kept


def _called(value: ir.Value, like: ir.Value) -> None:
    """Give ``value`` the name, shape and type of ``like``."""
    value.name, value.shape, value.type = like.name, like.shape, like.type


def _kept(b: GraphBuilder, counts: ir.Value, width: int) -> ir.Value:
    """Which columns are the new state: int64 [B, width - 1, 1]."""
    last = b.constant("axis_last", np.array([-1], dtype=np.int64))
    start = _start(b, counts)
    steps = b.constant(f"states.steps.{width}", np.arange(width - 1, dtype=np.int64)[None])
    return b.once("Unsqueeze", [b.once("Add", [start, steps], f"states.kept.{width}"), last], f"states.index.{width}")


def _start(b: GraphBuilder, counts: ir.Value) -> ir.Value:
    """``counts`` as int64 [B, 1]."""
    last = b.constant("axis_last", np.array([-1], dtype=np.int64))
    return b.once("Unsqueeze", [b.once("Cast", [counts], "states.counts", to=7), last], "states.start")


def _ints(b: GraphBuilder, name: str, value: int) -> ir.Value:
    return b.constant(f"states.{name}", np.array([value], dtype=np.int64))
