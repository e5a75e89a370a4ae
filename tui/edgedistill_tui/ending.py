"""Ends the program by a signal: in order where that is possible, and in any case within seconds.

An orderly end needs a terminal that takes what is written to it. One behind a connection that was lost takes nothing
any more, and the screen then waits for its output with the model in memory, for good. So a thread looks after the end:
when it does not come, it puts what is not saved into a file and ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import FrameType

PATIENCE_S = 5.0
_NUMBERS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Ending:
    """Handlers of the signals that end a program; for the main thread.

    Args:
        loop: Where ``orderly`` is called.
        orderly: Ends the program; called with the signal's number.
        rescue: Called in another thread when ``orderly`` did not come to its end.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, orderly: Callable[[int], None], rescue: Callable[[], object]
    ) -> None:
        self._loop, self._orderly, self._rescue = loop, orderly, rescue
        self._over = threading.Event()
        self._begun = False
        self._before = {number: signal.signal(number, self._handle) for number in _NUMBERS}

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as the system calls it
        # Not the loop's own handlers: they wait for a turn of the loop, which may wait for the terminal.
        if self._begun:
            return
        self._begun = True
        threading.Thread(target=self._watch, args=(number,), daemon=True).start()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the end has come already
            self._loop.call_soon_threadsafe(self._orderly, number)

    def _watch(self, number: int) -> None:
        if not self._over.wait(PATIENCE_S):
            with contextlib.suppress(Exception):
                self._rescue()
            os._exit(128 + number)

    def over(self) -> None:
        """The program has ended: signals do again what they did before."""
        self._over.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
