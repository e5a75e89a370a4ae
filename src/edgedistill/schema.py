"""Documents from outside (JSON, TOML) to typed data: bounded reading, then one validated schema per format.

The schema of a format is its dataclasses: annotations give the types, ``metadata=limits(...)`` the bounds (or
``Annotated[T, limits(...)]``). TypedDicts describe objects that stay dicts and keep unknown keys; an empty one says
that there is none. A ``Form`` says which error a bad document raises; nothing else is raised, whatever the bytes.
Errors name the document, the dotted key, what was found and what was expected.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import re
import stat
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NoReturn,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from edgedistill.errors import EdgedistillError

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")
Reader = Callable[[Any], Any]

MAX_DEPTH = 32
"""Levels of nesting below a value of any type."""
_INTEGERS = 1 << 63
_LARGEST = 10**300
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_KINDS: dict[type, str] = {dict: "a table", list: "a list", tuple: "a list", type(None): "null"}


class _Limits(dict[str, Any]):
    """Bounds that an annotation may hold: those are hashed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


def limits(
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[Any, ...] | None = None,
    most: int | None = None,
    pattern: str | None = None,
    words: str = "",
    schema: Any = None,
) -> _Limits:
    """Bounds of a value, as metadata of a field.

    Args:
        low, high: Inclusive. ``above``: exclusive. ``choices``: the only values.
        most: Entries of a list or table, characters of a text.
        pattern: What a whole text matches; ``words`` describe it.
        schema: The type to check by, where the field's own says less.
    """
    return _Limits(
        low=low, high=high, above=above, choices=choices, most=most, pattern=pattern, words=words, schema=schema
    )


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """What is common to the documents of one format.

    Attributes:
        error: Raised for a document that does not fit.
        hint: What to do then.
        strict: Unknown keys are errors, with the nearest known one as suggestion; otherwise they are left out, so that
            later versions may add some.
        readers: By type, functions that read a text (and raise EdgedistillError on a bad one).
        before: By type, functions that change a value to the form of this version before it is read.
        names: Classes that annotations refer to without importing them at run time.
        null_is_nan: A float may be null, as JSON has no NaN; it is read as NaN.
        surrogates: Texts may hold halves of surrogate pairs, which no terminal takes.
        max_bytes: Of a whole document.
    """

    error: type[EdgedistillError]
    hint: str | None = None
    strict: bool = False
    readers: Mapping[Any, Reader] = field(default_factory=dict)
    before: Mapping[Any, Reader] = field(default_factory=dict)
    names: Mapping[str, Any] = field(default_factory=dict)
    null_is_nan: bool = False
    surrogates: bool = False
    max_bytes: int = 16 << 20

    def read_file(self, path: Path) -> bytes:
        """The content of a regular file of at most ``max_bytes``; raises ``error``, or FileNotFoundError."""
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise self.error(f"{path} is not a regular file.", hint=self.hint)
            with path.open("rb") as stream:
                data = stream.read(self.max_bytes + 1)
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise self.error(f"{path} cannot be read: {reason}.", hint=self.hint) from error
        if len(data) > self.max_bytes:
            raise self.error(f"{path} has more than {self.max_bytes >> 20} MiB, the most expected.", hint=self.hint)
        return data

    def read_text(self, path: Path) -> str:
        """The content of a UTF-8 file, as ``read_file`` reads it."""
        return self.text(self.read_file(path), str(path))

    def text(self, data: bytes, source: str) -> str:
        """``data`` as UTF-8; raises ``error``."""
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{source}: byte {error.start} is not UTF-8; expected text.", hint=self.hint) from error

    def parse(self, data: bytes | str, source: str) -> Any:
        """The JSON value in ``data``; raises ``error`` for anything else, NaN and infinities included."""
        if len(data) > self.max_bytes:
            raise self.error(f"{source} has more than {self.max_bytes >> 20} MiB, the most expected.", hint=self.hint)
        text = self.text(data, source) if isinstance(data, bytes) else data
        try:
            return json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise self.error(f"{source} is not valid JSON ({reason}).", hint=self.hint) from error

    def parse_object(self, data: bytes | str, source: str) -> dict[str, Any]:
        """The JSON object in ``data``, nested ``MAX_DEPTH`` levels at most; raises ``error``."""
        value = self.parse(data, source)
        if not isinstance(value, dict):
            self.refuse(source, "", value, "an object")
        _any(self, value, source, "", 0)
        return value

    def decode(self, kind: type[T], value: Any, source: str, path: str = "") -> T:
        """``value``, as JSON or TOML gives it, as a ``kind`` (dataclass or TypedDict); raises ``error``."""
        result: T = _decode(self, kind, value, {}, source, path)
        return result

    def refuse(self, source: str, path: str, value: Any, expected: str, nearest: str | None = None) -> NoReturn:
        """Raise ``error``: what was found where, and what was expected."""
        found = repr(value) if isinstance(value, str | int | float) else _KINDS.get(type(value), type(value).__name__)
        found = found if len(found) <= 60 else f"{found[:60]}…"
        place = f"{source}: `{path}`" if path else source
        hint = f"Did you mean {nearest!r}?" if nearest else self.hint
        raise self.error(f"{place} is {found}; expected {expected}.", hint=hint)


