"""Reads a file that a user names up to a size, whatever it turns out to be: a device has no end, a pipe no size.

A named pipe that nobody writes to is read as empty instead of waited for; one that somebody has open, as a shell's
``<(...)``, is read to its end.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read_bounded(path: Path, most: int) -> bytes:
    """The content, of which at most ``most`` + 1 bytes are read: more than ``most`` says that it is too long.

    Raises OSError.
    """
    with open(path, "rb", opener=_open) as stream:
        return stream.read(most + 1)


def _open(path: str, flags: int) -> int:
    if sys.platform == "win32":
        return os.open(path, flags)
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor
