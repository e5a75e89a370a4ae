"""A budget of reasoning: the same reply as the runtime's, whatever runs beside it."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from api_server import serving

from edgedistill.runtime.model import Model

MESSAGES: Any = [{"role": "user", "content": "What is 17 + 25 - 8?"}]


@pytest.mark.parametrize(
    "options",
    [{"think_budget": 5}, {"think_budget": 12}, {"reasoning_effort": "minimal"}, {"reasoning_effort": "none"}],
)
def test_a_budget_closes_the_reasoning(client: openai.OpenAI, model: Model, options: dict[str, Any]) -> None:
    told = model.generate(MESSAGES, temperature=0.7, seed=4, max_new_tokens=80, **options)
    asked: dict[str, Any] = {"temperature": 0.7, "seed": 4, "max_tokens": 80, "extra_body": options, "n": 2}
    got = client.chat.completions.create(model="tiny", messages=MESSAGES, **asked)
    message: Any = got.choices[0].message
    assert message.content == told.answer
    assert getattr(message, "reasoning_content", "") == told.reasoning
    stream = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True, **asked)
    deltas: list[Any] = [choice.delta for chunk in stream for choice in chunk.choices if choice.index == 0]
    assert "".join(delta.content or "" for delta in deltas) == told.answer
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == told.reasoning


def test_tokens_of_both_parts_are_counted(client: openai.OpenAI, model: Model) -> None:
    told = model.generate(MESSAGES, temperature=0.7, seed=4, max_new_tokens=80, think_budget=5)
    got = client.chat.completions.create(
        model="tiny", messages=MESSAGES, temperature=0.7, seed=4, max_tokens=80, extra_body={"think_budget": 5}
    )
    assert got.usage is not None
    assert got.usage.completion_tokens == told.stats.new_tokens
    assert got.usage.prompt_tokens == told.stats.prompt_tokens


def test_what_the_server_was_started_with_is_for_requests_that_do_not_say(model: Model) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": MESSAGES, "temperature": 0.7, "seed": 4, "max_tokens": 80}
    drawn: dict[str, Any] = {"temperature": 0.7, "seed": 4, "max_new_tokens": 80}
    default = model.generate(MESSAGES, thinking=False, **drawn)
    own = model.generate(MESSAGES, think_budget=5, **drawn)
    with (
        serving(model, thinking=False, think_budget=12) as served,
        openai.OpenAI(base_url=served.url, api_key="none", max_retries=0, timeout=60) as client,
    ):
        message: Any = client.chat.completions.create(**asked).choices[0].message
        assert (message.content, getattr(message, "reasoning_content", "")) == (default.answer, "")
        message = client.chat.completions.create(**asked, extra_body={"think_budget": 5}).choices[0].message
        assert (message.content, message.reasoning_content) == (own.answer, own.reasoning)
