"""Whatever a client sends, it is told what is wrong with it, in OpenAI's form; nothing is an error of the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from api_server import Served, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import wait_until

from edgedistill.runtime.model import Model

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "What is 17 + 25?"}]


@pytest.fixture(scope="module")
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.root, timeout=60) as made:
        yield made


def refused(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The error, whose form is OpenAI's."""
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"].endswith((".", "?", "}"))
    return error


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"text"', b"nul", b"\xff\xfe", b'{"messages": NaN}', b"[" * 100_000, b'{"a":' * 100_000,
        b'{"model": "\\ud800"}', b"1" * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_json_object(http: httpx.Client, body: bytes) -> None:
    for path in (CHAT, PLAIN, "/tokenize", "/detokenize"):
        assert refused(http.post(path, content=body))["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": None}, "messages"), ({"messages": []}, "messages"), ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages"), ({"messages": [{}]}, None),
        ({"messages": [{"role": "user"}]}, None), ({"messages": [{"role": 3, "content": "x"}]}, None),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, None),
        ({"messages": [{"role": "user", "content": 7}]}, None),
        ({"temperature": "hot"}, "temperature"), ({"temperature": -1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 10**400}, "temperature"), ({"top_p": 2}, "top_p"), ({"top_p": 0}, None),
        ({"top_k": -2}, "top_k"), ({"top_k": 1.5}, "top_k"), ({"min_p": 7}, "min_p"), ({"n": 0}, "n"),
        ({"n": 10**6}, "n"), ({"n": [1]}, "n"), ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": -1}, "max_tokens"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens"), ({"seed": "x"}, "seed"), ({"seed": 1 << 70}, "seed"),
        ({"stop": 3}, "stop"), ({"stop": [["a"]]}, "stop"), ({"stop": ["a"] * 100}, None),
        ({"logit_bias": [1]}, "logit_bias"), ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"), ({"logit_bias": {"1": 1000}}, "logit_bias"),
        ({"presence_penalty": 9}, "presence_penalty"), ({"frequency_penalty": "a"}, "frequency_penalty"),
        ({"repetition_penalty": 0}, None), ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": 5}, "logprobs"), ({"logprobs": True, "top_logprobs": 1000}, "top_logprobs"),
        ({"stream": "yes"}, "stream"), ({"stream_options": 1}, "stream_options"),
        ({"chat_template_kwargs": 1}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"messages": 1}}, None), ({"reasoning_effort": "hard"}, "reasoning_effort"),
        ({"model": 3}, "model"), ({"audio": {"voice": "x"}}, "audio"), ({"modalities": ["audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"), ({"tools": 3}, "tools"),
        ({"tools": ["f"]}, "tools"), ({"tools": [{"type": "x"}]}, None), ({"tool_choice": 3}, "tool_choice"),
        ({"tool_choice": "required"}, None), ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, None), ({"response_format": {"type": "json_schema"}}, None),
        ({"json_schema": {"type": "no such type"}}, None), ({"regex": "("}, None), ({"grammar": "start ="}, None),
        ({"choices": "a"}, "choices"), ({"choices": [1]}, None), ({"regex": "a", "grammar": "start: a"}, None),
        ({"think_budget": -1}, "think_budget"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"), ({"best_of": 4}, "best_of"),
    ],
)  # fmt: skip
def test_fields_of_the_wrong_type_or_out_of_range(
    http: httpx.Client, change: dict[str, Any], param: str | None
) -> None:
    error = refused(http.post(CHAT, json={"messages": MESSAGES, **change}))
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "prompt", [None, [], 7, {}, [None], [[]], [[-1]], [10**9], [True], ["a", [1]] * 200, [1.5], [["a"]], ""]
)
def test_prompts_that_are_none(http: httpx.Client, prompt: Any) -> None:
    refused(http.post(PLAIN, json={"prompt": prompt, "max_tokens": 1}))


def test_a_prompt_that_is_too_long(http: httpx.Client, served: Served) -> None:
    ids = [1] * served.service.limit
    assert refused(http.post(PLAIN, json={"prompt": ids}))["code"] == "context_length_exceeded"
    assert http.post(PLAIN, json={"prompt": ids, "echo": True, "max_tokens": 0}).status_code == 200
    last = http.post(PLAIN, json={"prompt": ids[1:], "max_tokens": 50}).json()
    assert (last["choices"][0]["finish_reason"], last["usage"]["completion_tokens"]) == ("length", 1)
    long = [{"role": "user", "content": "17 + 25 " * served.service.limit}]
    assert refused(http.post(CHAT, json={"messages": long, "stream": True}))["code"] == "context_length_exceeded"


