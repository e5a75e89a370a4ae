"""Tensors of a GGUF file under Hugging Face names, dequantized row by row.

Rows of a quantized tensor are whole blocks, so any range of rows can be read on its own; every tensor has its own
type. What llama.cpp's converter changed in values is undone: the order of query and key rows (it pairs neighbouring
elements for RoPE where Hugging Face pairs halves) and the 1 that it adds to Gemma's norms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import Q4_K, dequantize

from edgedistill.checkpoint.grid import Grid
from edgedistill.checkpoint.safetensors import check_finite, check_rows, missing_tensor
from edgedistill.checkpoint.types import TensorInfo
from edgedistill.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.checkpoint.gguf.header import GgufTensor
    from edgedistill.checkpoint.grid import Scales, ZeroPoints
    from edgedistill.checkpoint.raw_file import RawFile

GRIDS = {
    GGMLQuantizationType.Q4_0: Grid(4, 32, symmetric=True),
    GGMLQuantizationType.Q5_0: Grid(5, 32, symmetric=True),
    GGMLQuantizationType.Q8_0: Grid(8, 32, symmetric=True),
    GGMLQuantizationType.Q6_K: Grid(6, 16, symmetric=True),
    GGMLQuantizationType.Q3_K: Grid(3, 16, symmetric=True),
    GGMLQuantizationType.Q4_1: Grid(4, 32, symmetric=False, offsets=True),
    GGMLQuantizationType.Q5_1: Grid(5, 32, symmetric=False, offsets=True),
    GGMLQuantizationType.Q4_K: Grid(4, 32, symmetric=False, offsets=True),
    GGMLQuantizationType.Q5_K: Grid(5, 32, symmetric=False, offsets=True),
    # Sixteen values at unequal distances, all of them integers from -127 to 113.
    GGMLQuantizationType.IQ4_NL: Grid(8, 32, symmetric=True),
    GGMLQuantizationType.IQ4_XS: Grid(8, 32, symmetric=True),
    # -1, 0 and 1.
    GGMLQuantizationType.TQ1_0: Grid(2, 256, symmetric=True),
    GGMLQuantizationType.TQ2_0: Grid(2, 256, symmetric=True),
    # Doubled, its values are integers from -12 to 12.
    GGMLQuantizationType.MXFP4: Grid(5, 32, symmetric=True),
}
# Elements dequantized at once: the formats with lookup tables need some twenty bytes of scratch for each.
_GROUP = 1 << 20


@dataclass(frozen=True, slots=True)
class GgufPart:
    """How a Hugging Face tensor comes from a stored one.

    ``heads`` > 0: rows are grouped into that many heads, in each of which llama.cpp interleaved the two halves.
    ``rows`` and ``columns`` int64 say where each of the tensor's is stored. ``logarithm``: what is stored is minus its
    exponential. ``shift`` is added to every element.
    """

    stored: GgufTensor
    heads: int = 0
    shift: float = 0.0
    rows: npt.NDArray[np.int64] | None = None
    columns: npt.NDArray[np.int64] | None = None
    logarithm: bool = False


class GgufSource:
    """Rows of the tensors of one GGUF file, as float32."""

    def __init__(
        self,
        file: RawFile,
        parts: Mapping[str, GgufPart],
        values: Mapping[str, npt.NDArray[np.float32]] | None = None,
    ) -> None:
        """``values``: tensors that are not stored as such."""
        self._file = file
        self._parts = parts
        self._values = values or {}

    @property
    def path(self) -> Path:
        """The GGUF file."""
        return self._file.path

    def names(self) -> Iterable[str]:
        """All Hugging Face names."""
        return [*self._parts, *self._values]

    def info(self, name: str) -> TensorInfo:
        """Header of ``name``; raises CheckpointError if there is none."""
        if name in self._values:
            return TensorInfo(name, self._values[name].shape, "F32")
        stored = self._find(name).stored
        return TensorInfo(name, stored.shape, stored.kind.name)

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows ``start:stop`` as float32, exactly what the stored blocks stand for.

        Raises CheckpointError on NaN or Inf and on a file that ends early, UnsupportedModelError on tensor types
        that the gguf package cannot dequantize.
        """
        check_rows(self.info(name), start, stop)
        if name in self._values:
            return self._values[name][start:stop].astype(np.float32)
        part = self._find(name)
        if part.heads:
            first, last, wanted = _interleaved(part, start, stop)
            if len(part.stored.shape) == 1:
                rows = read_stored(self._file, part.stored, 0, 1).reshape(-1)[first:last][wanted]
            else:
                rows = read_stored(self._file, part.stored, first, last)[wanted]
        elif len(part.stored.shape) == 1:
            rows = read_stored(self._file, part.stored, 0, 1).reshape(-1)
            rows = rows[start:stop] if part.rows is None else rows[part.rows[start:stop]]
        elif part.rows is not None:
            rows = _scattered(self._file, part.stored, part.rows[start:stop])
        else:
            rows = read_stored(self._file, part.stored, start, stop)
        if part.columns is not None:
            rows = rows[:, part.columns]
        if part.logarithm:
            with np.errstate(all="ignore"):
                rows = np.log(-rows)
        check_finite(rows, name, start, self._file.path.name)
        if part.shift:
            rows += np.float32(part.shift)
        return rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def grid(self, name: str) -> Grid | None:
        """The grid of a matrix in one of the formats whose values lie at equal distances within a block."""
        part = self._parts.get(name)
        moved = part is None or part.rows is not None or part.columns is not None
        if part is None or moved or part.shift or len(part.stored.shape) < 2:
            return None
        return GRIDS.get(part.stored.kind)

    def read_grid(self, name: str, start: int, stop: int) -> tuple[Scales, ZeroPoints]:
        """Scales float32 [stop-start, blocks] and zero points, see ``GridSource``; of stacked experts one axis more."""
        part = self._find(name)
        grid = GRIDS[part.stored.kind]
        check_rows(self.info(name), start, stop)
        first, last, wanted = _interleaved(part, start, stop) if part.heads else (start, stop, slice(None))
        if grid.offsets:
            scales, zero_points = _read_offsets(self._file, part.stored, first, last)
            return scales[wanted], zero_points[wanted]
        scales = read_scales(self._file, part.stored, first, last)[wanted]
        return scales, np.full(scales.shape, 1 << (grid.bits - 1), np.uint8)

    def _find(self, name: str) -> GgufPart:
        if (part := self._parts.get(name)) is None:
            raise missing_tensor(name, self._parts)
        return part


