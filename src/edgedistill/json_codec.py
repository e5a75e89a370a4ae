"""Dataclass trees to JSON values and to a JSON schema, by the same rules; ``schema.Form`` reads such values back.

A dataclass is an object, a tuple an array, None null. A float that is not finite is null, since JSON has no other.
A ``Record`` adds properties that follow from its fields.
"""

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Union, get_args, get_origin

Names = Mapping[str, Any]
_UNIONS = (Union, types.UnionType)
_JSON: dict[Any, Any] = {
    str: "string", bool: "boolean", int: "integer", float: ["number", "null"], type(None): "null", Path: "string",
    list: "array", dict: "object",
}  # fmt: skip


class Record:
    """Base of dataclasses that are printed as JSON: their fields but ``HIDDEN``, and the properties ``DERIVED``."""

    __slots__ = ()
    DERIVED: ClassVar[tuple[str, ...]] = ()
    HIDDEN: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; NaN and infinities are None."""
        value: dict[str, Any] = encode(self)
        return value


class Plus:
    """Marks a dataclass whose JSON object has more than its fields: ``Annotated[Stats, Plus(rate=float)]``.

    A name that is a field has another type there.
    """

    def __init__(self, **properties: Any) -> None:
        self.properties = properties


def encode(value: Any) -> Any:
    """A JSON value of a dataclass, tuple, dict, number, path, text or None."""
    if dataclasses.is_dataclass(value):
        names = (*(f.name for f in _fields(value)), *getattr(value, "DERIVED", ()))
        return {name: encode(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {str(key): encode(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [encode(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if type(value).__module__ == "numpy":
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _fields(kind: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.name not in getattr(kind, "HIDDEN", ())]


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _hints(kind: type, names: Names) -> dict[str, Any]:
    known = {**names, **vars(sys.modules[kind.__module__])}
    found = typing.get_type_hints(kind, known, include_extras=True)
    for name in getattr(kind, "DERIVED", ()):
        found[name] = typing.get_type_hints(getattr(kind, name).fget, known, include_extras=True)["return"]
    return found


def json_schema(kind: Any, names: Names, *, title: str, identifier: str) -> dict[str, Any]:
    """The JSON schema (2020-12) of ``encode``'s results for a dataclass, and of typed dictionaries.

    Args:
        kind: A dataclass, a TypedDict, or lists and unions of such.
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


def _schema(kind: Any, names: Names, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: PLR0911
    if isinstance(kind, str):
        kind = names[kind]
    if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        return _object_schema(kind, names, definitions)
    if kind is Any:
        return {}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Annotated, NotRequired):
        plus = next((mark for mark in arguments[1:] if isinstance(mark, Plus)), Plus())
        if plus.properties:
            return _object_schema(arguments[0], names, definitions, plus)
        return _schema(arguments[0], names, definitions)
    if origin is None:
        return {"type": _JSON[kind]}
    if origin is Literal:
        return {"enum": list(arguments)}
    parts = [_schema(argument, names, definitions) for argument in arguments if argument is not Ellipsis]
    if origin in _UNIONS:
        return {"anyOf": parts}
    if origin is dict:
        return {"type": "object", "additionalProperties": parts[1]}
    many = origin is list or arguments[-1] is Ellipsis
    size = {"items": parts[0]} if many else {"prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
    return {"type": "array", **size}


def _object_schema(kind: Any, names: Names, definitions: dict[str, Any], plus: Plus | None = None) -> dict[str, Any]:
    """By reference to a definition; with ``plus`` in its place, since the same class may occur without it."""
    name: str = kind.__name__
    if plus is None and name in definitions:
        return {"$ref": f"#/$defs/{name}"}
    if plus is None:
        definitions[name] = {}
    hints = _hints(kind, names)
    if typing.is_typeddict(kind):
        properties, required = hints, [key for key in hints if key in kind.__required_keys__]
    else:
        fields = _fields(kind)
        more = {key: hints[key] for key in getattr(kind, "DERIVED", ())} | ({} if plus is None else plus.properties)
        properties = {field.name: hints[field.name] for field in fields} | more
        required = [field.name for field in fields if _required(field)]
        required += [key for key in more if key not in required]
    found = {
        "type": "object",
        "description": " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split()),
        "properties": {key: _schema(value, names, definitions) for key, value in properties.items()},
        "required": required,
    }
    if plus is not None:
        return found
    definitions[name] = found
    return {"$ref": f"#/$defs/{name}"}
