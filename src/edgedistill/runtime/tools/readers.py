"""Reads calls in one form of ``catalog.tool_formats`` from text that comes in pieces."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgedistill.catalog.tool_formats import Braced, Headed, Json, Python, Tagged
from edgedistill.runtime.tools.json_scan import JsonScan
from edgedistill.runtime.tools.patterns import MAYBE, NO, match, skip_space
from edgedistill.runtime.tools.written import braced_arguments, braced_end, python_calls, python_end

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.catalog.tool_formats import Body
    from edgedistill.runtime.tools.types import Tool

_NAMES = ("name", "tool_name", "function", "tool")
_ARGUMENTS = ("arguments", "parameters", "args", "params")
_BESIDE = ("id", "type", "tool_call_id", "index")


@dataclass(slots=True)
class Growing:
    """A call as far as it is certain: ``arguments`` only grows."""

    name: str
    arguments: str
    done: bool


class Reading:
    """Calls from the beginning of a text.

    Attributes:
        calls: So far.
        end: Where they end in the text, once that is known.
        kept: Where the last call ends that is complete.
        broken: Why this is no call in this form, in words that follow "a call that"; empty as long as it may be one.
    """

    def __init__(self, tools: Mapping[str, Tool], close: str) -> None:
        """``close``: what ends a row of calls."""
        self._tools = tools
        self._close = close
        self.text = ""
        self.calls: list[Growing] = []
        self.end: int | None = None
        self.kept = 0
        self.broken = ""

    def feed(self, text: str, *, final: bool) -> None:
        """Go on with more text; ``final``: none follows."""
        self.text += text
        if self.end is None and not self.broken:
            self._advance(final=final)

    def _advance(self, *, final: bool) -> None:
        raise NotImplementedError

    def _named(self, name: str) -> bool:
        """Whether a tool is called so."""
        if name not in self._tools:
            self.broken = f"names {name!r}, which is none of the tools"
        return not self.broken

    def _malformed(self) -> None:
        self.broken = self.broken or "is malformed"


class JsonReading(Reading):
    """``Json``."""

    def __init__(self, tools: Mapping[str, Tool], close: str) -> None:
        super().__init__(tools, close)
        self._scan: JsonScan | None = None

    def _advance(self, *, final: bool) -> None:  # noqa: ARG002
        at = skip_space(self.text, 0)
        if at == len(self.text):
            return
        if self._scan is None:
            if self.text[at] not in "[{":
                self._malformed()
                return
            self._scan = JsonScan("", at)
        self._scan.feed(self.text[len(self._scan.text) :])
        for number, (start, end) in enumerate(self._scan.objects):
            growing = self._call(self._scan, number, start, end)
            if growing is None or self.broken or (self._scan.broken and not growing.done):
                break
            self.calls[number:] = [growing]
            self.kept = end or self.kept
        if self._scan.broken:
            self._malformed()
        elif self._scan.end is not None and not self.broken:
            self.end = self._scan.end
            if not self.calls or len(self.calls) < len(self._scan.objects):
                self._malformed()

    def _call(self, scan: JsonScan, number: int, start: int, end: int | None) -> Growing | None:
        """The call that an object is; None as long as its name is not known."""
        members = {member.key: member for member in scan.members if member.owner == number}
        name = next((members[key] for key in _NAMES if key in members), None)
        arguments = next((members[key] for key in _ARGUMENTS if key in members), None)
        if name is not None and name.end is not None and scan.text[name.start] == '"' and arguments is not None:
            called = json.loads(scan.text[name.start : name.end])
            if not self._named(called):
                return None
            if arguments.start >= 0 and scan.text[arguments.start] == "{":
                return Growing(called, scan.text[arguments.start : arguments.end], end is not None)
        if end is None:
            return None
        found = _call_in(json.loads(scan.text[start:end]), self._tools)
        if found is None:
            self._malformed()
            return None
        return Growing(found[0], json.dumps(found[1], ensure_ascii=False), done=True) if self._named(found[0]) else None


def _call_in(value: Mapping[str, Any], tools: Mapping[str, Tool]) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of the call that a complete object is."""
    if len(value) == 1:
        [(key, inner)] = value.items()
        if key in tools and isinstance(inner, dict):
            return key, inner
    name = next((value[key] for key in _NAMES if key in value), None)
    if isinstance(name, dict):
        return _call_in(name, tools)
    given: Any = next((value[key] for key in _ARGUMENTS if key in value), None)
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            return None
    if given is None and set(value) <= {*_NAMES, *_ARGUMENTS, *_BESIDE}:
        given = {}
    return (name, given) if isinstance(name, str) and isinstance(given, dict) else None


