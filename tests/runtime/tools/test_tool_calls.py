"""Calls of tools read out of replies: every family's form, whatever pieces it comes in; and what is no call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tool_calls import WRITERS

from edgedistill.catalog.tool_formats import FORMATS, HERMES, find_formats
from edgedistill.runtime.tools.splitter import ToolSplitter
from edgedistill.runtime.tools.types import Tool, ToolCall

if TYPE_CHECKING:
    from edgedistill.catalog.tool_formats import ToolFormat
    from edgedistill.runtime.tools.splitter import Piece


def get_weather(city: str, days: int = 1, tags: list[str] | None = None, where: dict[str, Any] | None = None) -> str:
    """The weather."""
    return f"{city} {days} {tags} {where}"


def now() -> str:
    """The time."""
    return "12:00"


TOOLS = [Tool.of(get_weather), Tool.of(now)]
CALLS = [("get_weather", {"city": 'Zür"ich', "days": 3, "tags": ["a", "b"]}), ("now", {})]
BY_NAME = {one.name: one for one in FORMATS}


def read(text: str, form: ToolFormat = HERMES, *, sizes: list[int] | None = None) -> tuple[ToolSplitter, list[Piece]]:
    """``text`` fed in pieces of these sizes in turn (default: of one character)."""
    splitter = ToolSplitter([form], TOOLS)
    pieces, at, turn = [], 0, 0
    while at < len(text):
        size = (sizes or [1])[turn % len(sizes or [1])]
        pieces += splitter.feed(text[at : at + size])
        at, turn = at + size, turn + 1
    return splitter, pieces + splitter.finish()


def called(splitter: ToolSplitter) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in splitter.calls]


def shown(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces if piece.kind == "answer")


def streamed(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Ids and arguments as a consumer of the deltas joins them."""
    joined: dict[int, tuple[str, str]] = {}
    for piece in pieces:
        if piece.call is not None and piece.call.withdrawn:
            del joined[piece.call.index]
        elif piece.call is not None:
            before = joined.get(piece.call.index, (piece.call.id, ""))
            joined[piece.call.index] = (before[0], before[1] + piece.call.arguments)
    return [joined[index] for index in sorted(joined)]


def consistent(text: str, splitter: ToolSplitter, pieces: list[Piece]) -> None:
    assert "".join(piece.text for piece in pieces) == text
    assert streamed(pieces) == [(call.id, call.arguments) for call in splitter.calls]


@pytest.mark.parametrize(
    "text",
    [
        "<|start|>assistant<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}<|call|>",
        "<|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}<|call|>",
        " to=functions.now<|channel|>commentary <|constrain|>json<|message|>{}<|call|>",
        "<|channel|>analysis to=functions.now code<|message|>{}<|call|>",
        "<|channel|>commentary to=functions.now<|message|>{}",
    ],
)
def test_gpt_oss_names_the_recipient_in_several_places(text: str) -> None:
    for size in (1, 7, len(text)):
        splitter, pieces = read(text, BY_NAME["gpt-oss"], sizes=[size])
        assert called(splitter) == [("now", {})]
        assert shown(pieces) == ""
        consistent(text, splitter, pieces)
    splitter, pieces = read("A letter to=you <|call|>", BY_NAME["gpt-oss"])
    assert (splitter.calls, shown(pieces)) == ([], "A letter to=you <|call|>")


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("calls", [CALLS[:1], CALLS, CALLS[1:], CALLS[::-1]], ids=["one", "two", "empty", "turned"])
def test_calls_of_every_form_are_read_in_any_two_pieces(name: str, calls: list[tuple[str, Any]]) -> None:
    form, text = BY_NAME[name], WRITERS[name](calls)
    for cut in range(1, len(text) + 1):
        splitter, pieces = read(text, form, sizes=[cut, len(text)])
        assert called(splitter) == calls
        assert shown(pieces) == ""
        assert not splitter.notes
        consistent(text, splitter, pieces)


@pytest.mark.parametrize("name", [one.name for one in FORMATS if one.open])
def test_text_before_calls_is_shown(name: str) -> None:
    text = f"Let me see.\n\n{WRITERS[name](CALLS)}"
    splitter, pieces = read(text, BY_NAME[name])
    assert called(splitter) == CALLS
    assert shown(pieces) == "Let me see."
    consistent(text, splitter, pieces)


@pytest.mark.parametrize("name", WRITERS)
def test_a_reply_cut_anywhere_has_complete_calls_alone(name: str) -> None:
    text = WRITERS[name](CALLS)
    for end in range(len(text)):
        splitter, pieces = read(text[:end], BY_NAME[name])
        at_once, _ = read(text[:end], BY_NAME[name], sizes=[len(text)])
        assert called(splitter) == called(at_once)
        assert all(call in CALLS for call in called(splitter))
        consistent(text[:end], splitter, pieces)


PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3),
    max_leaves=8,
)
MARKS = ("<", "`", "|", "}", "\\")
"""Texts with these cannot be told from what ends an argument in forms that do not escape."""
UNESCAPED = ("Qwen3-Coder", "Seed-OSS", "GLM", "FunctionGemma", "Gemma 4")


@pytest.mark.parametrize("name", WRITERS)
@given(
    city=PLAIN,
    where=st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_any_arguments_come_back(name: str, city: str, where: dict[str, Any], sizes: list[int]) -> None:
    if name in UNESCAPED:
        city = "".join(char for char in city if char not in MARKS).strip()
        where = {}
    calls = [("get_weather", {"city": city, "where": where})]
    text = WRITERS[name](calls)
    splitter, pieces = read(text, BY_NAME[name], sizes=sizes)
    assert called(splitter) == calls
    consistent(text, splitter, pieces)


FRAGMENTS = (*'<tool_call>/{}[]":, \n', "<tool_call>", '{"name": "now", ', '"arguments": {}', "</tool_call>", "now(")


@given(parts=st.lists(st.sampled_from(FRAGMENTS), max_size=20))
def test_any_text_comes_out_whole(parts: list[str]) -> None:
    text = "".join(parts)
    for form in (HERMES, BY_NAME["Pythonic"], BY_NAME["bare JSON"], BY_NAME["Qwen3-Coder"]):
        splitter, pieces = read(text, form)
        consistent(text, splitter, pieces)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("Models write `<tool_call>` before a call.", ""),
        ('Write "<tool_call>" and then JSON.', ""),
        ("The tag <tool_call> begins a call.", ""),
        ("The reply ends with <tool_call>", ""),
        ('`<tool_call>{"name": "now", "arguments": {}}</tool_call>` is a call.', ""),
        ('<tool_call>\n{"name": "launch", "arguments": {}}\n</tool_call>', "'launch', which is none of the tools"),
        ('<tool_call>\n{"name": "now", "arguments": {x}}\n</tool_call> bye', "is malformed"),
        ('<tool_call>\n{"name": "now", "arguments": {"a": 1', "is cut off"),
        ('<tool_call>\n{"name": "now", "city": "Rome"}\n</tool_call>', "is malformed"),
    ],
)
def test_what_is_no_call_is_text(text: str, note: str) -> None:
    splitter, pieces = read(text)
    assert splitter.calls == []
    assert shown(pieces) == text
    assert note in " ".join(splitter.notes)
    assert bool(splitter.notes) == bool(note)
    consistent(text, splitter, pieces)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "now", "parameters": {}} is what you would send.',
        "[now()] would be the call.",
        '{"answer": 42}',
        "[1, 2]",
        "[now(1 + 1)]",
        '{"name": "get_weather", "parameters": {"city": ',
    ],
)
def test_forms_without_a_mark_are_calls_only_where_they_are_the_whole_answer(text: str) -> None:
    for name in ("bare JSON", "Pythonic"):
        splitter, pieces = read(text, BY_NAME[name])
        assert splitter.calls == []
        assert not any(piece.call for piece in pieces)
        assert shown(pieces) == text


def test_arguments_are_streamed_as_they_come() -> None:
    splitter = ToolSplitter([HERMES], TOOLS)
    assert splitter.feed('<tool_call>\n{"name": "get_weather", "argu') == []
    first = splitter.feed('ments": {"city": "Ro')
    assert [(p.call.name, p.call.arguments, p.call.done) for p in first if p.call] == [
        ("get_weather", '{"city": "Ro', False)
    ]
    last = splitter.feed('me"}}\n</tool_call>')
    assert [(p.call.arguments, p.call.done) for p in last if p.call] == [('me"}', True)]
    assert len(splitter.calls) == 1


def test_other_spellings_of_an_object_are_read() -> None:
    for text in (
        '{"arguments": {"city": "Rome"}, "name": "get_weather"}',
        '{"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\"}"}',
        '{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}',
        '[{"name": "get_weather", "args": {"city": "Rome"}}]',
    ):
        splitter, _ = read(f"<tool_call>{text}</tool_call>")
        assert called(splitter) == [("get_weather", {"city": "Rome"})]


def test_what_follows_a_call_is_answer_and_a_second_call_may_fail() -> None:
    text = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n<tool_call>{bad'
    splitter, pieces = read(text)
    assert called(splitter) == [("now", {})]
    assert shown(pieces).strip() == "<tool_call>{bad"
    consistent(text, splitter, pieces)


def test_values_between_tags_have_the_types_of_the_schema() -> None:
    schema = {"properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"type": ["string", "null"]}}}
    splitter = ToolSplitter([BY_NAME["Qwen3-Coder"]], [Tool("f", parameters=schema)])
    values = {"a": "12", "b": "12", "c": "null", "d": "[1]", "e": "a\nb"}
    splitter.feed("<tool_call>\n<function=f>\n")
    for key, value in values.items():
        splitter.feed(f"<parameter={key}>\n{value}\n</parameter>\n")
    splitter.feed("</function>\n</tool_call>")
    assert called(splitter) == [("f", {"a": "12", "b": 12, "c": None, "d": [1], "e": "a\nb"})]


@pytest.mark.parametrize(
    ("template", "tokens", "names"),
    [
        ("<tool_call>{{ call }}</tool_call>", (), ["Hermes"]),
        ("<tool_call>\n<function=", (), ["Qwen3-Coder"]),
        ("[TOOL_CALLS]", ("[ARGS]",), ["Mistral Nemo"]),
        ("{{ '[TOOL_CALLS]' }}[ARGS]", (), ["Mistral"]),
        ("<|python_tag|>", (), ["Llama 3", "bare JSON"]),
        ("no word of it", ("<start_function_call>",), ["FunctionGemma"]),
        ("no word of it", (), []),
        (None, (), []),
    ],
)
def test_the_form_is_found_from_template_and_tokens(
    template: str | None, tokens: tuple[str, ...], names: list[str]
) -> None:
    assert [one.name for one in find_formats(template, tokens)] == names


def test_a_call_in_openais_form() -> None:
    assert ToolCall("abc", "f", "{}").to_dict() == {
        "id": "abc",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
