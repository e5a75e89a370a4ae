"""Loads models in background threads.

Loading a large model is one long call into native code that cannot be interrupted. Textual waits for its thread workers
when the program ends, so these threads are not workers of Textual.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgedistill_tui.engine import Engine


class LeftError(Exception):
    """The program ends, and the model is no longer needed."""


class Opening:
    """Opens bundles until ``leave`` is called.

    Args:
        open_engine: Loads a bundle.
    """

    def __init__(self, open_engine: Callable[[Path], Engine]) -> None:
        self._open = open_engine
        self._changed = threading.Condition()
        self._left = False
        self._threads: list[threading.Thread] = []

    @property
    def unfinished(self) -> bool:
        """Whether a bundle is still being loaded."""
        return any(thread.is_alive() for thread in self._threads)

    def load(self, path: Path) -> Engine:
        """Load a bundle while this thread waits.

        Raises:
            LeftError: The program ends.
            Exception: Whatever loading it raised.
        """
        found: list[Engine | BaseException] = []
        thread = threading.Thread(target=self._load, args=(path, found), daemon=True)
        self._threads = [*(t for t in self._threads if t.is_alive()), thread]
        thread.start()
        with self._changed:
            self._changed.wait_for(lambda: found or self._left)
        result = found[0] if found else LeftError()
        if self._left and not isinstance(result, BaseException):
            result.close()
            result = LeftError()
        if isinstance(result, BaseException):
            raise result
        return result

    def _load(self, path: Path, found: list[Engine | BaseException]) -> None:
        try:
            result: Engine | BaseException = self._open(path)
        except BaseException as error:  # raised again where it is waited for
            result = error
        with self._changed:
            if self._left:  # nobody waits any more
                if not isinstance(result, BaseException):
                    result.close()
                return
            found.append(result)
            self._changed.notify_all()

    def leave(self) -> None:
        """End all waiting calls of ``load``; models that are loaded afterwards are closed at once."""
        with self._changed:
            self._left = True
            self._changed.notify_all()
