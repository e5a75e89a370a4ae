"""One process at a time for a path: locks that Linux, macOS and Windows have, and that end with their process.

The lock of a path is a file in the user's cache directory and not the path itself, so that a directory can be renamed
and a file read while it is locked, which Windows would refuse otherwise, and nothing appears beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock


def acquire(path: Path) -> BaseFileLock:
    """Hold the lock of ``path``, existing or not, until ``release`` of what is returned or the end of this process.

    Raises:
        TimeoutError: Another process, or another part of this one, holds it.
        OSError: There is no place for locks.
    """
    from filelock import FileLock

    lock: BaseFileLock = FileLock(_file_of(path), timeout=0, thread_local=False)
    lock.acquire()
    return lock


def forget(path: Path, lock: BaseFileLock) -> None:
    """Release the lock of a ``path`` that nobody will ever lock again."""
    lock.release()
    with contextlib.suppress(OSError):
        _file_of(path).unlink()


def _file_of(path: Path) -> Path:
    place = os.path.normcase(Path(os.path.realpath(path.absolute().parent)) / path.name)
    return _directory() / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.lock"


def _directory() -> Path:
    import platformdirs

    directory = Path(platformdirs.user_cache_dir("edgedistill", appauthor=False)) / "locks"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if os.access(directory, os.W_OK):
            return directory
    except OSError:
        pass
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    directory = Path(tempfile.gettempdir()) / f"edgedistill-locks-{user}"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory
