"""The grammar of a call that has to come, in a model's own form: Lark, as llguidance takes it.

Where texts stand between tags instead of in JSON, a schema's ``pattern`` and ``format`` of them is not enforced.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from edgedistill.catalog.tool_formats import Braced, Headed, Json, Python, Tagged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgedistill.catalog.tool_formats import Body, ToolFormat
    from edgedistill.runtime.tools.types import Tool

_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As templates write JSON."""
_IN_PYTHON = {**_COMPACT, "json_allowed_escapes": '"\\bfnrt'}
"""JSON's texts that are Python's as well."""


def calls_grammar(form: ToolFormat, tools: Sequence[Tool], special: Mapping[str, int], *, several: bool) -> str:
    """Lark grammar whose rule ``calls`` is a call of one of ``tools``, as the family writes it.

    Args:
        form: How the model writes calls.
        tools: What may be called.
        special: Special tokens by their text; the grammar names them by number.
        several: More calls may follow.
    """
    writer = _Writer(form.bodies[0], special)
    opening = writer.text(form.open + form.after)
    if form.lead:
        opening = f"({writer.text(form.lead)})? {opening}"
    return "\n".join(["start: calls", *_rules(form, form.bodies[0], tools, writer, opening, several=several)])


def rest_grammar(form: ToolFormat, tools: Sequence[Tool], special: Mapping[str, int]) -> str:
    """Lark grammar of what follows a mark of ``form.opens``: a call in any of the form's bodies, up to its end."""
    texts = []
    for number, body in enumerate(form.bodies):
        writer = _Writer(body, special, f"body_{number}_")
        space = "/\\n?/" if form.after else ""
        inside = isinstance(body, Headed) or (isinstance(body, Json | Python) and body.listed)
        texts += _rules(form, body, tools, writer, space, several=inside and not form.last)
    return "\n".join([f"start: {' | '.join(f'body_{number}_calls' for number in range(len(form.bodies)))}", *texts])


def _rules(
    form: ToolFormat, body: Body, tools: Sequence[Tool], writer: _Writer, opening: str, *, several: bool
) -> list[str]:
    """The rule ``calls`` (after the writer's prefix) and those that it needs."""
    rules = [writer.call(number, tool) for number, tool in enumerate(tools)]
    name = writer.prefix
    call = f"{name}call: {' | '.join(f'{name}call_{number}' for number in range(len(tools)))}"
    # After an end token nothing can follow: the reply may end once the call has.
    closing = "" if form.last else writer.text(form.after + form.close)
    listed = isinstance(body, Json | Python) and body.listed
    one = " ".join(part for part in (opening, f"{name}call", closing) if part)
    if listed:
        more = f' (", " {name}call)*' if several else ""
        start = " ".join(part for part in (opening, '"["', f"{name}call{more}", '"]"', closing) if part)
    elif isinstance(body, Headed) and form.close:
        more = f' ("\\n" {name}call)*' if several and not form.last else ""
        start = " ".join(part for part in (opening, f"{name}call{more}", closing) if part)
    elif not form.open or not several:
        start = one
    else:
        start = f'{one} ("\\n" {one})*' if form.close else one
    return [f"{name}calls: {start}", call, *rules, *writer.rules]


def lark_text(literal: str, special: Mapping[str, int]) -> str:
    """A text as Lark's strings, its special tokens (``special``: by their text) by number; empty for an empty text."""
    marks = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))
    return " ".join(
        f"<[{special[part]}]>" if part in special else json.dumps(part, ensure_ascii=False)
        for part in (re.split(f"({marks})", literal) if marks else [literal]) if part
    )  # fmt: skip


