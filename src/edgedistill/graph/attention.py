"""One attention block: packed QKV, optional QK-norm, GroupQueryAttention with rotary inside, output; rotary tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgedistill.architecture.rope import distinct_ropes
from edgedistill.graph.activations import rounded
from edgedistill.graph.builder import MICROSOFT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgedistill.architecture.spec import LayerSpec, ModelSpec, QueryScaling, RopeSpec
    from edgedistill.graph.builder import GraphBuilder
    from edgedistill.graph.recurrent import StateInputs
    from edgedistill.graph.weights import WeightEmitter
    from edgedistill.quantize.kv import KvScales


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """What every layer's attention shares.

    ``seqlens_k`` int32 [B] is past + new - 1, ``total`` int32 scalar the cache's capacity (or the longest sequence),
    ``query_seqlens`` int32 [B] the new tokens of each row (None: all). ``past`` holds (key, value) of each layer;
    ``present`` makes the output values of a layer; ``positions`` is how far the rotary tables reach, ``context`` the
    bundle's context (None: the same), by which LongRoPE chooses its factors; ``kv`` has the scales of a quantized
    cache. ``bias`` float32 [B, 1, S, total] is added to the scores; ``position_ids`` int64 [B, S] are the absolute
    positions, if a token's place in the cache is not (None: it is). ``states``: of recurrent layers. ``made``: keys,
    before RoPE, and values of the new tokens, by layer, for layers that read another's.
    """

    seqlens_k: ir.Value
    total: ir.Value
    query_seqlens: ir.Value | None
    past: Mapping[int, tuple[ir.Value, ir.Value]]
    present: Callable[[int], tuple[ir.Value, ir.Value]]
    positions: int
    kv: KvScales | None = None
    context: int | None = None
    bias: ir.Value | None = None
    position_ids: ir.Value | None = None
    states: StateInputs | None = None
    made: dict[int, tuple[ir.Value, ir.Value]] = field(default_factory=dict)


def attention(
    b: GraphBuilder, spec: ModelSpec, weights: WeightEmitter, layer: LayerSpec, x: ir.Value, *, inputs: AttentionInputs
) -> tuple[ir.Value, tuple[ir.Value, ir.Value]]:
    """Attention of ``x`` float32 [B, S, H] to itself and the cache: float32 [B, S, H], and present key and value."""
    name = f"layers.{layer.index}.attn"
    source = layer.index if layer.keys_of is None else layer.keys_of
    read = rounded(b, x) if spec.rounded_inputs else x
    projection = f"{name}.qkv" if layer.keys_of is None else f"{name}.query"
    qkv = weights.linear(
        b, read, projection, output=f"{projection}.out", bias=f"{projection}.bias" if spec.qkv_bias else None
    )
    tables = _tables(b, spec, layer, inputs)
    if layer.keys_of is None:
        query, key, value, tables = _own_operands(b, spec, weights, inputs, x, qkv, tables, name)
    else:
        query = head_norm(b, spec, qkv, f"{name}.q", spec.num_attention_heads, weights.vector(b, f"{name}.q_norm"))
        key, value = inputs.made[layer.keys_of]
    if key is not None and value is not None:
        inputs.made[layer.index] = (key, value)
    cos, sin = tables or (None, None)
    arguments: list[ir.Value | None] = [
        query,
        key,
        value,
        *inputs.past[source],
        inputs.seqlens_k,
        inputs.total,
        cos,
        sin,
    ]
    attributes: dict[str, Any] = {
        "num_heads": spec.num_attention_heads,
        "kv_num_heads": spec.num_key_value_heads,
        "scale": spec.attention_scale,
        "do_rotary": int(tables is not None),
    }
    if layer.sliding_window is not None:
        attributes["local_window_size"] = layer.sliding_window
    if spec.attn_logit_softcapping is not None:
        attributes["softcap"] = spec.attn_logit_softcapping
    arguments += [None] * (17 - len(arguments))
    if spec.attention_sinks:
        arguments[11] = weights.vector(b, f"{name}.sinks")
    if inputs.kv is not None:
        ordinal = spec.attention_layers.index(source)
        attributes |= _quantized_cache(b, inputs.kv, ordinal, name, arguments)
    arguments[10], arguments[16] = inputs.bias, inputs.query_seqlens
    while arguments[-1] is None:
        arguments.pop()
    present = inputs.present(layer.index)
    out = ir.Value(name=f"{name}.heads" if spec.output_gate else f"{name}.out")
    b.nodes.append(
        ir.node(
            "GroupQueryAttention", arguments, attributes, domain=MICROSOFT, outputs=[out, *present], name=f"{name}.gqa"
        )
    )
    return _projected(b, spec, weights, x, out, name), present


def _tables(
    b: GraphBuilder, spec: ModelSpec, layer: LayerSpec, inputs: AttentionInputs
) -> tuple[ir.Value, ir.Value] | None:
    """Cos and sin of the layer's RoPE; None: it has none."""
    if layer.rope is None:
        return None
    name = f"rope.{distinct_ropes(spec)[layer.rope]}"
    # Of the graphs, the portable one has position_ids.
    everywhere = inputs.position_ids is not None
    return rope_tables(b, layer.rope, name, inputs.positions, context=inputs.context, float64=not everywhere)


