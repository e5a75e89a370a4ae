"""What a user's program asks of a model beside a plain generation: keywords, messages, asyncio, batches,
log-probabilities, conversations.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedistill.bundle.manifest import Manifest
from edgedistill.errors import ContextLengthError, GenerationError, UsageError
from edgedistill.runtime.events import Event
from edgedistill.runtime.loading import load_grammar
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.settings import GenerationSettings

PROMPTS = ["What is 12 + 30?", "Say abc", "hi", "größer, naïve?"]


@pytest.fixture(scope="module")
def quantized(tiny_bundle: Callable[[str], Path]) -> Iterator[Model]:
    with open_bundle(tiny_bundle("int4-b32"), threads=1) as model:
        yield model


def test_keywords_change_the_settings(fp32: Model) -> None:
    settings = GenerationSettings(temperature=0.9, top_k=20, seed=3, max_new_tokens=40)
    expected = fp32.generate("hi", settings=settings.replace(max_new_tokens=7))
    got = fp32.generate("hi", temperature=0.9, top_k=20, seed=3, max_new_tokens=7, settings=GenerationSettings())
    assert got.tokens == expected.tokens
    assert fp32.generate("hi", settings=settings, max_new_tokens=7).tokens == expected.tokens
    stopped = fp32.generate("hi", settings=settings, stop=expected.text[3], max_new_tokens=7)
    assert stopped.finish_reason == "stop_string"
    assert stopped.text == expected.text[: expected.text.index(expected.text[3])]
    with pytest.raises(GenerationError, match="top_p is 2"):
        fp32.generate("hi", top_p=2.0)


def test_messages_in_openai_form(fp32: Model) -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "12 + 30?"}]
    system = {"role": "system", "content": "Be brief."}
    plain = fp32.render([system, {"role": "user", "content": "What is 12 + 30?"}])
    assert fp32.render([system, {"role": "user", "content": parts}]) == plain
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    with pytest.raises(GenerationError, match=r"Message 1 has a part of type 'image_url'; this model reads text only"):
        fp32.generate([system, {"role": "user", "content": [*parts, image]}])
    with pytest.raises(GenerationError, match="Message 0"):
        fp32.generate(["hi"])  # type: ignore[list-item]


def test_an_async_stream_gives_the_same_events(fp32: Model) -> None:
    async def collect() -> list[Event]:
        return [event async for event in fp32.astream("hi", max_new_tokens=9, seed=1)]

    events = asyncio.run(collect())
    assert events[-1].generation is not None
    assert events[-1].generation.tokens == fp32.generate("hi", max_new_tokens=9, seed=1).tokens
    assert "".join(e.text for e in events) == events[-1].generation.text


def test_a_cancelled_task_ends_the_generation(fp32: Model) -> None:
    cancel = threading.Event()
    before = threading.active_count()

    async def start() -> int:
        seen = 0

        async def consume() -> None:
            nonlocal seen
            async for event in fp32.astream("hi", max_new_tokens=300, cancel=cancel):
                seen += event.kind == "answer"
                if seen == 2:
                    raise asyncio.CancelledError

        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.create_task(consume())
        return seen

    assert asyncio.run(start()) == 2
    assert cancel.is_set()
    assert threading.active_count() <= before


def test_an_async_stream_raises_what_the_generation_raises(fp32: Model) -> None:
    async def consume() -> None:
        async for _ in fp32.astream("word " * 2000):
            pass

    with pytest.raises(ContextLengthError, match="Shorten the prompt"):
        asyncio.run(consume())


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_batch_is_the_generations_one_by_one(quantized: Model, temperature: float) -> None:
    keywords: dict[str, Any] = {"temperature": temperature, "seed": 5, "max_new_tokens": 24, "numerics": "exact"}
    alone = [quantized.generate(prompt, **keywords) for prompt in PROMPTS]
    together = quantized.generate_batch(PROMPTS, batch=3, **keywords)
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert [(o.text, o.finish_reason, o.stats.prompt_tokens) for o in together] == [
        (o.text, o.finish_reason, o.stats.prompt_tokens) for o in alone
    ]
    assert quantized.generate_batch([], **keywords) == []
    cancelled = threading.Event()
    cancelled.set()
    assert {o.finish_reason for o in quantized.generate_batch(PROMPTS, cancel=cancelled, **keywords)} == {"cancelled"}
    with pytest.raises(GenerationError, match="batch is 0"):
        quantized.generate_batch(PROMPTS, batch=0)


def test_log_probabilities_of_generated_and_of_given_tokens(quantized: Model) -> None:
    got = quantized.generate("hi", temperature=0.9, seed=2, max_new_tokens=12, logprobs=3, numerics="exact")
    assert got.logprobs is not None
    assert [one.token for one in got.logprobs] == list(got.tokens)
    prompt = quantized.encode(quantized.render("hi"))
    scored = quantized.logprobs([*prompt, *got.tokens], top=3)[len(prompt) - 1 :]
    assert [one.token for one in scored] == list(got.tokens)
    np.testing.assert_allclose([o.logprob for o in scored], [o.logprob for o in got.logprobs], atol=1e-6)
    assert [[t.token for t in o.top] for o in scored] == [[t.token for t in o.top] for o in got.logprobs]
    expected = quantized.score([*prompt, *got.tokens])[len(prompt) - 1 :]
    np.testing.assert_allclose([o.logprob for o in scored], expected, atol=1e-5)
    for one in got.logprobs:
        values = [other.logprob for other in one.top]
        assert values == sorted(values, reverse=True)
        assert one.logprob <= values[0] <= 0
    greedy = quantized.generate("hi", temperature=0.0, max_new_tokens=6, logprobs=1)
    assert greedy.logprobs is not None
    assert all(one.top[0].token == one.token for one in greedy.logprobs)
    assert quantized.generate("hi", max_new_tokens=3).logprobs is None
    assert all(one.top == () for one in quantized.logprobs("some words"))
    with pytest.raises(GenerationError, match="logprobs is -1"):
        quantized.generate("hi", logprobs=-1)


def test_a_conversation_keeps_its_history_and_its_cache(fp32: Model) -> None:
    with fp32.chat(system="Be brief.", temperature=0, max_new_tokens=8) as chat, fp32.chat(max_new_tokens=8) as other:
        first = chat.ask("hi")
        other.ask("something else altogether")
        assert [m["role"] for m in chat.messages] == ["system", "user", "assistant"]
        second = chat.ask("and now?")
        assert second.stats.cached_tokens >= first.stats.prompt_tokens
        assert second.tokens == fp32.generate(chat.messages[:-1], temperature=0, max_new_tokens=8).tokens
        assert chat.undo() == "and now?"
        assert len(chat.messages) == 3
        for _ in chat.stream("left early"):
            break
        assert len(chat.messages) == 3
    with fp32.chat() as empty, pytest.raises(GenerationError, match="no turn"):
        empty.undo()


def test_a_notebook_shows_escaped_html(fp32: Model) -> None:
    import dataclasses

    shown = dataclasses.replace(fp32.generate("hi", max_new_tokens=2), answer="<script>x</script>", reasoning="a < b")
    assert "<script>" not in shown._repr_html_()
    assert "&lt;script&gt;x&lt;/script&gt;" in shown._repr_html_()
    assert "a &lt; b" in shown._repr_html_()


# ---- reasoning ---------------------------------------------------------------------------------------------------


def test_a_budget_closes_the_reasoning_and_the_answer_follows(fp32: Model) -> None:
    settings = GenerationSettings(temperature=1.0, seed=3, max_new_tokens=24, ignore_eos=True)
    events = list(fp32.stream("hi", settings=settings, continuing="<think>\n", think_budget=6))
    generation = events[-1].generation
    assert generation is not None
    assert "".join(event.text for event in events) == generation.text
    head, closing, rest = generation.text.partition("\n</think>\n\n")
    assert (bool(head), bool(closing), bool(rest)) == (True, True, True)
    assert (generation.reasoning, generation.answer) == (head.strip(), rest.strip())
    assert generation.reasoning_closed
    assert 6 <= generation.stats.reasoning_tokens <= 8
    assert generation.stats.new_tokens == len(generation.tokens) == 24
    assert generation.finish_reason == "length"
    # Without reasoning, or with a budget that suffices, it is the generation that it was.
    free = fp32.generate("hi", settings=settings, think_budget=1000)
    assert free.tokens == fp32.generate("hi", settings=settings).tokens
    with pytest.raises(GenerationError, match="think_budget is -1"):
        fp32.generate("hi", think_budget=-1)


def test_a_budget_counts_when_the_user_stops_as_well(fp32: Model) -> None:
    cancel = threading.Event()
    settings = GenerationSettings(temperature=1.0, seed=3, max_new_tokens=200, ignore_eos=True)
    seen = 0
    for event in fp32.stream("hi", settings=settings, continuing="<think>\n", think_budget=90, cancel=cancel):
        seen += event.tokens
        if seen >= 5:
            cancel.set()
        if event.generation is not None:
            assert event.generation.finish_reason == "cancelled"
            assert not event.generation.reasoning_closed


def test_template_variables_reach_the_template(fp32: Model) -> None:
    quiet, loud = fp32.render("q", template_vars={"enable_thinking": False}), fp32.render("q", thinking=True)
    assert quiet == fp32.render("q", thinking=False)
    fp32.template_vars = {"enable_thinking": False}
    try:
        assert fp32.render("q") == quiet
        assert fp32.render("q", template_vars={"enable_thinking": True}) == loud != quiet
    finally:
        fp32.template_vars = {}


def test_reasoning_tags_can_be_given(tiny_bundle_dir: Path) -> None:
    with open_bundle(tiny_bundle_dir, reasoning_tags=("<<", ">>")) as model:
        assert [(pair.open, pair.close) for pair in model.grammar.tags] == [("<<", ">>")]
    with open_bundle(tiny_bundle_dir) as model:
        assert model.grammar == model.bundle.manifest.reasoning  # found at export
        older = dataclasses.replace(model.bundle.manifest, reasoning=None)
        assert Manifest.from_json(older.to_json()).reasoning is None
        assert Manifest.from_json(model.bundle.manifest.to_json()).reasoning == model.grammar
        found = load_grammar(dataclasses.replace(model.bundle, manifest=older), model.tokenizer)
        assert found == model.grammar
    with pytest.raises(UsageError, match="two different"):
        open_bundle(tiny_bundle_dir, reasoning_tags=("<<", "<<"))
