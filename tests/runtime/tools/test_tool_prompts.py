"""Tools in prompts: what a function becomes, what templates are given, and what happens where they know no tools."""

from __future__ import annotations

import enum
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import chat_templates
import pytest

from edgedistill.errors import GenerationError, TemplateError
from edgedistill.runtime.text.chat_template import ChatTemplate, PassThrough
from edgedistill.runtime.text.messages import plain_messages
from edgedistill.runtime.tools.control import ToolControl
from edgedistill.runtime.tools.types import Tool, ToolChoice, tools_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgedistill.runtime.text.chat_template import Template


class Unit(enum.Enum):
    METRE = "m"
    FOOT = "ft"


class Place(TypedDict):
    name: str
    height: float


def measure(
    place: Place,
    names: list[str],
    unit: Unit = Unit.METRE,
    how: Literal["fast", "exact"] = "fast",
    limit: int | None = None,
    more: Annotated[dict[str, bool], "flags"] = {},  # noqa: B006
) -> str:
    """Measure a place.

    Goes there first.

    Args:
        place: Where, with
            its height.
        names (list): Of who goes: all of them.
        how: How well.

    Returns:
        A length.
    """
    return f"{place} {names} {unit} {how} {limit} {more}"


def test_a_function_is_described_by_its_hints_and_docstring() -> None:
    tool = Tool.of(measure)
    assert tool.name == "measure"
    assert tool.description == "Measure a place.\n\nGoes there first."
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "place": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "height": {"type": "number"}},
                "required": ["height", "name"],
                "description": "Where, with its height.",
            },
            "names": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Of who goes: all of them.",
            },
            "unit": {"enum": ["m", "ft"]},
            "how": {"enum": ["fast", "exact"], "description": "How well."},
            "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "more": {"type": "object", "additionalProperties": {"type": "boolean"}, "description": "flags"},
        },
        "required": ["place", "names"],
    }


def test_sphinx_docstrings_are_read() -> None:
    def add(a: int, b: int) -> int:
        """Add.

        :param a: One.
        :param int b: The other
            one.
        :returns: The sum.
        """
        return a + b

    tool = Tool.of(add)
    assert tool.description == "Add."
    assert [one["description"] for one in tool.parameters["properties"].values()] == ["One.", "The other one."]


def test_openais_form_is_taken_and_given() -> None:
    given = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    assert Tool.of(given).to_dict() == given
    assert Tool.of({"name": "f"}).to_dict()["function"]["parameters"] == {"type": "object", "properties": {}}


def _any(*things: Any) -> str:
    return str(things)


def _bytes(data: bytes) -> str:
    return str(data)


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([{"type": "code_interpreter"}], "not a tool of type 'function'"),
        ([{"type": "function", "function": {}}], "not a tool"),
        ([{"name": "two words"}], "two words"),
        ([{"name": "f"}, {"name": "f"}], "Two tools are called f"),
        ([{"name": "f", "parameters": [1]}], "not a JSON schema"),
        ([_any], "things of the tool _any cannot be given by name"),
        ([_bytes], "data of _bytes is of type <class 'bytes'>"),
        ([3], "3 is not a tool"),
    ],
)
def test_what_is_no_tool_is_refused(tools: list[Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        tools_of(tools)


def test_a_choice_is_one_of_the_tools() -> None:
    tools = [Tool("f"), Tool("g")]
    named: dict[str, Any] = {"type": "function", "function": {"name": "g"}}
    assert ToolChoice.of(None, tools) == ToolChoice.of("auto", tools) == ToolChoice("auto")
    assert ToolChoice.of("none", tools) == ToolChoice("none")
    assert ToolChoice.of("required", tools) == ToolChoice("required")
    assert ToolChoice.of(named, tools) == ToolChoice("required", "g")
    for bad, message in (("always", "always"), ({"function": {"name": "h"}}, "'h', which is not a tool")):
        with pytest.raises(GenerationError, match=message):
            ToolChoice.of(bad, tools)
    with pytest.raises(GenerationError, match="there are no tools"):
        ToolChoice.of("required", [])


@pytest.fixture
def control() -> Iterator[Callable[[str], tuple[Template, ToolControl]]]:
    made: list[ChatTemplate] = []

    def make(source: str) -> tuple[Template, ToolControl]:
        made.append(ChatTemplate(source))
        return made[-1], ToolControl(made[-1], ())

    yield make
    for one in made:
        one.close()


TOOL = Tool("get_time", "The time in a city.", {"type": "object", "properties": {"city": {"type": "string"}}})
CALL = {"id": "call_123", "type": "function", "function": {"name": "get_time", "arguments": '{"city": "Köln"}'}}
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "What time is it?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_123", "content": '{"time": "12:00"}'},
]
_TURN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
_CALLS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls %}CALL{% endfor %}{% endfor %}"
OBJECTS = _CALLS.replace("CALL", "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}")
TEXTS = _CALLS.replace("CALL", "<call>{{ c.function.name + ' ' + c.function.arguments }}")
PRINTED = _CALLS.replace("CALL", "<call>{{ c.function.name }} {{ c.function.arguments }}")
SINGLE = (
    "{% for m in messages %}{% if m.tool_calls and m.tool_calls | length != 1 %}{{ raise_exception('one') }}"
    "{% endif %}{% endfor %}"
)
IDS = (
    "{% for m in messages %}{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('nine') }}"
    "{% endif %}{% endfor %}{% endfor %}"
)


