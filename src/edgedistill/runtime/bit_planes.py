"""Reassembles matrices from bit planes for the graphs that need it: reads, widens, hands them to ONNX Runtime, and
their scales (``scales.py``) with them.

The arrays are shared with ONNX Runtime by DLPack, which counts references: what a session has packed for its kernels is
freed once nobody here refers to it, and what it goes on reading stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
import onnxruntime as ort

from edgedistill.bundle.bit_planes import from_json
from edgedistill.bundle.bundle import WIDENED
from edgedistill.errors import BundleError
from edgedistill.quantize.packing import widen_rows, widened_shape
from edgedistill.runtime.scales import Scales, require_whole
from edgedistill.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.bundle.bit_planes import WidenedGraph, WidenedMatrix
    from edgedistill.bundle.bundle import Bundle, LoadingFiles

_SLICE_CODES = 1 << 19
"""Codes put together at a time: their temporaries fit a processor's cache."""


class Widening:
    """Graphs that stand for others, their matrices and scales.

    Args:
        folder: Where the files with the planes lie.
        graphs: What widened.json says.
        threads: That put matrices together.
    """

    def __init__(self, folder: Path, graphs: Iterable[WidenedGraph], *, threads: int = 1) -> None:
        self._folder = folder
        self._threads = threads
        self._graphs = {graph.stands_for: graph for graph in graphs}
        self._kept: dict[WidenedMatrix, ort.OrtValue] = {}
        self._scales: Scales | None = None

    @classmethod
    def in_directory(cls, folder: Path, *, threads: int = 1) -> Self:
        """Of a directory that this program writes, by its widened.json, if there is one."""
        path = folder / WIDENED
        return cls(folder, from_json(path.read_text(encoding="utf-8")) if path.is_file() else (), threads=threads)

    @classmethod
    def of_bundle(cls, bundle: Bundle, files: LoadingFiles, *, threads: int = 1) -> Self:
        """Of a bundle; raises BundleError where its widened.json is malformed or names files that are not listed."""
        if not bundle.has_file(WIDENED):
            return cls(files.location, ())
        graphs = from_json(files.read(WIDENED).decode("utf-8", errors="replace"))
        places = {matrix.location for graph in graphs for matrix in graph.matrices}
        places |= {scales.location for graph in graphs for scales in graph.scales}
        for name in {graph.name for graph in graphs} | places:
            files.require_listed(name)
        return cls(files.location, graphs, threads=threads)

    def graph(self, name: str) -> str:
        """The name of the graph that stands for ``name``; ``name`` itself where none does."""
        found = self._graphs.get(name)
        return name if found is None else found.name

    def part(self, name: str, names: Container[str]) -> dict[str, ort.OrtValue]:
        """What to supply to a part of the graph that stands for ``name``: of its initializers those in ``names``.

        Raises:
            BundleError: The weights end before a plane.
        """
        found = self._graphs.get(name)
        if found is None:
            return {}
        wanted = [matrix for matrix in found.matrices if matrix.initializer in names]
        scales = [one for one in found.scales if one.initializer in names]
        values = widened_values(self._folder, wanted, threads=self._threads)
        return values | Scales(self._folder, scales, threads=self._threads).values

    def is_needed(self, name: str) -> bool:
        """Whether ``name`` cannot well be opened by itself: its matrices lie in planes."""
        found = self._graphs.get(name)
        return found is not None and bool(found.matrices)

    def supply(self, name: str) -> tuple[str, dict[str, ort.OrtValue]]:
        """The graph to open instead of ``name`` and what to supply to it by initializer; ``name`` itself and nothing
        where no graph stands for it. What later graphs want too is kept until they are supplied. Call ``packed`` once
        it is open.

        Raises:
            BundleError: The weights end before a plane.
        """
        graph = self._graphs.pop(name, None)
        if graph is None:
            return name, {}
        kept = {matrix.initializer: self._kept[matrix] for matrix in graph.matrices if matrix in self._kept}
        missing = [matrix for matrix in graph.matrices if matrix not in self._kept]
        values = kept | widened_values(self._folder, missing, threads=self._threads)
        later = {matrix for other in self._graphs.values() for matrix in other.matrices}
        self._kept = {matrix: values[matrix.initializer] for matrix in graph.matrices if matrix in later}
        self._scales = Scales(self._folder, graph.scales, threads=self._threads)
        return graph.name, values | self._scales.values

    def packed(self) -> None:
        """The session that was supplied last is open: what it does not read again is given back."""
        if self._scales is not None:
            self._scales.drop()
            self._scales = None


def widened_values(folder: Path, matrices: Sequence[WidenedMatrix], *, threads: int = 1) -> dict[str, ort.OrtValue]:
    """Matrices put together from planes in files of ``folder``, by initializer.

    Raises:
        BundleError: A file ends before a plane.
    """
    for matrix in matrices:
        rows = zip(matrix.offsets, (_plane_row(matrix, width) for width in matrix.format.planes), strict=True)
        require_whole(folder, matrix, [offset + matrix.shape[0] * size for offset, size in rows])
    arrays = [np.empty(widened_shape(matrix.shape, matrix.format), np.uint8) for matrix in matrices]
    with Workers(threads) as pool:
        done = [
            pool.submit(_fill, folder, matrix, start, array[start : start + step])
            for matrix, array in zip(matrices, arrays, strict=True)
            for step in [_rows_at_a_time(matrix)]
            for start in range(0, matrix.shape[0], step)
        ]
        for part in done:
            part.result()
    return {
        matrix.initializer: ort.OrtValue.from_dlpack(array.reshape(matrix.initializer_shape))
        for matrix, array in zip(matrices, arrays, strict=True)
    }


def _fill(folder: Path, matrix: WidenedMatrix, start: int, out: npt.NDArray[np.uint8]) -> None:
    """Put the rows from ``start`` on together in ``out``."""
    rows, blocks, _ = out.shape
    planes = []
    with (folder / matrix.location).open("rb", buffering=0) as stream:
        for width, offset in zip(matrix.format.planes, matrix.offsets, strict=True):
            size = _plane_row(matrix, width)
            stream.seek(offset + start * size)
            packed = np.fromfile(stream, np.uint8, rows * size)
            if packed.size != rows * size:
                raise BundleError(
                    f"{matrix.location} ends before {matrix.initializer}.",
                    hint="Copy the bundle again or export it again.",
                )
            planes.append(packed.reshape(rows, blocks, -1))
    widen_rows(planes, matrix.format, out)


def _plane_row(matrix: WidenedMatrix, width: int) -> int:
    """Bytes of a row in a plane of so many bits."""
    return matrix.format.blocks(matrix.shape[1]) * matrix.format.block_size * width // 8


def _rows_at_a_time(matrix: WidenedMatrix) -> int:
    return max(1, _SLICE_CODES // (matrix.format.blocks(matrix.shape[1]) * matrix.format.block_size))
