"""The KV cache: one buffer per layer for keys and one for values, grown in steps, with row-wise lengths.

A row is one sequence. ``lengths`` says how many of its entries count; whatever lies behind is garbage that the next
step overwrites, so that giving tokens back costs nothing. A quantized cache is handled in its stored form: copies of
rows are copies of codes, and the scales are the graph's business. Layers without keys and values have states of fixed
size beside it (``state``), and tokens are given back only as far as states reach. The buffers are NumPy arrays that
this object owns: ONNX Runtime's values only alias them, and must be made anew whenever ``generation`` has changed.
"""

from __future__ import annotations

import copy
import math
import mmap
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgedistill.errors import ContextLengthError, OutOfMemoryError
from edgedistill.runtime.state import RecurrentStates

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt
    import onnxruntime as ort

    from edgedistill.bundle.manifest import ModelInfo


_CACHE_LINE = 64
_OWN_MAPPING = 256 * 1024


class KVCache:
    """Keys and values of ``batch`` rows.

    Attributes:
        lengths: int64 [B], entries that count, per row. Read it; change it through the methods.
        tokens: int64 [B, capacity], the id behind every entry (what is needed to compute an entry again).
        generation: Counts the replacements of the buffers.
        states: Of the layers that have no keys and values.
    """

    def __init__(self, geometry: CacheGeometry, batch: int, *, step: int) -> None:
        """An empty cache that will grow by ``step`` tokens at a time."""
        if batch < 1 or step < 1:
            raise ValueError(f"expected a batch and a step of at least 1, found {batch} and {step}")
        self.geometry = geometry
        self.step = step
        self.lengths: npt.NDArray[np.int64] = np.zeros(batch, dtype=np.int64)
        self.tokens: npt.NDArray[np.int64] = np.zeros((batch, 0), dtype=np.int64)
        self.generation = 0
        self._buffers = [self._allocate(batch, 0, width) for width in geometry.widths]
        self.states = RecurrentStates([shape for _, shape in geometry.states], batch, aligned_zeros)

    @property
    def batch(self) -> int:
        """Number of rows."""
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        """Tokens per row that fit the buffers as they are."""
        return int(self._buffers[0].shape[2])

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return sum(buffer.nbytes for buffer in self._buffers) + self.states.nbytes

    @property
    def buffers(self) -> Sequence[npt.NDArray[Any]]:
        """[B, heads, capacity, width] of the geometry's dtype: key and value of every layer that has them, in turn."""
        return self._buffers

    def reserve(self, tokens: int) -> None:
        """Make room for ``tokens`` per row, and the geometry's spare ones.

        Raises:
            ContextLengthError: If that is beyond the limit.
            OutOfMemoryError: If the memory cannot be had; the cache then is as before.
        """
        spare = self.geometry.spare
        if tokens + spare <= self.capacity:
            return
        if tokens > self.geometry.limit:
            raise ContextLengthError(
                f"{tokens} tokens are needed, the context holds {self.geometry.limit}.",
                hint="Shorten the prompt or export with a larger --context.",
            )
        capacity = min(-(-(tokens + spare) // self.step) * self.step, self.geometry.limit + spare)
        try:
            self._resize(capacity)
        except MemoryError as error:
            needed = capacity * self.batch * self.geometry.bytes_per_token
            raise OutOfMemoryError(
                f"The KV cache cannot grow to {capacity} tokens ({needed / 1e6:.0f} MB): out of memory.",
                hint="Shorten the prompt, lower max_new_tokens or use fewer samples at a time.",
            ) from error

    def reach(self, row: int, length: int) -> int:
        """The most entries of ``row``, at most ``length``, that can be left: all of them, or those before a state."""
        return self.states.reach(row, int(self.lengths[row]), length)

    def truncate(self, row: int, length: int) -> int:
        """Forget the entries of ``row`` from ``length`` on, or from before it where no state is known for it.

        Returns how many are left (``reach``); raises ValueError if there are fewer to begin with.
        """
        if not 0 <= length <= self.lengths[row]:
            raise ValueError(f"row {row} has {self.lengths[row]} tokens and cannot be cut to {length}")
        self.lengths[row] = left = self.states.rewind(row, int(self.lengths[row]), length)
        return left

    def restore(self) -> None:
        """After a run that failed: forget what states are no longer known for."""
        for row in range(self.batch):
            self.lengths[row] = self.states.restore(row, int(self.lengths[row]))

    def put_row(self, target: int, source: KVCache, row: int, length: int) -> int:
        """Make row ``target`` a copy of the first ``length`` entries of another cache's ``row``, as far as it reaches.

        Returns how many were copied (``reach``).

        Raises:
            ValueError: If ``row`` has fewer entries.
            ContextLengthError, OutOfMemoryError: See ``reserve``.
        """
        if not 0 <= length <= source.lengths[row]:
            raise ValueError(f"row {row} has {source.lengths[row]} tokens, {length} are wanted")
        self.reserve(length)
        for buffer, other in zip(self._buffers, source._buffers, strict=True):
            buffer[target, :, :length] = other[row, :, :length]
        self.tokens[target, :length] = source.tokens[row, :length]
        left = self.states.put_row(target, source.states, row, int(source.lengths[row]), length)
        self.lengths[target] = left
        return left

    def select(self, rows: Sequence[int]) -> KVCache:
        """A new cache with copies of ``rows``, in this order; a row may occur any number of times.

        ``select([0] * n)`` expands one prefix to a batch; leaving rows out compacts a batch.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        made = KVCache(self.geometry, len(chosen), step=self.step)
        used = int(self.lengths[chosen].max())
        made.reserve(used)
        made.lengths[:] = self.lengths[chosen]
        for target, source in zip(made._buffers, self._buffers, strict=True):
            target[:, :, :used] = source[chosen, :, :used]
        made.tokens[:, :used] = self.tokens[chosen, :used]
        for place, row in enumerate(rows):
            made.states.put_row(place, self.states, row, int(self.lengths[row]), int(self.lengths[row]))
        return made

    def compact(self, rows: Sequence[int], batch: int) -> None:
        """Leave ``rows`` (distinct, ascending) as the first of ``batch`` rows; any others are empty.

        Nothing is allocated, so that a batch never takes more memory than it did at its largest: rows move forward
        inside the buffers, whose end lies idle until they grow next. Raises ValueError for rows that are not so.
        """
        if not len(rows) <= batch <= self.batch or list(rows) != sorted({*rows} & {*range(self.batch)}):
            raise ValueError(f"rows {list(rows)} of {self.batch} cannot be the first of {batch}")
        used = int(self.lengths[list(rows)].max(initial=0))
        for index, buffer in enumerate(self._buffers):
            for target, source in enumerate(rows):
                if target != source:
                    buffer[target, :, :used] = buffer[source, :, :used]
            self._buffers[index] = buffer[:batch]
        self.tokens[: len(rows)] = self.tokens[list(rows)]
        self.lengths[: len(rows)] = self.lengths[list(rows)]
        self.lengths[len(rows) :] = 0
        self.tokens, self.lengths = self.tokens[:batch], self.lengths[:batch]
        self.states.compact(rows, batch)
        self.generation += 1

    def rows(self, start: int, stop: int) -> KVCache:
        """Rows ``start`` up to ``stop`` as a cache over the same memory, until ``generation`` changes.

        What is done to either is done to both. The view cannot grow: make room in the whole cache before.
        """
        view = copy.copy(self)
        view._buffers = [buffer[start:stop] for buffer in self._buffers]
        view.lengths, view.tokens = self.lengths[start:stop], self.tokens[start:stop]
        view.states = self.states.rows(start, stop)
        return view

    def swap(self, a: int, b: int) -> None:
        """Exchange two rows."""
        la, lb = int(self.lengths[a]), int(self.lengths[b])
        for array in (*(buffer.swapaxes(1, 2) for buffer in self._buffers), self.tokens):
            kept = array[a, :la].copy()
            array[a, :lb] = array[b, :lb]
            array[b, :la] = kept
        self.lengths[a], self.lengths[b] = lb, la
        self.states.swap(a, b)

    def append(self, row: int, tokens: npt.NDArray[np.int64], entries: Sequence[npt.NDArray[Any]]) -> None:
        """Add stored entries to ``row``; states, if there are any, have to be given to it then (``states.put``).

        Args:
            tokens: int64 [n].
            entries: [heads, n, width] of the geometry's dtype for every buffer.

        Raises ContextLengthError, OutOfMemoryError: See ``reserve``.
        """
        start = int(self.lengths[row])
        stop = start + len(tokens)
        self.reserve(stop)
        for buffer, stored in zip(self._buffers, entries, strict=True):
            buffer[row, :, start:stop] = stored
        self.tokens[row, start:stop] = tokens
        self.lengths[row] = stop

    def put_rows(self, rows: Sequence[int] | npt.NDArray[np.int64], source: KVCache) -> None:
        """The inverse of ``select`` for distinct ``rows``: row i of ``source`` replaces row ``rows[i]``."""
        used = int(source.lengths.max())
        self.reserve(used)
        for target, buffer in zip(self._buffers, source._buffers, strict=True):
            target[rows, :, :used] = buffer[:, :, :used]
        self.tokens[rows, :used] = source.tokens[:, :used]
        self.lengths[rows] = source.lengths
        self.states.put_rows(rows, source.states)

    def _allocate(self, batch: int, capacity: int, width: int) -> npt.NDArray[Any]:
        geometry = self.geometry
        return aligned_zeros((batch, geometry.heads, capacity, width), geometry.dtype)

    def _resize(self, capacity: int) -> None:
        """Move every buffer to another capacity, one at a time so that only one exists twice."""
        used = int(self.lengths.max())
        old = self.capacity
        self.generation += 1
        try:
            for index, buffer in enumerate(self._buffers):
                self._buffers[index] = self._moved(buffer, capacity, used)
        except MemoryError:
            for index, buffer in enumerate(self._buffers):
                if buffer.shape[2] != old:
                    self._buffers[index] = self._moved(buffer, old, used)
            raise
        self.tokens = np.pad(self.tokens[:, :used], ((0, 0), (0, capacity - used)))

    def _moved(self, buffer: npt.NDArray[Any], capacity: int, used: int) -> npt.NDArray[Any]:
        new = self._allocate(buffer.shape[0], capacity, buffer.shape[3])
        new[:, :, :used] = buffer[:, :, :used]
        return new


def aligned_zeros(shape: tuple[int, ...], dtype: str = "float32") -> npt.NDArray[Any]:
    """Zeros that begin at a cache line: vector loads of the kernels then never straddle two.

    The pages are touched here, all at once, and not one by one in the decode steps that reach them. Large arrays are
    mappings of their own: a cache that grows frees every size once, and the C library's heap would keep the holes (the
    resident memory of a 0.6B model at 2048 tokens was a third higher).
    """
    size, itemsize = math.prod(shape), np.dtype(dtype).itemsize
    if size * itemsize >= _OWN_MAPPING:
        mapped: npt.NDArray[Any] = np.frombuffer(_mapping(size * itemsize), dtype=dtype, count=size)
        mapped.fill(0)
        return mapped.reshape(shape)
    padded = np.empty(size + _CACHE_LINE // itemsize, dtype=dtype)
    padded.fill(0)
    start = -padded.ctypes.data % _CACHE_LINE // itemsize
    return padded[start : start + size].reshape(shape)


def _mapping(nbytes: int) -> mmap.mmap:
    """Anonymous memory that goes back to the system when the last array over it is gone; raises MemoryError."""
    try:
        if sys.platform == "win32":
            return mmap.mmap(-1, nbytes)
        # Not shared, as by default: the system counts it as the process's own, and may put it into huge pages.
        return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{nbytes} bytes cannot be mapped") from error


@dataclass(frozen=True, slots=True)
class CacheGeometry:
    """Sizes that a cache is made of.

    ``layers`` are the indices of those with keys and values. ``limit`` is the most tokens per row (the model's position
    tables end there). ``dtype``: float32, int8, or uint8 for two 4-bit values in a byte. ``states``: name and shape of
    every state of a row; with any, ``spare`` more tokens have room beyond the limit. ``head_dims``: of each of the
    layers, where they differ. ``readers``: layers that read another's keys and values, and which.
    """

    layers: tuple[int, ...]
    heads: int
    head_dim: int
    limit: int
    dtype: str = "float32"
    states: tuple[tuple[str, tuple[int, ...]], ...] = ()
    head_dims: tuple[int, ...] = ()
    readers: tuple[tuple[int, int], ...] = ()

    @property
    def spare(self) -> int:
        """Tokens computed beside others that do not count (see ``decoder``)."""
        return 2 if self.states else 0

    @property
    def widths(self) -> tuple[int, ...]:
        """Elements of the stored type per head and token, for keys and values of every layer in turn."""
        sizes = self.head_dims or (self.head_dim,) * len(self.layers)
        return tuple(size // 2 if self.dtype == "uint8" else size for size in sizes for _ in ("key", "value"))

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token over all layers, keys and values."""
        return sum(self.widths) * self.heads * np.dtype(self.dtype).itemsize


def past_names(layers: Iterable[int]) -> list[str]:
    """Names of the cache inputs in the order of ``KVCache.buffers``: key and value of each of the layers."""
    return [f"past_key_values.{i}.{kind}" for i in layers for kind in ("key", "value")]


class LoadedGraph(Protocol):
    """A graph that decoders run on; ``DecoderSession`` is one.

    ``raw`` decodes single tokens, ``wide`` serves exact steps and steps of several tokens (often the same session).
    """

    raw: ort.InferenceSession
    wide: ort.InferenceSession
    info: ModelInfo
    geometry: CacheGeometry

    def decoding(self) -> None:
        """Called when a decoder prepares its first step of one token: prompts are done, now memory sets the speed."""