class _Writer:
    """Writes the rules of calls in one form.

    Attributes:
        prefix: Of the names of rules.
        rules: Of the arguments, as they were needed.
    """

    def __init__(self, body: Body, special: Mapping[str, int], prefix: str = "") -> None:
        self._body = body
        self.prefix = prefix
        self._special = special
        self.rules: list[str] = []

    def text(self, literal: str) -> str:
        """See ``lark_text``."""
        return lark_text(literal, self._special)

    def call(self, number: int, tool: Tool) -> str:
        """The rule of a call of ``tool``."""
        body, name, rule = self._body, tool.name, f"{self.prefix}call_{number}"
        match body:
            case Json(name=""):
                parts = [self.text(f'{{"{name}": '), self._object(rule, tool), '"}"']
            case Json():
                head = f"{{{json.dumps(body.name)}: {json.dumps(name)}, {json.dumps(body.arguments)}: "
                parts = [self.text(head), self._object(rule, tool), '"}"']
            case Headed():
                before, marker, after = body.head.replace("{name}", name).partition("{id}")
                key = "/[a-zA-Z0-9]{9}/" if marker else ""
                parts = [self.text(before), key, self.text(after), self._object(rule, tool), self.text(body.tail)]
            case Tagged():
                given = [
                    (wanted, f"{self.text(body.key.replace('{key}', key))} {self._tagged(f'{rule}_{place}', schema)}")
                    for place, (key, schema, wanted) in enumerate(_parameters(tool))
                ]
                inner = [text if wanted else f"({text})?" for wanted, text in given]
                parts = [self.text(body.head.replace("{name}", name)), *inner, self.text(body.tail)]
            case Python():
                given = [
                    (wanted, f"{self.text(f'{key}=')} {self._json(f'{rule}_{place}', schema, _IN_PYTHON)}")
                    for place, (key, schema, wanted) in enumerate(_parameters(tool))
                ]
                parts = [self.text(f"{name}("), _joined(given, '", "'), '")"']
            case Braced():
                given = [
                    (wanted, f"{self.text(f'{key}:')} {self._braced(f'{rule}_{place}', schema, body.quote)}")
                    for place, (key, schema, wanted) in enumerate(_parameters(tool))
                ]
                parts = [self.text(f"call:{name}{{"), _joined(given, '","'), '"}"']
        return f"{rule}: {' '.join(part for part in parts if part)}"

    def _object(self, rule: str, tool: Tool) -> str:
        schema = {"additionalProperties": False, "type": "object", "properties": {}, **tool.parameters}
        return self._json(f"{rule}_arguments", schema, _COMPACT)

    def _json(self, rule: str, schema: Any, options: Mapping[str, Any]) -> str:
        found = {**schema, "x-guidance": dict(options)} if isinstance(schema, dict) else {"x-guidance": dict(options)}
        self.rules.append(f"{rule}: %json {json.dumps(found)}")
        return rule

    def _tagged(self, rule: str, schema: Any) -> str:
        """The rule of a value between tags, with its end."""
        end = getattr(self._body, "end", "")
        if not _is_text(schema):
            return f"{self._json(rule, schema, _COMPACT)} {self.text(end)}"
        if isinstance(schema.get("enum"), list):
            return f"({' | '.join(self.text(str(one)) for one in schema['enum'])}) {self.text(end)}"
        # What ends the value must not stand in it.
        self.rules.append(f"{rule}: /[^<]{_length(schema)}/")
        return f"{rule} {self.text(end)}"

    def _braced(self, rule: str, schema: Any, quote: str) -> str:
        if not _is_text(schema):
            return self._json(rule, schema, _COMPACT)
        if isinstance(schema.get("enum"), list):
            value = f"({' | '.join(self.text(str(one)) for one in schema['enum'])})"
        else:
            self.rules.append(f"{rule}: /[^<{{}}\\[\\]]{_length(schema)}/")
            value = rule
        return f"{self.text(quote)} {value} {self.text(quote)}"


def _length(schema: Mapping[str, Any]) -> str:
    """How often a character of a text comes, as a regular expression says it."""
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    return "*" if not least and most is None else f"{{{least},{'' if most is None else most}}}"


def _is_text(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "string"


def _parameters(tool: Tool) -> Iterator[tuple[str, Any, bool]]:
    """Name, schema and whether it is required, of each parameter; required ones first."""
    schema = tool.parameters
    properties = schema.get("properties")
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    required = schema.get("required") or ()
    named = properties if isinstance(properties, dict) else {}
    for wanted in (True, False):
        for key, one in named.items():
            if (key in required) == wanted:
                yield key, {**shared, **one} if isinstance(one, dict) else one, wanted


def _joined(given: Sequence[tuple[bool, str]], comma: str) -> str:
    """Parts with commas between them; what is not required (all of it at the end) may be left out."""
    wanted = [text for needed, text in given if needed]
    rest = [text for needed, text in given if not needed]
    if wanted:
        return f" {comma} ".join(wanted) + "".join(f" ({comma} {text})?" for text in rest)
    firsts = [
        text + "".join(f" ({comma} {later})?" for later in rest[place + 1 :]) for place, text in enumerate(rest)
    ]  # fmt: skip
    return f"({' | '.join(firsts)})?" if firsts else ""
