"""Calls in gpt-oss' channels: from its tokens to calls, and back into its template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chat_templates
import pytest
from tokenizers import AddedToken, Tokenizer

import edgedistill.catalog
from edgedistill.catalog.reasoning import find_grammar
from edgedistill.catalog.tool_formats import find_formats
from edgedistill.runtime.text.chat_template import ChatTemplate
from edgedistill.runtime.text.messages import plain_messages
from edgedistill.runtime.text.transcript import Transcript
from edgedistill.runtime.tools.control import ToolControl
from edgedistill.runtime.tools.types import Tool

MARKS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>", "<|return|>"]
WEATHER = Tool("weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
CALL: dict[str, Any] = {
    "id": "aaaaaaaaa",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Zürich"}'},
}
ASKED = {"role": "assistant", "content": "", "reasoning_content": "I look it up.", "tool_calls": [CALL]}
TOLD = {"role": "tool", "tool_call_id": "aaaaaaaaa", "name": "weather", "content": "sun"}
USER = {"role": "user", "content": "Weather?"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    path = Path(edgedistill.catalog.__path__[0]) / "models" / "tiny-reasoner" / "tokenizer.json"
    tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in MARKS])
    return tokenizer


THOUGHT = "<|channel|>analysis<|message|>I look it up.<|end|><|start|>assistant"
JSON = '<|message|>{"city": "Zürich"}<|call|>'


@pytest.mark.parametrize(
    "reply",
    [
        f"{THOUGHT}<|channel|>commentary to=functions.weather <|constrain|>json{JSON}",
        f"{THOUGHT} to=functions.weather<|channel|>commentary json{JSON}",
        f"{THOUGHT}<|channel|>commentary to=functions.weather{JSON}",
    ],
)
def test_tokens_become_reasoning_and_a_call_that_is_streamed(tokenizer: Tokenizer, reply: str) -> None:
    grammar = find_grammar(chat_templates.GPT_OSS, MARKS)
    formats = find_formats(chat_templates.GPT_OSS, MARKS)
    assert [one.name for one in formats] == ["gpt-oss"]
    transcript = Transcript(tokenizer, (), grammar, opened=None, tools=[WEATHER], formats=formats)
    events = [event for token in tokenizer.encode(reply).ids for event in transcript.add(token)] + transcript.finish()
    [call] = transcript.calls
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Zürich"})
    assert transcript.text("reasoning") == "I look it up."
    assert transcript.text("answer").strip() == ""
    assert transcript.text() == reply
    deltas = [event.call for event in events if event.call is not None]
    assert len(deltas) > 3
    assert "".join(delta.arguments for delta in deltas) == call.arguments


def test_a_preamble_and_a_final_answer_are_no_calls(tokenizer: Tokenizer) -> None:
    reply = "<|channel|>commentary<|message|>I will look.<|end|>"
    reply += "<|start|>assistant<|channel|>final<|message|>Sun.<|return|>"
    transcript = Transcript(
        tokenizer, (), find_grammar(chat_templates.GPT_OSS, MARKS), opened=None, tools=[WEATHER],
        formats=find_formats(chat_templates.GPT_OSS, MARKS),
    )  # fmt: skip
    for token in tokenizer.encode(reply).ids:
        transcript.add(token)
    transcript.finish()
    assert (transcript.calls, transcript.text("answer")) == ((), "Sun.")


def test_the_template_is_given_tools_calls_and_results() -> None:
    template = ChatTemplate(chat_templates.GPT_OSS)
    try:
        control = ToolControl(template, MARKS)
        assert control.supported
        messages, variables = control.offer(plain_messages([USER, ASKED, TOLD]), [WEATHER])
        text = template.render(messages, **variables)
        assert "type weather = (_:" in text
        assert text.endswith(
            "<|start|>assistant<|channel|>analysis<|message|>I look it up.<|end|>"
            '<|start|>assistant to=functions.weather<|channel|>commentary json<|message|>{"city": "Zürich"}<|call|>'
            '<|start|>functions.weather to=assistant<|channel|>commentary<|message|>"sun"<|end|><|start|>assistant'
        )
        # It takes one call a message.
        again = {**CALL, "id": "bbbbbbbbb", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
        asked = {**ASKED, "tool_calls": [CALL, again]}
        both: list[dict[str, Any]] = [USER, asked, TOLD, {**TOLD, "tool_call_id": "bbbbbbbbb"}]
        assert template.render(plain_messages(both)).count("<|call|>") == 2
    finally:
        template.close()
