"""Matrices whose blocks have an offset beside their scale: inputs of products with them, and their rows.

The product of a block is that of its codes plus the offset times the sum of the block's inputs. The offsets are further
columns of the matrix (see ``WeightFormat.offsets``), so that the same kernel multiplies them: with the means of the
blocks, which are of the size of the input itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgedistill.graph.builder import GraphBuilder
    from edgedistill.quantize.spec import WeightFormat


def with_means(b: GraphBuilder, x: ir.Value, fmt: WeightFormat, k: int) -> ir.Value:
    """``x`` float32 [B, S, K] and the means of its blocks: float32 [B, S, K + K / block]; made once for each input."""
    name, size = f"{x.name}.b{fmt.block_size}", fmt.block_size
    shape = b.constant(f"blocks.{k}.{size}", np.array([0, 0, k // size, size], dtype=np.int64))
    last = b.constant("axis_last", np.array([-1], dtype=np.int64))
    # AveragePool would be one operator instead of two, and takes fifteen times as long for many tokens.
    means = b.once("ReduceMean", [b.once("Reshape", [x, shape], f"{name}.blocks"), last], f"{name}.means", keepdims=0)
    return b.once("Concat", [x, means], f"{name}.with_means", axis=-1)


def added(b: GraphBuilder, rows: ir.Value, fmt: WeightFormat, k: int, *, output: str) -> ir.Value:
    """Rows float32 [B, S, K] with their offsets, called ``output``, of stored rows [B, S, columns and padding]."""
    size, blocks = fmt.block_size, k // fmt.block_size

    def part(start: int, stop: int, which: str, shape: list[int]) -> ir.Value:
        bounds = [
            b.constant(f"{output}.{which}.{name}", np.array([value], dtype=np.int64))
            for name, value in (("start", start), ("stop", stop), ("axis", 2))
        ]
        cut = b.call("Slice", [rows, *bounds], f"{output}.{which}.flat")
        by_block = b.constant(f"{output}.{which}.shape", np.array(shape, dtype=np.int64))
        return b.call("Reshape", [cut, by_block], f"{output}.{which}")

    values = part(0, k, "values", [0, 0, blocks, size])
    offsets = part(k, k + blocks, "offsets", [0, 0, blocks, 1])
    factor = b.constant(f"{output}.share", np.array(1 / size, dtype=np.float32))
    offsets = b.call("Mul", [offsets, factor], f"{output}.offsets.each")
    total = b.call("Add", [values, offsets], f"{output}.sums")
    return b.call("Reshape", [total, b.constant(f"{output}.shape", np.array([0, 0, k], dtype=np.int64))], output)
