"""Keeps samples on disk while they are drawn, so that a killed run continues without losing or repeating any.

The file is append-only. Each line has the CRC-32 of a JSON text in hex, a space, and the text. The first line is the
header: what the samples depend on (suite, settings, model, versions); a file with another header is refused. The last
line may be incomplete after a crash: it is dropped, and its sample drawn again. Damage anywhere else is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import zlib
from collections.abc import Generator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

from edgedistill import file_lock
from edgedistill.errors import OutputError, VerifyError
from edgedistill.verify.sampling.deadline import TimeUpError
from edgedistill.verify.sampling.likelihood import draw_likely
from edgedistill.verify.types import Drawn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from io import FileIO
    from pathlib import Path

    from filelock import BaseFileLock

    from edgedistill.progress import Progress
    from edgedistill.runtime.batch.request import DrawSettings, SampleKey
    from edgedistill.verify.sampling.protocol import SampledModel
    from edgedistill.verify.types import ModelIdentity, Prompt, Suite

FORMAT = 1
MAX_BYTES = 1 << 30
_NEW = "Delete the file, or name another with a new --store."


def store_header(
    suite: Suite, settings: DrawSettings, identity: ModelIdentity, *, what: str = "samples"
) -> dict[str, Any]:
    """Header of a store: what its samples depend on. ``what`` distinguishes runs with equal settings (procedures)."""
    packages = ("edgedistill", "numpy", *(("torch", "transformers") if identity.kind == "hf" else ("onnxruntime",)))
    return {
        "format": FORMAT,
        "what": what,
        "suite": suite.sha256,
        "settings": settings.to_dict(),
        "model": {"kind": identity.kind, "sha256": identity.sha256, "tokenizer": identity.tokenizer_sha256},
        "versions": {name: version(name) for name in packages},
    }


def store_path(directory: Path, header: Mapping[str, Any], name: str) -> Path:
    """Path of the samples of a run: the model's name and the beginning of the header's hash."""
    digest = hashlib.sha256(_canonical(header).encode()).hexdigest()
    return directory / f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)[:40] or 'model'}-{digest[:16]}.samples"


class SampleStore:
    """An open store. Close it, or use it as a context manager.

    Attributes:
        drawn: All samples in it, by (prompt id, index).
    """

    def __init__(self, path: Path, file: FileIO, drawn: dict[SampleKey, Drawn], lock: BaseFileLock) -> None:
        """Use ``open``."""
        self._lock = lock
        self.path = path
        self.drawn = drawn
        self._file = file

    @classmethod
    def open(cls, path: Path, header: Mapping[str, Any]) -> Self:
        """Create the file, or resume an existing one.

        Raises:
            VerifyError: Another header, damage before the last line, a sample that occurs twice, or a store that
                another process has open.
            OutputError: The file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = file_lock.acquire(path)
        except TimeoutError as error:
            raise VerifyError(
                f"{path.name} is in use by another run.", hint="Wait for it to end, or name another --store."
            ) from error
        except OSError as error:
            raise OutputError(f"The samples cannot be stored in {path}: {error.strerror}.") from error
        try:
            file = path.open("a+b", buffering=0)
        except OSError as error:
            lock.release()
            raise OutputError(f"The samples cannot be stored in {path}: {error.strerror}.") from error
        try:
            file.seek(0)
            data = file.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise VerifyError(f"{path.name} has more than {MAX_BYTES >> 20} MiB, the most expected.", hint=_NEW)
            records, good = _read(path, data)
            if not records and data and not _torn_header(data):
                raise VerifyError(f"{path.name} is not a store of samples.", hint=_NEW)
            file.truncate(good)
            drawn: dict[SampleKey, Drawn] = {}
            if records:
                _check_header(path, records[0], header)
                drawn = _samples(path, records[1:])
            store = cls(path, file, drawn, lock)
            if not records:
                store._write(header)
        except BaseException:
            file.close()
            lock.release()
            raise
        return store

    @property
    def done(self) -> Collection[SampleKey]:
        """Keys of the samples in it."""
        return self.drawn.keys()

    def append(self, drawn: Drawn) -> None:
        """Write a sample to the file; it survives the end of this process.

        Raises:
            ValueError: The store has this sample already.
            OutputError: The disk is full or gone; earlier samples are safe.
        """
        if drawn.key in self.drawn:
            raise ValueError(f"sample {drawn.key} is in the store already")
        self._write(drawn.to_dict())
        self.drawn[drawn.key] = drawn

    def _write(self, record: Mapping[str, Any]) -> None:
        text = _canonical(record).encode()
        try:
            line = memoryview(b"%08x %s\n" % (zlib.crc32(text), text))
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror}. The {len(self.drawn)} samples before are kept.",
                hint="Make room and run the same command again: it goes on from there.",
            ) from error

    def close(self) -> None:
        """Flush to disk, close the file and release its lock."""
        if self._file.closed:
            return
        with contextlib.suppress(OSError):  # reported when it was written
            os.fsync(self._file.fileno())
        with contextlib.suppress(OSError):
            self._file.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def collect(
    model: SampledModel,
    prompts: Sequence[Prompt],
    samples: int,
    settings: DrawSettings,
    store: SampleStore | None = None,
    progress: Progress | None = None,
    known: Sequence[Drawn] = (),
) -> list[Drawn]:
    """All samples in order of prompt and index: those of the store, and the missing ones drawn and stored.

    ``known`` were drawn before and are stored with the others. KeyboardInterrupt leaves a store that can be resumed.

    Raises:
        TimeUpError: The model was cancelled.
        EdgedistillError: See ``SampledModel.draw`` and ``SampleStore.append``.
    """
    wanted = [(prompt.id, index) for prompt in prompts for index in range(samples)]
    have = dict(store.drawn) if store is not None else {}
    for drawn in known:
        if drawn.key not in have:
            if store is not None:
                store.append(drawn)
            have[drawn.key] = drawn
    if any(key not in have for key in wanted):
        drawing = _drawing(model, prompts, samples, settings, frozenset(have), progress)
        try:
            for drawn in drawing:
                if store is not None:
                    store.append(drawn)
                have[drawn.key] = drawn
        finally:
            # On a full disk or Ctrl-C, stop the drawing threads now instead of at garbage collection.
            if isinstance(drawing, Generator):
                drawing.close()
    if any(key not in have for key in wanted):
        raise TimeUpError(
            f"inconclusive: the time budget ended while {model.identity.name} was sampled.",
            hint="Give more --time-budget.",
        )
    return [have[key] for key in wanted]


