"""The engine over a real (tiny, random) bundle, by itself and under the screen."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fake_engine import ask, chat_of, services, until
from textual.widgets import Markdown

from edgedistill.errors import ContextLengthError
from edgedistill_tui.app import TuiApp
from edgedistill_tui.engine import Request
from edgedistill_tui.runtime_engine import RuntimeEngine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgedistill_tui.engine import Chunk

ASK = [{"role": "user", "content": "hello"}]
OVERRIDES = {"temperature": 1.0, "seed": 5, "max_new_tokens": 40, "ignore_eos": True}


@pytest.fixture(scope="module")
def engine(tiny_bundle_dir: Path) -> Iterator[RuntimeEngine]:
    engine = RuntimeEngine.open(tiny_bundle_dir, overrides=OVERRIDES)
    yield engine
    engine.close()


def request_of(engine: RuntimeEngine, continuing: str = "", **sampling: object) -> Request:
    return Request(ASK, replace(engine.defaults, **sampling), continuing)  # type: ignore[arg-type]


def test_chunks_are_the_reply(engine: RuntimeEngine) -> None:
    chunks: list[Chunk] = []
    reply = engine.reply(request_of(engine), cancel=threading.Event(), on_chunk=chunks.append)
    for kind in ("answer", "reasoning"):
        assert "".join(chunk.text for chunk in chunks if chunk.kind == kind).strip() == getattr(reply, kind)
    assert sum(chunk.tokens for chunk in chunks if chunk.kind != "prefill") <= reply.stats["new_tokens"] == 40
    assert chunks[0].kind == "prefill"
    assert chunks[0].tokens == chunks[0].total == reply.stats["prompt_tokens"]
    assert reply.finish_reason == "length"
    assert len(reply.tokens) == 40
    facts = engine.facts
    assert (facts.bundle, facts.kv_budget) == ("tiny", facts.context_length * facts.kv_bytes_per_token)


def test_cancel_keeps_what_there_is(engine: RuntimeEngine) -> None:
    cancel = threading.Event()
    chunks: list[Chunk] = []

    def stop_at_ten(chunk: Chunk) -> None:
        chunks.append(chunk)
        if len(chunks) == 10:
            cancel.set()

    reply = engine.reply(request_of(engine), cancel=cancel, on_chunk=stop_at_ten)
    assert reply.finish_reason == "cancelled"
    assert 9 <= reply.stats["new_tokens"] < 40


def test_a_reply_goes_on_inside_the_reasoning_it_began(engine: RuntimeEngine) -> None:
    chunks: list[Chunk] = []
    reply = engine.reply(request_of(engine, "<think>so far"), cancel=threading.Event(), on_chunk=chunks.append)
    assert reply.stats["prompt_tokens"] > len("<think>so far")
    assert reply.reasoning
    assert not reply.answer
    assert {chunk.kind for chunk in chunks} <= {"prefill", "reasoning"}


def test_the_think_budget_closes_the_reasoning_and_asks_for_the_answer(engine: RuntimeEngine) -> None:
    chunks: list[Chunk] = []
    request = request_of(engine, "<think>", think_budget=8)
    reply = engine.reply(request, cancel=threading.Event(), on_chunk=chunks.append)
    kinds = [chunk.kind for chunk in chunks if chunk.kind != "prefill"]
    assert kinds.index("marker") < kinds.index("answer")
    written = "".join(chunk.text for chunk in chunks)
    assert written.count("</think>") == 1
    assert reply.answer
    assert 8 <= reply.stats["reasoning_tokens"] <= 11  # a character of several tokens is not cut
    assert reply.stats["new_tokens"] == len(reply.tokens) == 40


def test_a_prompt_that_is_too_long_is_an_error(engine: RuntimeEngine) -> None:
    with pytest.raises(ContextLengthError):
        engine.reply(
            Request([{"role": "user", "content": "x" * 5000}], engine.defaults),
            cancel=threading.Event(),
            on_chunk=lambda chunk: None,
        )


def test_samples_are_those_of_verification(engine: RuntimeEngine) -> None:
    cancel = threading.Event()
    answers = []
    for answer in engine.samples(ASK, 6, engine.defaults, cancel=cancel):
        answers.append(answer)
        if len(answers) == 4:
            cancel.set()
    assert len(answers) == 4
    assert {a.kind for a in answers} <= {"parsed", "unparsed", "truncated"}
    assert all(0 < a.tokens <= 40 for a in answers)
    # Stopped before any of them has ended, there are none.
    assert list(engine.samples(ASK, 6, engine.defaults, cancel=cancel)) == []


def test_the_screen_shows_what_the_engine_says(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    given = services(tmp_path, RuntimeEngine.open)  # type: ignore[arg-type]

    async def go() -> None:
        app = TuiApp(given, bundle=tiny_bundle_dir, overrides=OVERRIDES)
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: app.engine is not None)
            await ask(pilot, "hello")
            message = chat_of(pilot).session.path()[-1]
            assert message.finish_reason == "length"
            assert message.stats["new_tokens"] == 40
            assert app.screen.query_one(".reply Markdown", Markdown).source == message.content
            assert chat_of(pilot).strip.gauges.kv_tokens == message.stats["kv_tokens"]
        app.close_engine()

    asyncio.run(go())


def test_a_session_that_is_opened_again_computes_new_tokens_only(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    def reply(continuing: str = "") -> tuple[int, int]:
        opened = RuntimeEngine.open(tiny_bundle_dir, overrides=OVERRIDES, prompt_cache=tmp_path)
        try:
            stats = opened.reply(
                request_of(opened, continuing), cancel=threading.Event(), on_chunk=lambda _: None
            ).stats
        finally:
            opened.close()
        return stats["prompt_tokens"], stats["cached_tokens"]

    prompt, cached = reply()
    assert cached == 0
    assert reply() == (prompt, prompt - 1)
    longer, cached = reply("a b c d e f g h")
    assert longer > prompt <= cached + 1