def _own_operands(
    b: GraphBuilder,
    spec: ModelSpec,
    weights: WeightEmitter,
    inputs: AttentionInputs,
    x: ir.Value,
    qkv: ir.Value,
    tables: tuple[ir.Value, ir.Value] | None,
    name: str,
) -> tuple[ir.Value, ir.Value | None, ir.Value | None, tuple[ir.Value, ir.Value] | None]:
    """Query, key and value of GroupQueryAttention (``qkv`` alone, where nothing comes between), and the tables of the
    rotation that is left to it.
    """
    scaling = spec.query_scaling
    scales = scaling is not None and (inputs.context or inputs.positions) > scaling.length
    if spec.qk_norm == "none" and not scales:
        return qkv, None, None, tables
    query, key, value = _split(b, spec, qkv, name)
    if scaling is not None and scales:
        # RoPE turns queries, so that it makes no difference which comes first.
        query = b.call("Mul", [query, _query_scale(b, scaling, inputs, x)], f"{name}.q.scaled")
    if spec.qk_norm != "none":
        if spec.qk_norm == "head_after_rope" and tables is not None:
            query, key = _rotate(b, spec, inputs, x, (query, key), tables, name)
            tables = None
        query, key = _normed(b, spec, weights, query, key, name)
    if spec.value_norm:
        ones = b.constant(f"ones.{spec.head_dim}", np.ones(spec.head_dim, dtype=np.float32))
        value = head_norm(b, spec, value, f"{name}.v", spec.num_key_value_heads, ones)
    return query, key, value, tables


def _projected(
    b: GraphBuilder, spec: ModelSpec, weights: WeightEmitter, x: ir.Value, out: ir.Value, name: str
) -> ir.Value:
    """The last matrix, behind what stands between it and the heads' ``out``."""
    if spec.output_gate:
        bias = f"{name}.output_gate.bias" if spec.qkv_bias else None
        gate = weights.linear(b, x, f"{name}.output_gate", output=f"{name}.output_gate.out", bias=bias)
        out = b.call("Mul", [out, b.call("Sigmoid", [gate], f"{name}.output_gate.open")], f"{name}.out")
    if spec.sub_norms:
        weight = weights.vector(b, f"{name}.sub_norm")
        out = _rms_norm(b, spec, out, weight, f"{name}.sub_norm.out")
    out = rounded(b, out) if spec.rounded_inputs else out
    return weights.linear(b, out, f"{name}.o", output=f"{name}.o.out", bias=f"{name}.o.bias" if spec.o_bias else None)


def _quantized_cache(
    b: GraphBuilder, kv: KvScales, ordinal: int, name: str, arguments: list[ir.Value | None]
) -> dict[str, Any]:
    """Put the scales of an attention layer's cache among the arguments; the attributes that go with them."""
    for position, kind, scales in ((12, "key", kv.key), (13, "value", kv.value)):
        arguments[position] = b.constant(f"{name}.{kind}_scale", scales[ordinal])
    granularity = "PER_CHANNEL" if kv.granularity == "per-channel" else "PER_TENSOR"
    return {"kv_cache_bit_width": kv.bits, "k_quant_type": granularity, "v_quant_type": granularity}