@functools.cache
def _fields(form: Form, kind: Any) -> tuple[tuple[str, Any, Mapping[str, Any], bool], ...]:
    """(name, type, limits, required) of every field."""
    hints = get_type_hints(kind, {**form.names, **vars(sys.modules[kind.__module__])}, include_extras=True)
    if is_typeddict(kind):
        return tuple((name, hint, {}, name in kind.__required_keys__) for name, hint in hints.items())
    return tuple(
        (
            f.name,
            f.metadata.get("schema") or hints[f.name],
            f.metadata,
            f.default is MISSING and f.default_factory is MISSING,
        )
        for f in fields(kind)
        if f.init
    )


@functools.cache
def _shape(kind: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """Origin, arguments, and whether it is a dataclass or TypedDict: asked for every value, the same for every kind."""
    return get_origin(kind), get_args(kind), is_dataclass(kind) or is_typeddict(kind)


def _decode(form: Form, kind: Any, value: Any, meta: Mapping[str, Any], source: str, path: str) -> Any:  # noqa: PLR0911
    origin, arguments, fielded = _shape(kind)
    if origin in (NotRequired, Required):
        return _decode(form, arguments[0], value, meta, source, path)
    if origin is Annotated:
        return _decode(form, arguments[0], value, arguments[1], source, path)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return _decode(form, kind, value, meta, source, path)
    if kind in form.readers:
        if not isinstance(value, str):
            form.refuse(source, path, value, "a text")
        try:
            return form.readers[kind](value)
        except EdgedistillError as error:
            raise form.error(f"{source}: `{path}`: {error.message}", hint=error.hint) from error
    if fielded:
        return _object(form, kind, form.before[kind](value) if kind in form.before else value, source, path)
    if kind is Any or kind is object:
        return _any(form, value, source, path, 0)
    if origin in (tuple, list):
        return _sequence(form, kind, value, meta, source, path)
    if origin is dict:
        return _table(form, arguments, value, meta, source, path)
    return _scalar(form, kind, value, meta, source, path)


def _object(form: Form, kind: Any, value: Any, source: str, path: str) -> Any:
    if not isinstance(value, Mapping):
        form.refuse(source, path, value, "a table")
    known = _fields(form, kind)
    typed = is_typeddict(kind)
    if typed and not value:
        return {}
    prefix = f"{path}." if path else ""
    found: dict[str, Any] = {}
    if form.strict or typed:
        names = {name for name, _, _, _ in known}
        for name, entry in value.items():
            if name in names:
                continue
            if form.strict:
                _unknown(form, source, path, str(name), [name for name, _, _, _ in known])
            found[name] = _any(form, entry, source, f"{prefix}{name}", 0)
    for name, hint, meta, required in known:
        if name in value:
            found[name] = _decode(form, hint, value[name], meta, source, f"{prefix}{name}")
        elif required:
            raise form.error(f"{source}: key `{prefix}{name}` is missing.", hint=form.hint)
    if typed:
        return found
    try:
        return kind(**found)
    except EdgedistillError as error:
        raise form.error(f"{source}: `{path}`: {error.message}", hint=error.hint) from error
    except ValueError as error:
        raise form.error(f"{source}: `{path}`: {error}.", hint=form.hint) from error


def _sequence(form: Form, kind: Any, value: Any, meta: Mapping[str, Any], source: str, path: str) -> Any:
    kinds = get_args(kind)
    if not isinstance(value, list | tuple):
        form.refuse(source, path, value, "a list")
    fixed = get_origin(kind) is tuple and kinds[-1] is not Ellipsis
    most = len(kinds) if fixed else meta.get("most")
    if (most is not None and len(value) > most) or (fixed and len(value) != most):
        raise form.error(
            f"{source}: `{path}` has {len(value)} entries; expected {'' if fixed else 'at most '}{most}.",
            hint=form.hint,
        )
    if not fixed and kinds[0] is int and value and set(map(type, value)) == {int} and not meta.get("choices"):
        # Token ids come by the million: the least and the largest speak for the others.
        for end in (min(value), max(value)):
            _scalar(form, int, end, meta, source, path)
        return list(value) if get_origin(kind) is list else tuple(value)
    each = kinds if fixed else (kinds[0],) * len(value)
    entries = (
        _decode(form, one, entry, meta, source, f"{path}[{at}]")
        for at, (one, entry) in enumerate(zip(each, value, strict=True))
    )
    return list(entries) if get_origin(kind) is list else tuple(entries)


def _table(
    form: Form, kinds: tuple[Any, ...], value: Any, meta: Mapping[str, Any], source: str, path: str
) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        form.refuse(source, path, value, "a table")
    if meta.get("most") is not None and len(value) > meta["most"]:
        raise form.error(
            f"{source}: `{path}` has {len(value)} entries; expected at most {meta['most']}.", hint=form.hint
        )
    found = {}
    for key, entry in value.items():
        if kinds[0] is int and re.fullmatch(r"-?\d{1,18}", str(key)) is None:
            form.refuse(source, path, str(key), "whole numbers as keys")
        found[int(key) if kinds[0] is int else _text(form, key, source, path)] = _decode(
            form, kinds[1], entry, meta, source, f"{path}.{key}" if path else str(key)
        )
    return found


def _any(form: Form, value: Any, source: str, path: str, depth: int) -> Any:
    """A value of any JSON type, bounded in depth, its numbers in those that computers have."""
    if depth > MAX_DEPTH:
        raise form.error(f"{source}: `{path[:60]}` is nested more than {MAX_DEPTH} levels deep.", hint=form.hint)
    if isinstance(value, dict):
        return {_text(form, k, source, path): _any(form, v, source, f"{path}.{k}", depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_any(form, entry, source, path, depth + 1) for entry in value]
    if isinstance(value, int) and abs(value) < _LARGEST:  # transformers writes 10**30 for "no limit"
        return value
    if isinstance(value, int | float | str):
        return _scalar(form, type(value), value, {}, source, path)
    return value


def _scalar(form: Form, kind: Any, value: Any, meta: Mapping[str, Any], source: str, path: str) -> Any:
    origin, arguments, _ = _shape(kind)
    if origin is Literal:
        meta = {"choices": arguments}
        kind = type(meta["choices"][0])
    if kind is float and value is None and form.null_is_nan:
        return math.nan
    expected = str(meta.get("words") or _WORDS[kind])
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        form.refuse(source, path, value, expected)
    if isinstance(value, str):
        _text(form, value, source, path)
        if meta.get("most") is not None and len(value) > meta["most"]:
            form.refuse(source, path, value, f"at most {meta['most']} characters")
        if meta.get("pattern") is not None and re.fullmatch(meta["pattern"], value) is None:
            form.refuse(source, path, value, expected)
    elif kind is float:
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value) and not (form.null_is_nan and isinstance(value, float)):
            form.refuse(source, path, value, "a finite number")
    elif kind is int and not -_INTEGERS <= value < _INTEGERS:
        form.refuse(source, path, f"a number of {len(str(abs(value)))} digits", "one of at most 18")
    choices = meta.get("choices")
    if choices is not None and value not in choices:
        words = "one of " + ", ".join(repr(choice) for choice in choices)
        form.refuse(source, path, value, words, nearest_name(value, choices))
    if kind in (int, float):
        _check_range(form, value, meta, source, path, expected)
    return value


def _check_range(form: Form, value: float, meta: Mapping[str, Any], source: str, path: str, expected: str) -> None:
    low, high, above = meta.get("low"), meta.get("high"), meta.get("above")
    bounds = (
        f"at least {low}" if low is not None else "",
        f"above {above}" if above is not None else "",
        f"at most {high}" if high is not None else "",
    )
    if (
        (low is not None and value < low)
        or (high is not None and value > high)
        or (above is not None and value <= above)
    ):
        form.refuse(source, path, value, f"{expected} " + " and ".join(bound for bound in bounds if bound))


def _text(form: Form, value: Any, source: str, path: str) -> Any:
    """``value``; half a surrogate pair, which no file or terminal takes, is refused."""
    if (
        isinstance(value, str)
        and not (form.surrogates or value.isascii())
        and any("\ud800" <= c <= "\udfff" for c in value)
    ):
        raise form.error(f"{source}: `{path}` holds half a surrogate pair; expected whole characters.", hint=form.hint)
    return value


def _unknown(form: Form, source: str, path: str, name: str, known: list[str]) -> NoReturn:
    prefix = f"{path}." if path else ""
    nearest = nearest_name(name, known)
    where = f"`[{path}]`" if path else "the top level"
    raise form.error(
        f"{source}: unknown key `{prefix}{name[:60]}`; {where} has {', '.join(known)}.",
        hint=f"Did you mean `{prefix}{nearest}`?" if nearest else form.hint,
    )


def nearest_name(name: object, known: Iterable[object]) -> str | None:
    """The entry of ``known`` most like ``name``, if any is like it."""
    matches = difflib.get_close_matches(str(name)[:60], [str(entry) for entry in known], n=1, cutoff=0.5)
    return matches[0] if matches else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
