"""The end of a time budget: what draws replies looks at it between tokens and gives up what has not ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgedistill.errors import EXIT_INCONCLUSIVE, VerifyError

if TYPE_CHECKING:
    from collections.abc import Callable

    Clock = Callable[[], float]


class Deadline:
    """A point in time, asked like an event (``is_set``).

    Args:
        at: On the clock, in seconds.
        clock: Seconds from any start; only tests pass another.
    """

    def __init__(self, at: float, clock: Clock = time.perf_counter) -> None:
        self._at, self._clock = at, clock

    @property
    def left(self) -> float:
        """Seconds until then; negative afterwards."""
        return self._at - self._clock()

    def is_set(self) -> bool:
        """Whether it has passed."""
        return self.left <= 0


class TimeUpError(VerifyError):
    """The time budget ended before anything could be compared."""

    exit_code = EXIT_INCONCLUSIVE
