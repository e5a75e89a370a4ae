"""Directories that this program makes beside the user's, and the mark that proves it made them.

A directory is made exclusively and gets a marker that names this tool, the user and the directory's own inode: a
directory of the user's that happens to have the name, one copied together with its marker, a link, and one of another
user are all something else. Nothing is ever removed from a directory without that proof, and never through a link.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import secrets
import shutil
import stat
import sys
from typing import TYPE_CHECKING

from edgedistill.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARKER = ".edgedistill-staging"
_TOOL = "edgedistill"
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)


def make(path: Path) -> None:
    """Make the directory ``path``, which must not exist, with a marker; raises OSError."""
    path.mkdir()
    mark(path)


def mark(path: Path) -> None:
    """Put a marker into the directory ``path``; raises OSError, FileExistsError where there is one already."""
    found = os.lstat(path)
    content = {"tool": _TOOL, "uid": _uid(), "inode": found.st_ino}
    descriptor = os.open(path / MARKER, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(content, stream)


def is_own(path: Path) -> bool:
    """Whether ``path`` is a directory, no link, that this program made for this user."""
    try:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != (os.getuid() if hasattr(os, "getuid") else found.st_uid):
            return False
        descriptor = os.open(path / MARKER, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _FLAGS)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return False
            content = json.loads(stream.read(4096))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and all(
        content.get(key) == value for key, value in (("tool", _TOOL), ("uid", _uid()), ("inode", found.st_ino))
    )


def claim(path: Path) -> None:
    """Make ``path``, or take over what an interrupted run of this program left there.

    Raises:
        OutputError: Something else lies there; it is left alone.
        OSError: It cannot be made.
    """
    try:
        make(path)
        return
    except FileExistsError:
        pass
    if is_own(path):
        return
    with contextlib.suppress(OSError):  # a run that was killed in its first steps leaves no more than an empty marker
        if not path.is_symlink() and [(e.name, e.lstat().st_size) for e in path.iterdir()] == [(MARKER, 0)]:
            (path / MARKER).unlink()
        path.rmdir()
        make(path)
        return
    raise OutputError(
        f"{path} exists and is not an unfinished export of this user, so it is left alone.",
        hint="Move it away (or remove it, if nothing in it is needed), or choose another output directory.",
    )


@contextlib.contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A directory to fill, ``.OUT.partial`` beside ``out``, that becomes ``out`` when the block ends well.

    ``out`` must not exist, or be an empty directory. After any error, Ctrl-C included, nothing is left.

    Raises:
        OutputError: ``out`` is in use, or something else lies where the partial directory would.
        OSError: A failed file operation.
    """
    require_free(out)
    partial = out.absolute().parent / f".{out.name}.partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    claim(partial)
    try:
        clear(partial)
        yield partial
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    except BaseException:
        if is_own(partial):
            remove(partial)
        raise
    (out / MARKER).unlink()


def require_free(out: Path) -> None:
    """Raises OutputError unless ``out`` does not exist or is an empty directory."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise OutputError(
            f"{out} exists, and this command replaces nothing.", hint="Choose another directory, or remove that one."
        )


def clear(path: Path) -> None:
    """Empty a directory of this program's, its marker aside; raises OSError."""
    _require_own(path)
    for entry in path.iterdir():
        if entry.name != MARKER:
            remove_entry(entry)


def remove(path: Path) -> None:
    """Remove a directory of this program's; raises OSError. The marker goes last: a killed removal can be resumed."""
    clear(path)
    (path / MARKER).unlink()
    path.rmdir()


def remove_entry(entry: Path) -> None:
    """Remove a file, a link itself, or a directory with all that is in it; raises OSError."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


def unused_name(path: Path, ending: str) -> Path:
    """A name beside ``path`` that nobody has: hidden, random, with ``ending``."""
    while True:
        name = path.with_name(f".{path.name}.{secrets.token_hex(4)}{ending}")
        if not os.path.lexists(name):
            return name


def exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step (renameat2(2) on Linux, renamex_np(2) on macOS); False where that is not possible.

    Raises:
        OSError: Another failure; nothing was changed.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            done = libc.renamex_np(os.fsencode(first), os.fsencode(second), ctypes.c_uint(2))
        else:
            here = ctypes.c_int(-100)  # AT_FDCWD
            done = libc.renameat2(here, os.fsencode(first), here, os.fsencode(second), ctypes.c_uint(2))
    except (AttributeError, TypeError, OSError):  # no such call in this C library; no C library by that name (Windows)
        return False
    if done == 0:
        return True
    if (code := ctypes.get_errno()) in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(first))


def _require_own(path: Path) -> None:
    if not is_own(path):
        raise OSError(errno.EPERM, "it was replaced by something else in the meantime", str(path))


def _uid() -> int:
    return os.getuid() if hasattr(os, "getuid") else -1
