"""The chat screen, driven by keys, over a scripted engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fake_engine import FakeEngine
from textual.widgets import Markdown, Static

from edgedistill.errors import BundleError, ContextLengthError
from edgedistill_tui.app import ChatApp
from edgedistill_tui.screens.chat import ChatScreen
from edgedistill_tui.widgets.prompt import Prompt
from edgedistill_tui.widgets.transcript import ReplyView

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from textual.pilot import Pilot

SCRIPT = [
    ("reasoning", "Mia has 14.\n"),
    ("reasoning", "3 bags of 6 are 18.\n14 + 18 = 32."),
    ("answer", "Mia has **32** apples."),
    ("answer", " The answer is 32."),
]
REASONING = "Mia has 14.\n3 bags of 6 are 18.\n14 + 18 = 32."
ANSWER = "Mia has **32** apples. The answer is 32."


def drive(engine: FakeEngine, steps: Callable[[Pilot[None]], Coroutine[Any, Any, None]], **options: Any) -> ChatApp:
    """Run the app and ``steps`` in it."""
    app = ChatApp(lambda: engine, **options)

    async def go() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: screen(pilot).ready)
            await steps(pilot)

    asyncio.run(go())
    return app


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Let the app work until ``condition`` holds."""
    for _ in range(500):
        if condition():
            return
        await pilot.pause(0.02)
    pytest.fail("the screen never got there")


async def ask(pilot: Pilot[None], text: str = "How many?") -> None:
    pilot.app.screen.query_one(Prompt).insert(text)
    await pilot.press("enter")
    await pilot.pause()


def screen(pilot: Pilot[None]) -> ChatScreen:
    current = pilot.app.screen
    assert isinstance(current, ChatScreen)
    return current


def status(pilot: Pilot[None]) -> str:
    return str(pilot.app.screen.query_one("#status", Static).render())


def test_reply_ends_complete_with_its_reasoning_folded_and_real_statistics() -> None:
    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await until(pilot, lambda: not screen(pilot).busy)
        view = pilot.app.screen.query_one(ReplyView)
        assert view.query_one(Markdown).source == ANSWER
        assert view.reasoning.text == "Mia has 14.\n3 bags of 6 are 18.\n14 + 18 = 32."
        assert view.reasoning.collapsed
        assert view.reasoning.title.startswith("thought: 2 tok")
        assert "decode 42.0 tok/s" in status(pilot)
        assert "RSS 172 MiB" in status(pilot)
        await pilot.press("ctrl+t")
        assert not view.reasoning.collapsed

    drive(FakeEngine(SCRIPT), steps)


def test_escape_keeps_the_text_so_far_and_says_so() -> None:
    engine = FakeEngine(SCRIPT, gated=True)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        engine.allow(3)
        await until(pilot, lambda: "3 tok" in status(pilot))
        assert screen(pilot).busy
        await pilot.press("escape")
        await until(pilot, lambda: not screen(pilot).busy)
        view = pilot.app.screen.query_one(ReplyView)
        assert view.query_one(Markdown).source == "Mia has **32** apples."
        assert "stopped" in str(view.query_one(".tag", Static).render())
        assert screen(pilot).conversation.turns[-1].finish_reason == "cancelled"

    drive(engine, steps)


def test_the_next_question_carries_the_conversation_and_its_reasoning() -> None:
    engine = FakeEngine(SCRIPT)

    async def steps(pilot: Pilot[None]) -> None:
        for text in ("How many?", "And now?"):
            await ask(pilot, text)
            await until(pilot, lambda: not screen(pilot).busy)

    drive(engine, steps, system="Be brief.")
    assert engine.asked[1] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": ANSWER, "reasoning_content": REASONING},
        {"role": "user", "content": "And now?"},
    ]


def test_resize_while_streaming_loses_nothing() -> None:
    script = [("reasoning", f"line {i} " + "word " * 20 + "\n") for i in range(60)] + [("answer", "done")]
    engine = FakeEngine(script, gated=True)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        engine.allow(30)
        await until(pilot, lambda: "30 tok" in status(pilot))
        await pilot.press("ctrl+t")
        await pilot.resize_terminal(60, 20)
        await pilot.pause()
        engine.allow(31)
        await until(pilot, lambda: not screen(pilot).busy)
        view = pilot.app.screen.query_one(ReplyView)
        assert view.reasoning.text == "".join(text for _, text in script[:-1])
        assert view.query_one(Markdown).source == "done"
        assert pilot.app.screen.query_one(Prompt).region.bottom <= 20

    drive(engine, steps)


def test_typing_works_while_many_tokens_arrive() -> None:
    engine = FakeEngine([("reasoning", f"token{i} ") for i in range(20_000)] + [("answer", "ok")], gated=True)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        engine.allow(20_000)
        await pilot.press("h", "i")
        assert pilot.app.screen.query_one(Prompt).text == "hi"
        engine.allow(1)
        await until(pilot, lambda: not screen(pilot).busy)
        text = pilot.app.screen.query_one(ReplyView).reasoning.text
        assert text.split() == [f"token{i}" for i in range(20_000)]

    drive(engine, steps)


def test_a_second_question_waits_for_the_first_reply() -> None:
    engine = FakeEngine(SCRIPT, gated=True)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await ask(pilot, "Impatient")
        assert pilot.app.screen.query_one(Prompt).text == "Impatient"
        assert len(engine.asked) == 1
        engine.allow(len(SCRIPT))
        await until(pilot, lambda: not screen(pilot).busy)

    drive(engine, steps)


def test_an_error_of_the_engine_is_shown_and_the_question_withdrawn() -> None:
    engine = FakeEngine([], error=ContextLengthError("The prompt has 9000 tokens, 4096 fit."))

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await until(pilot, lambda: not screen(pilot).busy)
        assert "9000 tokens" in str(pilot.app.screen.query_one(".notice", Static).render())
        assert screen(pilot).conversation.turns == []

    drive(engine, steps)


def test_a_bundle_that_does_not_open_ends_the_app_with_its_exit_code() -> None:
    def load() -> FakeEngine:
        raise BundleError("No bundle there.")

    app = ChatApp(load)

    async def go() -> None:
        async with app.run_test() as pilot:
            for _ in range(200):
                if app.return_code is not None and not app.is_running:
                    break
                await pilot.pause(0.02)

    asyncio.run(go())
    assert app.return_code == 2


def test_new_and_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await until(pilot, lambda: not screen(pilot).busy)
        await pilot.press("ctrl+s")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: not pilot.app.screen.query(ReplyView))
        assert screen(pilot).conversation.turns == []

    drive(FakeEngine(SCRIPT), steps)
    (saved,) = tmp_path.glob("conversation-*.md")
    text = saved.read_text()
    assert 'bundle: "demo-bundle"' in text
    assert ANSWER in text
    assert "3 bags of 6 are 18." in text


def test_line_breaks_by_ctrl_j() -> None:
    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press("a", "ctrl+j", "b")
        assert pilot.app.screen.query_one(Prompt).text == "a\nb"

    drive(FakeEngine(SCRIPT), steps)
