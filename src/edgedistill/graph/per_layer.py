"""The second embedding of Gemma 3n and 4, of which every layer reads its own part, and the number that ends a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgedistill.graph.activations import activate

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgedistill.architecture.spec import LayerSpec, ModelSpec
    from edgedistill.graph.builder import GraphBuilder
    from edgedistill.graph.weights import WeightEmitter

INPUTS = "per_layer.inputs"


def per_layer_inputs(
    b: GraphBuilder, spec: ModelSpec, weights: WeightEmitter, input_ids: ir.Value, hidden: ir.Value
) -> ir.Value | None:
    """What the layers read of the tokens besides ``hidden``: float32 [B, S, layers, size]; None: nothing.

    (norm(in(hidden) / sqrt(H)) + embed(ids) * sqrt(size)) / sqrt(2), as ``project_per_layer_inputs`` of transformers'
    Gemma 3n and 4 have it. ``hidden`` float32 [B, S, H] is the embedding. Tokens without a row read the first one.
    """
    size = spec.per_layer_size
    if not size:
        return None

    def scaled(x: ir.Value, factor: float, output: str) -> ir.Value:
        return b.call("Mul", [x, b.constant(f"{output}.factor", np.array(factor, dtype=np.float32))], output)

    shape = b.constant("per_layer.shape", np.array([0, 0, spec.num_hidden_layers, size], dtype=np.int64))
    read = weights.linear(b, hidden, "per_layer.in", output="per_layer.in.out")
    read = scaled(read, spec.hidden_size**-0.5, "per_layer.in.scaled")
    read = b.call(
        "SimplifiedLayerNormalization",
        [b.call("Reshape", [read, shape], "per_layer.in.by_layer"), weights.vector(b, "per_layer.norm")],
        "per_layer.in.normed",
        axis=-1,
        epsilon=spec.rms_norm_eps,
        stash_type=1,
    )
    if spec.per_layer_vocab < spec.vocab_size:
        count, first = (
            b.constant(f"per_layer.{part}", np.array(value, dtype=np.int64))
            for part, value in (("rows", spec.per_layer_vocab), ("first_row", 0))
        )
        known = b.call("Less", [input_ids, count], "per_layer.known")
        input_ids = b.call("Where", [known, input_ids, first], "per_layer.ids")
    rows = weights.embedding(b, input_ids, "per_layer.embed", output="per_layer.embedding")
    rows = scaled(rows, size**0.5, "per_layer.embedding.scaled")
    rows = b.call("Reshape", [rows, shape], "per_layer.embedding.by_layer")
    return scaled(b.call("Add", [read, rows], "per_layer.sum"), 2**-0.5, INPUTS)


def part_of_layer(b: GraphBuilder, layer: LayerSpec, per_layer: ir.Value | None) -> ir.Value | None:
    """A layer's part float32 [B, S, size] of ``per_layer_inputs``; None if there is none."""
    if per_layer is None:
        return None
    name = f"layers.{layer.index}.per_layer"
    index = b.constant(f"{name}.index", np.array(layer.index, dtype=np.int64))
    return b.call("Gather", [per_layer, index], f"{name}.part", axis=2)


def read_part(
    b: GraphBuilder, spec: ModelSpec, weights: WeightEmitter, layer: LayerSpec, x: ir.Value, part: ir.Value
) -> ir.Value:
    """norm(out(activation(gate(x)) * part)) of ``x`` float32 [B, S, H] and the layer's ``part`` [B, S, size]."""
    name = f"layers.{layer.index}.per_layer"
    gate = weights.linear(b, x, f"{name}.gate", output=f"{name}.gate.out")
    active = activate(b, weights, spec.activation, gate, name=name, output=f"{name}.active")
    gated = b.call("Mul", [active, part], f"{name}.gated")
    out = weights.linear(b, gated, f"{name}.out", output=f"{name}.out.out")
    return b.call(
        "SimplifiedLayerNormalization",
        [out, weights.vector(b, f"{name}.norm")],
        f"{name}.norm.out",
        axis=-1,
        epsilon=spec.rms_norm_eps,
        stash_type=1,
    )


def leave(
    b: GraphBuilder,
    spec: ModelSpec,
    weights: WeightEmitter,
    layer: LayerSpec,
    hidden: ir.Value,
    part: ir.Value | None,
    *,
    output: str,
) -> ir.Value:
    """The end of a layer of Gemma 4, behind its MLP: (h + ``read_part`` of it) * scalar, called ``output``.

    ``hidden`` float32 [B, S, H]; ``part`` float32 [B, S, size] is what the layer reads of the second embedding, None
    where there is none.
    """
    if part is not None:
        read = read_part(b, spec, weights, layer, hidden, part)
        hidden = b.call("Add", [hidden, read], f"layers.{layer.index}.per_layer.sum")
    return b.call("Mul", [hidden, weights.vector(b, f"layers.{layer.index}.scalar")], output)
