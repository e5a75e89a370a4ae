"""The engine over a real (tiny, random) bundle, by itself and under the screen."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from textual.widgets import Markdown

from edgedistill.errors import ContextLengthError
from edgedistill.runtime.settings import GenerationSettings
from edgedistill_tui.app import ChatApp
from edgedistill_tui.runtime_engine import RuntimeEngine
from edgedistill_tui.screens.chat import ChatScreen
from edgedistill_tui.widgets.prompt import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgedistill_tui.engine import Chunk

ASK = [{"role": "user", "content": "hello"}]
SETTINGS = GenerationSettings(temperature=1.0, seed=5, max_new_tokens=40, ignore_eos=True)


@pytest.fixture
def engine(tiny_bundle_dir: Path) -> Iterator[RuntimeEngine]:
    engine = RuntimeEngine.open(tiny_bundle_dir, settings=SETTINGS)
    yield engine
    engine.close()


def test_chunks_are_the_reply(engine: RuntimeEngine) -> None:
    chunks: list[Chunk] = []
    reply = engine.reply(ASK, cancel=threading.Event(), on_chunk=chunks.append)
    assert "".join(chunk.text for chunk in chunks if chunk.kind == "answer").strip() == reply.answer
    assert "".join(chunk.text for chunk in chunks if chunk.kind == "reasoning").strip() == reply.reasoning
    assert sum(chunk.tokens for chunk in chunks) <= reply.stats["new_tokens"] == 40
    assert reply.finish_reason == "length"
    assert engine.about["bundle"] == "tiny"


def test_cancel_keeps_what_there_is(engine: RuntimeEngine) -> None:
    cancel = threading.Event()
    chunks: list[Chunk] = []

    def stop_at_ten(chunk: Chunk) -> None:
        chunks.append(chunk)
        if len(chunks) == 10:
            cancel.set()

    reply = engine.reply(ASK, cancel=cancel, on_chunk=stop_at_ten)
    assert reply.finish_reason == "cancelled"
    assert 10 <= reply.stats["new_tokens"] < 40


def test_a_prompt_that_is_too_long_is_an_error(engine: RuntimeEngine) -> None:
    with pytest.raises(ContextLengthError):
        engine.reply(
            [{"role": "user", "content": "x" * 5000}], cancel=threading.Event(), on_chunk=lambda chunk: None
        )  # fmt: skip


def test_the_screen_shows_what_the_engine_says(tiny_bundle_dir: Path) -> None:
    async def go() -> None:
        app = ChatApp(lambda: RuntimeEngine.open(tiny_bundle_dir, settings=SETTINGS))
        async with app.run_test(size=(80, 24)) as pilot:
            for _ in range(500):
                if isinstance(app.screen, ChatScreen) and app.screen.ready:
                    break
                await pilot.pause(0.02)
            screen = app.screen
            assert isinstance(screen, ChatScreen)
            screen.query_one(Prompt).insert("hello")
            await pilot.press("enter")
            for _ in range(500):
                if screen.conversation.turns[1:] and not screen.busy:
                    break
                await pilot.pause(0.02)
            turn = screen.conversation.turns[1]
            assert turn.finish_reason == "length"
            assert screen.query_one(".reply Markdown", Markdown).source == turn.content

    asyncio.run(go())
