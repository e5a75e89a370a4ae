"""Dataclass trees to JSON values and to a JSON schema, by the same rules; ``schema.Form`` reads such values back.

A dataclass is an object, a tuple an array, None null. A float that is not finite is null, since JSON has no other.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    Names = Mapping[str, Any]

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


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _hints(kind: type, names: Names) -> dict[str, Any]:
    return typing.get_type_hints(kind, {**names, **vars(sys.modules[kind.__module__])})


def json_schema(kind: type, names: Names, *, title: str, identifier: str) -> dict[str, Any]:
    """The JSON schema (2020-12) of ``encode``'s results for a dataclass.

    Args:
        names: Classes that annotations refer to without importing them at run time.
    """
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
