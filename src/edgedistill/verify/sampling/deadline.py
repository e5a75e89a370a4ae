"""The end of a time budget, which is checked between tokens: replies that are not complete by then are discarded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgedistill.errors import EXIT_INCONCLUSIVE, VerifyError

if TYPE_CHECKING:
    from collections.abc import Callable

    Clock = Callable[[], float]


class Deadline:
    """A point in time with the interface of an event (``is_set``).

    Args:
        at: Seconds on ``clock``.
        clock: Seconds since any start; only tests replace it.
    """

    def __init__(self, at: float, clock: Clock = time.perf_counter) -> None:
        self._at, self._clock = at, clock

    @property
    def left(self) -> float:
        """Seconds left; negative afterwards."""
        return self._at - self._clock()

    def is_set(self) -> bool:
        """Whether it has passed."""
        return self.left <= 0


class TimeUpError(VerifyError):
    """The time budget ended before anything could be compared."""

    exit_code = EXIT_INCONCLUSIVE
