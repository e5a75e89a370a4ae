"""Widens the scales of matrices for the graphs that leave them out, and gives their memory back once they are packed.

What ONNX Runtime does not read again lies in a mapping of its own, whose pages are given back to the system after the
session has been opened: the addresses stay valid, and a session is only ever asked for what its kernels have packed.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from edgedistill.errors import BundleError
from edgedistill.runtime.scale_use import reads_scales
from edgedistill.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from edgedistill.bundle.bit_planes import WidenedMatrix, WidenedScales
    from edgedistill.quantize.spec import WeightFormat

    Floats = npt.NDArray[np.float32]

_ALIGNED = 64
"""Bytes that arrays begin at a multiple of."""


class Scales:
    """Float32 scales by initializer.

    Args:
        folder: Where their files lie.
        wanted: Which.
        threads: That widen them, and that the session which takes them has.

    Raises:
        BundleError: A file ends before them.
    """

    def __init__(self, folder: Path, wanted: Sequence[WidenedScales], *, threads: int = 1) -> None:
        for one in wanted:
            require_whole(folder, one, [offset + size for offset, size in zip(one.offsets, _stored(one), strict=True)])
        dropped = {one for one in wanted if _is_dropped(one, threads)}
        self._mapping = _mapping(sum(_size(one) for one in wanted if one in dropped))
        arrays, at = [], 0
        for one in wanted:
            if self._mapping is not None and one in dropped:
                count = math.prod(one.initializer_shape)
                arrays.append(np.frombuffer(self._mapping, np.float32, count, at).reshape(one.initializer_shape))
                at += _size(one)
            else:
                arrays.append(np.empty(one.initializer_shape, np.float32))
        with Workers(threads) as pool:
            done = [pool.submit(_fill, folder, one, array) for one, array in zip(wanted, arrays, strict=True)]
            for part in done:
                part.result()
        self.values = {
            one.initializer: ort.OrtValue.from_dlpack(array) for one, array in zip(wanted, arrays, strict=True)
        }

    def drop(self) -> None:
        """Give back the memory of what is packed now and not read again; it may not be used for another session."""
        self.values = {}
        if sys.platform == "linux" and self._mapping is not None:
            # They would read as zeros, were they read.
            with contextlib.suppress(OSError):  # memory that is locked stays
                self._mapping.madvise(mmap.MADV_DONTNEED)
            self._mapping = None


def require_whole(folder: Path, stored: WidenedScales | WidenedMatrix, ends: Iterable[int]) -> None:
    """Raises BundleError where the file is shorter than the ``ends`` of what it is to hold: before any memory is taken
    for what a damaged table asks for."""
    if max(ends) > (folder / stored.location).stat().st_size:
        raise BundleError(
            f"{stored.location} ends before {stored.initializer}.",
            hint="Copy the bundle again or export it again.",
        )


def _is_dropped(scales: WidenedScales, threads: int) -> bool:
    return sys.platform == "linux" and not reads_scales(scales.format, scales.shape, threads=threads)


def _size(scales: WidenedScales) -> int:
    """Bytes, up to where the next ones begin."""
    return -(-4 * math.prod(scales.initializer_shape) // _ALIGNED) * _ALIGNED


def _mapping(size: int) -> mmap.mmap | None:
    """Private memory that stays a region of its own; None where there is none to be had.

    Linux joins anonymous mappings that touch: weights beside given back pages would lie in a region that is partly
    empty, which ``system/huge_pages.py`` leaves alone, or fills again. It does not join those of /dev/zero, the same
    memory by another name.
    """
    if sys.platform == "linux" and size:
        with contextlib.suppress(OSError), Path("/dev/zero").open("r+b", buffering=0) as zeros:
            return mmap.mmap(zeros.fileno(), size, flags=mmap.MAP_PRIVATE)
    return None


def _fill(folder: Path, scales: WidenedScales, out: Floats) -> None:
    """What ONNX Runtime folds Cast and Mul to, bit for bit."""
    fmt = scales.format
    found = _read(folder, scales, 0, _dtype(fmt), out.size).reshape(out.shape)
    np.copyto(out, found)
    if fmt.scale_bits == 8:
        with np.errstate(all="ignore"):  # of a damaged file, as the graph would
            out *= _read(folder, scales, 1, np.dtype(np.float32), len(out))[:, None]


def _dtype(fmt: WeightFormat) -> np.dtype[np.generic]:
    return np.dtype(np.float16 if fmt.scale_bits == 16 else np.int8 if fmt.symmetric else np.uint8)


def _stored(scales: WidenedScales) -> list[int]:
    """Bytes at each of the offsets."""
    rows, blocks = scales.initializer_shape
    return [rows * blocks * _dtype(scales.format).itemsize, 4 * rows][: len(scales.offsets)]


def _read(folder: Path, scales: WidenedScales, place: int, dtype: np.dtype[np.generic], count: int) -> npt.NDArray[Any]:
    with (folder / scales.location).open("rb", buffering=0) as stream:
        stream.seek(scales.offsets[place])
        found = np.fromfile(stream, dtype, count)
    if found.size != count:
        raise BundleError(
            f"{scales.location} ends before {scales.initializer}.",
            hint="Copy the bundle again or export it again.",
        )
    return found