def _drawing(
    model: SampledModel,
    prompts: Sequence[Prompt],
    samples: int,
    settings: DrawSettings,
    done: frozenset[SampleKey],
    progress: Progress | None,
) -> Iterator[Drawn]:
    """Draws replies, and scores the prompts that are answered by likelihood (a baseline has both stored)."""
    likely = [prompt for prompt in prompts if prompt.extract == "likelihood"]
    if not likely or not model.can_score:
        yield from model.draw(prompts, samples, settings, done=done, progress=progress)
        return
    yield from draw_likely(model, likely, samples, settings, done=done, progress=progress)
    if rest := [prompt for prompt in prompts if prompt.extract != "likelihood"]:
        yield from model.draw(rest, samples, settings, done=done, progress=progress)


def _canonical(value: Mapping[str, Any]) -> str:
    # ASCII, so that no text, lone surrogates included, has bytes that cannot be written or a line end of its own.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _read(path: Path, data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The records and their number of bytes; an incomplete last line is left out."""
    records: list[dict[str, Any]] = []
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        record = _record(data[at:end]) if end >= 0 else None
        if record is None:
            if end < 0 or end == len(data) - 1 or not data[at:].strip(b"\0\n"):
                break
            raise VerifyError(
                f"{path.name} is damaged: line {len(records) + 1} does not match its checksum.", hint=_NEW
            )
        records.append(record)
        at = end + 1
    return records, at


def _torn_header(data: bytes) -> bool:
    """Whether a file without a complete record may be an unfinished header."""
    checksum, space, text = data.rstrip(b"\0").partition(b" ")
    return re.fullmatch(rb"[0-9a-f]{0,8}", checksum) is not None and (not space or b"{".startswith(text[:1]))


def _record(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _check_header(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    known = json.loads(_canonical(expected))
    if found == known:
        return
    if found.get("format") != FORMAT:
        raise VerifyError(f"{path.name} has format {found.get('format')!r}; this version reads {FORMAT}.", hint=_NEW)
    name, there, here = _difference(found, known)
    raise VerifyError(
        f"{path.name} holds samples of another run: {name} is {_short(there)} there and {_short(here)} now.", hint=_NEW
    )


def _difference(found: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> tuple[str, Any, Any]:
    """The first entry that differs, with its path."""
    for key in [*expected, *(key for key in found if key not in expected)]:
        there, here = found.get(key), expected.get(key)
        if there != here:
            if isinstance(there, dict) and isinstance(here, dict):
                return _difference(there, here, f"{prefix}{key}.")
            return f"{prefix}{key}", there, here
    raise ValueError("the headers are equal")


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 40 else text


def _samples(path: Path, records: Sequence[Mapping[str, Any]]) -> dict[SampleKey, Drawn]:
    drawn: dict[SampleKey, Drawn] = {}
    for line, record in enumerate(records, start=2):
        try:
            one = Drawn.from_dict(record, f"{path.name}: line {line}")
        except VerifyError as error:
            raise VerifyError(f"{error.message}", hint=_NEW) from error
        if one.key in drawn:
            raise VerifyError(f"{path.name}: line {line} repeats sample {one.key[1]} of `{one.key[0]}`.", hint=_NEW)
        drawn[one.key] = one
    return drawn
