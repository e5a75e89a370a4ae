"""``/v1/responses`` through OpenAI's own client: what chat completions and ``Model.generate`` give, in newer words."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any, Literal

import httpx
import openai
import pydantic
import pytest
from api_server import Served
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedistill.runtime.model import Model

QUESTION = "What is 17 + 25?"
DRAWN: dict[str, Any] = {"temperature": 0.8, "max_output_tokens": 60, "extra_body": {"seed": 3}}
TOOL: Any = {
    "type": "function",
    "name": "add",
    "description": "Adds two numbers.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer", "maximum": 99}, "b": {"enum": [25, 26]}},
        "required": ["a", "b"],
    },
}


class Sum(pydantic.BaseModel):
    """What is asked for."""

    model_config = pydantic.ConfigDict(extra="forbid")
    first: Literal[17]
    total: int = pydantic.Field(ge=0, le=999)


def generated(model: Model, prompt: Any = QUESTION, **options: Any) -> Any:
    return model.generate(prompt, **{"temperature": 0.8, "seed": 3, "max_new_tokens": 60, **options})


def reasoning(response: Any) -> str:
    return "".join(part.text for item in response.output if item.type == "reasoning" for part in item.content)


def test_an_answer_is_what_the_model_generates(client: openai.OpenAI, model: Model) -> None:
    told = generated(model)
    got = client.responses.create(model="tiny", input=QUESTION, store=False, metadata={"a": "b"}, **DRAWN)
    assert (got.output_text, reasoning(got)) == (told.answer, told.reasoning)
    assert [item.type for item in got.output] == ["reasoning", "message"]
    assert (got.status, got.temperature, got.max_output_tokens, got.metadata) == ("completed", 0.8, 60, {"a": "b"})
    assert got.usage is not None
    assert got.usage.input_tokens == told.stats.prompt_tokens
    assert got.usage.output_tokens == told.stats.new_tokens
    assert got.usage.output_tokens_details.reasoning_tokens == told.stats.reasoning_tokens
    assert got.edgedistill["seed"] == 3


def test_events_joined_are_the_answer(client: openai.OpenAI, model: Model) -> None:
    told = generated(model)
    events: list[Any] = list(client.responses.create(model="tiny", input=QUESTION, stream=True, **DRAWN))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert list(dict.fromkeys(kinds)) == [
        "created", "in_progress", "output_item.added", "content_part.added", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done", "output_text.delta", "output_text.done",
        "completed",
    ]  # fmt: skip
    for name, text in (("reasoning_text", told.reasoning), ("output_text", told.answer)):
        assert "".join(event.delta for event in events if event.type == f"response.{name}.delta") == text
        assert [event.text for event in events if event.type == f"response.{name}.done"] == [text]
    first, last = events[0].response, events[-1].response
    assert (first.id, first.status, first.output) == (last.id, "in_progress", [])
    assert (last.output_text, last.usage.output_tokens) == (told.answer, told.stats.new_tokens)
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert done == last.output


def test_the_helper_of_the_client_keeps_up_with_the_stream(client: openai.OpenAI, model: Model) -> None:
    with client.responses.stream(model="tiny", input=QUESTION, **DRAWN) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots[-1] == final.output_text == generated(model).answer


def test_an_asynchronous_client_gets_an_event_with_its_name(served: Served, model: Model) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=served.url, api_key="none", max_retries=0) as client:
            stream = await client.responses.create(model="tiny", input=QUESTION, stream=True, **DRAWN)
            return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])

    assert asyncio.run(ask()) == generated(model).answer
    body = json.dumps({"input": QUESTION, "stream": True, "max_output_tokens": 1}).encode()
    asked = urllib.request.Request(f"{served.url}/responses", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    named = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [json.loads(line[6:])["type"] for line in lines if line.startswith("data: {")]
    assert named == data != []


def test_an_answer_that_is_cut_off_is_incomplete(client: openai.OpenAI, model: Model) -> None:
    told = generated(model, max_new_tokens=4)
    asked = {**DRAWN, "max_output_tokens": 4}
    got = client.responses.create(model="tiny", input=QUESTION, **asked)
    assert told.finish_reason == "length"
    assert got.incomplete_details is not None
    assert (got.status, got.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (reasoning(got), got.output_text) == (told.reasoning, told.answer)
    events: list[Any] = list(client.responses.create(model="tiny", input=QUESTION, stream=True, **asked))
    assert events[-1].type == "response.incomplete"
    assert [item.status for item in events[-1].response.output] == ["incomplete"]


@pytest.mark.parametrize("effort", ["none", "minimal"])
def test_the_effort_is_that_of_the_reasoning(client: openai.OpenAI, model: Model, effort: Any) -> None:
    told = generated(model, reasoning_effort=effort)
    got = client.responses.create(
        model="tiny", input=QUESTION, reasoning={"effort": effort, "summary": "auto"}, **DRAWN
    )
    assert (got.output_text, reasoning(got)) == (told.answer, told.reasoning)
    assert got.edgedistill["ignored"] == ["reasoning.summary"]


def test_an_answer_is_parsed_by_its_schema(client: openai.OpenAI, model: Model) -> None:
    asked = {**DRAWN, "max_output_tokens": 150}
    got = client.responses.parse(model="tiny", input=QUESTION, text_format=Sum, **asked)
    told = generated(model, json_schema=Sum, max_new_tokens=150)
    assert got.output_parsed == Sum.model_validate_json(told.answer)
    with client.responses.stream(model="tiny", input=QUESTION, text_format=Sum, **asked) as stream:
        assert stream.get_final_response().output_parsed == got.output_parsed


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "add"}])
def test_a_call_that_has_to_come(client: openai.OpenAI, choice: Any) -> None:
    asked: dict[str, Any] = {
        "model": "tiny", "input": QUESTION, "tools": [TOOL], "tool_choice": choice, "parallel_tool_calls": False,
        "temperature": 0.8, "max_output_tokens": 200, "reasoning": {"effort": "none"}, "extra_body": {"seed": 3},
    }  # fmt: skip
    got = client.responses.create(**asked)
    (call,) = [item for item in got.output if item.type == "function_call"]
    arguments = json.loads(call.arguments)
    assert arguments.keys() == {"a", "b"}
    assert arguments["b"] in (25, 26)
    events = list(client.responses.create(stream=True, **asked))
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == call.arguments
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert (done.name, done.arguments) == ("add", call.arguments)
    (parsed,) = [item for item in client.responses.parse(**asked).output if item.type == "function_call"]
    assert parsed.parsed_arguments == arguments


def tokens(served: Served, **body: Any) -> list[int]:
    """What the server reads of a chat."""
    asked = urllib.request.Request(
        f"{served.root}/tokenize", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        found: list[int] = json.load(answer)["tokens"]
    return found


def test_items_are_the_messages_of_a_chat(client: openai.OpenAI, served: Served, monkeypatch: Any) -> None:
    rendered: list[Any] = []
    started = served.service.start

    async def start(prompts: Any, sampling: Any) -> Any:
        rendered.extend(list(one.tokens) for one in prompts)
        return await started(prompts, sampling)

    monkeypatch.setattr(served.service, "start", start)
    arguments = '{"a": 17, "b": 25}'
    items: Any = [
        {"role": "developer", "content": "Use the tool."},
        {"role": "user", "content": [{"type": "input_text", "text": text} for text in ("What is ", "17 + 25?")]},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "I add."}]},
        {"role": "assistant", "type": "message", "content": [{"type": "output_text", "text": "A moment."}]},
        {"type": "function_call", "call_id": "abcdefghi", "name": "add", "arguments": arguments},
        {"type": "function_call", "call_id": "abcdefghj", "name": "add", "arguments": arguments},
        {"type": "function_call_output", "call_id": "abcdefghi", "output": "42"},
        {"type": "function_call_output", "call_id": "abcdefghj", "output": [{"type": "input_text", "text": "42"}]},
    ]  # fmt: skip
    client.responses.create(
        model="tiny", instructions="Be brief.", input=items, tools=[TOOL], max_output_tokens=1, temperature=0
    )
    call: Any = {"type": "function", "function": {"name": "add", "arguments": arguments}}
    messages = [
        {"role": "system", "content": "Be brief.\n\nUse the tool."},
        {"role": "user", "content": QUESTION},
        {
            "role": "assistant", "content": "A moment.", "reasoning_content": "I add.",
            "tool_calls": [{"id": "abcdefghi", **call}, {"id": "abcdefghj", **call}],
        },
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "42"},
        {"role": "tool", "tool_call_id": "abcdefghj", "content": "42"},
    ]  # fmt: skip
    function = {name: TOOL[name] for name in ("name", "description", "parameters")}
    assert rendered == [tokens(served, messages=messages, tools=[{"type": "function", "function": function}])]


def test_as_home_assistant_asks(served: Served, model: Model) -> None:
    """The fields and events of its integration openai_conversation, version 2026.2."""
    arguments = '{"a": 17, "b": 25}'
    items: Any = [
        {"type": "message", "role": "developer", "content": "You are a voice assistant."},
        {"type": "message", "role": "user", "content": QUESTION},
        {"type": "function_call", "name": "add", "arguments": arguments, "call_id": "abcdefghi"},
        {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": None},
        {"type": "function_call_output", "call_id": "abcdefghi", "output": '{"sum":42}'},
    ]

    asked: dict[str, Any] = {
        "model": "tiny", "input": items, "max_output_tokens": 60, "user": "01K", "store": False, "stream": True,
        "top_p": 1.0, "temperature": 0, "prompt_cache_retention": "24h", "tools": [{**TOOL, "strict": False}],
        "reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"],
    }  # fmt: skip

    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=served.url, api_key="none", max_retries=0) as client:
            return [event async for event in await client.responses.create(**asked)]

    events = asyncio.run(ask())
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    response = events[-1].response
    assert [item.type for item in response.output] == ["reasoning", "message"]
    call: Any = {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": arguments}}
    told = model.generate(
        [
            {"role": "system", "content": "You are a voice assistant."},
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "abcdefghi", "content": '{"sum":42}'},
        ],
        temperature=0, top_p=1.0, max_new_tokens=60, tools=[TOOL], reasoning_effort="low",
    )  # fmt: skip
    assert (text, response.usage.output_tokens) == (told.answer, told.stats.new_tokens)


def test_a_conversation_goes_on_with_the_output_of_the_last(client: openai.OpenAI, model: Model) -> None:
    first = client.responses.create(model="tiny", input=QUESTION, **DRAWN)
    items: Any = [{"role": "user", "content": QUESTION}, *(item.to_dict() for item in first.output)]
    second = client.responses.create(model="tiny", input=[*items, {"role": "user", "content": "And 9 * 8?"}], **DRAWN)
    history = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first.output_text, "reasoning_content": reasoning(first)},
        {"role": "user", "content": "And 9 * 8?"},
    ]
    assert second.output_text == generated(model, history).answer


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"store": True}, "`store` is not supported: this server keeps no responses; send the whole conversation"),
        ({"previous_response_id": "resp_1"}, "`previous_response_id` is not supported: this server keeps no responses"),
        ({"background": True}, "`background` is not supported"),
        ({"truncation": "auto"}, "`truncation` is not supported: a conversation that is too long is refused"),
        ({"include": ["message.output_text.logprobs"]}, "`include` is not supported"),
        ({"input": []}, "`input` is a list; expected a text or a list of at least one item"),
        ({"input": [{"role": "robot", "content": "a"}]}, "a message of the role 'robot'; expected one of user, "),
        ({"input": [{"type": "item_reference", "id": "a"}]}, "an item of the type 'item_reference'; expected message"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "a part of the type 'input_image'"),
        ({"input": [{"role": "user", "content": None}]}, "`input` has an item without a text"),
        ({"max_output_tokens": 0}, "`max_output_tokens` is 0; expected a whole number from 1"),
        ({"reasoning": {"effort": "huge"}}, '`reasoning.effort` is "huge"; expected one of none, minimal'),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "`text.format` is an object; expected one of"),
        ({"tools": [{"type": "web_search"}]}, "is not a tool of type 'function' with a name"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "subtract"}}, "'subtract', which is not a tool"),
        ({"temperature": -1}, "`temperature` is -1; expected a number from 0 to 100"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(client: openai.OpenAI, served: Served, asked: dict[str, Any], expected: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": "tiny", "input": QUESTION, **asked})
    assert expected in str(caught.value)
    assert not served.bugs


def test_another_model_and_a_prompt_that_is_too_long(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-5'"):
        client.responses.create(model="gpt-5", input=QUESTION)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="tiny", input="17 + 25 " * 2000)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError, match="/v1/responses"):
        client.responses.retrieve("resp_1")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text"]), inner, max_size=2),
    max_leaves=4,
)
KINDS = ["message", "reasoning", "function_call", "function_call_output", "item_reference"]
ITEMS = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS) | VALUES},
    optional={
        "role": st.sampled_from(["user", "assistant", "developer"]) | VALUES,
        **dict.fromkeys(["content", "output", "name", "arguments", "call_id"], st.text(max_size=5) | VALUES),
    },
)
BODIES = st.fixed_dictionaries(
    {"input": st.lists(ITEMS | VALUES, max_size=4) | VALUES},
    optional=dict.fromkeys(
        ["instructions", "text", "reasoning", "tools", "tool_choice", "include", "store", "metadata", "stream"], VALUES
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BODIES)
def test_no_body_is_an_error_of_the_server(served: Served, body: dict[str, Any]) -> None:
    response = httpx.post(f"{served.url}/responses", json={"max_output_tokens": 1, **body}, timeout=60)
    assert response.status_code in (200, 400), response.text
