"""Large temporary directories in the user's cache, which do not stay behind when their process is killed."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from typing import TYPE_CHECKING

from edgedistill import file_lock
from edgedistill.bundle import own_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
    path = folder / f"{prefix}{secrets.token_hex(6)}"
    lock = file_lock.acquire(path)  # before it is there, or another process might take it for a leftover
    try:
        own_directory.make(path)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        file_lock.forget(path, lock)


def _remove_if_abandoned(entry: Path) -> None:
    if not own_directory.is_own(entry):
        return  # a user's, or gone already
    with contextlib.suppress(OSError):  # in use
        lock = file_lock.acquire(entry)
        shutil.rmtree(entry, ignore_errors=True)
        file_lock.forget(entry, lock)
