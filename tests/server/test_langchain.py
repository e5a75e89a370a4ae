"""langchain-openai against the server: an answer, a stream, token counts."""

from __future__ import annotations

from typing import Any

import pytest
from api_server import Served

from edgedistill.runtime.model import Model

langchain_openai = pytest.importorskip("langchain_openai", reason="langchain-openai (extra dev) is not installed")
QUESTION = "What is 17 + 25?"


@pytest.fixture
def chat(served: Served) -> Any:
    return langchain_openai.ChatOpenAI(
        base_url=served.url, api_key="none", model="tiny", temperature=0, max_tokens=60, max_retries=0
    )


def test_an_answer_and_its_tokens(chat: Any, model: Model) -> None:
    told = model.generate(QUESTION, temperature=0, max_new_tokens=60)
    got = chat.invoke(QUESTION)
    assert got.content == told.answer
    assert got.usage_metadata["output_tokens"] == told.stats.new_tokens
    assert got.usage_metadata["output_token_details"]["reasoning"] == told.stats.reasoning_tokens


def test_a_stream(chat: Any, model: Model) -> None:
    pieces = list(chat.stream(QUESTION))
    assert (
        "".join(piece.content for piece in pieces) == model.generate(QUESTION, temperature=0, max_new_tokens=60).answer
    )


def test_a_conversation_in_a_batch(chat: Any, model: Model) -> None:
    asked = [QUESTION, "What is 9 * 8?", "What is 81 - 44?"]
    told = [model.generate(one, temperature=0, max_new_tokens=60).answer for one in asked]
    assert [got.content for got in chat.batch(asked)] == told
