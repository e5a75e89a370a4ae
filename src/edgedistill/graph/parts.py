"""Parts of the decoder as graphs of their own: the embedding, one layer up to a chosen point, the head.

They are built by the same code as the whole decoder, so that what is measured on a part holds for the whole; which
weights are quantized and where they lie is the emitter's affair. A layer takes whole sequences and no past.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgedistill.graph.attention import AttentionInputs
from edgedistill.graph.builder import MICROSOFT, GraphBuilder
from edgedistill.graph.decoder import IR_VERSION, OPSET, Decoder
from edgedistill.graph.per_layer import leave, per_layer_inputs
from edgedistill.graph.recurrent import StateInputs

if TYPE_CHECKING:
    from edgedistill.architecture.spec import ModelSpec
    from edgedistill.bundle.bit_planes import WidenedMatrix
    from edgedistill.graph.weights import WeightEmitter

OUTPUT = "hidden.out"
PER_LAYER = "per_layer"
"""Input of a layer: float32 [B, S, size], its part of a second embedding."""
KEYS_AND_VALUES = ("shared.key", "shared.value")
"""Inputs of a layer that reads another's: float32 [B, S, kv_heads * head] each, keys before RoPE."""
_SUPPLIED = "edgedistill.supplied"


def inputs_of(spec: ModelSpec, weight: str) -> str:
    """Name of the value that the matrix ``weight`` multiplies; what experts' ``down`` multiplies has none."""
    blocks = (".attn.", ".conv.", ".delta.", ".mamba.", ".mlp.", ".per_layer.")
    block = next(block for block in blocks if block in weight)
    layer, _, part = weight.partition(block)
    if block == ".per_layer.":
        return f"{layer}.sum" if part == "gate" else f"{layer}.per_layer.gated"
    return {
        "qkv": f"{layer}.input_norm.out",
        "query": f"{layer}.input_norm.out",
        "output_gate": f"{layer}.input_norm.out",
        "o": f"{layer}.attn.{'sub_norm.out' if spec.sub_norms else 'out'}",
        "gate": f"{layer}.{spec.mlp_input}.out",
        "up": f"{layer}.{spec.mlp_input}.out",
        "in": f"{layer}.input_norm.out",
        "out": f"{layer}{block}gated",
        "down": f"{layer}.mlp.{'sub_norm.out' if spec.sub_norms else 'gated'}",
        "experts.gate_up": f"{layer}.{spec.mlp_input}.out",
        "shared.gate": f"{layer}.{spec.mlp_input}.out",
        "shared.up": f"{layer}.{spec.mlp_input}.out",
        "shared.down": f"{layer}.mlp.shared.gated",
    }[part]


def build_embedding(spec: ModelSpec, weights: WeightEmitter) -> ir.Model:
    """input_ids int64 [B, S] to ``hidden.out`` float32 [B, S, H]."""
    b = GraphBuilder()
    ids = _value("input_ids", ir.DataType.INT64, ["batch", "sequence"])
    hidden = Decoder(b, spec, weights).embed(ids)
    return _model(b, [ids], [_named(b, hidden, spec.hidden_size)], spec, weights)


def build_second_embedding(spec: ModelSpec, weights: WeightEmitter) -> ir.Model:
    """input_ids int64 [B, S] to ``per_layer.inputs`` float32 [B, S, layers, size]."""
    b = GraphBuilder()
    ids = _value("input_ids", ir.DataType.INT64, ["batch", "sequence"])
    found = per_layer_inputs(b, spec, weights, ids, Decoder(b, spec, weights).embed(ids))
    assert found is not None
    found.type = ir.TensorType(ir.DataType.FLOAT)
    found.shape = ir.Shape(["batch", "sequence", spec.num_hidden_layers, spec.per_layer_size])
    return _model(b, [ids], [found], spec, weights)


