"""Rotary tables as nodes over constants: ONNX Runtime computes them once, when it opens the graph (constant folding,
which every optimization level but ``disable`` does), so that they take no room in the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from edgedistill.architecture.spec import RopeSpec
    from edgedistill.graph.builder import GraphBuilder


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
