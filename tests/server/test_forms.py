"""Tools and answers in a given form, through OpenAI's own client."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pydantic
import pytest
from api_server import Served

from edgedistill.runtime.model import Model

MESSAGES: Any = [{"role": "user", "content": "What is 17 + 25?"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "maximum": 99}, "b": {"enum": [25, 26]}},
            "required": ["a", "b"],
        },
    },
}


class Sum(pydantic.BaseModel):
    """What is asked for."""

    model_config = pydantic.ConfigDict(extra="forbid")
    first: Literal[17]
    total: int = pydantic.Field(ge=0, le=999)


def test_an_answer_is_parsed_by_its_schema(client: openai.OpenAI, model: Model) -> None:
    asked: dict[str, Any] = {"temperature": 0.8, "seed": 3, "max_tokens": 150}
    got = client.chat.completions.parse(model="tiny", messages=MESSAGES, response_format=Sum, **asked)
    told = model.generate(MESSAGES, json_schema=Sum, temperature=0.8, seed=3, max_new_tokens=150)
    assert got.choices[0].finish_reason == "stop"
    assert got.choices[0].message.parsed == Sum.model_validate_json(told.answer)
    with client.chat.completions.stream(model="tiny", messages=MESSAGES, response_format=Sum, **asked) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == got.choices[0].message.parsed


def test_samples_in_a_form_run_beside_each_other(client: openai.OpenAI) -> None:
    choices = ["red", "green", "blue"]
    got = client.chat.completions.create(
        model="tiny", messages=MESSAGES, n=6, temperature=1.5, seed=1, max_tokens=100, extra_body={"choices": choices}
    )
    assert {choice.message.content for choice in got.choices} <= set(choices)
    plain = client.completions.create(
        model="tiny", prompt="17 + 25 =", max_tokens=20, extra_body={"regex": " [0-9]{3}"}
    )
    assert plain.choices[0].text.strip().isdecimal()
    assert len(plain.choices[0].text) == 4


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_a_call_that_has_to_come(client: openai.OpenAI, choice: Any) -> None:
    asked: dict[str, Any] = {
        "tools": [TOOL], "tool_choice": choice, "temperature": 0.8, "seed": 3, "max_tokens": 200,
        "parallel_tool_calls": False, "extra_body": {"enable_thinking": False},
    }  # fmt: skip
    got = client.chat.completions.create(model="tiny", messages=MESSAGES, **asked)
    message = got.choices[0].message
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function"
    arguments = json.loads(call.function.arguments)
    assert arguments.keys() == {"a", "b"}
    assert arguments["a"] <= 99
    assert arguments["b"] in (25, 26)
    pieces = list(client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True, **asked))
    streamed = [one for chunk in pieces for c in chunk.choices for one in c.delta.tool_calls or ()]
    assert [(one.index, one.function.name, one.function.arguments) for one in streamed if one.function] == [
        (0, call.function.name, call.function.arguments)
    ]
    assert {c.finish_reason for chunk in pieces for c in chunk.choices} == {None, got.choices[0].finish_reason}


def test_a_conversation_goes_on_with_the_result_of_a_call(client: openai.OpenAI, served: Served) -> None:
    call: Any = {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": '{"a": 17, "b": 25}'}}
    history: Any = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "42"},
    ]
    got = client.chat.completions.create(model="tiny", messages=history, tools=[TOOL], max_tokens=5, temperature=0)
    assert got.usage is not None
    assert got.usage.completion_tokens > 0
    assert not served.bugs
