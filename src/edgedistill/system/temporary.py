"""Large temporary directories in the user's cache, which do not stay behind when their process is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bundle import own_directory
from edgedistill.bundle.own_directory import MARKER

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def scratch(folder: Path, prefix: str) -> Iterator[Path]:
    """A new directory ``folder/{prefix}...`` that is removed on leaving, whatever happened.

    First, those that killed processes left are removed: nobody holds their lock any more.

    Args:
        folder: Made if missing.
        prefix: Of the name; directories of this prefix that this program made for this user are leftovers where
            nobody holds their lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.glob(f"{prefix}*"):
        _remove_if_abandoned(entry)
    # It gets its name only once it is locked, or another process might take it for a leftover.
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    own_directory.mark(fresh)
    lock = os.open(fresh / MARKER, os.O_RDWR)
    path = fresh.with_name(prefix + fresh.name.removeprefix(".new-"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh.rename(path)
        yield path
    finally:
        for name in (fresh, path):
            shutil.rmtree(name, ignore_errors=True)
        os.close(lock)


def _remove_if_abandoned(entry: Path) -> None:
    if not own_directory.is_own(entry):
        return  # a user's, or gone already
    try:
        lock = os.open(entry / MARKER, os.O_RDWR)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(entry, ignore_errors=True)
    except OSError:
        pass  # in use
    finally:
        os.close(lock)
