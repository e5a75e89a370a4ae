"""Tools through the API: keywords, transcripts of real tokens, conversations with results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tokenizers import AddedToken, Tokenizer
from tool_calls import WRITERS

import edgedistill.catalog
from edgedistill.catalog.reasoning import DEFAULT_GRAMMAR
from edgedistill.catalog.tool_formats import FORMATS
from edgedistill.errors import GenerationError
from edgedistill.runtime.text.transcript import Transcript
from edgedistill.runtime.tools.types import Tool

if TYPE_CHECKING:
    from edgedistill.runtime.events import Event
    from edgedistill.runtime.model import Model


def get_time(city: str) -> str:
    """The time in a city."""
    return f"12:00 in {city}"


CALLS = [("get_time", {"city": "Köln"})]


def _tokenizer(special: list[str]) -> Tokenizer:
    path = Path(edgedistill.catalog.__path__[0]) / "models" / "tiny-reasoner" / "tokenizer.json"
    tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in special])
    return tokenizer


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("special", [False, True])
def test_calls_in_tokens_are_read_where_their_marks_are_special(name: str, special: bool) -> None:
    form = next(one for one in FORMATS if one.name == name)
    marks = [mark for mark in (form.open, form.close) if mark]
    tokenizer = _tokenizer(marks if special else [])
    transcript = Transcript(
        tokenizer, (), DEFAULT_GRAMMAR, opened=None, tools=[Tool.of(get_time)], formats=[form]
    )  # fmt: skip
    text = f"<think>I need {form.open} now.</think>\n\n{WRITERS[name](CALLS)}"
    events: list[Event] = []
    for token in tokenizer.encode(text, add_special_tokens=False).ids:
        events += transcript.add(token)
    events += transcript.finish()
    assert [(call.name, json.loads(call.arguments)) for call in transcript.calls] == CALLS
    assert transcript.text() == text == "".join(event.text for event in events)
    assert transcript.text("answer").strip() == ""
    assert transcript.text("reasoning") == f"I need {form.open} now."
    assert sum(event.tokens for event in events) == len(transcript.tokens)


def test_tools_go_into_the_prompt_unless_they_may_not_be_called(roomy: Model) -> None:
    plain = roomy.generate("hi", max_new_tokens=2)
    offered = roomy.generate("hi", tools=[get_time], max_new_tokens=2)
    silent = roomy.generate("hi", tools=[get_time], tool_choice="none", max_new_tokens=2)
    assert offered.stats.prompt_tokens > plain.stats.prompt_tokens == silent.stats.prompt_tokens
    assert "system prompt" in (offered.note or "")
    assert silent.note is plain.note
    assert offered.tool_calls == ()
    assert offered.to_dict()["tool_calls"] == []
    assert "get_time" in roomy.render("hi", tools=[Tool.of(get_time)])
    [first, second] = roomy.generate_batch(["hi", "hi"], tools=[get_time], max_new_tokens=2, temperature=0)
    assert first.tokens == second.tokens
    assert first.stats.prompt_tokens == offered.stats.prompt_tokens


def test_bad_tools_are_refused(roomy: Model) -> None:
    for tools, keywords, message in (
        ([{"type": "retrieval"}], {}, "not a tool of type"),
        ([get_time], {"tool_choice": "sometimes"}, "sometimes"),
        ([get_time], {"raw": True}, "raw prompt"),
    ):
        with pytest.raises(GenerationError, match=message):
            roomy.generate("hi", tools=tools, **keywords)


def test_results_go_to_the_calls_of_the_last_turn(roomy: Model) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "get_time", "arguments": '{"city": "Rome"}'}}
    with roomy.chat(tools=[get_time], max_new_tokens=3, temperature=0) as chat:
        chat.ask("What time is it?")
        with pytest.raises(GenerationError, match="no calls"):
            chat.give({"a": "12:00"})
        chat.messages[-1] = {"role": "assistant", "content": "", "tool_calls": [call]}
        with pytest.raises(GenerationError, match="given for b; the last turn has a"):
            chat.give({"b": "12:00"})
        chat.give({"a": "12:00"})
        assert [message["role"] for message in chat.messages] == ["user", "assistant", "tool", "assistant"]
        assert chat.messages[2] == {"role": "tool", "tool_call_id": "a", "name": "get_time", "content": "12:00"}
        assert chat.undo() == "What time is it?"
        assert chat.messages == []
