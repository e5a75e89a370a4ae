"""A request that runs alone is guessed for; its answer is what the model generates."""

from __future__ import annotations

import openai
import pytest
from api_server import serving

from edgedistill.runtime.model import Model, open_bundle


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_served_model_with_a_draft_answers_as_without(model: Model, temperature: float) -> None:
    path = model.bundle.path
    question = "What is 17 + 25?"
    told = model.generate(question, temperature=temperature, seed=3, max_new_tokens=40)
    with open_bundle(path, threads=1, draft=path) as drafted, serving(drafted) as served:
        asked = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0, timeout=60)
        got = asked.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": question}], temperature=temperature, seed=3,
            max_completion_tokens=40,
        )  # fmt: skip
        assert got.choices[0].message.content == told.answer
        assert got.usage is not None
        assert got.usage.completion_tokens == told.stats.new_tokens
        assert served.service.batch._guesses._speculation is not None
        assert not served.bugs
