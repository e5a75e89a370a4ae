"""Scale search: of a few shrunken ranges, the one with the least (weighted) squared error, then a least-squares fit.

Rounding to nearest wastes codes on the one outlier that sets the range. For a candidate scale s the codes are
t = clip(round(x / s)); the best scale *for those codes* has a closed form, s* = sum(w x t) / sum(w t^2), and leaves the
error sum(w x^2) - sum(w x t)^2 / sum(w t^2). So a candidate is judged by sum(w x t)^2 / sum(w t^2) alone, without
dequantizing. The idea is that of ``make_qx_quants`` and ``make_qkx2_quants`` in llama.cpp's ggml-quants.c; zero points
are whole numbers here, because MatMulNBits is fast only with those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgedistill.quantize.blockwise import Tile

# Factors on the full range; the scale of rounding to nearest is among them (asymmetric 1, symmetric 2^(bits-1) /
# (2^(bits-1) - 1)), so that search never does worse. On Gaussian and Student-t(5) blocks of 32 and 128 these come
# within 1.5 % of the error of an exhaustive search over 16 zero points x 40 scales; more candidates cost time and gain
# less than 0.5 %.
_ASYMMETRIC = {
    2: (0.45, 0.55, 0.65, 0.75, 0.85, 1.00, 1.15),
    3: (0.60, 0.68, 0.76, 0.84, 0.92, 1.00, 1.08),
    4: (0.70, 0.75, 0.80, 0.85, 0.90, 0.95, 1.00, 1.05),
    5: (0.80, 0.85, 0.90, 0.95, 1.00, 1.03),
    6: (0.88, 0.92, 0.96, 1.00),
    8: (0.94, 0.97, 1.0),
}
_SYMMETRIC = {
    2: (0.45, 0.55, 0.65, 0.75, 0.85, 1.00, 1.20, 2.00),
    3: (0.58, 0.66, 0.74, 0.82, 0.90, 1.00, 1.15, 4 / 3),
    4: (0.67, 0.73, 0.79, 0.85, 0.91, 0.97, 1.04, 8 / 7),
    5: (0.78, 0.84, 0.90, 0.96, 1.00, 16 / 15),
    6: (0.88, 0.92, 0.96, 1.00, 32 / 31),
    8: (0.94, 0.97, 1.0, 128 / 127),
}


def search_tile(tile: Tile) -> None:
    """Fill ``tile.scale``, ``tile.zero_point`` and ``tile.codes`` of a tile of blocks.

    Symmetric blocks use the full range -2^(bits-1) .. 2^(bits-1)-1 with the lowest code at the extreme of larger
    magnitude, so that a scale may be negative (as llama.cpp's Q4_0). Blocks whose weights are all 0 fall back to the
    full range.
    """
    best = np.zeros_like(tile.low)
    full = np.empty_like(tile.low)
    if tile.symmetric:
        tile.zero_point[:] = tile.zero_code
        extreme = np.where(tile.high > -tile.low, tile.high, tile.low)
        np.divide(extreme, -tile.zero_code, out=full)
        factors = _SYMMETRIC[tile.bits]
    else:
        np.divide(tile.high - tile.low, tile.top_code, out=full)
        factors = _ASYMMETRIC[tile.bits]
    full[full == 0] = 1
    tile.scale[:] = full
    # The zero point that splits the codes as 0 splits the range is the same for every shrink factor.
    if not tile.symmetric:
        np.rint(-tile.low / full, out=tile.zero_point)
    for factor in factors:
        tile.round_to(full * np.float32(factor), tile.zero_point)
        fitted, gain = _fit(*tile.moments())
        better = gain > best
        np.copyto(best, gain, where=better)
        np.copyto(tile.scale, fitted, where=better)
    # One step of coordinate descent: the fitted scale rounds some elements elsewhere, and those codes fit a scale
    # again. Neither half can raise the error.
    tile.round_to(tile.scale, tile.zero_point)
    fitted, gain = _fit(*tile.moments())
    np.copyto(tile.scale, fitted, where=gain > 0)


def _fit(
    cross: npt.NDArray[np.float32], square: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Least-squares scale and the squared error it removes, 0 where every code is 0."""
    fitted = np.zeros_like(cross)
    np.divide(cross, square, out=fitted, where=square > 0)
    return fitted, fitted * cross


def rtn_tile(tile: Tile) -> None:
    """Fill ``tile.scale``, ``tile.zero_point`` and ``tile.codes`` of a tile of blocks.

    Asymmetric: scale = (max - min) / (2^bits - 1) with the range widened to contain 0, zero point =
    round(-min / scale); the error of every element is at most half a step. Symmetric:
    scale = max|x| / (2^(bits-1) - 1), which leaves the lowest code unused and keeps the same bound.
    """
    if tile.symmetric:
        np.divide(np.maximum(tile.high, -tile.low), tile.zero_code - 1, out=tile.scale)
        tile.zero_point[:] = tile.zero_code
    else:
        np.divide(tile.high - tile.low, tile.top_code, out=tile.scale)
    tile.scale[tile.scale == 0] = 1
    if not tile.symmetric:
        np.rint(-tile.low / tile.scale, out=tile.zero_point)
    tile.round_to(tile.scale, tile.zero_point)
