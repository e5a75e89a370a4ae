"""Rows that lie on a known grid: their codes are found again, so that nothing is rounded a second time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgedistill.quantize.blockwise import nearest_codes
from edgedistill.quantize.storage import load_scales, store_codes, store_scales, store_zero_points

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgedistill.quantize.spec import WeightFormat

    Floats = npt.NDArray[np.float32]


def keep_rows(
    rows: Floats, fmt: WeightFormat, scales: Floats, zero_points: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.generic]]:
    """Store rows that are (code - zero point) * scale with just these codes.

    Args:
        rows: float32 [n, K], K a multiple of the block size.
        fmt: Bits, block size and symmetry of the grid.
        scales: float32 [n, K / block_size].
        zero_points: uint8 of the same shape.

    Returns:
        Arrays by suffix, as ``quantize_rows`` does. Scales are rounded to ``fmt.scale_bits``.
    """
    n, k = rows.shape
    blocks = fmt.blocks(k)
    stored = store_scales(scales, fmt)
    codes = nearest_codes(
        np.ascontiguousarray(rows).reshape(n * blocks, fmt.block_size),
        load_scales(stored).reshape(-1),
        zero_points.reshape(-1),
        fmt,
    )
    by_row = codes.reshape(n, blocks, fmt.block_size)
    return {**store_codes(by_row, fmt), **stored, **store_zero_points(zero_points, fmt)}
