"""Limits how often the screen is drawn while text arrives.

Decoding uses every core, so drawing may only use a small share of one: on a slow machine or for a long answer there are
fewer frames, not fewer tokens.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOCAL_FPS = 15.0
REMOTE_FPS = 5.0
SHARE = 0.03
"""Share of one core for drawing."""
LONGEST = 1.0
"""Largest number of seconds between frames."""


def is_remote(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal is at the other end of an SSH connection."""
    return any(environment.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"))


def frames_per_s(wanted: float = 0.0, environment: Mapping[str, str] = os.environ) -> float:
    """The user's wish (0: none), else 15, over SSH 5."""
    return wanted if wanted > 0 else REMOTE_FPS if is_remote(environment) else LOCAL_FPS


class Pace:
    """Seconds to wait before the next frame.

    Args:
        fps: Frames per second at most.
        cpu: Processor seconds that the drawing thread has used.
    """

    def __init__(self, fps: float, *, cpu: Callable[[], float] = time.thread_time, share: float = SHARE) -> None:
        self._shortest = 1.0 / fps
        self._share = share
        self._cpu = cpu
        self._before = cpu()

    def wait(self) -> float:
        """Called after a frame: what it cost decides when the next one may come."""
        now = self._cpu()
        cost, self._before = now - self._before, now
        return min(LONGEST, max(self._shortest, cost / self._share))
