"""A program of the UI in a terminal (pty) that the test can read, type into, resize and take away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest
from waiting import PATIENCE_S

from edgedistill_tui.data.store import Store

HERE = Path(__file__).parent


class Terminal:
    """A program in a terminal of its own; its first argument is the directory of its data."""

    def __init__(self, directory: Path, program: str) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", PYTHONPATH=os.pathsep.join([str(HERE), *sys.path]))
            os.execv(sys.executable, [sys.executable, "-c", program, str(directory)])
        self.resize(80, 24)
        self._store = Store(directory / "data" / "sessions.db")
        self.seen = b""

    def resize(self, width: int, height: int) -> None:
        """As a window manager does: the system then sends SIGWINCH."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def wait_for(self, words: bytes) -> None:
        """Read until the program has drawn ``words``."""
        until = time.monotonic() + PATIENCE_S
        while words not in self.seen:
            assert time.monotonic() < until, self.seen[-3000:]
            if select.select([self._fd], [], [], 0.1)[0]:
                self.seen += os.read(self._fd, 65536)

    def ask(self) -> None:
        """Send a question and wait for the beginning of its reply."""
        self.wait_for(b"ready")
        os.write(self._fd, b"How many?\r")
        self.wait_for(b"so far")

    def press(self, keys: bytes) -> None:
        """As somebody types."""
        os.write(self._fd, keys)

    def hang_up(self) -> None:
        """The terminal goes away."""
        os.close(self._fd)
        self._fd = -1

    def stop_reading(self) -> None:
        """Fill the terminal to the brim: whatever the program draws from now on waits for a reader."""
        program_side = os.open(psutil.Process(self.pid).terminal(), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(program_side, b"x" * 1024)
        os.close(program_side)

    def wait(self) -> int:
        """The exit code; a terminal is read to its end, as one that is looked at."""
        with contextlib.suppress(OSError):  # a terminal without a program is an error to read from
            while self._fd >= 0 and os.read(self._fd, 65536):
                pass
        until = time.monotonic() + PATIENCE_S
        while (ended := os.waitpid(self.pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                pytest.fail("the program did not end")
            time.sleep(0.05)
        return os.waitstatus_to_exitcode(ended[1])

    def reply(self) -> tuple[str, str]:
        """Text and ending of the reply in the database."""
        (summary,) = self._store.sessions()
        message = self._store.load(summary.id).path()[-1]
        return message.content, message.finish_reason
