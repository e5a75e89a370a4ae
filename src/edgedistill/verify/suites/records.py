"""The records of a suite on disk: lines of JSONL, a JSON document (an object or an array of them), or a directory.

A directory gives the ``.json`` files in it and below, in the order of their paths, hidden ones left out: MATH is
published so, one object a file. A ``.json`` file whose first line is a whole value and that goes on is taken for JSONL.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgedistill.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BYTES = 256 * 1024 * 1024
SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Record:
    """``where`` names it in errors; ``default_id`` is a prompt's without one of its own."""

    where: str
    default_id: str
    fields: dict[str, Any]


def records(path: Path) -> Iterator[Record]:
    """The records of a file or directory, one at a time.

    Raises:
        SuiteError: unreadable, too large, not UTF-8, not JSON, no objects; with the file, and the line or entry.
    """
    if not path.is_dir():
        yield from _of_file(path, path.name, path.stem, MAX_BYTES)
        return
    left, found = MAX_BYTES, False
    for file in _files(path, frozenset()):
        inner, found = file.relative_to(path), True
        name = f"{path.resolve().name}/{inner.as_posix()}"
        yield from _of_file(file, name, inner.with_suffix("").as_posix(), left)
        left -= file.stat().st_size
    if not found:
        raise SuiteError(
            f"the directory {path} has no {SUFFIX} files; expected some, with an object or an array of them in each.",
            hint="Name a JSONL file itself.",
        )


def _files(directory: Path, above: frozenset[Path]) -> Iterator[Path]:
    above |= {directory.resolve()}
    try:
        entries = sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise SuiteError(f"suite {directory} cannot be read: {error.strerror or error}.") from error
    for entry in entries:
        if entry.is_dir():
            if entry.resolve() not in above:  # a link upwards has no end
                yield from _files(entry, above)
        elif entry.suffix == SUFFIX and entry.is_file():
            yield entry


def _of_file(path: Path, name: str, stem: str, most: int) -> Iterator[Record]:
    try:
        if path.stat().st_size > most:
            raise SuiteError(f"{name}: more than {MAX_BYTES >> 20} MiB; expected a suite of prompts.")
        data = path.read_bytes()
    except OSError as error:
        raise SuiteError(f"suite {path} cannot be read: {error.strerror or error}.") from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    if path.suffix != SUFFIX or _goes_on_after_a_line(data):
        for number, line in enumerate(data.split(b"\n"), start=1):
            if line.strip():
                where = f"{name}, line {number}"
                yield Record(where, f"{stem}-{number:05}", _object(_json(line, where, "one object a line"), where))
        return
    value = _json(data, name, "an object, an array of objects, or one object a line")
    if isinstance(value, list):
        for number, entry in enumerate(value, start=1):
            where = f"{name}, entry {number}"
            yield Record(where, f"{stem}-{number:05}", _object(entry, where))
        return
    yield Record(name, stem, _object(value, name))


def _goes_on_after_a_line(data: bytes) -> bool:
    first, _, rest = data.lstrip().partition(b"\n")
    if not rest.strip():
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _json(data: bytes, where: str, expected: str) -> Any:
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise SuiteError(f"{where}: not UTF-8 at byte {error.start}.") from error
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            line = f"line {error.lineno}, " if b"\n" in data.strip() else ""
            reason = f"{error.msg} at {line}column {error.colno}"
        raise SuiteError(f"{where}: not JSON: {reason}; expected {expected}.") from error


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SuiteError(f"{where}: found {kind(value)}; expected an object.")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at]))
        raise ValueError(f"the key `{twice}` occurs more than once")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def kind(value: Any) -> str:
    """A JSON value's type in words."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    return "an empty text" if value == "" else names.get(type(value), "null")