def _split(b: GraphBuilder, spec: ModelSpec, qkv: ir.Value, name: str) -> tuple[ir.Value, ir.Value, ir.Value]:
    sizes = b.constant(
        f"qkv_sizes.{spec.head_dim}", np.array([spec.q_size, spec.kv_size, spec.kv_size], dtype=np.int64)
    )
    query, key, value = b.op("Split", [qkv, sizes], f"{name}.split", outputs=3, axis=-1)
    return query, key, value


def _normed(
    b: GraphBuilder, spec: ModelSpec, weights: WeightEmitter, query: ir.Value, key: ir.Value, name: str
) -> tuple[ir.Value, ir.Value]:
    """Query and key normed, per head or whole (the CPU kernel of GroupQueryAttention refuses to)."""

    def normed(x: ir.Value, which: str, heads: int) -> ir.Value:
        weight = weights.vector(b, f"{name}.{which}_norm")
        if spec.qk_norm == "full":
            return _rms_norm(b, spec, x, weight, f"{name}.{which}")
        return head_norm(b, spec, x, f"{name}.{which}", heads, weight)

    return normed(query, "q", spec.num_attention_heads), normed(key, "k", spec.num_key_value_heads)


def _rms_norm(b: GraphBuilder, spec: ModelSpec, x: ir.Value, weight: ir.Value, output: str) -> ir.Value:
    attributes: dict[str, Any] = {"axis": -1, "epsilon": spec.rms_norm_eps, "stash_type": 1}
    return b.call("SimplifiedLayerNormalization", [x, weight], output, **attributes)


def head_norm(b: GraphBuilder, spec: ModelSpec, x: ir.Value, name: str, heads: int, weight: ir.Value) -> ir.Value:
    """``x`` float32 [B, S, heads * head_dim] normed head by head, called ``name``."""
    which = f"{heads}x{spec.head_dim}"
    by_head = b.constant(f"by_head.{which}", np.array([0, 0, heads, spec.head_dim], dtype=np.int64))
    flat = b.constant(f"flat.{which}", np.array([0, 0, heads * spec.head_dim], dtype=np.int64))
    x = _rms_norm(b, spec, b.call("Reshape", [x, by_head], f"{name}.by_head"), weight, f"{name}.normed")
    return b.call("Reshape", [x, flat], name)


def _rotate(
    b: GraphBuilder,
    spec: ModelSpec,
    inputs: AttentionInputs,
    x: ir.Value,
    heads: tuple[ir.Value, ir.Value],
    tables: tuple[ir.Value, ir.Value],
    name: str,
) -> tuple[ir.Value, ir.Value]:
    """Query and key after RoPE, for a norm that comes behind it (GroupQueryAttention rotates what it is given).

    The norm's weights differ by channel, so that what comes out depends on absolute positions.
    """
    positions = _positions(b, inputs, x)
    rotated = [
        b.call(
            "RotaryEmbedding",
            [value, positions, *tables],
            f"{name}.{which}.rotated",
            domain=MICROSOFT,
            num_heads=count,
            rotary_embedding_dim=0,
        )
        for value, which, count in zip(
            heads, ("q", "k"), (spec.num_attention_heads, spec.num_key_value_heads), strict=True
        )
    ]
    return rotated[0], rotated[1]


def _query_scale(b: GraphBuilder, scaling: QueryScaling, inputs: AttentionInputs, x: ir.Value) -> ir.Value:
    """Factors float32 [B, S, 1] on queries by their positions."""

    def number(name: str, value: float) -> ir.Value:
        return b.constant(f"query_scale.{name}", np.array(value, dtype=np.float32))

    one, last = number("one", 1.0), b.constant("axis_last", np.array([-1], dtype=np.int64))
    position = b.once("Cast", [_positions(b, inputs, x)], "query_scale.position", to=ir.DataType.FLOAT)
    share = b.once("Div", [position, number("length", scaling.length)], "query_scale.share")
    grown = b.once("Add", [b.once("Floor", [share], "query_scale.floor"), one], "query_scale.grown")
    growth = b.once("Mul", [b.once("Log", [grown], "query_scale.log"), number("beta", scaling.beta)], "query_scale.mul")
    return b.once("Unsqueeze", [b.once("Add", [growth, one], "query_scale.flat"), last], "query_scale")


