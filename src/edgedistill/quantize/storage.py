"""Between numbers and stored arrays: scales, zero points and codes in the widths that a format asks for.

Scales come first: they are rounded to what the file holds, and codes are chosen for the rounded ones. ``array_specs``
lists the arrays that the functions here make together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import CheckpointError
from edgedistill.quantize.packing import pack_bits, pack_plane, unpack_bits, unpack_plane

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgedistill.quantize.spec import WeightFormat

    Floats = npt.NDArray[np.float32]
    Arrays = dict[str, npt.NDArray[np.generic]]

_TOP = {True: 127, False: 255}
"""Largest code of an 8-bit scale: signed where scales may be negative (symmetric formats)."""


def store_scales(scales: Floats, fmt: WeightFormat) -> Arrays:
    """Arrays ``scales`` and, with 8-bit scales, ``scale_unit``, from float32 [n, blocks].

    Raises:
        CheckpointError: A scale beyond float16.
    """
    if fmt.scale_bits == 32:
        return {"scales": np.ascontiguousarray(scales, np.float32)}
    if fmt.scale_bits == 16:
        with np.errstate(over="ignore"):
            rounded = scales.astype(np.float16)
        if not np.isfinite(rounded).all():
            raise CheckpointError(
                f"A weight matrix needs a scale of {float(np.abs(scales).max()):.3g}, beyond float16.",
                hint="Store its scales as float32: add -s32 to its format.",
            )
        return {"scales": rounded}
    top = _TOP[fmt.symmetric]
    unit = np.abs(scales).max(axis=1, keepdims=True) / np.float32(top)
    safe = np.where(unit > 0, unit, 1)
    codes = np.rint(scales / safe)
    return {
        "scales": codes.astype(np.int8 if fmt.symmetric else np.uint8),
        "scale_unit": unit.astype(np.float32),
    }


def load_scales(arrays: Mapping[str, npt.NDArray[np.generic]]) -> Floats:
    """float32 [n, blocks]: what the kernel multiplies with."""
    scales = np.asarray(arrays["scales"]).astype(np.float32)
    if "scale_unit" in arrays:
        scales *= np.asarray(arrays["scale_unit"], np.float32)
    return scales


def store_zero_points(zero_points: npt.NDArray[np.uint8], fmt: WeightFormat) -> Arrays:
    """Array ``zero_points`` of an asymmetric format from uint8 [n, blocks]; nothing for a symmetric one."""
    return {} if fmt.symmetric else {"zero_points": pack_bits(zero_points, fmt.kernel_bits)}


def load_zero_points(
    arrays: Mapping[str, npt.NDArray[np.generic]], fmt: WeightFormat, blocks: int
) -> npt.NDArray[np.uint8]:
    """uint8 [n, blocks]; 2^(bits-1) everywhere for a symmetric format."""
    if fmt.symmetric:
        rows = np.asarray(arrays["scales"]).shape[0]
        return np.full((rows, blocks), 1 << (fmt.bits - 1), np.uint8)
    return unpack_bits(np.asarray(arrays["zero_points"], np.uint8), fmt.kernel_bits, blocks)


def code_arrays(rows: int, blocks: int, fmt: WeightFormat) -> dict[str, npt.NDArray[np.uint8]]:
    """Empty arrays for the codes of ``rows`` rows."""
    if len(fmt.planes) == 1:
        return {"q": np.empty((rows, blocks, fmt.block_size * fmt.bits // 8), np.uint8)}
    return {f"q{w}": np.empty((rows, blocks, fmt.block_size * w // 8), np.uint8) for w in fmt.planes}


def store_codes(codes: npt.NDArray[np.uint8], fmt: WeightFormat) -> dict[str, npt.NDArray[np.uint8]]:
    """Arrays ``q``, or ``q4``, ``q2``, ``q1``, from uint8 [..., block], each value < 2^bits."""
    if len(fmt.planes) == 1:
        return {"q": pack_bits(codes, fmt.bits)}
    arrays = {}
    shift = 0
    for width in fmt.planes:
        plane = (codes >> np.uint8(shift)) & np.uint8((1 << width) - 1)
        arrays[f"q{width}"] = pack_plane(plane, width)
        shift += width
    return arrays


def load_codes(arrays: Mapping[str, npt.NDArray[np.generic]], fmt: WeightFormat) -> npt.NDArray[np.uint8]:
    """uint8 [n, blocks, block]: inverse of ``store_codes``."""
    if len(fmt.planes) == 1:
        return unpack_bits(np.asarray(arrays["q"], np.uint8), fmt.bits, fmt.block_size)
    shift = 0
    total: npt.NDArray[np.uint8] | None = None
    for width in fmt.planes:
        plane = unpack_plane(np.asarray(arrays[f"q{width}"], np.uint8), width) << np.uint8(shift)
        total = plane if total is None else total | plane
        shift += width
    assert total is not None  # a format has at least one plane
    return total