class HeadedReading(Reading):
    """``Headed``."""

    def __init__(self, tools: Mapping[str, Tool], close: str, body: Headed) -> None:
        super().__init__(tools, close)
        self._body = body
        self._scan: JsonScan | None = None

    def _advance(self, *, final: bool) -> None:
        if self._scan is None:
            at, found = match(self._body.head, self.text)
            at = at if at < 0 else skip_space(self.text, at)
            if at == NO or (0 <= at < len(self.text) and self.text[at] != "{"):
                self._malformed()
            if self.broken or at == MAYBE or at == len(self.text) or not self._named(_bare_name(found, self._tools)):
                return
            self._scan = JsonScan("", at)
            self.calls = [Growing(_bare_name(found, self._tools), "", done=False)]
            self._start = at
        scan, call = self._scan, self.calls[0]
        scan.feed(self.text[len(scan.text) :])
        if scan.broken:
            self._malformed()
            return
        call.arguments = self.text[self._start : scan.end]
        if scan.end is not None:
            call.done, self.kept = True, scan.end
            at, _ = match(self._body.tail, self.text, scan.end)
            if at != MAYBE or final:
                self.end = scan.end if at < 0 else at


def _bare_name(found: Mapping[str, str], tools: Mapping[str, Tool]) -> str:
    """The name without what some write around it: ``functions.f:0``."""
    name = found["name"]
    short = name.removeprefix("functions.").partition(":")[0]
    return name if name in tools else short


class TaggedReading(Reading):
    """``Tagged``."""

    def __init__(self, tools: Mapping[str, Tool], close: str, body: Tagged) -> None:
        super().__init__(tools, close)
        self._body = body
        self._at = 0

    def _advance(self, *, final: bool) -> None:
        if not self.calls:
            at, found = match(self._body.head, self.text)
            if at == NO:
                self._malformed()
            if at < 0 or not self._named(found["name"]):
                return
            self.calls = [Growing(found["name"], "{", done=False)]
            self._at = at
        while self.end is None and not self.broken and self._argument(final=final):
            pass

    def _argument(self, *, final: bool) -> bool:
        """The next argument, or the end; False where more text is needed."""
        body, call = self._body, self.calls[0]
        last = body.tail or self._close
        at, _ = match(last, self.text, self._at)
        if at >= 0:
            call.arguments += "}"
            call.done = True
            self.end = self.kept = at if body.tail else skip_space(self.text, self._at)
            return False
        start, found = match(body.key, self.text, self._at)
        if start == NO and at == NO:
            self._malformed()
        if start < 0:
            return False
        mark = body.end.strip()
        end = self.text.find(mark, start)
        if end < 0:
            return False
        value = self.text[start:end].removeprefix("\n").removesuffix("\n")
        written = json.dumps(_typed(value, found["key"], self._tools[call.name]), ensure_ascii=False)
        comma = "" if call.arguments == "{" else ", "
        call.arguments += f"{comma}{json.dumps(found['key'])}: {written}"
        self._at = end + len(mark)
        return not final or self._at < len(self.text)


def _typed(text: str, key: str, tool: Tool) -> Any:
    """The value that a text between tags stands for, by the tool's schema."""
    properties = tool.parameters.get("properties")
    schema = properties.get(key, {}) if isinstance(properties, dict) else {}
    schema = schema if isinstance(schema, dict) else {}
    kinds = schema.get("type")
    enum = schema.get("enum")
    if kinds == "string" or (isinstance(enum, list) and text in enum):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)
    texts = isinstance(kinds, list) and "string" in kinds
    return text if texts and isinstance(value, int | float) and not isinstance(value, bool) else value


class PythonReading(Reading):
    """``Python``."""

    def __init__(self, tools: Mapping[str, Tool], close: str, body: Python) -> None:
        super().__init__(tools, close)
        self._listed = body.listed

    def _advance(self, *, final: bool) -> None:
        end = python_end(self.text, listed=self._listed, close=self._close, final=final)
        if end == NO:
            self._malformed()
        if end < 0:
            return
        calls = python_calls(self.text[:end], self._tools)
        for name, arguments in calls or ():
            if not self._named(name):
                return
            self.calls.append(Growing(name, json.dumps(arguments, ensure_ascii=False), done=True))
        if not self.calls:
            self._malformed()
        self.end = self.kept = end


class BracedReading(Reading):
    """``Braced``."""

    def __init__(self, tools: Mapping[str, Tool], close: str, body: Braced) -> None:
        super().__init__(tools, close)
        self._quote = body.quote

    def _advance(self, *, final: bool) -> None:  # noqa: ARG002
        at, found = match("call:{name}{", self.text)
        if at == NO:
            self._malformed()
        if at < 0 or not self._named(found["name"]):
            return
        end = braced_end(self.text, at - 1, self._quote)
        if end < 0:
            return
        arguments = braced_arguments(self.text[at - 1 : end], self._quote)
        if arguments is None:
            self._malformed()
            return
        self.calls = [Growing(found["name"], json.dumps(arguments, ensure_ascii=False), done=True)]
        self.end = self.kept = end


def reading_of(body: Body, tools: Mapping[str, Tool], close: str) -> Reading:
    """What reads calls of this form."""
    match body:
        case Json():
            return JsonReading(tools, close)
        case Headed():
            return HeadedReading(tools, close, body)
        case Tagged():
            return TaggedReading(tools, close, body)
        case Python():
            return PythonReading(tools, close, body)
        case Braced():
            return BracedReading(tools, close, body)
