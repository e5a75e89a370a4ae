"""Reads typed values from a record, with a one-line error for a value of another type."""

from __future__ import annotations

import difflib
import json
import math
from typing import TYPE_CHECKING, Any

from edgedistill.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DIGITS = 400
_LARGEST = 10**_DIGITS
MAX_TEXT = 1 << 20
"""Largest number of characters of a text in a record."""


def json_value(data: bytes | str, where: str, expected: str) -> Any:
    """The JSON value in ``data``. Raises SuiteError, also for duplicate keys, NaN and infinities."""
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise SuiteError(f"{where}: not UTF-8 at byte {error.start}.") from error
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            line = f"line {error.lineno}, " if "\n" in text.strip() else ""
            reason = f"{error.msg} at {line}column {error.colno}"
        raise SuiteError(f"{where}: not JSON: {reason}; expected {expected}.") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at]))
        raise ValueError(f"the key `{twice}` occurs more than once")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


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


def text_of(record: Mapping[str, Any], key: str, where: str, *, empty: bool = False) -> str:
    """The text at ``key``. Raises SuiteError if it is missing, not a text, or empty (unless ``empty``)."""
    if key not in record:
        raise SuiteError(f"{where}: `{key}` is missing.")
    value = record[key]
    if not isinstance(value, str) or (not empty and not value.strip()):
        raise SuiteError(f"{where}: `{key}` is {kind(value)}; expected a text{'' if empty else ' that is not empty'}.")
    return checked_text(value, key, where)


def checked_text(value: str, key: str, where: str) -> str:
    """``value`` itself. Raises SuiteError if it is too long or has a lone surrogate."""
    if len(value) > MAX_TEXT:
        raise SuiteError(f"{where}: `{key}` has {len(value)} characters; expected at most {MAX_TEXT}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SuiteError(f"{where}: `{key}` holds half a surrogate pair; expected whole characters.") from error
    return value


def scalar_text(value: Any, key: str, where: str) -> str:
    """A text or a number as a text. 142.0 becomes 142: tables store whole numbers as floats if values are missing."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SuiteError(f"{where}: `{key}` is {kind(value)}; expected a text or a number.")
    if isinstance(value, float) and not math.isfinite(value):
        raise SuiteError(f"{where}: `{key}` is {value}; expected a finite number.")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise SuiteError(f"{where}: `{key}` is a number of more than {_DIGITS} digits; expected a smaller one.")
    return checked_text(str(value), key, where)


def id_of(value: Any, where: str) -> str:
    """An id: a text that is not empty, or a number."""
    text = scalar_text(value, "id", where) if isinstance(value, int | float) and not isinstance(value, bool) else value
    return text_of({"id": text}, "id", where)


def texts_of(value: Any, key: str, where: str) -> tuple[str, ...]:
    """A list of texts and numbers, as texts; in tables it may be a JSON text. Raises SuiteError."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = json_value(value, f"{where}: `{key}`", "a list")
    if not isinstance(value, list | tuple) or not value:
        raise SuiteError(f"{where}: `{key}` is {kind(value)}; expected a list of texts.")
    return tuple(scalar_text(one, f"{key}[{at}]", where) for at, one in enumerate(value))


def near(key: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown key: the nearest known one, or all of them."""
    names = list(known)
    found = difflib.get_close_matches(key, names, n=1)
    return f"; did you mean `{found[0]}`?" if found else f"; expected one of {', '.join(names)}."
