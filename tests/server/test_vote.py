"""Trajectories over HTTP: the answer, vote and tally of ``solve``."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from api_server import Served

from edgedistill.runtime.model import Model
from edgedistill.trajectories import TrajectoryOptions, solve

MESSAGES: Any = [{"role": "user", "content": "What is 17 + 25 - 8?"}]


@pytest.mark.parametrize("extra", [{"trajectories": 4}, {"trajectories": 2, "deliberate": True}])
def test_the_answer_is_that_of_the_vote(client: openai.OpenAI, model: Model, extra: dict[str, Any]) -> None:
    settings = model.default_settings.replace(temperature=0.9, seed=6, max_new_tokens=50)
    options = TrajectoryOptions(count=extra["trajectories"], deliberate=extra.get("deliberate", False))
    told = solve(model, MESSAGES, options=options, settings=settings)
    asked: dict[str, Any] = {"temperature": 0.9, "seed": 6, "max_tokens": 50, "extra_body": extra}
    got: Any = client.chat.completions.create(model="tiny", messages=MESSAGES, **asked)
    assert got.choices[0].message.content == told.answer
    said = got.edgedistill
    assert said["vote"]["tallies"] == [
        {"answer": one.answer, "votes": one.votes, "weight": one.weight, "trajectories": list(one.trajectories)}
        for one in told.vote.tallies
    ]
    assert (said["final"], said["decided_by"]) == (told.final, told.decided_by)
    assert [one["tokens"] for one in said["trajectories"]] == [len(one.tokens) for one in told.trajectories]
    assert got.usage.completion_tokens == told.stats.trajectory_tokens + told.stats.pass_tokens
    stream = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True, **asked)
    chunks: list[Any] = list(stream)
    assert "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices) == told.answer
    assert next(c.edgedistill for c in chunks if hasattr(c, "edgedistill"))["final"] == told.final


@pytest.mark.parametrize(
    "change",
    [
        {"trajectories": 0}, {"trajectories": 1000}, {"trajectories": "8"}, {"trajectories": 4, "n": 2},
        {"trajectories": 4, "logprobs": True}, {"trajectories": 4, "temperature": 0}, {"deliberate": 1},
        {"trajectories": 4, "vote": "loudest"}, {"trajectories": 2, "think_budget": 4},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(served: Served, change: dict[str, Any]) -> None:
    response = httpx.post(f"{served.url}/chat/completions", json={"messages": MESSAGES, "max_tokens": 5, **change})
    assert response.status_code == 400, response.text


def test_a_prompt_that_is_too_long(served: Served) -> None:
    long = [{"role": "user", "content": "17 + 25 " * served.service.limit}]
    response = httpx.post(f"{served.url}/chat/completions", json={"messages": long, "trajectories": 2})
    assert response.json()["error"]["code"] == "context_length_exceeded"
