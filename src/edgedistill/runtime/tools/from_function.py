"""Tools of Python functions: what a model is told of one (name, docstring, JSON schema), and all of a file."""

from __future__ import annotations

import enum
import importlib.util
import inspect
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgedistill.errors import EdgedistillError, GenerationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgedistill.runtime.tools.types import Tool

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
    inspect.Parameter.empty: {},
    dict: {"type": "object"},
    list: {"type": "array"},
}
_GOOGLE = re.compile(r"^(?P<indent>\s+)\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?:\s*(?P<text>.*)$")
_SPHINX = re.compile(r"^\s*:param\s+(?:[^:]*\s)?(?P<name>\w+):\s*(?P<text>.*)$")


def describe(function: Callable[..., Any]) -> tuple[str, str, dict[str, Any]]:
    """Name, description and JSON schema of the parameters of ``function``.

    The description is the docstring's beginning; what a parameter is for is read from a section ``Args:`` or from
    ``:param name:``, or from ``Annotated[..., "text"]``. A parameter without a default is required.

    Raises:
        GenerationError: A parameter that cannot be given by name, or of a type that JSON has no schema for.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError, NameError) as error:
        raise GenerationError(f"The tool {name} has type hints that cannot be read: {error}.") from error
    about, of_parameters = _docstring(inspect.getdoc(function) or "", set(parameters))
    properties: dict[str, Any] = {}
    required = []
    for parameter in parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise GenerationError(
                f"The parameter {parameter.name} of the tool {name} cannot be given by name.",
                hint="A tool takes neither *args nor **kwargs nor positional-only parameters.",
            )
        schema = _schema(hints.get(parameter.name, parameter.empty), f"The parameter {parameter.name} of {name}")
        if parameter.name in of_parameters:
            schema = {**schema, "description": of_parameters[parameter.name]}
        properties[parameter.name] = schema
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    return name, about, {"type": "object", "properties": properties, "required": required}


def _schema(hint: Any, what: str) -> dict[str, Any]:  # noqa: PLR0911 (one for each kind of hint)
    """JSON schema of a type hint."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        schema = _schema(arguments[0], what)
        text = next((one for one in arguments[1:] if isinstance(one, str)), None)
        return schema if text is None else {**schema, "description": text}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(one, what) for one in arguments]}
    if origin in (list, set, frozenset, Sequence) or (origin is tuple and arguments[1:] == (...,)):
        return {"type": "array", "items": _schema(arguments[0], what)}
    if origin in (dict, Mapping) and arguments and arguments[0] is str:
        return {"type": "object", "additionalProperties": _schema(arguments[1], what)}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if typing.is_typeddict(hint):
        fields = {key: _schema(one, what) for key, one in typing.get_type_hints(hint).items()}
        return {"type": "object", "properties": fields, "required": sorted(hint.__required_keys__)}
    try:
        return dict(_PLAIN[hint])
    except (KeyError, TypeError) as error:
        raise GenerationError(
            f"{what} is of type {hint}; a tool takes str, int, float, bool, list, dict, Literal and their unions.",
        ) from error


def _docstring(text: str, names: set[str]) -> tuple[str, dict[str, str]]:
    """The description before any section, and what is said of each parameter."""
    about: list[str] = []
    found: dict[str, str] = {}
    section, last, indent = "about", "", ""
    for line in text.splitlines():
        sphinx, google = _SPHINX.match(line), _GOOGLE.match(line) if section == "args" else None
        if re.match(r"^(Args|Arguments|Parameters):\s*$", line):
            section, last, indent = "args", "", ""
        elif re.match(r"^(Returns|Raises|Yields|Examples?|Notes?):", line) or (line.startswith(":") and not sphinx):
            section, last = "other", ""
        elif sphinx:
            section, last = "other", sphinx["name"]
            found[last] = sphinx["text"].strip()
        elif google and google["name"] in names and google["indent"] == (indent or google["indent"]):
            last, indent = google["name"], google["indent"]
            found[last] = google["text"].strip()
        elif last and line.strip():
            found[last] = f"{found[last]} {line.strip()}".strip()
        elif section == "about":
            about.append(line)
    return "\n".join(about).strip(), {name: said for name, said in found.items() if name in names and said}


def tools_from_file(path: Path) -> list[Tool]:
    """The functions that ``path`` defines (``__all__``, or those without a leading underscore). Runs its code.

    Raises:
        UsageError: No such file, code that fails, no function, or one that is no tool.
    """
    from edgedistill.runtime.tools.types import Tool  # which imports this file

    if not path.is_file():
        raise UsageError(f"There is no file {path}.", hint="--tools takes a Python file whose functions become tools.")
    name = f"edgedistill_tools_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file.", hint="--tools takes a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # type hints are looked up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # somebody else's code
        raise UsageError(f"{path} cannot be run: {type(error).__name__}: {error}.") from error
    public = getattr(module, "__all__", None)
    functions = [
        value for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == name
        and (key in public if public is not None else not key.startswith("_"))
    ]  # fmt: skip
    if not functions:
        raise UsageError(f"{path} defines no function.", hint="Write one with type hints and a docstring.")
    try:
        return [Tool.of(function) for function in functions]
    except EdgedistillError as error:
        raise UsageError(f"{path}: {error}") from error
