"""The loop around every blockwise algorithm: cut rows into tiles that stay in the L2 cache, run, pack, in threads.

A tile is stored [block_size, blocks]: each reduction over a block is then a handful of additions of long contiguous
rows, and each scale broadcasts along contiguous memory. That is several times faster in NumPy than reducing 32
neighbours at a time. Blocks are scaled to max|x| = 1 before an algorithm sees them, so that squares neither overflow
nor vanish.

An algorithm chooses scales and zero points; scales are then rounded to what the file holds (which may need those of the
whole row), and the codes are those nearest for the rounded ones.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import CheckpointError
from edgedistill.quantize.spec import STORED_BITS
from edgedistill.quantize.storage import (
    code_arrays,
    load_codes,
    load_scales,
    load_zero_points,
    store_codes,
    store_scales,
    store_zero_points,
)
from edgedistill.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from edgedistill.quantize.spec import WeightFormat

    Floats = npt.NDArray[np.float32]

TILE_ELEMENTS = 65536
"""Elements per tile: values and codes in float32 take half a megabyte, which an L2 cache holds."""

SMALLEST = np.float32(1e-34)
"""Blocks whose largest magnitude lies below count as zeros: their scale would be a subnormal float."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Work space of an algorithm for ``m`` blocks, all arrays float32.

    Attributes:
        x: Normalised values [block_size, m], |x| <= 1. Read only.
        weight: Importance [block_size, m] or None for uniform.
        low: Smaller of 0 and each block's minimum, [m].
        high: Larger of 0 and each block's maximum, [m].
        bits: Bits per code.
        symmetric: The zero point must be ``zero_code``.
        codes: Out: signed codes, code minus zero point, whole numbers [block_size, m].
        scale: Out: scale [m] of the normalised values.
        zero_point: Out: whole numbers [m] in 0 .. ``top_code``.
    """

    x: Floats
    weight: Floats | None
    weighted_x: Floats
    low: Floats
    high: Floats
    bits: int
    symmetric: bool
    codes: Floats
    scale: Floats
    zero_point: Floats

    @property
    def top_code(self) -> int:
        return (1 << self.bits) - 1

    @property
    def zero_code(self) -> int:
        return 1 << (self.bits - 1)

    def round_to(self, scale: Floats, zero_point: Floats) -> None:
        """codes = clip(round(x / scale), -zero_point, top_code - zero_point)."""
        np.multiply(self.x, 1 / scale, out=self.codes)
        np.rint(self.codes, out=self.codes)
        np.clip(self.codes, -zero_point, self.top_code - zero_point, out=self.codes)

    def moments(self) -> tuple[Floats, Floats]:
        """sum(w x codes) and sum(w codes^2) of each block, [m] each."""
        cross: Floats = np.einsum("ij,ij->j", self.weighted_x, self.codes)
        if self.weight is None:
            square: Floats = np.einsum("ij,ij->j", self.codes, self.codes)
        else:
            square = np.einsum("ij,ij,ij->j", self.weight, self.codes, self.codes)
        return cross, square


def quantize_blockwise(
    rows: Floats,
    fmt: WeightFormat,
    algorithm: Callable[[Tile], None],
    *,
    importance: Floats | None = None,
    threads: int = 1,
) -> dict[str, npt.NDArray[np.generic]]:
    """Quantize float32 ``rows`` [n, K] with ``algorithm``; see ``quantize_rows`` for the result and the errors."""
    n, k = rows.shape
    block, blocks = fmt.block_size, fmt.blocks(k)
    if fmt.bits not in STORED_BITS:
        raise ValueError(f"format of {fmt.bits} bits; expected one of {STORED_BITS}")
    flat = _as_blocks(rows, block, blocks)
    weight = None if importance is None else _importance_blocks(importance, k, block, blocks)
    scales = np.empty(n * blocks, np.float32)
    zero_points = np.empty(n * blocks, np.uint8)
    width = max(1, TILE_ELEMENTS // block)

    def choose(first: int, last: int) -> None:
        buffers = np.empty((4, block, width), np.float32)
        for start in range(first, last, width):
            part = slice(start, min(start + width, last))
            tile, magnitude = _load(flat[part], weight, start, buffers, fmt)
            algorithm(tile)
            np.multiply(tile.scale, magnitude, out=scales[part])
            zero_points[part] = tile.zero_point

    _in_threads(choose, n * blocks, width, threads)
    arrays = store_scales(scales.reshape(n, blocks), fmt)
    stored = load_scales(arrays).reshape(-1)
    codes = code_arrays(n, blocks, fmt)
    by_block = {name: array.reshape(n * blocks, array.shape[2]) for name, array in codes.items()}

    def encode(first: int, last: int) -> None:
        for start in range(first, last, width):
            part = slice(start, min(start + width, last))
            nearest = nearest_codes(flat[part], stored[part], zero_points[part], fmt)
            for name, packed in store_codes(nearest, fmt).items():
                by_block[name][part] = packed

    _in_threads(encode, n * blocks, width, threads)
    return {**codes, **arrays, **store_zero_points(zero_points.reshape(n, blocks), fmt)}


def choose_blocks(
    values: Floats, fmt: WeightFormat, algorithm: Callable[[Tile], None], importance: Floats
) -> tuple[Floats, Floats]:
    """Scale and zero point, float32 [m] each, of blocks float32 [m, block], row after row; elements of a row weigh
    ``importance`` [blocks of a row * block]."""
    weight = _importance_blocks(importance, len(importance), fmt.block_size, len(importance) // fmt.block_size)
    scales, zero_points = np.empty(len(values), np.float32), np.empty(len(values), np.float32)
    width = max(1, TILE_ELEMENTS // fmt.block_size)
    buffers = np.empty((4, fmt.block_size, width), np.float32)
    for start in range(0, len(values), width):
        part = slice(start, start + width)
        tile, magnitude = _load(values[part], weight, start, buffers, fmt)
        algorithm(tile)
        np.multiply(tile.scale, magnitude, out=scales[part])
        zero_points[part] = tile.zero_point
    return scales, zero_points


def nearest_codes(
    values: Floats, scales: Floats, zero_points: npt.NDArray[np.uint8], fmt: WeightFormat
) -> npt.NDArray[np.uint8]:
    """uint8 [m, block]: codes nearest to float32 ``values`` [m, block] for a scale and zero point per row; a scale of 0
    gives the zero point.
    """
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=np.abs(scales) > SMALLEST)
    codes = values * inverse[:, None]
    codes += zero_points[:, None]
    np.rint(codes, out=codes)
    np.clip(codes, 0, (1 << fmt.bits) - 1, out=codes)
    return codes.astype(np.uint8)


def dequantize_blockwise(arrays: Mapping[str, npt.NDArray[np.generic]], fmt: WeightFormat, k: int) -> Floats:
    """float32 [n, k] of arrays made by ``quantize_blockwise``: (code - zero point) * scale, plus the block's offset
    where the format has ``offsets``."""
    scales = load_scales(arrays)
    n, blocks = scales.shape
    values = load_codes(arrays, fmt).astype(np.float32)
    values -= load_zero_points(arrays, fmt, blocks)[..., None]
    values *= scales[..., None]
    flat: Floats = values.reshape(n, blocks * fmt.block_size)
    if not fmt.offsets:
        return flat[:, :k]
    return flat[:, :k] + np.repeat(flat[:, k : fmt.columns(k)] / np.float32(fmt.block_size), fmt.block_size, axis=1)


def _in_threads(work: Callable[[int, int], None], total: int, width: int, threads: int) -> None:
    """Call ``work(first, last)`` over all of ``total``, in as many parts as there are threads, cut at tiles."""
    tiles = -(-total // width)
    threads = max(1, min(threads, tiles))
    bounds = [tiles * i // threads * width for i in range(threads)] + [total]
    if threads == 1:
        work(0, total)
        return
    with Workers(threads) as pool:
        parts = [pool.submit(work, first, last) for first, last in itertools.pairwise(bounds)]
        for part in parts:
            part.result()


def _as_blocks(rows: Floats, block: int, blocks: int) -> Floats:
    """[n, K] as [n * blocks, block], the last block of a row padded with zeros; a view if K needs no padding."""
    n, k = rows.shape
    if k != block * blocks:
        padded = np.zeros((n, block * blocks), np.float32)
        padded[:, :k] = rows
        rows = padded
    return np.ascontiguousarray(rows, np.float32).reshape(n * blocks, block)


def _importance_blocks(importance: Floats, k: int, block: int, blocks: int) -> Floats:
    """Importance as [block, blocks], each block scaled to a maximum of 1 (only ratios within a block matter)."""
    if importance.shape != (k,):
        raise ValueError(f"importance of shape {importance.shape}; expected ({k},)")
    if not np.isfinite(importance).all() or (importance < 0).any():
        raise ValueError("importance holds negative, NaN or infinite values")
    weight = np.zeros(block * blocks, np.float32)
    weight[:k] = importance
    by_block = weight.reshape(blocks, block)
    largest = by_block.max(axis=1, keepdims=True)
    scaled = np.divide(by_block, largest, out=np.ones_like(by_block), where=largest > 0)
    return np.ascontiguousarray(scaled.T)


def _load(flat: Floats, weight: Floats | None, start: int, buffers: Floats, fmt: WeightFormat) -> tuple[Tile, Floats]:
    """Copy blocks [m, block] into a normalised tile; also returns the magnitude [m] to multiply its scales by."""
    m = flat.shape[0]
    x, codes, scratch, weighted_x = (buffers[i, :, :m] for i in range(4))
    np.copyto(x, flat.T)
    low = np.minimum(x.min(axis=0), 0)
    high = np.maximum(x.max(axis=0), 0)
    magnitude = np.maximum(high, -low)
    if not np.isfinite(magnitude).all():
        raise CheckpointError(
            "A weight matrix holds NaN or infinite values; expected finite numbers.",
            hint="The checkpoint, or the adapter merged into it, is damaged: download it again.",
        )
    vanishing = magnitude < SMALLEST
    divisor = np.where(vanishing, np.float32(np.inf), magnitude)
    np.divide(x, divisor, out=x)
    tile_weight = None
    if weight is None:
        weighted_x = x
    else:
        tile_weight = scratch
        np.take(weight, np.arange(start, start + m) % weight.shape[1], axis=1, out=scratch)
        np.multiply(x, scratch, out=weighted_x)
    tile = Tile(
        x=x,
        weight=tile_weight,
        weighted_x=weighted_x,
        low=low / divisor,
        high=high / divisor,
        bits=fmt.bits,
        symmetric=fmt.symmetric,
        codes=codes,
        scale=np.empty(m, np.float32),
        zero_point=np.empty(m, np.float32),
    )
    return tile, np.where(vanishing, np.float32(0), magnitude)