def build_layer(
    spec: ModelSpec,
    weights: WeightEmitter,
    index: int,
    taps: tuple[str, ...] = (),
    *,
    positions: int,
    context: int | None = None,
) -> ir.Model:
    """One layer over whole sequences.

    Inputs: ``hidden`` float32 [B, S, H], ``seqlens_k`` int32 [B] (length - 1), ``query_seqlens`` int32 [B] (length),
    ``total_sequence_length`` int32 [] (S), ``past.key`` and ``past.value`` float32 [B, kv_heads, S, head], any content;
    ``PER_LAYER`` and ``KEYS_AND_VALUES`` where the layer reads those.

    Args:
        spec, weights: See ``build_graph``.
        index: Which layer.
        taps: Names of values inside the layer (``inputs_of``, ``OUTPUT``) to give out instead of the layer's output
            alone; nothing behind the last of them is computed.
        positions: The longest sequence. Every session computes its own rotary tables, so it pays to keep them short.
        context: The bundle's context, if it is not ``positions``: LongRoPE chooses its factors by it.
    """
    b = GraphBuilder()
    decoder = Decoder(b, spec, weights)
    hidden = _value("hidden", ir.DataType.FLOAT, ["batch", "sequence", spec.hidden_size])
    lengths = [_value(name, ir.DataType.INT32, ["batch"]) for name in ("seqlens_k", "query_seqlens")]
    total = _value("total_sequence_length", ir.DataType.INT32, [])
    layer, own = spec.layers[index], spec.of_layer(index)
    cache: list[str | int] = ["batch", spec.num_key_value_heads, "sequence", own.head_dim]
    past = [_value(f"past.{kind}", ir.DataType.FLOAT, cache) for kind in ("key", "value")]
    unused = (past[0], past[1])
    attention_inputs = AttentionInputs(
        lengths[0],
        total,
        lengths[1],
        {index if layer.keys_of is None else layer.keys_of: unused},
        lambda _: (
            _value("present.key", ir.DataType.FLOAT, cache),
            _value("present.value", ir.DataType.FLOAT, cache),
        ),
        positions,
        context=context,
        states=_no_states(b, spec, hidden, lengths[1]),
    )
    inputs = [hidden, *lengths, total, *past]
    if layer.keys_of is not None:
        made = [_value(name, ir.DataType.FLOAT, ["batch", "sequence", own.kv_size]) for name in KEYS_AND_VALUES]
        attention_inputs.made[layer.keys_of] = (made[0], made[1])
        inputs += made
    normed = decoder.enter(hidden, index)
    update, residual, _ = decoder.layer(layer, normed, hidden, attention_inputs)
    if spec.has_own_sizes:
        part = _value(PER_LAYER, ir.DataType.FLOAT, ["batch", "sequence", spec.per_layer_size])
        inputs += [part] if spec.per_layer_size else []
        behind = b.call("Add", [update, residual], f"layers.{index}.sum")
        out = leave(b, spec, weights, layer, behind, part if spec.per_layer_size else None, output="hidden.sum")
    else:
        out = b.call("Add", [update, residual], "hidden.sum")
    named = _named(b, out, spec.hidden_size)
    if not taps:
        return _model(b, inputs, [named], spec, weights)
    by_name = {value.name: value for node in b.nodes for value in node.outputs}
    outputs = []
    for name in taps:
        value = by_name[name]
        value.type = ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape(["batch", "sequence", None])
        outputs.append(value)
    model = _model(b, inputs, outputs, spec, weights)
    needed = ir.convenience.extract(model.graph, [value.name or "" for value in inputs], list(taps))
    return _with_supplied(ir.Model(needed, ir_version=IR_VERSION, producer_name="edgedistill"), weights)


def _no_states(b: GraphBuilder, spec: ModelSpec, hidden: ir.Value, counts: ir.Value) -> StateInputs:
    """States of zeros: those of a sequence's beginning."""
    shapes = dict(spec.states)

    def zeros(name: str) -> ir.Value:
        first = b.constant("axis_batch", np.array([0], dtype=np.int64))
        rows = b.once("Gather", [b.once("Shape", [hidden], "hidden.shape"), first], "rows", axis=0)
        rest = b.constant(f"{name}.shape", np.array(shapes[name], dtype=np.int64))
        return b.call("ConstantOfShape", [b.call("Concat", [rows, rest], f"{name}.size", axis=0)], f"{name}.past")

    return StateInputs(zeros, lambda name: _value(f"{name}.present", ir.DataType.FLOAT, ["batch"]), counts)


def supplied(model: ir.Model) -> tuple[WidenedMatrix, ...]:
    """What a part that was built here has to be supplied with."""
    matrices: tuple[WidenedMatrix, ...] = model.meta.get(_SUPPLIED, ())
    return matrices


def build_head(spec: ModelSpec, weights: WeightEmitter) -> ir.Model:
    """``hidden`` float32 [B, S, H], as the last layer gives it, to ``logits`` float32 [B, S, V]."""
    b = GraphBuilder()
    decoder = Decoder(b, spec, weights)
    hidden = _value("hidden", ir.DataType.FLOAT, ["batch", "sequence", spec.hidden_size])
    logits = decoder.logits(decoder.norm(hidden, "final_norm"))
    logits.type = ir.TensorType(ir.DataType.FLOAT)
    logits.shape = ir.Shape(["batch", "sequence", spec.vocab_size])
    return _model(b, [hidden], [logits], spec, weights)


def _named(b: GraphBuilder, value: ir.Value, size: int) -> ir.Value:
    out = b.call("Identity", [value], OUTPUT)
    out.type = ir.TensorType(ir.DataType.FLOAT)
    out.shape = ir.Shape(["batch", "sequence", size])
    return out


def _value(name: str, dtype: ir.DataType, shape: list[str | int]) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def _model(
    b: GraphBuilder, inputs: list[ir.Value], outputs: list[ir.Value], spec: ModelSpec, weights: WeightEmitter
) -> ir.Model:
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=b.nodes,
        initializers=list(b.initializers.values()),
        opset_imports={"": OPSET, MICROSOFT: 1},
        name=f"{spec.family}_part",
    )
    return _with_supplied(ir.Model(graph, ir_version=IR_VERSION, producer_name="edgedistill"), weights)


def _with_supplied(model: ir.Model, weights: WeightEmitter) -> ir.Model:
    """``model``, knowing which of its initializers ``weights`` left to be supplied (not stored with the graph)."""
    names = model.graph.initializers
    model.meta[_SUPPLIED] = tuple(matrix for matrix in weights.supplied if matrix.initializer in names)
    return model
