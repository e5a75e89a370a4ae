"""Waiting for events. Tests say what must happen, never how fast: the limit only ends a test that would hang."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 300.0
"""Far beyond what the slowest machine needs, and below pytest's own limit for a test."""


def wait_until(condition: Callable[[], object], what: str | Callable[[], str] = "", *, every_s: float = 0.02) -> None:
    """Return once ``condition()`` is true; fail with ``what`` when it stays false."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"gave up after {PATIENCE_S:.0f} s: {what() if callable(what) else what}")
        time.sleep(every_s)
