"""Reads and writes at an offset of an open file, from several threads at once, with a fallback where the system has no
such call.

Without ``pread`` and ``pwrite`` (Windows) the position of the descriptor is moved under a lock.
"""

from __future__ import annotations

import os
import threading

_lock = threading.Lock()


def read_into(descriptor: int, view: memoryview, offset: int) -> int:
    """Read bytes at ``offset`` into ``view``; how many. Raises OSError."""
    if hasattr(os, "preadv"):
        count: int = os.preadv(descriptor, [view], offset)
        return count
    data = read(descriptor, len(view), offset)
    view[: len(data)] = data
    return len(data)


def read(descriptor: int, count: int, offset: int) -> bytes:
    """Up to ``count`` bytes at ``offset``; raises OSError."""
    if hasattr(os, "pread"):
        data: bytes = os.pread(descriptor, count, offset)
        return data
    with _lock:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, count)


def write(descriptor: int, view: memoryview, offset: int) -> int:
    """Write of ``view`` at ``offset``; how many bytes. Raises OSError."""
    if hasattr(os, "pwrite"):
        count: int = os.pwrite(descriptor, view, offset)
        return count
    with _lock:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, view)
