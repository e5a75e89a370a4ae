"""Round to nearest: the scale and zero point of a block follow from its smallest and largest value alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgedistill.quantize.blockwise import Tile


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