def _positions(b: GraphBuilder, inputs: AttentionInputs, x: ir.Value) -> ir.Value:
    """Positions int64 [B, S] of the new tokens; those of padding are cut to the end of the tables."""
    if inputs.position_ids is not None:
        return inputs.position_ids
    zero, one = (b.constant(f"position_{part}", np.array(v, dtype=np.int64)) for part, v in (("first", 0), ("step", 1)))
    axis = b.constant("axis_sequence", np.array(1, dtype=np.int64))
    unsqueezed = b.constant("axis_after_batch", np.array([1], dtype=np.int64))
    last = b.constant("position_last", np.array(inputs.positions - 1, dtype=np.int64))
    length = b.once("Gather", [b.once("Shape", [x], "positions.shape"), axis], "positions.new", axis=0)
    steps = b.once("Range", [zero, length, one], "positions.steps")
    last_key = b.once("Cast", [inputs.seqlens_k], "positions.last_key", to=ir.DataType.INT64)
    new = length
    if inputs.query_seqlens is not None:
        new = b.once("Cast", [inputs.query_seqlens], "positions.query", to=ir.DataType.INT64)
    past = b.once("Sub", [b.once("Add", [last_key, one], "positions.total"), new], "positions.past")
    start = b.once("Unsqueeze", [past, unsqueezed], "positions.start")
    wanted = b.once("Add", [start, steps], "positions.unbounded")
    return b.once("Max", [b.once("Min", [wanted, last], "positions.below"), zero], "positions")


def rope_tables(
    b: GraphBuilder, rope: RopeSpec, name: str, positions: int, *, context: int | None = None, float64: bool = True
) -> tuple[ir.Value, ir.Value]:
    """Cos and sin of every position's angles, float32 [positions, head_dim/2] each, called ``{name}.cos``, ``.sin``.

    Angles are rounded to float32 before cos and sin, as transformers does: the model was trained with that rounding.
    Cos and sin are taken in float64, so that their float32 values do not depend on the processor's approximation.

    Args:
        b: Asked twice for one ``name``, it gives the same values.
        rope: Inverse frequencies and the factor on both tables.
        name: Prefix of all values.
        positions: Tokens from the first; at most 2**24, beyond which float32 skips integers.
        context: Length that the frequencies are for, if it is not ``positions``.
        float64: False: cos and sin of float32, for runtimes without float64 (onnxruntime-web).
    """
    if not 0 < positions <= 1 << 24:
        raise ValueError(f"{positions} positions; expected 1 to {1 << 24}")
    count = b.constant(f"positions.{positions}", np.array(positions, dtype=np.int64))
    zero, one = (b.constant(f"position_{part}", np.array(v, dtype=np.int64)) for part, v in (("first", 0), ("step", 1)))
    axis = b.constant("axis_frequencies", np.array([1], dtype=np.int64))
    inv_freq = b.constant(f"{name}.inv_freq", np.array([rope.frequencies(context or positions)], dtype=np.float32))
    index = b.once("Range", [zero, count, one], f"positions.{positions}.index")
    column = b.once("Unsqueeze", [index, axis], f"positions.{positions}.column")
    column = b.once("Cast", [column], f"positions.{positions}.float", to=ir.DataType.FLOAT)
    angles = b.once("Mul", [column, inv_freq], f"{name}.angles.float32")
    if float64:
        angles = b.once("Cast", [angles], f"{name}.angles", to=ir.DataType.DOUBLE)

    def table(op_type: str, kind: str) -> ir.Value:
        scaled = rope.attention_scaling != 1.0
        result = f"{name}.{kind}{'.unscaled' if scaled else ''}"
        value = b.once(op_type, [angles], f"{name}.{kind}.float64" if float64 else result)
        if float64:
            value = b.once("Cast", [value], result, to=ir.DataType.FLOAT)
        if not scaled:
            return value
        # Elements that are not rotated are not scaled either.
        factors = [rope.attention_scaling if frequency else 1.0 for frequency in rope.inv_freq]
        factor = b.constant(f"{name}.attention_scaling", np.array([factors], dtype=np.float32))
        return b.once("Mul", [value, factor], f"{name}.{kind}")

    return table("Cos", "cos"), table("Sin", "sin")
