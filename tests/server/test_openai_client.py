"""OpenAI's own client, plain, asynchronous and streaming: what it is told is what ``Model.generate`` gives."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import openai
import pytest
from api_server import Served
from openai.types.chat import ChatCompletionMessageParam

from edgedistill.bundle.verification_record import sentence
from edgedistill.runtime.model import Model

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is 17 + 25?"}]
OTHER: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is 9 * 8?"}]


def generated(model: Model, messages: Any = QUESTION, **options: Any) -> Any:
    return model.generate(messages, **{"temperature": 0.8, "seed": 3, "max_new_tokens": 60, **options})


def test_an_answer_is_what_the_model_generates(client: openai.OpenAI, model: Model) -> None:
    told = generated(model)
    got = client.chat.completions.create(
        model="tiny", messages=QUESTION, temperature=0.8, seed=3, max_completion_tokens=60
    )
    (choice,) = got.choices
    assert choice.message.content == told.answer
    assert choice.message.reasoning_content == told.reasoning  # type: ignore[attr-defined]
    assert choice.finish_reason == ("stop" if told.finish_reason == "stop" else "length")
    assert got.usage is not None
    assert got.usage.prompt_tokens == told.stats.prompt_tokens
    assert got.usage.completion_tokens == told.stats.new_tokens
    assert got.usage.completion_tokens_details.reasoning_tokens == told.stats.reasoning_tokens
    assert got.timings["predicted_n"] == told.stats.new_tokens  # type: ignore[attr-defined]


def test_a_stream_joined_is_the_answer(client: openai.OpenAI, model: Model) -> None:
    told = generated(model)
    stream = client.chat.completions.create(
        model="tiny", messages=QUESTION, temperature=0.8, seed=3, max_tokens=60, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    text, reasoning, finish, usage = "", "", None, None
    for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            finish = choice.finish_reason or finish
        usage = chunk.usage or usage
    assert (text, reasoning) == (told.answer, told.reasoning)
    assert finish == ("stop" if told.finish_reason == "stop" else "length")
    assert usage is not None
    assert usage.completion_tokens == told.stats.new_tokens


def test_asynchronous_clients_at_once_get_each_its_own(served: Served, model: Model) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=served.url, api_key="none", max_retries=0) as client:

            async def one(number: int) -> str:
                stream = await client.chat.completions.create(
                    model="tiny", messages=QUESTION if number % 2 else OTHER, temperature=0.8, seed=number,
                    max_tokens=30, stream=True,
                )  # fmt: skip
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

            return await asyncio.gather(*(one(number) for number in range(7)))

    for number, text in enumerate(asyncio.run(ask())):
        told = generated(model, QUESTION if number % 2 else OTHER, seed=number, max_new_tokens=30)
        assert text == told.answer


def test_several_samples_have_one_prefill(client: openai.OpenAI, served: Served) -> None:
    before = served.service.batch.load.prompt_tokens - served.service.batch.load.cached_tokens
    question: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is 81 - 44 + 3?"}]
    got = client.chat.completions.create(model="tiny", messages=question, n=6, temperature=1.2, seed=1, max_tokens=12)
    computed = served.service.batch.load.prompt_tokens - served.service.batch.load.cached_tokens - before
    assert len(got.choices) == 6
    assert len({choice.message.model_dump_json() for choice in got.choices}) > 1
    assert got.usage is not None
    assert computed <= got.usage.prompt_tokens + 5  # of each further sample the last token of the prompt
    again = client.chat.completions.create(model="tiny", messages=question, n=2, temperature=1.2, seed=1, max_tokens=12)
    assert [c.message for c in again.choices] == [c.message for c in got.choices[:2]]


def test_a_stop_text_ends_the_answer(client: openai.OpenAI, model: Model) -> None:
    told = generated(model, stop=["2"])
    got = client.chat.completions.create(
        model="tiny", messages=QUESTION, temperature=0.8, seed=3, max_tokens=60, stop=["2"]
    )
    assert told.finish_reason == "stop_string"
    assert got.choices[0].finish_reason == "stop"
    assert got.choices[0].message.content == told.answer
    assert got.choices[0].message.reasoning_content == told.reasoning  # type: ignore[attr-defined]


def test_log_probabilities_of_an_answer(client: openai.OpenAI, model: Model) -> None:
    told = generated(model, logprobs=3, max_new_tokens=10)
    asked: dict[str, Any] = {"temperature": 0.8, "seed": 3, "max_tokens": 10, "logprobs": True, "top_logprobs": 3}
    got = client.chat.completions.create(model="tiny", messages=QUESTION, **asked)
    content = got.choices[0].logprobs.content
    assert [entry.token for entry in content] == [record.text for record in told.logprobs]
    assert [entry.logprob for entry in content] == pytest.approx([record.logprob for record in told.logprobs], abs=1e-5)
    for entry, record in zip(content, told.logprobs, strict=True):
        assert [top.token for top in entry.top_logprobs] == [top.text for top in record.top]
        assert bytes(entry.bytes).decode("utf-8", "replace") == entry.token
    streamed = client.chat.completions.create(model="tiny", messages=QUESTION, stream=True, **asked)
    pieces = [c.choices[0].logprobs.content for c in streamed if c.choices and c.choices[0].logprobs]
    assert [entry for piece in pieces for entry in piece] == content


def test_biases_and_penalties(client: openai.OpenAI, model: Model) -> None:
    plain = client.completions.create(model="tiny", prompt="17 + 25 = ", max_tokens=8, temperature=0)
    first = model.encode("17 + 25 = " + plain.choices[0].text, raw=True)[len(model.encode("17 + 25 = ", raw=True))]
    banned = client.completions.create(
        model="tiny", prompt="17 + 25 = ", max_tokens=8, temperature=0, logit_bias={str(first): -100}
    )
    forced = client.completions.create(
        model="tiny", prompt="17 + 25 = ", max_tokens=8, temperature=0, logit_bias={str(first): 100},
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    token = model.tokenizer.decode([first])
    assert not banned.choices[0].text.startswith(token)
    assert forced.choices[0].text == token * 8
    varied = client.completions.create(
        model="tiny", prompt="17 + 25 = ", max_tokens=8, temperature=0, logit_bias={str(first): 10},
        presence_penalty=2.0, frequency_penalty=2.0, extra_body={"ignore_eos": True},
    )  # fmt: skip
    assert varied.choices[0].text != token * 8


def test_completions_continue_texts_and_token_ids(client: openai.OpenAI, model: Model) -> None:
    told = model.generate("What is", raw=True, temperature=0, max_new_tokens=7)
    ids = model.encode("What is", raw=True)
    for prompt in ("What is", ids):
        got = client.completions.create(model="tiny", prompt=prompt, temperature=0, max_tokens=7)
        assert got.choices[0].text == told.text
    several = client.completions.create(model="tiny", prompt=[ids, ids[:1]], n=2, temperature=0, max_tokens=7)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in several.choices[:2]] == [told.text] * 2
    assert several.usage is not None
    assert several.usage.prompt_tokens == len(ids) + 1
    stream = client.completions.create(model="tiny", prompt="What is", temperature=0, max_tokens=7, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == told.text


def test_an_echoed_prompt_has_its_log_probabilities(client: openai.OpenAI, model: Model) -> None:
    text = "What is 17 + 25? The answer is 42."
    ids = model.encode(text, raw=True)
    scores = [float(value) for value in model.score(ids)]
    for most in (0, 1):
        got = client.completions.create(model="tiny", prompt=ids, echo=True, logprobs=1, max_tokens=most, temperature=0)
        choice: Any = got.choices[0]
        assert choice.text.startswith(text)
        assert len(choice.logprobs.token_logprobs) == len(ids) + most
        assert choice.logprobs.token_logprobs[0] is None
        assert choice.logprobs.token_logprobs[1 : len(ids)] == pytest.approx(scores, abs=1e-5)
        assert "".join(choice.logprobs.tokens[: len(ids)]) == text
        offsets = choice.logprobs.text_offset
        assert [choice.text[a:b] for a, b in itertools.pairwise(offsets)] == choice.logprobs.tokens[:-1]
        for value, top in zip(choice.logprobs.token_logprobs[1:], choice.logprobs.top_logprobs[1:], strict=True):
            assert value in top.values()
            assert max(top.values()) >= value
    stream = client.completions.create(
        model="tiny", prompt=text, echo=True, logprobs=1, max_tokens=1, temperature=0, stream=True
    )
    chunks: list[Any] = [chunk.choices[0] for chunk in stream if chunk.choices]
    assert "".join(chunk.text for chunk in chunks) == choice.text
    assert [v for c in chunks if c.logprobs for v in c.logprobs.token_logprobs] == choice.logprobs.token_logprobs


def test_reasoning_can_be_left_out(client: openai.OpenAI, model: Model) -> None:
    told = generated(model, thinking=False)
    for extra in ({"enable_thinking": False}, {"reasoning_effort": "none"}):
        got = client.chat.completions.create(
            model="tiny", messages=QUESTION, temperature=0.8, seed=3, max_tokens=60, extra_body=extra
        )
        assert got.choices[0].message.content == told.answer


def test_models_say_what_is_served(client: openai.OpenAI, model: Model) -> None:
    (served,) = client.models.list().data
    assert served.id == "tiny"
    about = served.edgedistill  # type: ignore[attr-defined]
    assert about["identity"] == model.bundle.identity()
    assert about["verification"]["record"] == model.bundle.manifest.verification
    assert about["verification"]["summary"] == sentence(model.bundle.manifest.verification)
    assert client.models.retrieve("tiny") == served
    with pytest.raises(openai.NotFoundError, match="no model 'large'"):
        client.models.retrieve("large")


def test_an_unknown_model_and_embeddings_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="no embeddings"):
        client.embeddings.create(model="tiny", input="text")
