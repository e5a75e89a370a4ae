"""Typing and resizing while the program is busy: no key and no text is lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fake_engine import FakeEngine, ask, chat_of, drive, make_app, until
from test_tui_chat import SCRIPT, last, strip
from textual.events import Key, Paste
from textual.widgets import Markdown, Static

if TYPE_CHECKING:
    from textual.pilot import Pilot


def test_resize_while_streaming_loses_nothing(tmp_path: Path) -> None:
    script = [("reasoning", f"line {i} " + "word " * 20 + "\n") for i in range(60)] + [("answer", "done")]
    engine = FakeEngine(script, gated=True)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, wait=False)
        engine.allow(30)
        await until(pilot, lambda: strip(pilot).state.startswith("30 tok"))
        await pilot.press("ctrl+t")
        await pilot.resize_terminal(60, 20)
        await pilot.pause()
        engine.allow(31)
        await until(pilot, lambda: not chat_of(pilot).busy)
        await pilot.pause()
        assert last(pilot).reasoning.text.rstrip("\n") == "".join(text for _, text in script[:-1]).rstrip("\n")
        assert last(pilot).query_one(Markdown).source == "done"
        assert chat_of(pilot).prompt.region.bottom <= 20

    drive(make_app(tmp_path, engine), steps)


def test_typing_works_while_many_tokens_arrive(tmp_path: Path) -> None:
    engine = FakeEngine([("reasoning", f"token{i} ") for i in range(20_000)] + [("answer", "ok")], gated=True)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, wait=False)
        engine.allow(20_000)
        await pilot.press("h", "i")
        assert chat_of(pilot).prompt.text == "hi"
        engine.allow(1)
        await until(pilot, lambda: not chat_of(pilot).busy)
        assert last(pilot).reasoning.text.split() == [f"token{i}" for i in range(20_000)]

    drive(make_app(tmp_path, engine), steps)


def test_keys_pressed_between_enter_and_the_screens_answer_stay(tmp_path: Path) -> None:
    engine = FakeEngine(SCRIPT)

    async def steps(pilot: Pilot[None]) -> None:
        prompt = chat_of(pilot).prompt
        prompt.insert("How many?")
        prompt.action_submit()
        prompt.insert("and")  # before the message of Enter is handled
        await until(pilot, lambda: bool(engine.requests) and not chat_of(pilot).busy)
        assert engine.requests[0].messages[-1]["content"] == "How many?"
        assert prompt.text == "and"

    drive(make_app(tmp_path, engine), steps)


def test_enter_right_behind_fast_typing_sends_all_of_it(tmp_path: Path) -> None:
    engine = FakeEngine(SCRIPT)

    async def steps(pilot: Pilot[None]) -> None:
        for character in "How many?":  # as a terminal hands over a burst: nothing is handled in between
            pilot.app.post_message(Key(character, character))
        pilot.app.post_message(Key("ctrl+j", None))
        pilot.app.post_message(Key("x", "x"))
        pilot.app.post_message(Key("enter", "\r"))
        await until(pilot, lambda: bool(engine.requests) and not chat_of(pilot).busy)
        assert engine.requests[0].messages[-1]["content"] == "How many?\nx"

    drive(make_app(tmp_path, engine), steps)


def test_a_paste_that_would_freeze_the_prompt_becomes_a_file_that_is_sent_along(tmp_path: Path) -> None:
    text = "word" * 30_000  # one token of the scripted engine

    async def steps(pilot: Pilot[None]) -> None:
        chat = chat_of(pilot)
        await pilot.press("a")
        pilot.app.post_message(Paste(text))
        await until(pilot, lambda: "@" in chat.prompt.text)
        (path,) = tmp_path.glob("pasted*.txt")
        assert path.read_text() == text
        assert chat.prompt.text == f'a @"{path}" '
        pilot.app.post_message(Paste("and this"))
        await until(pilot, lambda: chat.prompt.text.endswith("and this"))
        await ask(pilot, ".")
        question = chat.session.path()[0].content
        assert question.startswith(f"a {path} and this.")
        assert text.rstrip() in question
        (shown,) = chat.query(".question .text").results(Static)
        assert len(str(shown.render())) < 21_000  # the rest is in the session, not on the screen
        assert "more characters" in str(shown.render())

    drive(make_app(tmp_path, FakeEngine([("answer", "ok")])), steps)