def _scattered(file: RawFile, stored: GgufTensor, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The stored ``rows``, of which many are neighbours."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return np.concatenate([read_stored(file, stored, int(run[0]), int(run[-1]) + 1) for run in runs if len(run)])


def _interleaved(part: GgufPart, start: int, stop: int) -> tuple[int, int, npt.NDArray[np.int64]]:
    """Rows of a query or key tensor in Hugging Face's order: first and last stored row, and which of them.

    In a head of 2n rows, llama.cpp stores row (half, i) of Hugging Face at 2i + half.
    """
    size = part.stored.shape[0] // part.heads
    first, last = start // size * size, math.ceil(stop / size) * size
    head, inside = np.divmod(np.arange(start, stop), size)
    half, index = np.divmod(inside, size // 2)
    return first, last, head * size + 2 * index + half - first


def _by_block(file: RawFile, stored: GgufTensor, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Stored bytes uint8 [stop-start, blocks, size of a block] of the rows ``start:stop``."""
    block, size = GGML_QUANT_SIZES[stored.kind]
    blocks = math.prod(stored.shape[1:]) // block
    raw = np.empty((stop - start) * blocks * size, np.uint8)
    file.read_into(raw, stored.offset + start * blocks * size)
    return raw.reshape(stop - start, blocks, size)


def _read_offsets(file: RawFile, stored: GgufTensor, start: int, stop: int) -> tuple[Scales, Scales]:
    """Scales and zero points, float32 [stop-start, ..., blocks], of the rows ``start:stop`` of a kind with offsets: a
    value is code * scale + minimum, which is (code - zero point) * scale (ggml-common.h)."""
    by_block = _by_block(file, stored, start, stop)
    shape = (stop - start, *stored.shape[1:-1], -1)
    first, second = np.moveaxis(by_block[..., :4].copy().view("<f2").astype(np.float32), -1, 0)
    if stored.kind in (GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q5_K):
        # A super-block has eight factors of its scale and eight of its minimum, in 6 bits.
        factors = Q4_K.get_scale_min(np.ascontiguousarray(by_block[..., 4:16]).reshape(-1, 12))
        by_factor = [factor.reshape(*by_block.shape[:2], 8).astype(np.float32) for factor in factors]
        first, second = first[..., None] * by_factor[0], -second[..., None] * by_factor[1]
    scales, minima = first.reshape(shape), second.reshape(shape)
    # A block of equal values may have a scale of 0: its minimum serves as one, of which it is the first multiple.
    scales = np.where(scales == 0, minima, scales)
    return scales, np.divide(-minima, scales, out=np.zeros_like(scales), where=scales != 0)


def read_scales(file: RawFile, stored: GgufTensor, start: int, stop: int) -> Scales:
    """Scales float32 [stop-start, ..., blocks] of the rows ``start:stop`` of a symmetric kind in ``GRIDS``
    (ggml-common.h)."""
    by_block = _by_block(file, stored, start, stop)
    shape = (stop - start, *stored.shape[1:-1], -1)
    if stored.kind == GGMLQuantizationType.MXFP4:
        scales: Scales = np.ldexp(np.float32(1), by_block[..., 0].astype(np.int32) - 128)
        return scales.reshape(shape)
    if stored.kind in (GGMLQuantizationType.TQ1_0, GGMLQuantizationType.TQ2_0):
        return by_block[..., -2:].copy().view("<f2")[..., 0].astype(np.float32).reshape(shape)
    if stored.kind not in (GGMLQuantizationType.Q6_K, GGMLQuantizationType.Q3_K):
        unit = by_block[..., :2].copy().view("<f2").astype(np.float32)
        if stored.kind != GGMLQuantizationType.IQ4_XS:
            return unit[..., 0].reshape(shape)
        # Eight factors of 6 bits: four below in the bytes 4 to 7, two above in the word before them.
        below, above = by_block[..., 4:8], by_block[..., 2:4].copy().view("<u2")
        eight = np.stack([below & 15, below >> 4], axis=-1).reshape(*below.shape[:-1], 8)
        eight |= ((above >> np.arange(0, 16, 2, dtype=np.uint16) & 3) << 4).astype(np.uint8)
        return ((eight.astype(np.float32) - 32) * unit).reshape(shape)
    # A super-block ends with 16 signed factors, of 8 or 6 bits, and the float16 that they are multiplied with.
    unit = by_block[..., -2:].copy().view("<f2").astype(np.float32)
    if stored.kind == GGMLQuantizationType.Q6_K:
        return (by_block[..., -18:-2].copy().view(np.int8).astype(np.float32) * unit).reshape(shape)
    low, high = by_block[..., -14:-6], by_block[..., -6:-2]
    factors = np.concatenate([low & 15, low >> 4], axis=-1)
    factors |= np.concatenate([(high >> shift & 3) << 4 for shift in (0, 2, 4, 6)], axis=-1)
    return ((factors.astype(np.float32) - 32) * unit).reshape(shape)


def read_stored(file: RawFile, stored: GgufTensor, start: int, stop: int) -> npt.NDArray[np.float32]:
    """Stored rows ``start:stop`` as a new float32 array [stop-start, ...]; a vector counts as one row."""
    shape = stored.shape if len(stored.shape) > 1 else (1, *stored.shape)
    block, size = GGML_QUANT_SIZES[stored.kind]
    elements = math.prod(shape[1:])
    row_bytes = elements // block * size
    out = np.empty((stop - start, *shape[1:]), np.float32)
    step = max(1, _GROUP // elements)
    for begin in range(start, stop, step):
        end = min(stop, begin + step)
        raw = np.empty((end - begin) * row_bytes, np.uint8)
        file.read_into(raw, stored.offset + begin * row_bytes)
        out[begin - start : end - start] = _dequantize(raw, stored).reshape(-1, *shape[1:])
    return out


def _dequantize(raw: npt.NDArray[np.uint8], stored: GgufTensor) -> npt.NDArray[np.float32]:
    if stored.kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        dtype = "<f4" if stored.kind == GGMLQuantizationType.F32 else "<f2"
        return raw.view(dtype).astype(np.float32, copy=False)
    try:
        # Damaged scales may be Inf or NaN: that is reported with the tensor's name, not as a NumPy warning.
        with np.errstate(all="ignore"):
            # As one row: the package works through an array sixteen rows at a time.
            result: npt.NDArray[np.float32] = dequantize(raw.reshape(1, -1), stored.kind)
    except NotImplementedError as error:
        raise UnsupportedModelError(
            f"Tensor {stored.name} has type {stored.kind.name}, which cannot be dequantized.",
            hint="Use a GGUF file of another quantization, such as Q8_0 or Q4_K_M.",
        ) from error
    return result
