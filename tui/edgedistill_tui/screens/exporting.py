"""The default bundle in the making, with its progress.

Must not know: how an export works; it is given a function that does it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import ProgressBar, Static

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from textual.app import ComposeResult

    from edgedistill.progress import Progress, Unit

DRAWS_PER_S = 10


class ScreenProgress:
    """Progress that another thread makes and the screen looks at."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stage, self._done, self._total = "starting", 0, 0

    def begin(self, stage: str, total: int, unit: Unit) -> None:  # noqa: ARG002 - the protocol's
        """A stage starts."""
        with self._lock:
            self._stage, self._done, self._total = stage, 0, total

    def advance(self, amount: int) -> None:
        """Some of it is done."""
        with self._lock:
            self._done += amount

    def end(self) -> None:
        """The stage is finished."""

    def look(self) -> tuple[str, int, int]:
        """Stage, done, total."""
        with self._lock:
            return self._stage, self._done, self._total


class ExportScreen(ModalScreen["Path | None"]):
    """Runs ``make`` in a thread; gives the bundle's path, or None if it failed (the reason is notified).

    Args:
        make: Makes the bundle in the directory it is given.
        home: That directory.
    """

    def __init__(self, make: Callable[[Path, Progress], Path], home: Path) -> None:
        super().__init__()
        self._make, self._home = make, home
        self._progress = ScreenProgress()
        self._bar = ProgressBar(show_eta=False)
        self._stage = Static("starting", markup=False, classes="hint")
        self._result: Path | Exception | None = None
        self._started = time.monotonic()

    def compose(self) -> ComposeResult:
        """What is made, how far it is."""
        with Vertical(classes="dialog"):
            yield Static("Exporting tiny-reasoner, the built-in model", classes="question-text")
            yield self._bar
            yield self._stage

    def on_mount(self) -> None:
        """Begin."""
        threading.Thread(target=self._work, daemon=True).start()
        self.set_interval(1 / DRAWS_PER_S, self._look)

    def _work(self) -> None:
        try:
            self._result = self._make(self._home, self._progress)
        except Exception as error:
            self._result = error

    def _look(self) -> None:
        stage, done, total = self._progress.look()
        self._bar.update(total=total or None, progress=done)
        self._stage.update(f"{stage} · {time.monotonic() - self._started:.0f} s")
        result = self._result
        if isinstance(result, Exception):
            self.app.notify(f"The export failed: {result}", severity="error", timeout=15)
            self.dismiss(None)
        elif result is not None:
            self.dismiss(result)
