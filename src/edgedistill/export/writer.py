"""Streams weights from a checkpoint through quantization into weights.bin, slice by slice.

It holds at most ``threads + 1`` slices of about ``SLICE_ELEMENTS`` float32 values and their working copies in memory,
whatever the model's size. A journal has the digest of every finished weight. A resumed run reads these weights again
and compares their digests, so a crash during a write cannot leave a wrong tensor.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill import positioned_io
from edgedistill.bundle.staging import os_error
from edgedistill.checkpoint.grid import read_grid
from edgedistill.progress import NullProgress
from edgedistill.quantize import quantize_rows
from edgedistill.quantize.kept import keep_rows
from edgedistill.quantize.spec import array_specs
from edgedistill.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.architecture.spec import LogicalWeight
    from edgedistill.checkpoint.types import TensorSource
    from edgedistill.export.calibrate.smoothing import Fold
    from edgedistill.progress import Progress
    from edgedistill.quantize.gptq import Solver
    from edgedistill.quantize.spec import ArraySpec, WeightFormat
    from edgedistill.workers import Work

SLICE_ELEMENTS = 2 << 20  # 8 MiB of float32


@dataclass(frozen=True, slots=True)
class Job:
    """One weight to write, its format, and factors that it is multiplied by first (``smoothing.Fold``)."""

    weight: LogicalWeight
    format: WeightFormat
    fold: Fold | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows ``start:stop`` of checkpoint tensor ``part``, which are rows from ``row`` on of the logical weight."""

    part: str
    start: int
    stop: int
    row: int


