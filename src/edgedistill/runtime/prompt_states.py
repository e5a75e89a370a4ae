"""States of recurrent layers on disk, beside the stored keys and values of the same prompts.

A state stands for all tokens before it, so that a file holds one whole sequence's states after some number of tokens,
and is named by that number and by a hash of those tokens and of everything else that its numbers depend on. It is
compared with its SHA-256 before its numbers are used; a damaged one is deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.atomic_file import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float32]

PREFIX = "states-"
_MAGIC = b"edgedistill st 1"
_KEY = 40
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class StoredStates:
    """States after ``length`` tokens: float32 of each of the shapes; ``exact``: as a prefill leaves them."""

    path: Path
    length: int
    arrays: list[Floats]
    exact: bool


class StateFiles:
    """The states that a directory holds for one bundle.

    Args:
        directory: Where they lie.
        root: Hash of what all numbers depend on besides the tokens.
        shapes: Of the states of one sequence, in order.
    """

    def __init__(self, directory: Path, root: str, shapes: Sequence[tuple[int, ...]]) -> None:
        self._directory, self._root, self._shapes = directory, root, list(shapes)

    def find(self, tokens: Ids, least: int, most: int, *, exact: bool) -> StoredStates | None:
        """The states of the longest beginning of ``tokens`` of more than ``least`` and at most ``most`` of them.

        ``exact``: only states that are bit-identical to a prefill's.
        """
        found: dict[int, list[str]] = {}
        with contextlib.suppress(OSError):
            for path in self._directory.iterdir():
                name = path.name
                stated = name.removeprefix(PREFIX).partition("-")[0]
                if name.startswith(PREFIX) and stated.isdecimal() and least < int(stated) <= most:
                    found.setdefault(int(stated), []).append(name)
        for length in sorted(found, reverse=True):
            for kind in ("exact",) if exact else ("exact", "fast"):
                path = self.path(tokens[:length], kind)
                if path.name in found[length] and (arrays := self._read(path)) is not None:
                    return StoredStates(path, length, arrays, kind == "exact")
        return None

    def path(self, tokens: Ids, kind: str) -> Path:
        """Where the states after ``tokens`` lie; ``kind``: exact or fast."""
        return self._directory / f"{PREFIX}{len(tokens)}-{self._key(tokens)}.{kind}.kv"

    def write(self, tokens: Ids, arrays: Sequence[Floats], *, exact: bool) -> Path:
        """Keep the states after ``tokens`` where they are not kept yet; their file. Raises OSError."""
        path = self.path(tokens, "exact" if exact else "fast")
        for there in (self.path(tokens, "exact"), path):
            if there.exists():
                return there
        parts = [self._key(tokens).encode(), *(array.astype("<f4", copy=False).tobytes() for array in arrays)]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        with replacing(path, private=True, sync=False) as stream:
            stream.writelines([_MAGIC, digest.digest(), *parts])
        return path

    def _key(self, tokens: Ids) -> str:
        return hashlib.sha256(self._root.encode() + tokens.astype("<i8").tobytes()).hexdigest()[:_KEY]

    def _read(self, path: Path) -> list[Floats] | None:
        """The states in a file; None for one that is missing, or damaged and therefore deleted."""
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | _NO_LINKS), "rb") as stream:
                content = stream.read()
        except OSError:
            return None
        front = len(_MAGIC) + hashlib.sha256().digest_size
        body = content[front:]
        key = path.name.split("-")[2].partition(".")[0].encode()
        sizes = [math.prod(shape) for shape in self._shapes]
        whole = len(body) == _KEY + 4 * sum(sizes) and body[:_KEY] == key
        if content[:front] != _MAGIC + hashlib.sha256(body).digest() or not whole:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        values = np.frombuffer(body, dtype="<f4", offset=_KEY).astype(np.float32)
        parts = np.split(values, np.cumsum(sizes)[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]
