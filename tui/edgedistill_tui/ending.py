"""Ends the program at a signal: in an orderly way if possible, and in any case within seconds.

An orderly end needs a terminal that accepts output. After a lost connection it does not, and the screen would wait for
ever with the model in memory. A thread therefore supervises the end: if it takes too long, the thread writes unsaved
data to a file and ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
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

    Python calls a handler when the main thread runs next, which is never while that waits for a blocked terminal. The
    interpreter also writes the numbers of signals to a file descriptor at once (``signal.set_wakeup_fd``). A thread
    reads them there, and passes them on to the previous reader. Event loops replace that descriptor when they get a
    handler, so their handlers have to be set first.

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
        self._noted, self._note = socket.socketpair()
        self._note.setblocking(False)
        self._next = signal.set_wakeup_fd(self._note.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _without_effect) for number in _NUMBERS}
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def _listen(self) -> None:
        with self._noted:
            while numbers := self._noted.recv(64):
                if self._next != -1:
                    with contextlib.suppress(OSError):  # it is closed
                        os.write(self._next, numbers)
                for number in numbers:
                    if number in _NUMBERS:
                        self._end(number)

    def _end(self, number: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the end has come already
            self._loop.call_soon_threadsafe(self._orderly, number)
        if not self._over.wait(PATIENCE_S):
            with contextlib.suppress(Exception):
                self._rescue()
            os._exit(128 + number)

    def over(self) -> None:
        """Restore the previous handlers of signals, once the program has ended."""
        if self._over.is_set():
            return
        self._over.set()
        signal.set_wakeup_fd(-1 if self._loop.is_closed() else self._next)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._note.close()


def _without_effect(number: int, frame: FrameType | None) -> None:
    """A Python handler, so that the interpreter writes the signal's number; the thread that reads it acts on it."""