def slices(weight: LogicalWeight, source: TensorSource) -> Iterator[Slice]:
    """Cut a logical weight into slices of whole rows of about ``SLICE_ELEMENTS``; never across two parts."""
    row = 0
    for part in weight.parts:
        shape = source.info(part).shape
        width = int(np.prod(shape[1:], dtype=np.int64)) if len(shape) > 1 else 1
        step = max(1, SLICE_ELEMENTS // max(1, width))
        for start in range(0, shape[0], step):
            stop = min(start + step, shape[0])
            yield Slice(part, start, stop, row + start)
        row += shape[0]


class WeightsWriter:
    """Writes arrays at their planned offsets in one preallocated file.

    Args:
        path: weights.bin inside the staging directory.
        layout: Places of all arrays.
        resume: Keep weights in ``path`` whose digests match the journal beside it.
        journal: Whether to write a journal. Without one nothing can be resumed (scratch files).

    Raises:
        OutputError: The file cannot be made, or the disk is full.
    """

    def __init__(self, path: Path, layout: Layout, *, resume: bool, journal: bool = True) -> None:
        self.path = path
        self.layout = layout
        self.journal = path.with_name(".journal")
        resume = resume and path.is_file() and path.stat().st_size == layout.size
        self._finished, self._failed = self._read_journal() if resume else ({}, {})
        self._journalled = journal
        if journal and not resume:
            self.journal.unlink(missing_ok=True)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | _BINARY | (0 if resume else os.O_TRUNC), 0o644)
            if not resume and layout.size:
                _reserve(self._fd, layout.size)
        except OSError as error:
            raise os_error(error, path) from error

    def close(self) -> None:
        """Flush to disk and close."""
        try:
            if self._journalled:
                os.fsync(self._fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # not a regular file
                raise os_error(error, self.path) from error
        finally:
            os.close(self._fd)

    def _read_journal(self) -> tuple[dict[str, str], dict[str, str]]:
        """By weight: its digest, and the reason if GPTQ failed for it. The last entry of a weight counts."""
        finished: dict[str, str] = {}
        failed: dict[str, str] = {}
        if self.journal.is_file():
            for line in self.journal.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    finished[entry["name"]] = entry["digest"]
                    failed.pop(entry["name"], None)
                    if reason := entry.get("failed"):
                        failed[entry["name"]] = str(reason)
                except (ValueError, KeyError, TypeError):
                    break  # a torn last line
        return finished, failed

    def write_array(self, name: str, array: npt.NDArray[np.generic], row: int = 0) -> None:
        """Write ``array`` as rows from ``row`` on of the stored array ``name``.

        Raises:
            ValueError: Its dtype, the shape of its rows or their number does not match the plan.
            OutputError: The file cannot be written.
        """
        stored = self.layout.arrays[name]
        spec = stored.spec
        if array.dtype != np.dtype(spec.dtype) or array.shape[1:] != spec.shape[1:]:
            raise ValueError(f"{name}: got {array.dtype} {array.shape}, planned {spec.dtype} {spec.shape}")
        if row + array.shape[0] > spec.shape[0]:
            raise ValueError(f"{name}: rows {row}..{row + array.shape[0]} of {spec.shape[0]}")
        row_bytes = spec.nbytes // max(1, spec.shape[0])
        self._pwrite(np.ascontiguousarray(array), stored.offset + row * row_bytes)

    def _pwrite(self, array: npt.NDArray[np.generic], offset: int) -> None:
        view = array.data.cast("B")
        done = 0
        try:
            while done < len(view):
                done += positioned_io.write(self._fd, view[done:], offset + done)
        except OSError as error:
            raise os_error(error, self.path) from error

    def write_weights(
        self,
        jobs: Sequence[Job],
        source: TensorSource,
        *,
        threads: int,
        progress: Progress,
        solvers: Mapping[str, Solver] | None = None,
    ) -> int:
        """Quantize and write all ``jobs`` in order.

        Args:
            jobs: Weights and formats.
            source: Where the rows come from.
            threads: Slices worked on at a time (NumPy releases the interpreter lock in its loops).
            progress: Receives elements.
            solvers: GPTQ solvers by weight name (formats of method ``gptq``).

        Returns:
            Number of weights taken over from an interrupted run.
        """
        reused = 0
        with Workers(threads) as pool:
            for job in jobs:
                cut = list(slices(job.weight, source))
                digest = self._finished.get(job.weight.name)
                if digest is not None and digest == self._digest_on_disk(job, cut):
                    progress.advance(int(np.prod(job.weight.shape, dtype=np.int64)))
                    reused += 1
                    continue
                solver = solvers.get(job.weight.name) if solvers else None
                digest = self._write_weight(job, cut, source, pool, threads, progress, solver)
                self._log(job.weight.name, digest, solver.failed if solver else None)
        return reused

    def _write_weight(
        self,
        job: Job,
        cut: list[Slice],
        source: TensorSource,
        pool: Workers,
        threads: int,
        progress: Progress,
        solver: Solver | None,
    ) -> str:
        digest = hashlib.sha256()
        pending: deque[Work[tuple[bytes, int]]] = deque()

        def collect() -> None:
            part, elements = pending.popleft().result()
            digest.update(part)
            progress.advance(elements)

        for piece in cut:
            if len(pending) > threads:
                collect()
            pending.append(pool.submit(self._write_slice, job, piece, source, solver))
        while pending:
            collect()
        return digest.hexdigest()

    def _write_slice(self, job: Job, piece: Slice, source: TensorSource, solver: Solver | None) -> tuple[bytes, int]:
        rows = source.read_rows(piece.part, piece.start, piece.stop)
        if job.weight.offset:
            rows += np.float32(job.weight.offset)
        if job.fold is not None:
            rows = job.fold.apply(rows, piece.row)
        name = job.weight.name
        digest = hashlib.sha256()
        if job.format.is_float:
            arrays: dict[str, npt.NDArray[np.generic]] = {name: rows if len(job.weight.shape) > 1 else rows.reshape(-1)}
        else:
            if job.format.method == "kept":
                grid = read_grid(source, piece.part, piece.start, piece.stop)
                quantized = keep_rows(rows, job.format, *grid)
            else:
                quantized = quantize_rows(rows, job.format, solver=solver)
            arrays = {f"{name}.{suffix}": array for suffix, array in quantized.items()}
        for key in sorted(arrays):
            array = np.ascontiguousarray(arrays[key])
            digest.update(array.data.cast("B"))
            self.write_array(key, array, piece.row)
        return digest.digest(), int(rows.size)

    def is_finished(self, job: Job, source: TensorSource) -> bool:
        """Whether an interrupted run has written this weight, and its bytes are unchanged."""
        digest = self._finished.get(job.weight.name)
        return digest is not None and digest == self._digest_on_disk(job, list(slices(job.weight, source)))

    def failure(self, name: str) -> str | None:
        """Why GPTQ failed for the weight ``name`` in the interrupted run that wrote it; None if it did not."""
        return self._failed.get(name)

    def _digest_on_disk(self, job: Job, cut: list[Slice]) -> str:
        name = job.weight.name
        shape = job.weight.shape
        specs = array_specs(name, (shape[0], shape[1]), job.format) if job.weight.is_matrix else ()
        keys = sorted(spec.name for spec in specs) or [name]
        total = hashlib.sha256()
        for piece in cut:
            digest = hashlib.sha256()
            for key in keys:
                stored = self.layout.arrays[key]
                row_bytes = stored.spec.nbytes // max(1, stored.spec.shape[0])
                count = (piece.stop - piece.start) * row_bytes
                digest.update(positioned_io.read(self._fd, count, stored.offset + piece.row * row_bytes))
            total.update(digest.digest())
        return total.hexdigest()

    def _log(self, name: str, digest: str, failed: str | None) -> None:
        if not self._journalled:
            return
        entry = {"name": name, "digest": digest} | ({"failed": failed} if failed else {})
        with self.journal.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


def write_scratch(
    path: Path, specs: Iterable[ArraySpec], jobs: Sequence[Job], source: TensorSource, threads: int
) -> dict[str, StoredArray]:
    """Write ``jobs`` to the scratch file ``path``, which replaces an earlier one; returns the places of their arrays.

    ``specs`` are the arrays of the jobs.
    """
    layout = plan_layout(specs, path.name)
    path.unlink(missing_ok=True)  # a session may still map the earlier one
    writer = WeightsWriter(path, layout, resume=False, journal=False)
    try:
        writer.write_weights(jobs, source, threads=threads, progress=NullProgress())
    finally:
        writer.close()
    return layout.arrays


def _reserve(fd: int, size: int) -> None:
    """Reserve disk blocks where the system can, so that a full disk is reported now and not after minutes of work."""
    allocate = getattr(os, "posix_fallocate", None)  # macOS and Windows have none
    try:
        if allocate is not None:
            allocate(fd, 0, size)
            return
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP):
            raise
    with contextlib.suppress(OSError):
        os.ftruncate(fd, size)


_BINARY = getattr(os, "O_BINARY", 0)

# ONNX recommends page alignment for memory mapping; for small arrays that would be mostly padding.
_LARGE = 1 << 20
_PAGE = 4096
_CACHE_LINE = 64


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array and its place: ``offset`` in bytes inside the file ``location`` (relative to the graph's directory)."""

    spec: ArraySpec
    location: str
    offset: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of all arrays by name, and the size of the file in bytes."""

    arrays: dict[str, StoredArray]
    size: int


def plan_layout(specs: Iterable[ArraySpec], location: str) -> Layout:
    """Place arrays one after another in the given order, aligned for memory mapping.

    Raises:
        ValueError: Two arrays share a name.
    """
    arrays: dict[str, StoredArray] = {}
    offset = 0
    for spec in specs:
        if spec.name in arrays:
            raise ValueError(f"two arrays named {spec.name}")
        alignment = _PAGE if spec.nbytes >= _LARGE else _CACHE_LINE
        offset = -(-offset // alignment) * alignment
        arrays[spec.name] = StoredArray(spec, location, offset)
        offset += spec.nbytes
    return Layout(arrays, offset)
