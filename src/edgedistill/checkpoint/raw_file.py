"""Positioned reads from a weights file, with the memory of one buffer.

Mapped pages count as resident memory, so a mapped 8 GB checkpoint would look like 8 GB of use; ``preadv`` into a
buffer keeps the peak flat and is safe from several threads at once.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from edgedistill.errors import CheckpointError
from edgedistill.positioned_io import read_into

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.progress import Progress

_HASH_CHUNK = 8 << 20
# Linux moves at most 0x7ffff000 bytes in one call.
_MAX_READ = 1 << 30


class RawFile:
    """A file opened for positioned reads. ``path`` and ``size`` (bytes) are public."""

    def __init__(self, path: Path) -> None:
        """Open ``path``; raises CheckpointError if that fails or if it is not a regular file."""
        self.path = path
        try:
            if not path.is_file():
                raise CheckpointError(
                    f"{path}: no such file." if not path.exists() else f"{path}: not a regular file.",
                    hint="Check the path, or download the checkpoint again.",
                )
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be opened ({error.strerror}).") from error
        self.size = os.fstat(self._file.fileno()).st_size

    def read_into(self, buffer: npt.NDArray[Any], offset: int) -> None:
        """Fill the contiguous ``buffer`` with the bytes at ``offset``; raises CheckpointError if they are not there."""
        if not buffer.size:
            return
        view = buffer.reshape(-1).view("u1").data
        done = 0
        while done < len(view):
            try:
                count = self._read(view[done : done + _MAX_READ], offset + done)
            except OSError as error:
                raise CheckpointError(f"{self.path}: reading failed ({error.strerror}).") from error
            if count == 0:
                raise CheckpointError(
                    f"{self.path.name}: file ends at byte {offset + done}, expected {offset + len(view)} or more.",
                    hint="The file is truncated: download or copy it again.",
                )
            done += count

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes at ``offset``; raises CheckpointError if the file ends before (nothing is allocated then)."""
        import numpy as np

        if offset + count > self.size:
            raise CheckpointError(
                f"{self.path.name}: file has {self.size} bytes, expected {offset + count} or more.",
                hint="The file is truncated: download or copy it again.",
            )
        buffer = np.empty(count, np.uint8)
        self.read_into(buffer, offset)
        return buffer.tobytes()

    def _read(self, view: memoryview, offset: int) -> int:
        return read_into(self._file.fileno(), view, offset)

    def close(self) -> None:
        """Close the file; reading afterwards is an error of the caller."""
        self._file.close()


def sha256_file(path: Path, progress: Progress | None = None) -> str:
    """SHA-256 of a file as hex, streaming; advances ``progress`` by bytes. Raises CheckpointError if unreadable."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK):
                digest.update(chunk)
                if progress is not None:
                    progress.advance(len(chunk))
    except OSError as error:
        raise CheckpointError(f"{path}: reading failed ({error.strerror}).") from error
    return digest.hexdigest()
