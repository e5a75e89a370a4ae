"""States of recurrent layers beside the KV cache: one array per state, and what they were earlier on each row.

A state stands for all tokens of its row and cannot be cut: to go back to fewer tokens, one of the copies is taken that
were kept on the way (``keep``), and what lies between is computed again. Copies come dense at a row's end and sparse
before it, so that their number stays the same however long the row grows.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

KEPT_BYTES = 64 << 20
"""Copies that a row keeps, in bytes, though never fewer or more of them than these."""
FEWEST_KEPT, MOST_KEPT = 2, 16
INTERVAL = 128
"""Tokens between two copies while a row is decoded token by token."""


def most_kept(row_bytes: int) -> int:
    """Copies that a row of states of so many bytes keeps at most."""
    return min(MOST_KEPT, max(FEWEST_KEPT, KEPT_BYTES // max(1, row_bytes)))


def with_copies(row_bytes: int) -> int:
    """Bytes of a row of states with all copies that it may keep."""
    return row_bytes * (1 + most_kept(row_bytes))


@dataclass(frozen=True, slots=True)
class _Copy:
    """The states of one row after ``length`` tokens; never written to again."""

    length: int
    arrays: tuple[Floats, ...]


class RecurrentStates:
    """The states of ``batch`` rows. With no shapes there are none: everything then does nothing.

    Attributes:
        arrays: float32 [B, *shape] for each of the shapes, of every row's tokens so far.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], batch: int, allocate: Callable[[tuple[int, ...]], npt.NDArray[Any]]
    ) -> None:
        """``allocate``: makes zeros of a shape."""
        self.arrays: list[Floats] = [allocate((batch, *shape)) for shape in shapes]
        self._copies: list[list[_Copy]] = [[] for _ in range(batch)]
        self._row_bytes = 4 * sum(math.prod(shape) for shape in shapes)

    @property
    def nbytes(self) -> int:
        """Allocated bytes, copies included."""
        held = sum(len(copies) for copies in self._copies)
        return sum(array.nbytes for array in self.arrays) + held * self._row_bytes

    def reach(self, row: int, length: int, wanted: int) -> int:
        """The most tokens, at most ``wanted``, for which there are states; ``length``: of the row now."""
        if not self.arrays or wanted == length:
            return wanted
        return max((one.length for one in self._copies[row] if one.length <= wanted), default=0)

    def keep(self, row: int, length: int) -> None:
        """Remember the states of ``row``, which has ``length`` tokens."""
        copies = self._copies[row]
        if not self.arrays or length == 0 or (copies and copies[-1].length >= length):
            return
        copies.append(_Copy(length, tuple(array[row].copy() for array in self.arrays)))
        if len(copies) > most_kept(self._row_bytes):
            ends = [one.length for one in copies]
            # The one whose loss costs the least: a short way to the one before it, for its distance from the end.
            costs = [(b - a) / (ends[-1] - b) for a, b in zip([0, *ends], ends[:-1], strict=False)]
            del copies[int(np.argmin(costs))]

    def known(self, row: int, length: int) -> Iterator[tuple[int, Sequence[Floats]]]:
        """The copies of ``row``, and its states now, after ``length`` tokens: tokens, and each state float32."""
        for one in self._copies[row]:
            if one.length < length:
                yield one.length, one.arrays
        if self.arrays and length:
            yield length, [array[row] for array in self.arrays]

    def put(self, row: int, length: int, arrays: Sequence[Floats]) -> None:
        """Give ``row``, which has come to ``length`` tokens, the states of that many."""
        for own, stored in zip(self.arrays, arrays, strict=True):
            own[row] = stored
        self.keep(row, length)

    def keep_after(self, counts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> None:
        """``keep`` where a step added several tokens, or the last one of an interval: int64 [B] each."""
        for row in np.flatnonzero((counts > 1) | ((counts > 0) & (lengths % INTERVAL == 0))).tolist():
            self.keep(row, int(lengths[row]))

    def rewind(self, row: int, length: int, wanted: int) -> int:
        """Go back to at most ``wanted`` tokens of the row's ``length``; how many those are."""
        reached = self.reach(row, length, wanted)
        if self.arrays and reached != length:
            self._load(row, self._copies[row], reached)
            self._copies[row][:] = [one for one in self._copies[row] if one.length <= reached]
        return reached

    def restore(self, row: int, length: int) -> int:
        """After a run that failed, whose states are partly written: go back to a copy; how many tokens it has."""
        if not self.arrays:
            return length
        return self.rewind(row, -1, length)

    def put_row(self, target: int, source: RecurrentStates, row: int, length: int, wanted: int) -> int:
        """Make row ``target`` that of another's ``row`` of ``length`` tokens, cut to at most ``wanted``."""
        reached = source.reach(row, length, wanted)
        if reached == length:
            for array, other in zip(self.arrays, source.arrays, strict=True):
                array[target] = other[row]
        else:
            self._load(target, source._copies[row], reached)
        self._copies[target][:] = [one for one in source._copies[row] if one.length <= reached]
        return reached

    def put_rows(self, rows: Sequence[int] | npt.NDArray[np.int64], source: RecurrentStates) -> None:
        """Row i of ``source`` replaces row ``rows[i]``."""
        for array, other in zip(self.arrays, source.arrays, strict=True):
            array[rows] = other
        for row, copies in zip(rows, source._copies, strict=True):
            self._copies[row][:] = copies

    def compact(self, rows: Sequence[int], batch: int) -> None:
        """Leave ``rows`` (ascending) as the first of ``batch``; the others are empty."""
        for index, array in enumerate(self.arrays):
            for target, row in enumerate(rows):
                array[target] = array[row]
            array[len(rows) :] = 0
            self.arrays[index] = array[:batch]
        self._copies = [self._copies[row] for row in rows] + [[] for _ in range(batch - len(rows))]

    def rows(self, start: int, stop: int) -> RecurrentStates:
        """Rows ``start`` up to ``stop`` over the same memory."""
        view = copy.copy(self)
        view.arrays = [array[start:stop] for array in self.arrays]
        view._copies = self._copies[start:stop]
        return view

    def swap(self, a: int, b: int) -> None:
        """Exchange two rows."""
        for array in self.arrays:
            array[[a, b]] = array[[b, a]]
        first, second = self._copies[a][:], self._copies[b][:]
        self._copies[a][:], self._copies[b][:] = second, first

    def _load(self, row: int, copies: Sequence[_Copy], length: int) -> None:
        found = next((one for one in copies if one.length == length), None)
        for index, array in enumerate(self.arrays):
            array[row] = 0 if found is None else found.arrays[index]
