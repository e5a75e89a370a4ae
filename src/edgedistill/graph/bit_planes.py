"""Nodes of matrices that are stored as bit planes: reassembled by the graph itself, or supplied to it.

By nodes over constants, any ONNX Runtime opens the graph; it folds them on loading and keeps what lies between until
all matrices are done. Supplied by the edgedistill runtime, they are put together slice by slice
(``quantize.packing.widen_rows``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgedistill.bundle.bit_planes import WidenedMatrix
from edgedistill.quantize.packing import centring

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from edgedistill.graph.builder import GraphBuilder, Stored
    from edgedistill.quantize.spec import WeightFormat

_MICROSOFT = "com.microsoft"


def supplied_matrix(
    name: str, shape: tuple[int, int], fmt: WeightFormat, planes: Sequence[Stored], experts: int = 0
) -> WidenedMatrix:
    """What has to be supplied for the matrix ``name``."""
    locations = {plane.location for plane in planes}
    if len(locations) != 1:
        raise ValueError(f"the planes of {name} lie in {len(locations)} files")
    offsets = tuple(plane.offset for plane in planes)
    return WidenedMatrix(f"{name}.q.widened", shape, fmt, locations.pop(), offsets, experts)


def supplied(b: GraphBuilder, matrix: WidenedMatrix) -> ir.Value:
    """The initializer that is handed over, uint8 of its ``initializer_shape``."""
    return b.supplied(matrix.initializer, matrix.location, matrix.initializer_shape)


def unpacked(
    b: GraphBuilder, name: str, shape: tuple[int, int], fmt: WeightFormat, planes: Sequence[Stored]
) -> ir.Value:
    """uint8 [N, blocks, block * kernel_bits / 8]: codes put together from their planes (``packing.pack_plane``)."""
    total: ir.Value | None = None
    shift = 0
    for width, stored in zip(fmt.planes, planes, strict=True):
        plane = f"{name}.q{width}"
        packed = b.external(plane, stored)
        mask = b.constant(f"mask.{width}", np.array((1 << width) - 1, dtype=np.uint8))
        pieces = []
        for i in range(8 // width):
            piece = _shifted(b, packed, i * width, "RIGHT", f"{plane}.piece{i}.shifted")
            pieces.append(b.once("BitwiseAnd", [piece, mask], f"{plane}.piece{i}"))
        codes = b.once("Concat", pieces, f"{plane}.codes", axis=-1)
        codes = _shifted(b, codes, shift, "LEFT", f"{plane}.codes.shifted")
        total = codes if total is None else b.once("BitwiseOr", [total, codes], f"{plane}.sum")
        shift += width
    assert total is not None  # a format has at least one plane
    if fmt.symmetric:
        offset = b.constant(f"middle.{fmt.bits}", np.array(centring(fmt), dtype=np.uint8))
        total = b.once("Add", [total, offset], f"{name}.q.centred")
    if fmt.kernel_bits == 8:
        return total
    # Two codes a byte, the even one low: pairs along the last axis.
    by_pair = np.array([shape[0], fmt.blocks(shape[1]), fmt.block_size // 2, 2], dtype=np.int64)
    pairs = b.once("Reshape", [total, b.constant(f"{name}.q.pairs", by_pair)], f"{name}.q.by_pair")
    sizes = b.constant("one_and_one", np.array([1, 1], dtype=np.int64))
    low, high = b.once_many("Split", [pairs, sizes], f"{name}.q.split", 2, axis=-1)
    both = b.once("BitwiseOr", [low, _shifted(b, high, 4, "LEFT", f"{name}.q.high")], f"{name}.q.both")
    return b.once("Squeeze", [both, b.constant("axis_pairs", np.array([-1], dtype=np.int64))], f"{name}.q.packed")


def rows(
    b: GraphBuilder,
    ids: ir.Value,
    codes: ir.Value,
    scales: ir.Value,
    zero_points: ir.Value | None,
    *,
    name: str,
    shape: tuple[int, int],
    fmt: WeightFormat,
    output: str,
    flat: str,
) -> ir.Value:
    """Rows ``ids`` of a matrix that is put together on loading, seen as [N, blocks, block] so that it exists once:
    float32 [B, S, blocks * block], called ``flat``; names of what lies between begin with ``output``.
    """
    blocks = fmt.blocks(shape[1])
    last = b.constant("axis_last_one", np.array([-1], dtype=np.int64))
    inputs = [codes, ids, b.once("Unsqueeze", [scales, last], f"{name}.scales.by_block")]
    if zero_points is not None:
        if fmt.kernel_bits == 4:
            zero_points = _one_per_byte(b, zero_points, name, shape[0], blocks)
        inputs.append(b.once("Unsqueeze", [zero_points, last], f"{name}.zero_points.by_block"))
    gathered = b.call(
        "GatherBlockQuantized",
        inputs,
        f"{output}.by_block",
        domain=_MICROSOFT,
        bits=fmt.kernel_bits,
        block_size=fmt.block_size,
        gather_axis=0,
        quantize_axis=2,
    )
    whole = b.constant(f"{output}.flat", np.array([0, 0, blocks * fmt.block_size], dtype=np.int64))
    return b.call("Reshape", [gathered, whole], flat)


def _one_per_byte(b: GraphBuilder, packed: ir.Value, name: str, n: int, blocks: int) -> ir.Value:
    """4-bit zero points uint8 [N, ceil(blocks/2)], low ones first, as uint8 [N, blocks]."""
    base = f"{name}.zero_points"
    last = b.constant("axis_last_one", np.array([-1], dtype=np.int64))
    mask = b.constant("mask.4", np.array(15, dtype=np.uint8))
    low = b.once("BitwiseAnd", [packed, mask], f"{base}.low")
    high = _shifted(b, packed, 4, "RIGHT", f"{base}.high")
    parts = [b.once("Unsqueeze", [part, last], f"{part.name}.column") for part in (low, high)]
    pairs = b.once("Concat", parts, f"{base}.pairs", axis=-1)
    shape = b.constant(f"{base}.flat", np.array([n, 2 * (-(-blocks // 2))], dtype=np.int64))
    flat = b.once("Reshape", [pairs, shape], f"{base}.padded")
    bounds = [b.constant(f"{base}.{part}", np.array([v], dtype=np.int64)) for part, v in (("from", 0), ("to", blocks))]
    return b.once("Slice", [flat, *bounds, last], f"{base}.bytes")


def _shifted(b: GraphBuilder, value: ir.Value, bits: int, direction: str, name: str) -> ir.Value:
    """``value`` uint8 shifted by a constant; itself for 0 bits."""
    if not bits:
        return value
    amount = b.constant(f"shift.{bits}", np.array(bits, dtype=np.uint8))
    return b.once("BitShift", [value, amount], name, direction=direction)
