"""Dataclass trees to JSON values and back, and to a JSON schema: one set of rules for all three.

A dataclass is an object, a tuple an array, None null. A float that is not finite is null, since JSON has no other; read
back it is NaN, and in the ends of an interval infinity. A bare number where an estimate belongs is read as one without
an interval: earlier reports have many.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.types import Estimate, Interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    Names = Mapping[str, Any]

T = TypeVar("T")
_UNIONS = (Union, types.UnionType)
_JSON: dict[Any, Any] = {
    str: "string", bool: "boolean", int: "integer", float: ["number", "null"], type(None): "null",
}  # fmt: skip


def encode(value: Any) -> Any:
    """A JSON value of a dataclass, tuple, dict, number, text or None."""
    if dataclasses.is_dataclass(value):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): encode(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [encode(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def decode(kind: type[T], value: Any, names: Names, where: str = "report") -> T:
    """A dataclass from a JSON value; unknown keys are ignored, so that later versions may add some.

    Args:
        names: Classes that annotations refer to without importing them at run time.

    Raises:
        VerifyError: a missing key or a value of another type, with its path.
    """
    result: T = _decode(kind, value, names, where)
    return result


def _decode(kind: Any, value: Any, names: Names, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _object(kind, value, names, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in _UNIONS:
        if value is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _decode(inner, value, names, where)
    if origin is tuple:
        return _tuple(arguments, value, names, where)
    if origin is dict:
        return _dict(arguments, value, names, where)
    return _scalar(kind, value, where)


def _object(kind: Any, value: Any, names: Names, where: str) -> Any:
    if kind is Estimate and not isinstance(value, dict):
        return Estimate(_scalar(float, value, where))
    if not isinstance(value, dict):
        _refuse(where, value, "an object")
    found, hints = {}, _hints(kind, names)
    for field in dataclasses.fields(kind):
        if field.name in value:
            found[field.name] = _decode(hints[field.name], value[field.name], names, f"{where}.{field.name}")
        elif _required(field):
            raise VerifyError(f"`{where}.{field.name}` is missing; expected a report of this version.")
    if kind is Interval:
        for name, end in (("low", -math.inf), ("high", math.inf)):
            found[name] = end if math.isnan(found[name]) else found[name]
    return kind(**found)


def _tuple(kinds: tuple[Any, ...], value: Any, names: Names, where: str) -> Any:
    if not isinstance(value, list):
        _refuse(where, value, "a list")
    each = [kinds[0]] * len(value) if kinds[-1] is Ellipsis else list(kinds)
    if len(each) != len(value):
        _refuse(where, value, f"{len(each)} entries")
    return tuple(_decode(k, v, names, f"{where}[{i}]") for i, (k, v) in enumerate(zip(each, value, strict=True)))


def _dict(kinds: tuple[Any, ...], value: Any, names: Names, where: str) -> Any:
    if not isinstance(value, dict):
        _refuse(where, value, "an object")
    key_kind = int if kinds[0] is int else str
    try:
        return {key_kind(key): _decode(kinds[1], entry, names, f"{where}.{key}") for key, entry in value.items()}
    except ValueError:
        _refuse(where, list(value), "whole numbers as keys")


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if get_origin(kind) is Literal:
        kinds = get_args(kind)
        return value if value in kinds else _refuse(where, value, f"one of {', '.join(map(str, kinds))}")
    if kind is float and value is None:
        return math.nan
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        _refuse(where, value, {float: "a number", int: "a whole number", str: "a text"}.get(kind, "true or false"))
    return kind(value)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _hints(kind: type, names: Names) -> dict[str, Any]:
    return typing.get_type_hints(kind, {**names, **vars(sys.modules[kind.__module__])})


def _refuse(where: str, value: Any, expected: str) -> NoReturn:
    raise VerifyError(f"`{where}` is {str(value)[:40]!r}; expected {expected}.")


def json_schema(kind: type, names: Names, *, title: str, identifier: str) -> dict[str, Any]:
    """The JSON schema (2020-12) of ``encode``'s results for a dataclass; ``names`` as in ``decode``."""
    definitions: dict[str, Any] = {}
    root = _schema(kind, names, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": identifier,
        "title": title,
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _schema(kind: Any, names: Names, definitions: dict[str, Any]) -> dict[str, Any]:
    if dataclasses.is_dataclass(kind):
        return _object_schema(typing.cast("type", kind), names, definitions)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is None:
        return {"type": _JSON[kind]}
    if origin is Literal:
        return {"enum": list(arguments)}
    parts = [_schema(argument, names, definitions) for argument in arguments if argument is not Ellipsis]
    if origin in _UNIONS:
        return {"anyOf": parts}
    if origin is dict:
        return {"type": "object", "additionalProperties": parts[1]}
    many = arguments[-1] is Ellipsis
    size = {"items": parts[0]} if many else {"prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
    return {"type": "array", **size}


def _object_schema(kind: Any, names: Names, definitions: dict[str, Any]) -> dict[str, Any]:
    name: str = kind.__name__
    if name not in definitions:
        definitions[name] = {}
        hints, fields = _hints(kind, names), dataclasses.fields(kind)
        definitions[name] = {
            "type": "object",
            "description": " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split()),
            "properties": {field.name: _schema(hints[field.name], names, definitions) for field in fields},
            "required": [field.name for field in fields if _required(field)],
        }
    return {"$ref": f"#/$defs/{name}"}
