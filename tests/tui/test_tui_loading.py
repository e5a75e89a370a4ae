"""The end while a model is being loaded: nobody waits for it, and it does not stay."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_engine import FakeEngine, drive, make_app, until
from pty_terminal import Terminal
from waiting import wait_until

from edgedistill_tui.data.store import Store
from edgedistill_tui.opening import LeftError

if TYPE_CHECKING:
    from textual.pilot import Pilot

# The program as the command line runs it, with a model that takes for ever to load.
_LOADING = """
import os, sys, time
from pathlib import Path
os.environ["EDGEDISTILL_DATA"] = str(Path(sys.argv[1]) / "data")
from edgedistill.cli import terminal_ui
from edgedistill_tui.runtime_engine import RuntimeEngine
RuntimeEngine.open = lambda *_, **__: time.sleep(3600)
sys.exit(terminal_ui.run_app(bundle=Path("/bundles/large"), system="Be brief."))
"""


def test_quitting_does_not_wait_for_a_model_that_is_being_loaded(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, _LOADING)
    terminal.wait_for(b"loading large")
    terminal.press(b"\x11")
    terminal.wait_for(b"\x1b[?1049l")  # back from the alternate screen
    assert terminal.wait() == 0
    assert Store(tmp_path / "data" / "sessions.db").sessions() == []


@pytest.mark.parametrize("page", ["chat", "ab"])
def test_a_model_that_is_loaded_only_after_the_end_is_closed(tmp_path: Path, page: str) -> None:
    loads, late = threading.Event(), FakeEngine([("answer", "32.")])
    go_on = threading.Event()

    def open_engine(path: Path) -> FakeEngine:
        loads.set()
        assert go_on.wait(300)
        return late

    app = make_app(tmp_path, open_engine, bundle=Path("/bundles/large") if page == "chat" else None, page=page)

    async def steps(pilot: Pilot[None]) -> None:
        if page == "ab":
            screen: Any = pilot.app.screen
            for side in screen.sides:
                side.path = Path("/bundles/large")
            screen.prompt.value = "How many?"
            screen.action_run()
        await until(pilot, loads.is_set)
        await pilot.press("ctrl+q")

    drive(app, steps, ready=False)  # ends when no worker is left
    assert app.unfinished
    go_on.set()
    wait_until(lambda: not app.unfinished, "the model that was loaded late was not closed")
    assert late.closed
    assert app.engine is None


def test_quitting_does_not_wait_for_gigabytes_that_are_being_hashed(tmp_path: Path, tiny_bundle_dir: Path) -> None:
    """The bundle has a file without an end, as far as hashing is concerned."""
    large = tmp_path / "work" / "large"
    shutil.copytree(tiny_bundle_dir, large)
    hashed, left = threading.Event(), []

    def endless(descriptor: int, progress: Any) -> str:
        while True:
            hashed.set()
            time.sleep(0.01)
            try:
                progress.advance(1)
            except LeftError:
                left.append(descriptor)
                raise

    async def steps(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: type(pilot.app.screen).__name__ == "BundlesScreen")
        screen: Any = pilot.app.screen
        await until(pilot, lambda: len(screen.known) == 1)
        await pilot.press("v")
        await until(pilot, hashed.is_set)
        await pilot.press("v")  # already at it
        await until(pilot, lambda: "checking… 0 %" in screen._checked.values())
        await pilot.press("ctrl+q")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgedistill.bundle.bundle.hash_descriptor", endless)
        drive(make_app(tmp_path, FakeEngine([]), page="bundles", bundle=None), steps, ready=False)
    assert len(left) == 1
