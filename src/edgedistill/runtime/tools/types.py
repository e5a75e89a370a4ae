"""Tools and their calls, in OpenAI's form."""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgedistill.errors import GenerationError
from edgedistill.json_codec import Record
from edgedistill.runtime.tools.from_function import describe

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_HINT = 'A tool is {"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}.'
ID_LENGTH = 9  # what Mistral's templates ask for, and the others take


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call.

    Attributes:
        name: Letters, digits, ``_``, ``-`` and ``.``.
        description: What it does, for the model.
        parameters: JSON schema of its arguments, an object.
        function: What runs it with the arguments as keywords; None where whoever gets the call does.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    function: Callable[..., Any] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise GenerationError(
                f"A tool is called {self.name!r}; expected letters, digits, '_', '-' and '.' alone.", hint=_HINT
            )
        if not isinstance(self.parameters, Mapping):
            raise GenerationError(f"The parameters of the tool {self.name} are not a JSON schema of an object.")

    @classmethod
    def of(cls, given: Tool | Mapping[str, Any] | Callable[..., Any]) -> Tool:
        """A tool from OpenAI's form or from a function with type hints and a docstring; raises GenerationError."""
        if isinstance(given, Tool):
            return given
        if isinstance(given, Mapping):
            inner = given.get("function", given)
            if given.get("type", "function") != "function" or not isinstance(inner, Mapping) or "name" not in inner:
                raise GenerationError(f"{str(given)[:80]!r} is not a tool of type 'function' with a name.", hint=_HINT)
            parameters = inner.get("parameters") or {"type": "object", "properties": {}}
            return cls(inner["name"], inner.get("description") or "", parameters)
        if callable(given):
            name, description, parameters = describe(given)
            return cls(name, description, parameters, given)
        raise GenerationError(f"{given!r} is not a tool; expected a dict, a function or a Tool.", hint=_HINT)

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's form."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": dict(self.parameters)},
        }


@dataclass(frozen=True, slots=True)
class ToolCall(Record):
    """A call: ``arguments`` is the text of a JSON object, ``id`` links the result to it. As JSON in OpenAI's form."""

    HIDDEN = ("name", "arguments")
    DERIVED = ("type", "function")

    id: str
    name: str
    arguments: str

    @property
    def type(self) -> Literal["function"]:
        """What is called."""
        return "function"

    @property
    def function(self) -> dict[str, str]:
        """Name and arguments."""
        return {"name": self.name, "arguments": self.arguments}


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """What has become certain of a call.

    Attributes:
        index: Which call of the reply, from 0.
        id, name: Of the call.
        arguments: The text that the arguments grow by.
        done: The call is complete.
        withdrawn: It is none after all: malformed or cut. Its text follows as part of the answer.
    """

    index: int
    id: str
    name: str
    arguments: str = ""
    done: bool = False
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """``auto``: the model decides. ``none``: no calls. ``required``: a call, of ``name`` where one is given."""

    kind: Literal["auto", "none", "required"] = "auto"
    name: str | None = None

    @classmethod
    def of(cls, given: str | Mapping[str, Any] | None, tools: Sequence[Tool]) -> ToolChoice:
        """The choice in OpenAI's form among ``tools``; raises GenerationError."""
        names = [tool.name for tool in tools]
        if given is None or given == "auto":
            return cls()
        if given == "none":
            return cls("none")
        if given != "required" and not isinstance(given, Mapping):
            raise GenerationError(
                f"tool_choice is {given!r}; expected 'auto', 'none', 'required' or "
                '{"type": "function", "function": {"name": ...}}.'
            )
        if not tools:
            raise GenerationError(f"tool_choice is {given!r}, but there are no tools.", hint="Give some with tools=.")
        if not isinstance(given, Mapping):
            return cls("required")
        inner = given.get("function", given)
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if name not in names:
            raise GenerationError(
                f"tool_choice names {name!r}, which is not a tool; expected one of {', '.join(names)}."
            )
        return cls("required", name)


ToolsArgument = Sequence["Tool | Mapping[str, Any] | Callable[..., Any]"]
ToolChoiceArgument = str | Mapping[str, Any]


def tools_of(given: ToolsArgument | None) -> tuple[Tool, ...]:
    """The tools, each once; raises GenerationError on a malformed one or a name that comes twice."""
    tools = tuple(Tool.of(one) for one in given or ())
    names = [tool.name for tool in tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise GenerationError(f"Two tools are called {twice[0]}; expected names that differ.")
    return tools


def new_id() -> str:
    """An id for a call."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(ID_LENGTH))


def parsed_arguments(text: str) -> dict[str, Any]:
    """The object that the text of a call's arguments is; raises ValueError."""
    value = json.loads(text or "{}")
    if not isinstance(value, dict):
        raise ValueError(f"{text[:40]!r} is not a JSON object")
    return value
