"""Keys and values of prompts on disk, so that another process need not compute them again.

The entries of a sequence are cut into blocks of ``BLOCK`` tokens, the last one shorter. A block's file is named by a
hash of all tokens before it and of everything else that its numbers depend on (the bundle, the versions of this package
and of ONNX Runtime, the processor), and by one of its own tokens. So a system prompt that several conversations begin
with is stored once, a conversation that goes on adds blocks, and one that branches off shares those before: of a block,
too, the beginning can be used.

A file is compared with its SHA-256, and its tokens with those that are wanted, before its numbers are used; a damaged
one is deleted and its tokens are computed. Files are written beside their place and renamed, are readable by the user
alone, and the ones that were not used for longest go first where all take more than the limit.

Layers without keys and values have states, which stand for a whole beginning and cannot be cut: files of their own
(``prompt_states``) hold the copies that the sequence kept, and stored blocks are used as far as there is a state.

Entries are bit for bit what the computation left. Those of a prompt come from exact steps and reproduce it; those of a
reply on the fast path are the ones that the reply itself was decoded with, as in a cache that stayed in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import struct
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from edgedistill._version import __version__
from edgedistill.atomic_file import replacing
from edgedistill.catalog.builtin import cache_dir
from edgedistill.runtime.prompt_states import StateFiles
from edgedistill.system.processor import read_processor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import IO

    import numpy.typing as npt

    from edgedistill.bundle.bundle import Bundle
    from edgedistill.runtime.decoder import Decoder
    from edgedistill.runtime.session import DecoderSession

    Ids = npt.NDArray[np.int64]

BLOCK = 32
DEFAULT_LIMIT = 2 << 30
_MAGIC = b"edgedistill kv 1"
_FRONT = len(_MAGIC) + hashlib.sha256().digest_size
_COUNT = struct.Struct("<I")  # tokens; then they, int64, then the entries of every buffer
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def default_directory() -> Path:
    """Where prompts are kept, in the user's cache."""
    return cache_dir() / "prompts"


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What a directory of prompts holds."""

    directory: Path
    files: int
    size: int


def usage(directory: Path | None = None) -> CacheUse:
    """Files and bytes of the prompt cache."""
    directory = directory or default_directory()
    found = list(_files(directory))
    return CacheUse(directory, len(found), sum(size for _, size, _ in found))


def clear(directory: Path | None = None) -> CacheUse:
    """Delete the prompt cache; what was deleted."""
    directory = directory or default_directory()
    gone = [(path, size) for path, size, _ in _files(directory) if _unlink(path)]
    return CacheUse(directory, len(gone), sum(size for _, size in gone))


class PromptCache:
    """The prompts of one bundle on this machine. Nothing here raises for a disk that fails: it then caches nothing."""

    def __init__(
        self, bundle: Bundle, session: DecoderSession, directory: Path | None = None, *, limit: int = DEFAULT_LIMIT
    ) -> None:
        """``directory``: the user's cache unless given; ``limit``: bytes of all bundles together."""
        self.directory = directory or default_directory()
        self._limit = limit
        self._geometry = session.geometry
        processor = read_processor(Path("/"), platform.system(), platform.machine().lower())
        depends = {
            "bundle": bundle.identity(),
            "versions": [__version__, ort.__version__],
            "processor": [platform.machine(), processor.name, list(processor.isa or ())],
            "session": [session.config.graph_optimization_level, BLOCK],
        }
        self._root = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:40]
        shapes = [shape for _, shape in session.geometry.states]
        self._states = StateFiles(self.directory, self._root, shapes) if shapes else None

    def load(self, decoder: Decoder, prompt: Sequence[int], *, exact: bool) -> int:
        """Put stored entries into ``decoder``, as far as they continue the beginning that it shares with ``prompt``.

        Args:
            decoder: One sequence. What it holds beyond the common beginning goes where the store has more.
            prompt: The last token is never taken from the store: its logits are wanted.
            exact: Only entries that are bit-identical to a prefill.

        Returns:
            Tokens that were loaded.
        """
        wanted = np.asarray(prompt[: self._geometry.limit][:-1], dtype=np.int64)
        common = known = decoder.cache.reach(0, _common(decoder.cached(exact=exact), wanted))
        parts: Iterable[_Stored] = self._following(wanted, common, exact=exact)
        states = None
        if self._states is not None:
            parts = list(parts)
            end = common + sum(len(part.tokens) for part in parts)
            states = self._states.find(wanted, common, end, exact=exact)
        used = []
        for part in parts:
            left = len(part.tokens) if self._states is None else (states.length if states else common) - known
            if left <= 0:
                break
            if known == common:
                decoder.truncate(common)
            entries = [entry[:, :left] for entry in part.entries]
            decoder.restore(part.tokens[:left], entries, exact=part.exact and (states is None or states.exact))
            known += min(left, len(part.tokens))
            used.append(part.path)
        if states is not None:
            decoder.cache.states.put(0, states.length, states.arrays)
            used.append(states.path)
        _touch(used)
        return known - common

    def _following(self, wanted: Ids, known: int, *, exact: bool) -> Iterator[_Stored]:
        """What is stored of ``wanted`` from the token ``known`` on, block by block, as far as it goes."""
        files = self._files_by_parent()
        for start, parent, block in self._blocks(wanted):
            if start + BLOCK <= known:
                continue
            found = self._best(files.get(parent, []), block, exact=exact)
            count = 0 if found is None else _common(found.tokens, block)
            if found is None or start + count <= known:
                return
            part = slice(known - start, count)
            yield replace(found, tokens=found.tokens[part], entries=[entry[:, part] for entry in found.entries])
            known = start + count
            if count < BLOCK:
                return

    def store(self, decoder: Decoder) -> None:
        """Keep what ``decoder`` holds, where it is not kept yet."""
        tokens = decoder.cached(exact=False).copy()
        exact = len(decoder.cached(exact=True))
        used = []
        with contextlib.suppress(OSError):
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            files = self._files_by_parent()
            for start, parent, block in self._blocks(tokens):
                stop = start + len(block)
                kind = "exact" if stop <= exact else "fast"
                path = self.directory / f"{parent}-{_child(parent, block)[:16]}.{kind}.kv"
                twin = path.with_name(path.name.replace(".fast.", ".exact."))
                used.append(twin if twin.exists() else path)
                if used[-1].exists():
                    continue
                self._write(path, decoder, start, block)
                for other in files.get(parent, []):
                    if other != path and self._is_beginning(other, block, exact=kind == "exact"):
                        _unlink(other)
            if self._states is not None:
                for length, arrays in decoder.cache.states.known(0, len(tokens)):
                    used.append(self._states.write(tokens[:length], arrays, exact=length <= exact))
            _touch(used)
            self._shrink()

    # ---- blocks ---------------------------------------------------------------------------------------------

    def _blocks(self, tokens: Ids) -> Iterator[tuple[int, str, Ids]]:
        """The blocks of ``tokens``: start, the hash of all before it, and its tokens; the last one may be short."""
        parent = self._root
        for start in range(0, len(tokens), BLOCK):
            block = tokens[start : start + BLOCK]
            yield start, parent, block
            parent = _child(parent, block)

    def _files_by_parent(self) -> dict[str, list[Path]]:
        """The stored blocks by the hash of what comes before them."""
        found: dict[str, list[Path]] = {}
        for path, _, _ in _files(self.directory):
            found.setdefault(path.name.partition("-")[0], []).append(path)
        return found

    def _best(self, paths: Sequence[Path], block: Ids, *, exact: bool) -> _Stored | None:
        """The stored block with the longest beginning in common with ``block``; of equal ones an exact one."""
        best: tuple[int, bool, Path] | None = None
        for path in paths:
            is_exact = path.name.endswith(".exact.kv")
            tokens = _tokens(path) if is_exact or not exact else None
            if tokens is not None:
                length = _common(tokens, block)
                if length and (best is None or (length, is_exact) > best[:2]):
                    best = (length, is_exact, path)
        return None if best is None else self._read(best[2])

    def _is_beginning(self, path: Path, block: Ids, *, exact: bool) -> bool:
        """Whether the stored block at ``path`` holds nothing but a beginning of ``block``, and no better numbers."""
        tokens = _tokens(path)
        if tokens is None or (path.name.endswith(".exact.kv") and not exact):
            return False
        return _common(tokens, block) == len(tokens)

    def _read(self, path: Path) -> _Stored | None:
        """A stored block; None for one that is missing, or damaged and therefore deleted."""
        geometry = self._geometry
        try:
            with _opened(path) as stream:
                content = stream.read()
        except OSError:
            return None
        head, digest, body = content[: len(_MAGIC)], content[len(_MAGIC) : _FRONT], content[_FRONT:]
        if head != _MAGIC or hashlib.sha256(body).digest() != digest:
            _unlink(path)
            return None
        (count,) = _COUNT.unpack_from(body)
        tokens = np.frombuffer(body, dtype="<i8", count=count, offset=_COUNT.size).astype(np.int64)
        dtype = np.dtype(geometry.dtype).newbyteorder("<")
        offset = _COUNT.size + 8 * count
        if len(body) - offset != geometry.bytes_per_token * count:
            _unlink(path)
            return None
        ends = np.cumsum([geometry.heads * count * width for width in geometry.widths])
        parts = np.split(np.frombuffer(body, dtype=dtype, offset=offset), ends[:-1])
        entries = [
            part.reshape(geometry.heads, count, width) for part, width in zip(parts, geometry.widths, strict=True)
        ]
        return _Stored(path, tokens, entries, path.name.endswith(".exact.kv"))

    def _write(self, path: Path, decoder: Decoder, start: int, block: Ids) -> None:
        stop = start + len(block)
        dtype = np.dtype(self._geometry.dtype).newbyteorder("<")
        parts = [_COUNT.pack(len(block)), block.astype("<i8").tobytes()]
        parts += [buffer[0, :, start:stop].astype(dtype, copy=False).tobytes() for buffer in decoder.cache.buffers]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        # Not waited for: after a crash the hash tells what is whole.
        with replacing(path, private=True, sync=False) as stream:
            stream.writelines([_MAGIC, digest.digest(), *parts])

    def _shrink(self) -> None:
        """Delete what was not used for longest until the rest fits the limit."""
        found = sorted(_files(self.directory), key=lambda one: one[2])
        size = sum(one[1] for one in found)
        for path, bytes_, _ in found:
            if size <= self._limit:
                return
            _unlink(path)
            size -= bytes_