def test_a_body_that_is_too_large(http: httpx.Client, served: Served) -> None:
    most = served.service.options.max_body
    assert refused(http.post(CHAT, content=b" " * (most + 1)), 413)["code"] == "body_too_large"
    pieces = (b" " * 100_000 for _ in range(1 + most // 100_000))  # without a length
    assert refused(http.post(CHAT, content=pieces), 413)["code"] == "body_too_large"


def test_paths_and_methods_that_are_not_there(http: httpx.Client) -> None:
    assert "/v1/chat/completions" in refused(http.get("/"), 404)["message"]
    refused(http.post("/v1/audio/speech", json={}), 404)
    refused(http.get(CHAT), 405)


def test_fields_that_are_not_known_are_named(http: httpx.Client) -> None:
    body = {"messages": MESSAGES, "max_tokens": 1, "user": "me", "num_ctx": 5, "temprature": 0.1}
    assert http.post(CHAT, json=body).json()["edgedistill"]["ignored"] == ["num_ctx", "temprature"]
    events = http.post(CHAT, json={**body, "stream": True}).text
    assert '"ignored":["num_ctx","temprature"]' in events
    assert events.endswith("data: [DONE]\n\n")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    "messages", "prompt", "temperature", "top_p", "top_k", "min_p", "n", "stop", "seed", "logit_bias", "logprobs",
    "top_logprobs", "stream", "stream_options", "echo", "chat_template_kwargs", "presence_penalty", "reasoning_effort",
    "tools", "tool_choice", "response_format", "json_schema", "grammar", "regex", "choices",
    "trajectories", "deliberate", "think_budget",
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4), st.sampled_from([CHAT, PLAIN]))
def test_no_body_is_an_error_of_the_server(http: httpx.Client, body: dict[str, Any], path: str) -> None:
    whole = {"messages": MESSAGES, "prompt": "1", "max_tokens": 2, **body}
    try:
        content = json.dumps(whole, allow_nan=False).encode()
    except ValueError:  # infinities
        return
    response = http.post(path, content=content)
    assert response.status_code in (200, 400), response.text


def test_tokens_and_their_text(http: httpx.Client, model: Model) -> None:
    ids = model.encode("größer 42", raw=True)
    found = http.post("/tokenize", json={"prompt": "größer 42"}).json()
    assert (found["tokens"], found["count"]) == (ids, len(ids))
    assert http.post("/tokenize", json={"content": "größer 42"}).json()["tokens"] == ids
    assert http.post("/detokenize", json={"tokens": ids}).json()["content"] == "größer 42"
    chat = http.post("/tokenize", json={"messages": MESSAGES}).json()["tokens"]
    assert chat == model.encode(model.render(MESSAGES))
    for body in ({}, {"prompt": 3}, {"prompt": "x", "add_special_tokens": "no"}):
        refused(http.post("/tokenize", json=body))
    for tokens in (None, "x", [1.5], [-1], [10**9], [[1]]):
        refused(http.post("/detokenize", json={"tokens": tokens}))


def test_health_and_metrics(http: httpx.Client) -> None:
    health = http.get("/health").json()
    assert (health["status"], health["places"]) == ("ok", 4)
    http.post(CHAT, json={"messages": MESSAGES, "max_tokens": 2})
    refused(http.post(CHAT, content=b"{"))
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = dict(line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#"))
    assert float(values["edgedistill_generated_tokens_total"]) >= 2
    assert float(values['edgedistill_responses_total{route="/v1/chat/completions",status="400"}']) >= 1
    count = values["edgedistill_time_to_first_token_seconds_count"]
    assert values['edgedistill_time_to_first_token_seconds_bucket{le="+Inf"}'] == count


def test_a_full_queue_sends_away_and_says_when_to_come_back(model: Model) -> None:
    body = {"messages": MESSAGES, "stream": True, "max_tokens": 4, "ignore_eos": True}
    with serving(model, parallel=1, queue=1) as busy, httpx.Client(base_url=busy.root, timeout=60) as http:
        with busy.held(), http.stream("POST", CHAT, json=body) as first:
            wait_until(lambda: busy.service.batch.running == 1)
            with http.stream("POST", CHAT, json=body) as second:  # it waits for its place
                response = http.post(CHAT, json={"messages": MESSAGES})
                assert (first.status_code, second.status_code) == (200, 200)
        assert refused(response, 429)["code"] == "queue_full"
        assert int(response.headers["retry-after"]) >= 1
        wait_until(lambda: busy.service.batch.waiting == 0)
        assert http.post(CHAT, json={"messages": MESSAGES, "max_tokens": 1}).status_code == 200


def test_a_request_over_its_time_is_ended(model: Model) -> None:
    with serving(model, timeout_s=1e-6) as hasty, httpx.Client(base_url=hasty.root, timeout=60) as http:
        assert refused(http.post(CHAT, json={"messages": MESSAGES}), 504)["code"] == "timeout"
        events = http.post(CHAT, json={"messages": MESSAGES, "stream": True})
        assert (events.status_code, '"code":"timeout"' in events.text) == (200, True)
