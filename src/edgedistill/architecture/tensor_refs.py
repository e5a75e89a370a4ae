"""References from a name that is asked for to what is stored: some of its rows, another order, one of its experts."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from edgedistill.checkpoint.grid import grid_of, read_grid
from edgedistill.errors import CheckpointError

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgedistill.checkpoint.grid import Grid, Scales, ZeroPoints
    from edgedistill.checkpoint.types import TensorSource

    Order = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float32]

T = TypeVar("T", bound=np.generic)
_KEPT = 3


@dataclass(frozen=True, slots=True)
class TensorRef:
    """Rows ``start:start + rows`` of the stored tensor ``name`` (all of them: None), reordered and multiplied.

    ``order`` int64 [n] permutes every n rows: row i of a group is its stored row ``order[i]``; with ``stride``, a group
    is so many stored rows, of which these n are seen. With ``expert``, the
    stored tensor is [experts, rows, ...], or [experts, columns, rows] if ``transposed``, and this is one of them.
    A ``kernel`` [channels, 1, n] of a depthwise convolution is seen as [channels, n].
    ``as_row``: The stored vector is a matrix of one row.
    """

    name: str
    start: int = 0
    rows: int | None = None
    order: Order | None = None
    stride: int = 0
    factor: float = 1.0
    expert: int | None = None
    transposed: bool = False
    as_row: bool = False
    kernel: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Stored tensors that it reads."""
        return (self.name,)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Rows of two tensors in turn, those of ``first`` before those of ``second``."""

    first: TensorRef
    second: TensorRef

    @property
    def names(self) -> tuple[str, ...]:
        """Stored tensors that it reads."""
        return (self.first.name, self.second.name)


Ref = TensorRef | Neighbours


class RefReader:
    """Reads what references point at. Whole experts are read at once; the last few are kept for the next slice."""

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._experts: dict[tuple[str, int], Floats] = {}

    def shape(self, ref: Ref) -> tuple[int, ...]:
        """Shape of what is read; raises CheckpointError for fewer rows than the reference asks for."""
        if isinstance(ref, Neighbours):
            first, second = self.shape(ref.first), self.shape(ref.second)
            if first != second:
                raise CheckpointError(
                    f"'{ref.first.name}' has shape {list(first)}, '{ref.second.name}' {list(second)}; they should be "
                    "equal.",
                    hint="The checkpoint is damaged: download it again.",
                )
            return (2 * first[0], *first[1:])
        found = self._source.info(ref.name).shape
        if ref.as_row:
            return (1, *found)
        if ref.expert is not None:
            if len(found) < 2 or ref.expert >= found[0]:
                raise CheckpointError(
                    f"The tensor '{ref.name}' has shape {list(found)}; expert {ref.expert} is not in it.",
                    hint="The checkpoint and config.json do not belong together.",
                )
            found = tuple(reversed(found[1:])) if ref.transposed else found[1:]
        if ref.kernel and len(found) == 3 and found[1] == 1:
            found = (found[0], found[2])
        rows = found[0] - ref.start if ref.rows is None else ref.rows
        needed = rows
        if ref.order is not None and ref.stride:
            needed = -(-rows // len(ref.order)) * ref.stride
        if ref.start + needed > found[0]:
            raise CheckpointError(
                f"The tensor '{ref.name}' has {found[0]} rows; config.json asks for at least {ref.start + needed}.",
                hint="The checkpoint and config.json do not belong together.",
            )
        return (rows, *found[1:])

    def dtype(self, ref: Ref) -> str:
        """The stored type."""
        return self._source.info(ref.names[0]).dtype

    def rows(self, ref: Ref, start: int, stop: int) -> Floats:
        """Rows ``start:stop`` as float32; raises as the source does."""
        if isinstance(ref, Neighbours):
            both = [self.rows(one, start // 2, -(-stop // 2)) for one in (ref.first, ref.second)]
            return _in_turn(both[0], both[1], start, stop)
        if ref.as_row:
            return self._source.read_rows(ref.name, 0, self._source.info(ref.name).shape[0])[None][start:stop]
        first, last, wanted = _stored_rows(ref, start, stop)
        if ref.expert is None:
            rows = self._source.read_rows(ref.name, first, last)
            rows = rows.reshape(len(rows), -1) if ref.kernel else rows
        else:
            expert = self._expert(ref.name, ref.expert)
            rows = np.ascontiguousarray(expert[:, first:last].T) if ref.transposed else expert[first:last].copy()
        rows = rows if wanted is None else rows[wanted]
        return rows if ref.factor == 1.0 else rows * np.float32(ref.factor)

    def grid(self, ref: Ref) -> Grid | None:
        """The grid; None for a multiplied tensor, whose scales could need more bits, and for a transposed one."""
        if isinstance(ref, Neighbours):
            first, second = self.grid(ref.first), self.grid(ref.second)
            return first if first == second else None
        return grid_of(self._source, ref.name) if ref.factor == 1.0 and not ref.transposed else None

    def read_grid(self, ref: Ref, start: int, stop: int) -> tuple[Scales, ZeroPoints]:
        """Scales and zero points of the rows ``start:stop``, see ``GridSource``."""
        if isinstance(ref, Neighbours):
            gate, up = (self.read_grid(one, start // 2, -(-stop // 2)) for one in (ref.first, ref.second))
            return _in_turn(gate[0], up[0], start, stop), _in_turn(gate[1], up[1], start, stop)
        first, last, wanted = _stored_rows(ref, start, stop)
        if ref.expert is None:
            scales, zero_points = read_grid(self._source, ref.name, first, last)
        else:
            scales, zero_points = read_grid(self._source, ref.name, ref.expert, ref.expert + 1)
            scales, zero_points = scales[0, first:last], zero_points[0, first:last]
        return (scales, zero_points) if wanted is None else (scales[wanted], zero_points[wanted])

    def _expert(self, name: str, expert: int) -> Floats:
        with self._lock:
            if (name, expert) not in self._experts:
                while len(self._experts) >= _KEPT:
                    del self._experts[next(iter(self._experts))]
                self._experts[name, expert] = self._source.read_rows(name, expert, expert + 1)[0]
            return self._experts[name, expert]


def _in_turn(first: npt.NDArray[T], second: npt.NDArray[T], start: int, stop: int) -> npt.NDArray[T]:
    """Rows ``start:stop`` of two tensors in turn, of which the rows from ``start // 2`` on are given."""
    both = np.stack([first, second], axis=1).reshape(-1, *first.shape[1:])
    return both[start % 2 : start % 2 + stop - start]


def _stored_rows(ref: TensorRef, start: int, stop: int) -> tuple[int, int, Order | None]:
    """First and last stored row of the rows ``start:stop``, and which of those they are (None: all, in order)."""
    if ref.order is None:
        return ref.start + start, ref.start + stop, None
    size, stride = len(ref.order), ref.stride or len(ref.order)
    first, last = start // size * stride, -(-stop // size) * stride
    group, inside = np.divmod(np.arange(start, stop), size)
    return ref.start + first, ref.start + last, group * stride + ref.order[inside] - first