@dataclass(frozen=True, slots=True)
class _Stored:
    """A block: int64 [n] tokens and, of every buffer of the cache, [heads, n, width]."""

    path: Path
    tokens: Ids
    entries: list[npt.NDArray[Any]]
    exact: bool


def _child(parent: str, block: Ids) -> str:
    return hashlib.sha256(parent.encode() + block.astype("<i8").tobytes()).hexdigest()[:40]


def _common(held: Ids, wanted: Ids) -> int:
    """Length of the common beginning."""
    size = min(len(held), len(wanted))
    different = np.flatnonzero(held[:size] != wanted[:size])
    return int(different[0]) if len(different) else size


def _opened(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDONLY | _NO_LINKS), "rb")


def _tokens(path: Path) -> Ids | None:
    """The tokens of a stored block, as its name says too; None for a file of other ones, which is deleted."""
    parent, _, rest = path.name.partition("-")
    with contextlib.suppress(OSError, struct.error, ValueError):
        with _opened(path) as stream:
            stream.seek(_FRONT)
            (count,) = _COUNT.unpack(stream.read(_COUNT.size))
            tokens = np.frombuffer(stream.read(8 * min(count, BLOCK)), dtype="<i8").astype(np.int64)
        if rest.startswith(_child(parent, tokens)[:16]):
            return tokens
    _unlink(path)
    return None


def _files(directory: Path) -> Iterator[tuple[Path, int, float]]:
    """Stored blocks with their bytes and when they were last used."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".kv"):
                with contextlib.suppress(OSError):
                    facts = entry.stat(follow_symlinks=False)
                    yield Path(entry.path), facts.st_size, facts.st_mtime


def _touch(paths: Sequence[Path]) -> None:
    """They were used; the later blocks of a sequence, which are nothing without the earlier ones, a moment before."""
    now = time.time()
    for index, path in enumerate(paths):
        with contextlib.suppress(OSError):
            os.utime(path, (now, now - index * 1e-3))


def _unlink(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.unlink()
        return True
    return False
