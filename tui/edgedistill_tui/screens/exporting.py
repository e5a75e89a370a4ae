"""The page that exports the default bundle and shows the progress."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import ProgressBar, Static

from edgedistill.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from textual.app import ComposeResult

    from edgedistill.progress import Progress, Unit

DRAWS_PER_S = 10


class ScreenProgress:
    """Progress that another thread reports and the screen draws."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stage, self._done, self._total = "starting", 0, 0
        self._left = False

    def begin(self, stage: str, total: int, unit: Unit) -> None:  # noqa: ARG002 - the protocol's
        """A stage starts."""
        self._go_on()
        with self._lock:
            self._stage, self._done, self._total = stage, 0, total

    def advance(self, amount: int) -> None:
        """Some of it is done."""
        self._go_on()
        with self._lock:
            self._done += amount

    def leave(self) -> None:
        """The user left: the next report of progress raises."""
        self._left = True

    def _go_on(self) -> None:
        if self._left:
            raise ExportError("The export was stopped.", hint="It continues from there when you start it again.")

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

    BINDINGS = [("escape", "dismiss(None)", "Stop")]  # noqa: RUF012 - Textual's own declaration

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
            yield Static("[@click=screen.dismiss(None)]Esc stops[/]", classes="hint")

    def on_mount(self) -> None:
        """Begin."""
        threading.Thread(target=self._work, daemon=True).start()
        self._looks = self.set_interval(1 / DRAWS_PER_S, self._look)

    def on_unmount(self) -> None:
        """Stop an export that is not finished; a later one continues from there."""
        self._progress.leave()

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
        if result is None or not self.is_current:
            return
        # A further refresh that is already queued would dismiss the screen below.
        self._looks.stop()
        self._result = None
        if isinstance(result, Exception):
            self.app.notify(f"The export failed: {result}", severity="error", timeout=15)
            self.dismiss(None)
        else:
            self.dismiss(result)
