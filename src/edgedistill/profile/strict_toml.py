"""Strict reading of nested tables into frozen dataclasses: every key known, every value of its type and in its range.

The fields' annotations and their ``metadata`` (see ``limits``) are the schema. Errors name the file, the dotted key,
what was found and what was expected.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from edgedistill.errors import EdgedistillError, ProfileError

T = TypeVar("T")
Parser = Callable[[Any], Any]


def limits(
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> dict[str, Any]:
    """Field metadata: inclusive ``low`` and ``high``, exclusive ``above``, or the only ``choices``."""
    return {"low": low, "high": high, "above": above, "choices": choices}


def read_table(cls: type[T], table: Any, *, source: str, key: str = "", parsers: Mapping[Any, Parser]) -> T:
    """Build dataclass ``cls`` from ``table``.

    Args:
        cls: A dataclass whose fields are bool, int, float, str, tuples of one such type, optional ones, or dataclasses.
        table: A mapping as TOML or JSON gives it.
        source: File name for messages.
        key: Dotted path of ``table`` within the file.
        parsers: Types read from a text by a function that raises EdgedistillError on a bad one.

    Raises:
        ProfileError: an unknown or missing key, a wrong type, a value out of range.
    """
    if not isinstance(table, Mapping):
        raise _wrong(source, key, table, "a table")
    assert is_dataclass(cls)
    known = {field.name: field for field in fields(cls)}
    for name in table:
        if name not in known:
            raise _unknown(source, key, str(name), list(known))
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, field in known.items():
        path = f"{key}.{name}" if key else name
        if name in table:
            values[name] = _read(hints[name], table[name], field.metadata, source, path, parsers)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ProfileError(
                f"{source}: key `{path}` is missing.",
                hint="`edgedistill profiles show laptop-cpu` prints a whole profile.",
            )
    return cls(**values)


def _read(hint: Any, value: Any, meta: Mapping[str, Any], source: str, path: str, parsers: Mapping[Any, Parser]) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (hint,) = (arm for arm in get_args(hint) if arm is not type(None))
        origin = get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong(source, path, value, "a list")
        item = get_args(hint)[0]
        return tuple(_read(item, entry, meta, source, f"{path}[{i}]", parsers) for i, entry in enumerate(value))
    if hint in parsers:
        if not isinstance(value, str):
            raise _wrong(source, path, value, "a text")
        try:
            return parsers[hint](value)
        except EdgedistillError as error:
            raise ProfileError(f"{source}: `{path}`: {error.message}", hint=error.hint) from error
    if isinstance(hint, type) and is_dataclass(hint):
        return read_table(hint, value, source=source, key=path, parsers=parsers)
    return _scalar(hint, value, meta, source, path)


def _scalar(hint: Any, value: Any, meta: Mapping[str, Any], source: str, path: str) -> Any:
    expected = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[hint]
    accepted = {bool: bool, int: int, float: int | float, str: str}[hint]
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise _wrong(source, path, value, expected)
    if hint is float:
        value = float(value)
        if not math.isfinite(value):
            raise _wrong(source, path, value, "a finite number")
    choices = meta.get("choices")
    if choices is not None and value not in choices:
        raise _wrong(
            source, path, value, "one of " + ", ".join(repr(choice) for choice in choices), nearest_name(value, choices)
        )
    low, high, above = meta.get("low"), meta.get("high"), meta.get("above")
    bounds = [
        f"at least {low}" if low is not None else "",
        f"above {above}" if above is not None else "",
        f"at most {high}" if high is not None else "",
    ]
    if (
        (low is not None and value < low)
        or (high is not None and value > high)
        or (above is not None and value <= above)
    ):
        raise _wrong(source, path, value, f"{expected} " + " and ".join(bound for bound in bounds if bound))
    return value


def _unknown(source: str, key: str, name: str, known: list[str]) -> ProfileError:
    prefix = f"{key}." if key else ""
    nearest = nearest_name(name, tuple(known))
    listed = ", ".join(known)
    where = f"`[{key}]`" if key else "the top level"
    return ProfileError(
        f"{source}: unknown key `{prefix}{name}`; {where} has {listed}.",
        hint=f"Did you mean `{prefix}{nearest}`?" if nearest else "profiles/README.md documents every key.",
    )


def _wrong(source: str, path: str, value: Any, expected: str, nearest: str | None = None) -> ProfileError:
    found = f"{value!r}" if isinstance(value, str | int | float) else f"a {_kind(value)}"
    place = f"`{path}`" if path else "the file"
    return ProfileError(
        f"{source}: {place} is {found}; expected {expected}.", hint=f"Did you mean {nearest!r}?" if nearest else None
    )


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "table"
    return "list" if isinstance(value, list | tuple) else type(value).__name__


def nearest_name(name: object, known: Iterable[object]) -> str | None:
    """The entry of ``known`` most like ``name``, if any is like it."""
    matches = difflib.get_close_matches(str(name), [str(entry) for entry in known], n=1, cutoff=0.5)
    return matches[0] if matches else None
