"""Opens regular files of one directory without following links, and tells whether they are still what was opened.

A check is worth something only if the file that was checked is the one that is used. ``PinnedDirectory`` keeps the
directory by a descriptor, so that renaming it leads nowhere else; ``FileState`` says which file and which content:
replacing a file, writing to it and renaming another one over it and back all change the inode, a time or the size.

Linux and macOS open relative to the descriptor with O_NOFOLLOW. Windows has neither: there the entry is looked at
before and after it is opened, and compared.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edgedistill.errors import BundleError

if TYPE_CHECKING:
    from edgedistill.progress import Progress

_HASH_CHUNK = 4 << 20
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))
"""O_NONBLOCK: opening a named pipe does not wait for its writer (it is refused right after)."""
_COPY = "Copy the bundle again or export it again."


@dataclass(frozen=True, slots=True)
class FileState:
    """Which file and which content: device and inode, size in bytes, times of the content and of the inode in ns."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        """From what ``stat`` returns."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class PinnedDirectory:
    """A directory kept by a descriptor; close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises BundleError where ``path`` is no directory that can be read."""
        self.path = path
        self._descriptor: int | None = None
        if os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY"):
            try:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | getattr(os, "O_CLOEXEC", 0))
            except OSError as error:
                raise BundleError(f"Cannot open the directory {path}: {error.strerror}.") from error

    @property
    def location(self) -> Path:
        """The directory for libraries that take a path: by its descriptor on Linux, which no rename redirects."""
        if self._descriptor is not None:
            pinned = Path(f"/proc/self/fd/{self._descriptor}")
            if pinned.is_dir():
                return pinned
        return self.path

    def open(self, name: str) -> int:
        """A descriptor of the regular file ``name``; raises BundleError for anything else."""
        try:
            if self._descriptor is None:
                before = os.lstat(self.path / name)
                _require_regular(self.path / name, before)
                descriptor = os.open(self.path / name, _FLAGS)
            else:
                descriptor = os.open(name, _FLAGS, dir_fd=self._descriptor)
        except OSError as error:
            raise self._refusal(name, error) from error
        try:
            found = os.fstat(descriptor)
            _require_regular(self.path / name, found)
            if self._descriptor is None and FileState.of(before).inode != found.st_ino:
                raise BundleError(f"{self.path / name} was replaced while it was opened.", hint=_COPY)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def state(self, name: str) -> FileState:
        """The state of the regular file ``name`` as it lies there now; raises BundleError for anything else."""
        try:
            if self._descriptor is None:
                found = os.lstat(self.path / name)
            else:
                found = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except OSError as error:
            raise self._refusal(name, error) from error
        _require_regular(self.path / name, found)
        return FileState.of(found)

    def names(self) -> list[str]:
        """All entries, sorted."""
        try:
            return sorted(os.listdir(self.path if self._descriptor is None else self._descriptor))  # noqa: PTH208
        except OSError as error:
            raise BundleError(f"Cannot read the directory {self.path}: {error.strerror}.") from error

    def _refusal(self, name: str, error: OSError) -> BundleError:
        path = self.path / name
        if error.errno in (errno.ELOOP, errno.EMLINK):
            return _no_file(path, "a symbolic link")
        if error.errno == errno.ENOENT:
            return BundleError(f"{path} is missing.", hint=_COPY)
        return BundleError(f"Cannot read {path}: {error.strerror}.")

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def hash_descriptor(descriptor: int, progress: Progress | None = None) -> str:
    """SHA-256 in hex of a file from its descriptor's position on, read in chunks."""
    digest = hashlib.sha256()
    while chunk := os.read(descriptor, _HASH_CHUNK):
        digest.update(chunk)
        if progress is not None:
            progress.advance(len(chunk))
    return digest.hexdigest()


def _require_regular(path: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise _no_file(path, "a symbolic link")
    if not stat.S_ISREG(found.st_mode):
        raise _no_file(path, "a directory" if stat.S_ISDIR(found.st_mode) else "a pipe, socket or device")


def _no_file(path: Path, kind: str) -> BundleError:
    hint = "Copy the bundle with its links resolved: cp -rL" if kind == "a symbolic link" else _COPY
    return BundleError(f"{path} is {kind}; expected a regular file.", hint=hint)
