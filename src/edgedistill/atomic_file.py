"""Files that are written whole or not at all, and never over anything but the file of their name.

What is being written lies beside it under a random name that is made exclusively: no file of the user's is taken for
it, and no link is followed. The last step is a rename.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def replacing(
    path: Path, mode: Literal["w", "wb"] = "wb", *, errors: str | None = None, private: bool = False, sync: bool = True
) -> Iterator[IO[Any]]:
    """A file to write, UTF-8 for ``w``, that becomes ``path`` when the block ends, and vanishes if it fails.

    Args:
        path, mode, errors: As for ``open``.
        private: Nobody but the user may read it.
        sync: Wait until it is on the disk; without, a crash of the system may leave a file of zeros.

    Raises:
        OSError: It cannot be written; ``path`` is as it was.
    """
    partial = path.with_name(f".{path.name[:80]}.{secrets.token_hex(8)}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(partial, flags, 0o600 if private else 0o666)
    try:
        with os.fdopen(descriptor, mode, encoding=None if mode == "wb" else "utf-8", errors=errors) as stream:
            yield stream
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes, *, errors: str | None = None) -> None:
    """Write ``content`` to ``path`` in one go; raises OSError."""
    with replacing(path, "w" if isinstance(content, str) else "wb", errors=errors) as stream:
        stream.write(content)


def try_to_write(path: Path) -> None:
    """Raises OSError where ``path`` could not be written; leaves nothing behind and does not touch the file itself."""
    partial = path.with_name(f".{path.name[:80]}.{secrets.token_hex(8)}.partial")
    with partial.open("xb"):
        pass
    partial.unlink()
