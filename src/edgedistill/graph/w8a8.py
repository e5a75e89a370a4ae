"""Nodes of a W8A8 product: activations rounded per token, an integer product, scales applied to the result.

Every operator is a standard one or ONNX Runtime's MatMulIntegerToFloat, which multiplies the integer sums by the
scales of the output channels on the way out. QuantizeLinear along the token axis rounds with a scale per token;
DynamicQuantizeMatMul would mix all tokens of a batch into one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgedistill.quantize.w8a8 import TINY, ZERO_POINT

if TYPE_CHECKING:
    from edgedistill.graph.builder import GraphBuilder

_MICROSOFT = "com.microsoft"


def product(
    b: GraphBuilder,
    x: ir.Value,
    codes: ir.Value,
    scales: ir.Value,
    sums: ir.Value | None,
    *,
    name: str,
    shape: tuple[int, int],
    output: str,
    bias: ir.Value | None,
) -> ir.Value:
    """``x`` float32 [..., K] times the transposed matrix: float32 [..., N].

    Args:
        b: Receives the nodes.
        x: Activations; those of one value are rounded once, however many matrices take it.
        codes: uint8 [N, K], zero point 128.
        scales: float32 [N].
        sums: float32 [N] for activations with zero points, None for symmetric ones.
        name: Name of the matrix.
        shape: (N, K).
        output: Name of the result.
        bias: float32 [N] or None.
    """
    rounded, scale, zero, outer = _activations(b, x, shape[1], symmetric=sums is None)
    # The file keeps rows of outputs; the transposition is folded and packed when the session opens.
    transposed = b.once("Transpose", [codes], f"{name}.q.transposed", perm=[1, 0])
    one = b.constant("w8a8.one", np.array(1.0, dtype=np.float32))
    middle = b.constant("w8a8.middle", np.array(ZERO_POINT, dtype=np.uint8))
    inputs = [rounded, transposed, one, scales, middle if sums is None else None, middle]
    raw = b.call("MatMulIntegerToFloat", inputs, f"{output}.integer", domain=_MICROSOFT)
    if sums is not None:
        raw = b.call("Sub", [raw, b.call("Mul", [zero, sums], f"{output}.offset")], f"{output}.centred")
    flat = b.call("Mul", [raw, scale], f"{output}.flat")
    last = b.constant(f"w8a8.width.{shape[0]}", np.array([shape[0]], dtype=np.int64))
    target = b.once("Concat", [outer, last], f"{outer.name}.{shape[0]}", axis=0)
    # A step that wants no logits gives the head no positions: a size of 0 is meant, not one to take from the input.
    shaped = b.call("Reshape", [flat, target], output if bias is None else f"{output}.product", allowzero=1)
    return shaped if bias is None else b.call("Add", [shaped, bias], output)


def rows(b: GraphBuilder, ids: ir.Value, codes: ir.Value, scales: ir.Value, *, output: str) -> ir.Value:
    """Rows ``ids`` int64 [B, S] of the matrix: float32 [B, S, K]."""
    last = b.constant("w8a8.last", np.array([-1], dtype=np.int64))
    raw = b.call("Cast", [b.call("Gather", [codes, ids], f"{output}.codes", axis=0)], f"{output}.cast", to=1)
    middle = b.constant("w8a8.middle.float", np.array(ZERO_POINT, dtype=np.float32))
    centred = b.call("Sub", [raw, middle], f"{output}.centred")
    scale = b.call("Unsqueeze", [b.call("Gather", [scales, ids], f"{output}.scale", axis=0), last], f"{output}.column")
    return b.call("Mul", [centred, scale], output)


def _activations(
    b: GraphBuilder, x: ir.Value, k: int, *, symmetric: bool
) -> tuple[ir.Value, ir.Value, ir.Value | None, ir.Value]:
    """Codes uint8 [tokens, K], scales [tokens, 1], zero points [tokens, 1] or None, and the shape before the last."""
    base = f"{x.name}.{'symmetric' if symmetric else 'asymmetric'}"
    last = b.constant("w8a8.last", np.array([-1], dtype=np.int64))
    tiny = b.constant("w8a8.tiny", np.array(TINY, dtype=np.float32))
    flat_shape = b.constant(f"w8a8.flat.{k}", np.array([-1, k], dtype=np.int64))
    flat = b.once("Reshape", [x, flat_shape], f"{x.name}.by_token")
    if symmetric:
        largest = b.once("ReduceMax", [b.once("Abs", [flat], f"{base}.abs"), last], f"{base}.largest", keepdims=0)
        top = b.constant("w8a8.127", np.array(127.0, dtype=np.float32))
        scale = b.once("Max", [b.once("Div", [largest, top], f"{base}.step"), tiny], f"{base}.scale")
        middle = b.constant("w8a8.middle.one", np.array([ZERO_POINT], dtype=np.uint8))
        points = b.once("Expand", [middle, b.once("Shape", [scale], f"{base}.tokens")], f"{base}.zero_points")
        zero = None
    else:
        null = b.constant("w8a8.zero", np.array(0.0, dtype=np.float32))
        high = b.once("Max", [b.once("ReduceMax", [flat, last], f"{base}.max", keepdims=0), null], f"{base}.high")
        low = b.once("Min", [b.once("ReduceMin", [flat, last], f"{base}.min", keepdims=0), null], f"{base}.low")
        top = b.constant("w8a8.255", np.array(255.0, dtype=np.float32))
        step = b.once("Div", [b.once("Sub", [high, low], f"{base}.range"), top], f"{base}.step")
        scale = b.once("Max", [step, tiny], f"{base}.scale")
        ratio = b.once("Div", [low, scale], f"{base}.ratio")
        whole = b.once("Round", [b.once("Neg", [ratio], f"{base}.negated")], f"{base}.zero")
        points = b.once("Cast", [whole], f"{base}.zero_points", to=ir.DataType.UINT8)
        zero = b.once("Unsqueeze", [whole, last], f"{base}.zero_column")
    codes = b.once("QuantizeLinear", [flat, scale, points], f"{base}.codes", axis=0)
    column = b.once("Unsqueeze", [scale, last], f"{base}.scale_column")
    outer = b.once("Shape", [x], f"{x.name}.outer", start=0, end=-1)
    return codes, column, zero, outer
