"""Reads the records of a suite on disk: JSONL, JSON, CSV, TSV (each also as ``.gz``), Parquet, or a directory of these.

A directory is read with its subdirectories, in the order of paths and without hidden files (MATH is published like
that, with one object per file). A ``.json`` file whose first line is a complete value, followed by more, is read as
JSONL.
"""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from edgedistill.bounded_file import read_bounded
from edgedistill.errors import SuiteError
from edgedistill.verify.suites.values import json_value, kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_BYTES = 256 * 1024 * 1024
"""Largest size of a suite, unpacked."""
MAX_RECORDS = 1_000_000
SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
"""Suffixes of the files that are read in a directory; all but the last also with ``.gz``."""
SPLITS = {"train": "train", "training": "train", "test": "test", "validation": "validation", "valid": "validation",
          "val": "validation", "dev": "validation"}  # fmt: skip
"""Splits of a published data set, by the words in names of files and folders."""
_TABLES = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Record:
    """A record; ``where`` names it in errors, ``default_id`` is the prompt's id if the record has none."""

    where: str
    default_id: str
    fields: Mapping[str, Any]


def records(path: Path, split: str | None = None) -> Iterator[Record]:
    """The records of a file or directory, one at a time.

    Args:
        path: The file or directory.
        split: Part of a directory: ``train``, ``test`` or ``validation``, by the names of files and folders.

    Raises:
        SuiteError: A file cannot be read, is too large, not UTF-8 or not JSON, or has no objects (the message names
            file and line); a directory has several splits and ``split`` is None.
    """
    if not path.is_dir():
        yield from _of_file(path, path.name, _stem(path.name), MAX_BYTES)
        return
    root = path.resolve().name
    left, found = MAX_BYTES, False
    for inner, file in _part([(file.relative_to(path), file) for file in _files(path, frozenset())], split, path):
        found = True
        name = f"{root}/{inner.as_posix()}"
        yield from _of_file(file, name, _stem(inner.as_posix()), left)
        left -= file.stat().st_size
    if not found:
        raise SuiteError(
            f"The directory {path} has no {', '.join(SUFFIXES)} files; expected some, with an object or an array of "
            "them in each, or rows.",
            hint="Name a JSONL file itself.",
        )


def suffix(name: str) -> str:
    """The suffix of a file's name, without ``.gz``."""
    return PurePosixPath(name.removesuffix(".gz")).suffix.lower()


def _stem(name: str) -> str:
    return str(PurePosixPath(name.removesuffix(".gz")).with_suffix(""))


def _files(directory: Path, above: frozenset[Path]) -> Iterator[Path]:
    above |= {directory.resolve()}
    try:
        entries = sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise SuiteError(f"Suite {directory} cannot be read: {error.strerror or error}.") from error
    for entry in entries:
        if entry.is_dir():
            if entry.resolve() not in above:  # a link upwards has no end
                yield from _files(entry, above)
        elif suffix(entry.name) in SUFFIXES and entry.is_file() and entry.name not in _NO_DATA:
            yield entry


_NO_DATA = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json")
"""Files that the library ``datasets`` writes beside the data."""


def _part(files: list[tuple[Path, Path]], split: str | None, root: Path) -> list[tuple[Path, Path]]:
    parts: dict[str | None, list[tuple[Path, Path]]] = {}
    for inner, file in files:
        words = [word for word in re.split(r"[^a-z]+", inner.as_posix().lower()) if word in SPLITS]
        parts.setdefault(SPLITS[words[0]] if words else None, []).append((inner, file))
    named = sorted(name for name in parts if name is not None)
    if split is None:
        if len(named) > 1:
            raise SuiteError(
                f"The directory {root} holds the splits {', '.join(named)}; expected one of them to be asked for.",
                hint="Name one, for instance: --split test",
            )
        return files
    if SPLITS.get(split, split) not in parts:
        raise SuiteError(
            f"The directory {root} has no split `{split}`; found {', '.join(named) or 'files of no split'}."
        )
    return parts[SPLITS.get(split, split)]


def _of_file(path: Path, name: str, stem: str, most: int) -> Iterator[Record]:
    form = suffix(name)
    if form == ".parquet":
        from edgedistill.verify.suites.tables import parquet_rows

        yield from _numbered(parquet_rows(path, name, most, MAX_RECORDS), name, stem, "row")
        return
    data = _read(path, name, most).removeprefix(b"\xef\xbb\xbf")
    if form in _TABLES:
        from edgedistill.verify.suites.tables import csv_rows

        yield from _numbered(csv_rows(data, name, _TABLES[form]), name, stem, "row")
        return
    if form != ".json" or _goes_on_after_a_line(data):
        for number, line in enumerate(data.split(b"\n"), start=1):
            if line.strip():
                where = f"{name}, line {number}"
                yield Record(where, f"{stem}-{number:05}", _object(json_value(line, where, "one object a line"), where))
        return
    value = json_value(data, name, "an object, an array of objects, or one object a line")
    if isinstance(value, list):
        yield from _numbered(value, name, stem, "entry")
        return
    yield Record(name, stem, _object(value, name))


def _numbered(values: Iterator[Any] | list[Any], name: str, stem: str, word: str) -> Iterator[Record]:
    for number, entry in enumerate(values, start=1):
        where = f"{name}, {word} {number}"
        yield Record(where, f"{stem}-{number:05}", _object(entry, where))


def _read(path: Path, name: str, most: int) -> bytes:
    """The unpacked bytes of a file; at most ``most`` + 1 are read into memory."""
    try:
        if path.name.endswith(".gz"):
            with gzip.open(path) as packed:
                data = packed.read(most + 1)
        else:
            data = read_bounded(path, most)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise SuiteError(f"{name}: not a whole gzip file ({error}).") from error
    except OSError as error:
        raise SuiteError(f"Suite {path} cannot be read: {error.strerror or error}.") from error
    if len(data) > most:
        raise SuiteError(f"{name}: more than {MAX_BYTES >> 20} MiB; expected a suite of prompts.")
    return data


def _goes_on_after_a_line(data: bytes) -> bool:
    first, _, rest = data.lstrip().partition(b"\n")
    if not rest.strip():
        return False
    try:
        json_value(first, "", "")
    except SuiteError:
        return False
    return True


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SuiteError(f"{where}: found {kind(value)}; expected an object.")
    return value
