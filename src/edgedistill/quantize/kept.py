"""Rows that lie on a known grid: their codes are found again, so that nothing is rounded a second time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.quantize.blockwise import nearest_codes, quantize_blockwise
from edgedistill.quantize.search import search_tile
from edgedistill.quantize.storage import load_scales, load_zero_points, store_codes, store_scales, store_zero_points

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgedistill.quantize.spec import WeightFormat

    Floats = npt.NDArray[np.float32]


def keep_rows(
    rows: Floats, fmt: WeightFormat, scales: Floats, zero_points: npt.NDArray[np.uint8 | np.float32]
) -> dict[str, npt.NDArray[np.generic]]:
    """Store rows that are (code - zero point) * scale with just these codes.

    Args:
        rows: float32 [n, K], K a multiple of the block size.
        fmt: Bits, block size and symmetry of the grid.
        scales: float32 [n, K / block_size].
        zero_points: uint8 of the same shape; float32, and no whole numbers, where the format has ``offsets``.

    Returns:
        Arrays by suffix, as ``quantize_rows`` does. Scales are rounded to ``fmt.scale_bits``, and offsets (what is left
        of a zero point beside a whole one, at most half a step where that is in reach) to ``fmt.bits``.
    """
    if fmt.offsets:
        return _keep_offsets(rows, fmt, scales, np.asarray(zero_points, np.float32))
    whole = np.asarray(zero_points, np.uint8)
    n, k = rows.shape
    blocks = fmt.blocks(k)
    stored = store_scales(scales, fmt)
    codes = nearest_codes(
        np.ascontiguousarray(rows).reshape(n * blocks, fmt.block_size),
        load_scales(stored).reshape(-1),
        whole.reshape(-1),
        fmt,
    )
    by_row = codes.reshape(n, blocks, fmt.block_size)
    return {**store_codes(by_row, fmt), **stored, **store_zero_points(whole, fmt)}


def _keep_offsets(
    rows: Floats, fmt: WeightFormat, scales: Floats, zero_points: Floats
) -> dict[str, npt.NDArray[np.generic]]:
    """``keep_rows`` of a format with ``offsets``: those of a row are quantized as further blocks of it."""
    inner = replace(fmt, offsets=False)
    whole = np.clip(np.rint(zero_points), 0, (1 << fmt.bits) - 1)
    rounded = load_scales(store_scales(scales, inner))
    offsets = whole * rounded - zero_points * scales
    values = rows - np.repeat(offsets, fmt.block_size, axis=1)
    kept = keep_rows(values, inner, scales, whole.astype(np.uint8))
    further = quantize_blockwise(offsets * np.float32(fmt.block_size), inner, search_tile)
    joined = {name: np.concatenate([kept[name], further[name]], axis=1) for name in kept if name != "zero_points"}
    points = [load_zero_points(arrays, inner, arrays["scales"].shape[1]) for arrays in (kept, further)]
    return {**joined, **store_zero_points(np.concatenate(points, axis=1), fmt)}