def test_a_template_that_knows_tools_is_given_them(control: Callable[[str], tuple[Template, ToolControl]]) -> None:
    template, tools = control(chat_templates.QWEN3)
    messages, variables = tools.offer([{"role": "user", "content": "Hi"}], [TOOL])
    assert tools.supported
    assert tools.note([TOOL]) is None
    assert json.dumps(TOOL.to_dict()) in template.render(messages, **variables)
    assert tools.offer([{"role": "user", "content": "Hi"}], []) == ([{"role": "user", "content": "Hi"}], {})


@pytest.mark.parametrize("system", ["", "Be brief."])
def test_one_that_knows_none_has_them_in_the_system_prompt(
    control: Callable[[str], tuple[Template, ToolControl]], system: str
) -> None:
    template, tools = control(_TURN)
    ask = [{"role": "user", "content": "Hi"}]
    messages, variables = tools.offer([{"role": "system", "content": system}, *ask] if system else ask, [TOOL])
    text = template.render(messages, **variables)
    assert text.count("<system>") == 1
    assert text.startswith(f"<system>{system}")
    assert "get_time" in text
    assert "<tool_call>" in text
    assert "system prompt" in (tools.note([TOOL]) or "")
    assert tools.formats[0].name == "Hermes"


@pytest.mark.parametrize("source", [OBJECTS, TEXTS, PRINTED, IDS + OBJECTS], ids=["objects", "texts", "printed", "ids"])
def test_calls_and_results_are_given_as_the_template_takes_them(
    control: Callable[[str], tuple[Template, ToolControl]], source: str
) -> None:
    template, _ = control(source)
    text = template.render(plain_messages(TALK))
    assert text == '<user>What time is it?<assistant><call>get_time {"city": "Köln"}<tool>{"time": "12:00"}'


def test_calls_that_stand_together_are_set_apart_for_a_template_that_takes_one(
    control: Callable[[str], tuple[Template, ToolControl]],
) -> None:
    template, _ = control(SINGLE + OBJECTS)
    second = {"id": "b", "type": "function", "function": {"name": "other", "arguments": "{}"}}
    talk = [
        TALK[0],
        {**TALK[1], "tool_calls": [CALL, second]},
        TALK[2],
        {**TALK[2], "tool_call_id": "b", "content": "no"},
    ]
    text = template.render(plain_messages(talk))
    assert text.endswith('<call>get_time {"city": "Köln"}<tool>{"time": "12:00"}<assistant><call>other {}<tool>no')


@pytest.mark.parametrize(
    "source",
    [
        _TURN,
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no') }}{% endif %}{% endfor %}" + _TURN,
    ],
)
def test_a_template_without_calls_is_given_texts(
    control: Callable[[str], tuple[Template, ToolControl]], source: str
) -> None:
    template, _ = control(source)
    text = template.render(plain_messages(TALK))
    assert '<assistant><tool_call>\n{"name": "get_time", "arguments": {"city": "Köln"}}\n</tool_call>' in text
    assert '<user><tool_response>\n{"time": "12:00"}\n</tool_response>' in text


def test_without_a_template_calls_are_texts_too() -> None:
    text = PassThrough().render(plain_messages(TALK))
    assert "<tool_call>" in text
    assert "12:00" in text


def test_a_malformed_call_in_the_history_is_refused() -> None:
    for call, message in (
        ({"id": "x"}, "without a function's name"),
        ({**CALL, "function": {"name": "f", "arguments": "{"}}, "not JSON"),
    ):
        with pytest.raises(GenerationError, match=message):
            plain_messages([{**TALK[1], "tool_calls": [call]}])


def test_a_template_that_refuses_everything_says_so(control: Callable[[str], tuple[Template, ToolControl]]) -> None:
    template, tools = control("{{ raise_exception('closed') }}")
    assert not tools.supported
    with pytest.raises(TemplateError, match="closed"):
        template.render(plain_messages(TALK))
