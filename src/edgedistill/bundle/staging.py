"""The directory in which a bundle grows until one rename makes it real.

``OUT`` is written as ``.OUT.partial`` beside it (same filesystem, so the rename is atomic), locked against a second
export, and kept after an interruption so that the next run of the same command resumes. It never holds a manifest
before everything else is there, so nothing half-written opens as a bundle.

Must not know: what is written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from typing import TYPE_CHECKING

from edgedistill.bundle.bundle import MANIFEST
from edgedistill.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from edgedistill.bundle.manifest import Manifest

_LOCK = ".lock"
_FINGERPRINT = ".fingerprint"


def check_target(out: Path, *, force: bool) -> None:
    """Refuse an output path that is in use before any work starts.

    An empty directory is fine; a bundle is replaced only with ``force``; anything else is never replaced.

    Raises:
        OutputError: ``out`` is in use, or its parent is missing, a file or read-only.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out} exists and is not a directory.", hint="Choose another output directory.")
    if out.is_dir() and any(out.iterdir()):
        if not (out / MANIFEST).is_file():
            raise OutputError(
                f"{out} is not empty and not a bundle, so it is never overwritten.",
                hint="Choose another output directory.",
            )
        if not force:
            raise OutputError(
                f"{out} already holds a bundle.", hint="Choose another directory, or replace it with --force."
            )
    parent = out.absolute().parent
    existing = next(p for p in (parent, *parent.parents) if p.exists())
    if not existing.is_dir():
        raise OutputError(f"{existing} is a file, expected a directory.", hint="Choose another output directory.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{existing} is not writable.", hint="Choose another output directory.")


def free_disk(out: Path) -> int:
    """Free bytes on the filesystem that will hold ``out``."""
    target = out.absolute()
    return shutil.disk_usage(next(p for p in (target, *target.parents) if p.exists())).free


class Staging:
    """Context manager around the partial directory.

    Leaving it without ``commit`` after an interruption keeps the directory for resuming; after any other error it is
    removed, so that a full disk is freed again, unless ``keep`` says that too much work is in it.
    """

    def __init__(self, out: Path, *, force: bool = False, keep: bool = False) -> None:
        self.out = out.absolute()
        self.force = force
        self.keep = keep
        self.path = self.out.parent / f".{self.out.name}.partial"
        self._lock_fd: int | None = None
        self._committed = False

    def __enter__(self) -> Staging:
        check_target(self.out, force=self.force)
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock_fd = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_fd)
            self._lock_fd = None
            raise OutputError(
                f"Another run is writing to {self.out}.", hint="Wait for it or choose another output directory."
            ) from error
        return self

    def resume_or_clear(self, fingerprint: str) -> bool:
        """Whether what lies here was made by the same plan; if not, clear it and remember the new ``fingerprint``."""
        marker = self.path / _FINGERPRINT
        if marker.is_file() and marker.read_text(encoding="utf-8") == fingerprint:
            return True
        with disk_errors(self.path):
            for entry in self.path.iterdir():
                if entry.name != _LOCK:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            marker.write_text(fingerprint, encoding="utf-8")
        return False

    def commit(self, manifest: Manifest) -> None:
        """Drop what the manifest does not list, write the manifest, rename the directory to its final name."""
        keep = {MANIFEST, *(f.name for f in manifest.files)}
        with disk_errors(self.out):
            (self.path / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
            # What a resumed run needs goes last: writing out gigabytes leaves time to be killed.
            for name in keep:
                _fsync(self.path / name)
            for entry in self.path.iterdir():
                if entry.name not in keep:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            _fsync(self.path)
            if self.out.is_dir():
                self._replace()
            else:
                self.path.rename(self.out)
            _fsync(self.out.parent)
        self._committed = True

    def _replace(self) -> None:
        # A directory cannot be swapped in one portable call: the old one steps aside first, and comes back if the
        # second rename fails.
        old = self.out.parent / f".{self.out.name}.old"
        if old.exists():
            shutil.rmtree(old)
        self.out.rename(old)
        try:
            self.path.rename(self.out)
        except BaseException:
            old.rename(self.out)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
        if not self._committed and not interrupted and not self.keep:
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:  # some filesystems refuse fsync on directories
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn failed file operations below ``path`` into one clear OutputError."""
    try:
        yield
    except OSError as error:
        raise os_error(error, path) from error


def os_error(error: OSError, path: Path) -> OutputError:
    """The user-facing form of a failed write to ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"The disk is full: writing {path} stopped.", hint="Free space or choose another output directory."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{path} is not writable ({error.strerror}).", hint="Choose another output directory.")
    return OutputError(f"Cannot write {path}: {error.strerror or error}.", hint="Choose another output directory.")
