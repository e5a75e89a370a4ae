"""The real program in a real terminal (tmux) with the real built-in model: start, ask, read, stop, quit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from waiting import wait_until

from edgedistill_tui.data.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Tmux:
    """A server of its own with one pane of 80x24."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *arguments], capture_output=True, text=True, timeout=300, check=False
        )
        return done.stdout

    def wait_for(self, text: str) -> str:
        """The screen once it shows ``text``."""
        screens = [""]

        def shown() -> bool:
            screens[0] = self("capture-pane", "-p")
            return text in screens[0]

        wait_until(shown, lambda: f"{text!r} never came:\n{screens[0]}", every_s=0.1)
        return screens[0]


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    server = Tmux(tmp_path / "tmux")
    yield server
    server("kill-server")


def test_start_type_read_stop_quit(tmux: Tmux, reasoner_dir: Path, tmp_path: Path) -> None:
    program = f"{sys.executable} -m edgedistill chat {reasoner_dir} --temperature 0"
    command = f"EDGEDISTILL_DATA={tmp_path / 'data'} {program}"
    environment = [f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}", "TERM=xterm-256color"]
    options = [part for value in environment for part in ("-e", value)]
    tmux("new-session", "-d", "-x", "80", "-y", "24", *options, f"{command}; echo left with $?; sleep 60")
    tmux.wait_for("ready")
    tmux("send-keys", "What is 17 + 25?", "Enter")  # in one burst
    tmux.wait_for("The result is 42.")
    tmux.wait_for("tok at")
    tmux("send-keys", "Escape")
    tmux("send-keys", "C-q")
    tmux.wait_for("left with 0")
    (summary,) = Store(tmp_path / "data" / "sessions.db").sessions()
    assert summary.title == "What is 17 + 25?"
    assert summary.messages == 2
