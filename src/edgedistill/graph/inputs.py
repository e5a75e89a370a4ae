"""Inputs and outputs of the decoder's graph in each signature; what they mean stands in ``decoder``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx_ir as ir

from edgedistill.graph.attention import AttentionInputs
from edgedistill.graph.recurrent import StateInputs

if TYPE_CHECKING:
    from edgedistill.architecture.spec import ModelSpec
    from edgedistill.graph.builder import GraphBuilder
    from edgedistill.quantize.kv import KvScales

Signature = Literal["edgedistill", "genai", "portable"]
_HIDDEN = -1e9
"""Added to the score of a key that is padding: its weight is 0, and a row of padding alone stays finite."""
SPARE = 2
"""Positions behind the context, for tokens that are computed beside others and do not count."""


class GraphInputs:
    """Graph inputs of a signature, in order."""

    def __init__(self, spec: ModelSpec, signature: Signature, kv: KvScales | None, positions: int) -> None:
        self._spec = spec
        self._kv = kv
        self._positions = positions
        self._signature = signature
        # The names of axes are read by what feeds the portable graph.
        self.batch, self.sequence = (
            ("batch_size", "sequence_length") if signature == "portable" else ("batch", "sequence")
        )
        self._states: dict[str, ir.Value] = {}
        self._past_axis = "capacity" if signature == "edgedistill" else "past_sequence_length"
        self._present_axis = "capacity" if signature == "edgedistill" else "total_sequence_length"
        self._scalars: list[ir.Value] = []
        self.input_ids = self._input("input_ids", ir.DataType.INT64, [self.batch, self.sequence])
        self.logit_index: ir.Value | None = None
        self._past: list[ir.Value] = []

    def all(self) -> list[ir.Value]:
        return [*self._scalars, *self._past, *self._states.values()]

    def of_signature(self, b: GraphBuilder) -> AttentionInputs:
        """Make the inputs, and what attention takes of them."""
        if self._signature == "edgedistill":
            return self.edgedistill()
        return self.genai(b) if self._signature == "genai" else self.portable(b)

    def edgedistill(self) -> AttentionInputs:
        seqlens_k = self._input("seqlens_k", ir.DataType.INT32, ["batch"])
        query_seqlens = self._input("query_seqlens", ir.DataType.INT32, ["batch"])
        total = self._input("total_sequence_length", ir.DataType.INT32, [])
        self.logit_index = self._input("logit_index", ir.DataType.INT64, ["batch", "logits"])
        inputs = self._attention_inputs(seqlens_k, total, query_seqlens)
        if not self._spec.states:
            return inputs
        counts = self._input("state_seqlens", ir.DataType.INT32, ["batch"])
        self._states = {name: self._state(f"past_state.{name}", shape) for name, shape in self._spec.states}
        shapes = dict(self._spec.states)
        states = StateInputs(
            self._states.__getitem__, lambda name: self._state(f"present_state.{name}", shapes[name]), counts
        )
        return replace(inputs, positions=self._positions + SPARE, context=self._positions, states=states)

    def _state(self, name: str, shape: tuple[int, ...]) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape([self.batch, *shape]), type=ir.TensorType(ir.DataType.FLOAT))

    def genai(self, b: GraphBuilder) -> AttentionInputs:
        """Lengths from the attention mask, as the exporter of onnxruntime-genai computes them."""
        mask, total = self._mask(b)
        one = b.constant("one", np.array([1], dtype=np.int64))
        valid = b.call("ReduceSum", [mask, one], "attention_mask.sum", keepdims=0)
        seqlens_k = b.call("Cast", [b.call("Sub", [valid, one], "seqlens_k.int64")], "seqlens_k", to=ir.DataType.INT32)
        return self._attention_inputs(seqlens_k, total, None)

    def portable(self, b: GraphBuilder) -> AttentionInputs:
        """Every row as long as the mask, whose zeros become a bias float32 [B, 1, S, total] on the scores."""
        mask, total = self._mask(b)
        position_ids = self._input("position_ids", ir.DataType.INT64, [self.batch, self.sequence])
        ones = [
            b.constant(f"one.{name}", np.array(1, dtype=kind)) for name, kind in (("int32", "int32"), ("f", "float32"))
        ]
        shape = b.call("Shape", [self.input_ids], "input_ids.shape")
        rows = b.call("Gather", [shape, b.constant("axis_batch", np.array([0], dtype=np.int64))], "rows", axis=0)
        seqlens_k = b.call("Expand", [b.call("Sub", [total, ones[0]], "last_key"), rows], "seqlens_k")
        padding = b.call("Sub", [ones[1], b.call("Cast", [mask], "mask.float", to=ir.DataType.FLOAT)], "mask.padding")
        hidden = b.call("Mul", [padding, b.constant("mask.hidden", np.array(_HIDDEN, dtype=np.float32))], "mask.scores")
        axes = b.constant("axes_scores", np.array([1, 2], dtype=np.int64))
        new = b.call("Gather", [shape, b.constant("axis_new", np.array([1], dtype=np.int64))], "new", axis=0)
        single = b.constant("one.int64", np.array([1], dtype=np.int64))
        wanted = b.call("Concat", [rows, single, new, single], "attention_bias.shape", axis=0)
        bias = b.call("Expand", [b.call("Unsqueeze", [hidden, axes], "mask.by_key"), wanted], "attention_bias")
        inputs = self._attention_inputs(seqlens_k, total, None)
        return replace(inputs, bias=bias, position_ids=position_ids)

    def _mask(self, b: GraphBuilder) -> tuple[ir.Value, ir.Value]:
        """The attention mask int64 [B, total], and ``total`` as an int32 scalar."""
        mask = self._input("attention_mask", ir.DataType.INT64, [self.batch, "total_sequence_length"])
        shape = b.call("Shape", [mask], "attention_mask.shape")
        axis = b.constant("axis_total", np.array(1, dtype=np.int64))
        length = b.call("Gather", [shape, axis], "total_sequence_length.int64", axis=0)
        return mask, b.call("Cast", [length], "total_length", to=ir.DataType.INT32)

    def _input(self, name: str, dtype: ir.DataType, shape: list[str | int]) -> ir.Value:
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self._scalars.append(value)
        return value

    def _attention_inputs(
        self, seqlens_k: ir.Value, total: ir.Value, query_seqlens: ir.Value | None
    ) -> AttentionInputs:
        past = {}
        for index in self._spec.attention_layers:
            pair = tuple(
                self._cache(index, f"past_key_values.{index}.{kind}", self._past_axis) for kind in ("key", "value")
            )
            past[index] = (pair[0], pair[1])
            self._past += pair
        return AttentionInputs(seqlens_k, total, query_seqlens, past, self._present, self._positions, self._kv)

    def _present(self, index: int) -> tuple[ir.Value, ir.Value]:
        key, value = (self._cache(index, f"present.{index}.{kind}", self._present_axis) for kind in ("key", "value"))
        return key, value

    def _cache(self, index: int, name: str, axis: str) -> ir.Value:
        bits = 32 if self._kv is None else self._kv.bits
        dtype = {32: ir.DataType.FLOAT, 8: ir.DataType.INT8, 4: ir.DataType.UINT8}[bits]
        size = self._spec.of_layer(index).head_dim
        width = size // 2 if bits == 4 else size
        shape = ir.Shape([self.batch, self._spec.num_key_value_heads, axis, width])
        return ir.Value(name=name, shape=shape, type=ir.TensorType(dtype))
