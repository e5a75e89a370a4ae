"""One attention block: packed QKV, optional QK-norm, GroupQueryAttention with rotary inside, output; rotary tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgedistill.architecture.rope import distinct_ropes
from edgedistill.graph.builder import MICROSOFT

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgedistill.architecture.spec import LayerSpec, ModelSpec, RopeSpec
    from edgedistill.graph.builder import GraphBuilder
    from edgedistill.graph.weights import WeightEmitter
    from edgedistill.quantize.kv import KvScales


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """What every layer's attention shares.

    ``seqlens_k`` int32 [B] is past + new - 1, ``total`` int32 scalar the cache's capacity (or the longest sequence),
    ``query_seqlens`` int32 [B] the new tokens of each row (None: all). ``past`` holds (key, value) of each layer;
    ``present`` makes the output values of a layer; ``positions`` is how far the rotary tables reach; ``kv`` has the
    scales of a quantized cache.
    """

    seqlens_k: ir.Value
    total: ir.Value
    query_seqlens: ir.Value | None
    past: tuple[tuple[ir.Value, ir.Value], ...]
    present: Callable[[int], tuple[ir.Value, ir.Value]]
    positions: int
    kv: KvScales | None = None


def attention(
    b: GraphBuilder, spec: ModelSpec, weights: WeightEmitter, layer: LayerSpec, x: ir.Value, *, inputs: AttentionInputs
) -> tuple[ir.Value, tuple[ir.Value, ir.Value]]:
    """Attention of ``x`` float32 [B, S, H] to itself and the cache: float32 [B, S, H], and present key and value."""
    name = f"layers.{layer.index}.attn"
    qkv = weights.linear(
        b, x, f"{name}.qkv", output=f"{name}.qkv.out", bias=f"{name}.qkv.bias" if spec.qkv_bias else None
    )
    query, key, value = _normed_heads(b, spec, weights, qkv, name) if spec.qk_norm else (qkv, None, None)
    cos = sin = None
    if layer.rope is not None:
        cos, sin = rope_tables(b, layer.rope, f"rope.{distinct_ropes(spec)[layer.rope]}", inputs.positions)
    arguments: list[ir.Value | None] = [
        query,
        key,
        value,
        *inputs.past[layer.index],
        inputs.seqlens_k,
        inputs.total,
        cos,
        sin,
    ]
    attributes: dict[str, Any] = {
        "num_heads": spec.num_attention_heads,
        "kv_num_heads": spec.num_key_value_heads,
        "scale": spec.attention_scale,
        "do_rotary": int(layer.rope is not None),
    }
    if layer.sliding_window is not None:
        attributes["local_window_size"] = layer.sliding_window
    if spec.attn_logit_softcapping is not None:
        attributes["softcap"] = spec.attn_logit_softcapping
    arguments += [None] * (17 - len(arguments))
    if inputs.kv is not None:
        attributes |= _quantized_cache(b, inputs.kv, layer.index, name, arguments)
    arguments[16] = inputs.query_seqlens
    while arguments[-1] is None:
        arguments.pop()
    present = inputs.present(layer.index)
    out = ir.Value(name=f"{name}.out")
    b.nodes.append(
        ir.node(
            "GroupQueryAttention", arguments, attributes, domain=MICROSOFT, outputs=[out, *present], name=f"{name}.gqa"
        )
    )
    projected = weights.linear(
        b, out, f"{name}.o", output=f"{name}.o.out", bias=f"{name}.o.bias" if spec.o_bias else None
    )
    return projected, present


def _quantized_cache(
    b: GraphBuilder, kv: KvScales, layer: int, name: str, arguments: list[ir.Value | None]
) -> dict[str, Any]:
    """Put the scales of a layer's cache among the arguments; the attributes that go with them."""
    for position, kind, scales in ((12, "key", kv.key), (13, "value", kv.value)):
        arguments[position] = b.constant(f"{name}.{kind}_scale", scales[layer])
    granularity = "PER_CHANNEL" if kv.granularity == "per-channel" else "PER_TENSOR"
    return {"kv_cache_bit_width": kv.bits, "k_quant_type": granularity, "v_quant_type": granularity}


