"""Gemma 3n's residual streams (AltUp) and its learned residual beside attention (LAuReL).

The streams [B, S, streams, H] begin as the embedding and matrices' products with it. A layer is given the active one of
a prediction of all, and what it computes corrects them; at the end they are taken back and averaged. The source is
transformers ``models/gemma3n``; see Baykal et al. 2023 (arXiv:2301.13310) and Menghani et al. 2024 (arXiv:2411.07501).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgedistill.graph.per_layer import read_part

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgedistill.architecture.altup import AltUpSpec
    from edgedistill.architecture.spec import LayerSpec, ModelSpec
    from edgedistill.graph.builder import GraphBuilder
    from edgedistill.graph.weights import WeightEmitter

_LEAST_SQUARE = 1e-5


class Streams:
    """The streams of a decoder; each method appends nodes and returns the values they make."""

    def __init__(self, b: GraphBuilder, spec: ModelSpec, altup: AltUpSpec, weights: WeightEmitter) -> None:
        self._b = b
        self._spec = spec
        self._altup = altup
        self._weights = weights

    def begin(self, hidden: ir.Value) -> ir.Value:
        """The embedding ``hidden`` float32 [B, S, H] as streams, predicted for the first layer."""
        others = self._weights.linear(self._b, hidden, "altup.in", output="altup.in.out")
        first = self._b.call("Unsqueeze", [hidden, self._axis(2)], "altup.in.first")
        streams = self._with_scaled(first, others, "altup.in")
        return self._predict(streams, 0, "layers.0.input_norm.sum")

    def active(self, streams: ir.Value, name: str) -> ir.Value:
        """The active one of ``streams``: float32 [B, S, H], called ``name``; made once."""
        index = self._b.constant("altup.active", np.array(self._altup.active, dtype=np.int64))
        return self._b.once("Gather", [streams, index], name, axis=2)

    def leave(
        self, layer: LayerSpec, computed: ir.Value, predicted: ir.Value, part: ir.Value, *, output: str
    ) -> ir.Value:
        """The streams behind a layer, predicted for the next one; behind the last: their mean [B, S, H].

        Args:
            layer: It.
            computed: What it made of the active stream, float32 [B, S, H].
            predicted: The streams that were predicted for it.
            part: What the layer reads of the second embedding, float32 [B, S, size].
            output: Name of the result.
        """
        b, name = self._b, f"layers.{layer.index}.altup"
        weighted = self._weighted(computed, layer.index, "correct")
        active = self.active(predicted, f"{name}.active")
        error = b.call("Sub", [computed, active], f"{name}.error")
        index = b.constant("altup.active.kept", np.array([self._altup.active], dtype=np.int64))
        one = b.constant("altup.one", np.array(1, dtype=np.float32))
        own = b.call("Add", [b.call("Gather", [weighted, index], f"{name}.own", axis=2), one], f"{name}.own.sum")
        read = b.call("Add", [b.call("Mul", [error, own], f"{name}.own.error"), active], f"{name}.corrected")
        if self._altup.scaled:
            read = b.call("Mul", [read, self._weights.vector(b, f"{name}.scale")], f"{name}.corrected.scaled")
        second = read_part(b, self._spec, self._weights, layer, read, part)
        # Every stream takes the error, by 1 and its coefficient; all but the first take the part of the second
        # embedding, whichever is active.
        added = np.ones((self._altup.streams, 2), dtype=np.float32)
        added[0, 1] = 0
        columns = b.call("Unsqueeze", [weighted, self._axis(3)], f"{name}.columns")
        columns = b.call("Mul", [columns, b.constant("altup.first", np.eye(1, 2, dtype=np.float32))], f"{name}.both")
        columns = b.call("Add", [columns, b.constant("altup.added", added)], f"{name}.both.sum")
        rows = [
            b.call("Unsqueeze", [value, self._axis(2)], f"{name}.{which}.row")
            for value, which in ((error, "error"), (second, "part"))
        ]
        changes = b.call("MatMul", [columns, b.call("Concat", rows, f"{name}.rows", axis=2)], f"{name}.changes")
        streams = b.call("Add", [predicted, changes], f"{name}.streams")
        following = layer.index + 1
        if following == self._spec.num_hidden_layers:
            return self._merged(streams, output)
        return self._predict(streams, following, output)

    def with_laurel(self, layer: LayerSpec, normed: ir.Value, update: ir.Value, residual: ir.Value) -> ir.Value:
        """(residual + update + normed + norm(right(left(normed)))) / sqrt(2), float32 [B, S, H].

        Args:
            layer: Which.
            normed: What its attention read.
            update: What that gave, behind its norm.
            residual: The active stream.
        """
        b, name = self._b, f"layers.{layer.index}.laurel"
        left = self._weights.linear(b, normed, f"{name}.left", output=f"{name}.left.out")
        right = self._weights.linear(b, left, f"{name}.right", output=f"{name}.right.out")
        laurel = b.call("Add", [normed, self._norm(right, f"{name}.norm")], f"{name}.out")
        total = b.call("Add", [b.call("Add", [residual, update], f"{name}.attn"), laurel], f"{name}.sum")
        half = b.constant("laurel.factor", np.array(2**-0.5, dtype=np.float32))
        return b.call("Mul", [total, half], f"layers.{layer.index}.{self._spec.mlp_input}.sum")

    def _predict(self, streams: ir.Value, layer: int, output: str) -> ir.Value:
        """Every stream and a sum of all, weighted by what the router makes of the active one."""
        b, count, name = self._b, self._altup.streams, f"layers.{layer}.altup.predict"
        weighted = self._weighted(self.active(streams, f"{name}.active"), layer, "predict")
        square = b.constant("altup.square", np.array([0, 0, count, count], dtype=np.int64))
        weighted = b.call("Reshape", [weighted, square], f"{name}.coefficients")
        # The streams themselves: a sum of 4 x 4 numbers is cheaper than one of 4 x H.
        itself = b.constant("altup.itself", np.eye(count, dtype=np.float32))
        return b.call("MatMul", [b.call("Add", [weighted, itself], f"{name}.sum"), streams], output)

    def _weighted(self, x: ir.Value, layer: int, role: str) -> ir.Value:
        """The matrix ``role`` times tanh(router(norm(x)) / H), of ``x`` float32 [B, S, H]: a number for each row."""
        b, name = self._b, f"layers.{layer}.altup"
        normed = self._norm(x, f"{name}.router_norm", f"{name}.{role}.normed")
        routed = self._weights.linear(b, normed, f"{name}.router", output=f"{name}.{role}.routed")
        factor = b.constant("altup.router.factor", np.array(1 / self._spec.hidden_size, dtype=np.float32))
        modalities = b.call("Tanh", [b.call("Mul", [routed, factor], f"{name}.{role}.scaled")], f"{name}.{role}.tanh")
        return self._weights.linear(b, modalities, f"{name}.{role}", output=f"{name}.{role}.out")

    def _merged(self, streams: ir.Value, output: str) -> ir.Value:
        """The mean of the first stream and of products with the others, called ``output``."""
        b = self._b
        others = []
        for index in range(self._altup.streams):
            which = b.constant(f"altup.stream.{index}", np.array(index, dtype=np.int64))
            others.append(b.call("Gather", [streams, which], f"altup.out.stream.{index}", axis=2))
        first = b.call("Unsqueeze", [others.pop(0), self._axis(2)], "altup.out.first")
        products = [
            self._weights.linear(b, stream, f"altup.out.{index}", output=f"altup.out.{index}.out")
            for index, stream in enumerate(others)
        ]
        whole = self._with_scaled(first, b.call("Concat", products, "altup.out.flat", axis=-1), "altup.out")
        return b.call("ReduceMean", [whole, self._axis(2)], output, keepdims=0)

    def _with_scaled(self, first: ir.Value, others: ir.Value, name: str) -> ir.Value:
        """``first`` float32 [B, S, 1, H] and the ``others`` [B, S, (streams - 1) * H] scaled to its magnitude."""
        b, count = self._b, self._altup.streams - 1
        shape = b.constant("altup.others", np.array([0, 0, count, self._spec.hidden_size], dtype=np.int64))
        others = b.call("Reshape", [others, shape], f"{name}.others")

        def square(x: ir.Value, which: str) -> ir.Value:
            last = b.constant("axis_last", np.array([-1], dtype=np.int64))
            return b.call("ReduceMean", [b.call("Mul", [x, x], f"{name}.{which}.squared"), last],
                          f"{name}.{which}.square", keepdims=1)  # fmt: skip

        least = b.constant("altup.least_square", np.array(_LEAST_SQUARE, dtype=np.float32))
        target = b.call("Sqrt", [square(first, "target")], f"{name}.target")
        found = b.call(
            "Sqrt", [b.call("Max", [square(others, "found"), least], f"{name}.found.bounded")], f"{name}.found"
        )
        scaled = b.call("Div", [b.call("Mul", [others, target], f"{name}.grown"), found], f"{name}.scaled")
        return b.call("Concat", [first, scaled], f"{name}.streams", axis=2)

    def _norm(self, x: ir.Value, name: str, output: str | None = None) -> ir.Value:
        return self._b.call(
            "SimplifiedLayerNormalization",
            [x, self._weights.vector(self._b, name)],
            output or f"{name}.out",
            axis=-1,
            epsilon=self._spec.rms_norm_eps,
            stash_type=1,
        )

    def _axis(self, axis: int) -> ir.Value:
        return self._b.constant(f"axes.{axis}", np.array([axis], dtype=np.int64))