def _normed_heads(
    b: GraphBuilder, spec: ModelSpec, weights: WeightEmitter, qkv: ir.Value, name: str
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Query, key and value apart, the first two normed per head (the CPU kernel of GroupQueryAttention refuses to)."""
    sizes = b.constant("qkv_sizes", np.array([spec.q_size, spec.kv_size, spec.kv_size], dtype=np.int64))
    query, key, value = b.op("Split", [qkv, sizes], f"{name}.split", outputs=3, axis=-1)

    def normed(x: ir.Value, which: str, heads: int) -> ir.Value:
        by_head = b.constant(f"{which}_by_head", np.array([0, 0, heads, spec.head_dim], dtype=np.int64))
        flat = b.constant(f"{which}_flat", np.array([0, 0, heads * spec.head_dim], dtype=np.int64))
        weight = weights.vector(b, f"{name}.{which}_norm")
        x = b.call("Reshape", [x, by_head], f"{name}.{which}.by_head")
        x = b.call(
            "SimplifiedLayerNormalization",
            [x, weight],
            f"{name}.{which}.normed",
            axis=-1,
            epsilon=spec.rms_norm_eps,
            stash_type=1,
        )
        return b.call("Reshape", [x, flat], f"{name}.{which}")

    return normed(query, "q", spec.num_attention_heads), normed(key, "k", spec.num_key_value_heads), value


def rope_tables(b: GraphBuilder, rope: RopeSpec, name: str, positions: int) -> tuple[ir.Value, ir.Value]:
    """Cos and sin of every position's angles, float32 [positions, head_dim/2] each, called ``{name}.cos``, ``.sin``.

    Angles are rounded to float32 before cos and sin, as transformers does: the model was trained with that rounding.
    Cos and sin are taken in float64, so that their float32 values do not depend on the processor's approximation.

    Args:
        b: Asked twice for one ``name``, it gives the same values.
        rope: Inverse frequencies and the factor on both tables.
        name: Prefix of all values.
        positions: Tokens from the first; at most 2**24, beyond which float32 skips integers.
    """
    if not 0 < positions <= 1 << 24:
        raise ValueError(f"{positions} positions; expected 1 to {1 << 24}")
    count = b.constant(f"positions.{positions}", np.array(positions, dtype=np.int64))
    zero, one = (b.constant(f"position_{part}", np.array(v, dtype=np.int64)) for part, v in (("first", 0), ("step", 1)))
    axis = b.constant("axis_frequencies", np.array([1], dtype=np.int64))
    inv_freq = b.constant(f"{name}.inv_freq", np.array([rope.inv_freq], dtype=np.float32))
    index = b.once("Range", [zero, count, one], f"positions.{positions}.index")
    column = b.once("Unsqueeze", [index, axis], f"positions.{positions}.column")
    column = b.once("Cast", [column], f"positions.{positions}.float", to=ir.DataType.FLOAT)
    angles = b.once("Mul", [column, inv_freq], f"{name}.angles.float32")
    angles = b.once("Cast", [angles], f"{name}.angles", to=ir.DataType.DOUBLE)

    def table(op_type: str, kind: str) -> ir.Value:
        scaled = rope.attention_scaling != 1.0
        value = b.once(op_type, [angles], f"{name}.{kind}.float64")
        value = b.once("Cast", [value], f"{name}.{kind}{'.unscaled' if scaled else ''}", to=ir.DataType.FLOAT)
        if not scaled:
            return value
        factor = b.constant(f"{name}.attention_scaling", np.array(rope.attention_scaling, dtype=np.float32))
        return b.once("Mul", [value, factor], f"{name}.{kind}")

    return table("Cos", "cos"), table("Sin", "sin")
