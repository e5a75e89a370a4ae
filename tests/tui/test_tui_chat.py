"""The chat page, driven by keys, over a scripted engine."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_engine import FakeEngine, ask, chat_of, drive, make_app, services, until
from textual.widgets import Input, Markdown, Static, TextArea

from edgedistill.errors import BundleError, ContextLengthError
from edgedistill_tui.screens.dialogs import Choose
from edgedistill_tui.screens.sampling import SamplingPanel
from edgedistill_tui.widgets.strip import MetricsStrip
from edgedistill_tui.widgets.transcript import QuestionView, ReplyView

if TYPE_CHECKING:
    from textual.pilot import Pilot

SCRIPT = [
    ("marker", "<think>"),
    ("reasoning", "Mia has 14.\n"),
    ("reasoning", "3 bags of 6 are 18.\n14 + 18 = 32."),
    ("marker", "</think>"),
    ("answer", "Mia has **32** apples."),
    ("answer", " The answer is 32."),
]
RAW = "".join(text for _, text in SCRIPT)
REASONING = "Mia has 14.\n3 bags of 6 are 18.\n14 + 18 = 32."
ANSWER = "Mia has **32** apples. The answer is 32."


def last(pilot: Pilot[None]) -> ReplyView:
    return list(pilot.app.screen.query(ReplyView))[-1]


def tag(view: Any) -> str:
    return str(view.query_one(".tag", Static).render())


def strip(pilot: Pilot[None]) -> MetricsStrip:
    return chat_of(pilot).strip


def test_reply_ends_complete_with_its_reasoning_folded_and_real_statistics(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        view = last(pilot)
        assert view.query_one(Markdown).source == ANSWER
        assert view.reasoning.text == REASONING
        assert view.reasoning.collapsed
        assert view.reasoning.title.startswith("thought: 4 tok")
        gauges = strip(pilot).gauges
        assert (gauges.decode_tps, gauges.kv_tokens, gauges.rss) == (42.0, 97, 180_000_000)
        await pilot.press("ctrl+t")
        assert not view.reasoning.collapsed
        message = chat_of(pilot).session.path()[-1]
        assert (message.raw, message.reasoning, message.content) == (RAW, REASONING, ANSWER)

    app = drive(make_app(tmp_path, FakeEngine(SCRIPT)), steps)
    # What is on disk is what was on the screen.
    stored = app.services.store.load(app.session.id).path()[-1]
    assert (stored.reasoning, stored.about["hash"], stored.stats["decode_tps"]) == (REASONING, "36b4ab96d4bdb7df", 42.0)


def test_escape_keeps_the_text_and_continue_goes_on_from_it(tmp_path: Path) -> None:
    engine = FakeEngine(SCRIPT, gated=True)

    async def steps(pilot: Pilot[None]) -> None:
        chat = chat_of(pilot)
        await ask(pilot, wait=False)
        engine.allow(5)
        await until(pilot, lambda: strip(pilot).state.startswith("5 tok"))
        await pilot.press("escape")
        await until(pilot, lambda: not chat.busy)
        assert last(pilot).query_one(Markdown).source == "Mia has **32** apples."
        assert "stopped" in tag(last(pilot))
        assert "^G continues" in tag(last(pilot))
        engine.script = [("answer", " The answer is 32.")]
        engine.allow(1)
        await pilot.press("ctrl+g")
        await until(pilot, lambda: not chat.busy)
        await pilot.pause()
        assert engine.requests[-1].continuing == "".join(text for _, text in SCRIPT[:5])
        assert engine.requests[-1].messages == [{"role": "user", "content": "How many?"}]
        message = chat.session.path()[-1]
        assert (message.content, message.raw, message.reasoning) == (ANSWER, RAW, REASONING)
        assert message.stats["new_tokens"] == 112
        assert last(pilot).query_one(Markdown).source == ANSWER
        assert len(list(pilot.app.screen.query(ReplyView))) == 1
        await pilot.press("ctrl+g")  # complete now: nothing to go on with
        assert not chat.busy

    drive(make_app(tmp_path, engine), steps)


def test_the_next_question_carries_the_conversation_and_its_reasoning(tmp_path: Path) -> None:
    engine = FakeEngine(SCRIPT)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await ask(pilot, "And now?")

    drive(make_app(tmp_path, engine, system="Be brief."), steps)
    assert engine.requests[1].messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": ANSWER, "reasoning_content": REASONING},
        {"role": "user", "content": "And now?"},
    ]


def test_regenerate_keeps_siblings_edit_forks_and_fork_makes_a_session(tmp_path: Path) -> None:
    engine = FakeEngine(SCRIPT)

    async def steps(pilot: Pilot[None]) -> None:
        chat = chat_of(pilot)
        await ask(pilot)
        engine.script = [("answer", "Another one.")]
        await pilot.press("alt+r")
        await until(pilot, lambda: not chat.busy)
        await pilot.pause()
        assert "‹ 2/2 ›" in tag(last(pilot))
        await pilot.press("alt+left")
        await pilot.pause()
        assert last(pilot).query_one(Markdown).source == ANSWER
        assert last(pilot).reasoning.text == REASONING
        await pilot.press("alt+right")
        await pilot.pause()
        assert "Another one." in last(pilot).query_one(Markdown).source
        await pilot.press("ctrl+e")
        assert chat.prompt.text == "How many?"
        await pilot.press("escape")
        assert chat.prompt.text == ""
        await pilot.press("ctrl+e")
        await ask(pilot, " pears")
        assert [m.content for m in chat.session.path()] == ["How many? pears", "Another one."]
        await pilot.press("ctrl+up", "ctrl+up")
        assert isinstance(pilot.app.focused, QuestionView)
        await pilot.press("alt+left")
        await pilot.pause()
        assert chat.session.path()[0].content == "How many?"
        await pilot.press("ctrl+f")
        await pilot.pause()
        assert chat.session.title.endswith("(fork)")

    app = drive(make_app(tmp_path, engine), steps)
    assert len(app.services.store.sessions()) == 2
    assert len(app.services.store.load(app.services.store.sessions()[-1].id).messages) >= 2


def test_while_a_reply_is_written_nothing_changes_the_conversation(tmp_path: Path) -> None:
    engine = FakeEngine(SCRIPT, gated=True)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, wait=False)
        session = chat_of(pilot).session
        await ask(pilot, "Impatient", wait=False)
        assert chat_of(pilot).prompt.text == "Impatient"
        await pilot.press("ctrl+n", "alt+r", "ctrl+e", "ctrl+g", "ctrl+f", "alt+m", "alt+left")
        assert chat_of(pilot).session is session
        assert len(engine.requests) == 1
        engine.allow(len(SCRIPT))
        await until(pilot, lambda: not chat_of(pilot).busy)

    drive(make_app(tmp_path, engine), steps)


def test_an_error_of_the_engine_is_shown_and_the_question_given_back(tmp_path: Path) -> None:
    engine = FakeEngine([], error=ContextLengthError("The prompt has 9000 tokens, 4096 fit."))

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await until(pilot, lambda: bool(pilot.app.screen.query(".notice")))
        assert "9000 tokens" in str(pilot.app.screen.query_one(".notice", Static).render())
        assert chat_of(pilot).session.path() == []
        assert chat_of(pilot).prompt.text == "How many?"

    drive(make_app(tmp_path, engine), steps)


def test_a_bundle_that_does_not_open_leads_to_the_manager(tmp_path: Path) -> None:
    def broken(path: Path) -> FakeEngine:
        raise BundleError("weights.bin is missing.")

    async def steps(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: pilot.app.screen.id != "chat" and type(pilot.app.screen).__name__ == "BundlesScreen")
        assert not chat_of(pilot).ready

    drive(make_app(tmp_path, broken), steps, ready=False)


def test_switching_the_bundle_keeps_the_conversation(tmp_path: Path, tiny_bundle_dir: Path) -> None:
    first, second = FakeEngine(SCRIPT), FakeEngine([("answer", "From the other one.")])
    given = services(tmp_path, lambda path: first if path.name == "demo-bundle" else second)
    given.registry.remember(tiny_bundle_dir)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await pilot.press("alt+m")
        await until(pilot, lambda: isinstance(pilot.app.screen, Choose))
        await pilot.press("enter")
        await until(pilot, lambda: first.closed)
        await ask(pilot, "And you?")
        assert second.requests[0].messages[1]["content"] == ANSWER
        assert chat_of(pilot).session.bundle == str(tiny_bundle_dir.resolve())

    drive(make_app(tmp_path, first, services=given), steps)


def test_sampling_panel_checks_and_is_kept_with_the_session(tmp_path: Path) -> None:
    engine = FakeEngine(SCRIPT)

    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press("ctrl+l")
        await until(pilot, lambda: isinstance(pilot.app.screen, SamplingPanel))
        panel = pilot.app.screen
        panel.query_one("#temperature", Input).value = "hot"
        await pilot.press("ctrl+s")
        assert "expected a number" in str(panel.query_one("#problem", Static).render())
        panel.query_one("#temperature", Input).value = "-1"
        await pilot.press("ctrl+s")
        assert "temperature is -1" in str(panel.query_one("#problem", Static).render())
        panel.query_one("#temperature", Input).value = "0.9"
        panel.query_one("#seed", Input).value = "11"
        panel.query_one("#think_budget", Input).value = "64"
        panel.query_one("#system", TextArea).text = "Be terse."
        await pilot.press("ctrl+s")
        await until(pilot, lambda: not isinstance(pilot.app.screen, SamplingPanel))
        await ask(pilot)
        request = engine.requests[0]
        assert (request.sampling.generation.temperature, request.sampling.generation.seed) == (0.9, 11)
        assert request.sampling.think_budget == 64
        assert request.messages[0] == {"role": "system", "content": "Be terse."}

    app = drive(make_app(tmp_path, engine), steps)
    assert app.services.store.load(app.session.id).settings["think_budget"] == 64


def test_new_save_and_copy(tmp_path: Path) -> None:
    engine = FakeEngine([*SCRIPT, ("answer", "\n\n```python\nprint(32)\n```\n")])

    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press("ctrl+s", "ctrl+y", "ctrl+o")  # nothing there yet, and it says so
        await ask(pilot)
        await pilot.press("ctrl+s", "alt+s")
        await pilot.press("ctrl+y")
        assert pilot.app.clipboard.startswith(ANSWER)
        await pilot.press("ctrl+o")
        assert pilot.app.clipboard == "print(32)"
        await pilot.press("ctrl+up", "c")
        assert pilot.app.clipboard.startswith("<think>")
        assert isinstance(pilot.app, type(app))
        pilot.app.services.config.clipboard = "file"
        await pilot.press("ctrl+y")
        await pilot.press("ctrl+down", "ctrl+n")
        await until(pilot, lambda: not pilot.app.screen.query(ReplyView))

    app = make_app(tmp_path, engine)
    drive(app, steps)
    (markdown,) = tmp_path.glob("conversation-*.md")
    assert 'bundle: "demo-bundle"' in markdown.read_text()
    (exported,) = tmp_path.glob("conversation-*.json")
    assert json.loads(exported.read_text())["messages"][1]["reasoning"] == REASONING
    assert (tmp_path / "copied.md").read_text().startswith(ANSWER)


def test_a_long_conversation_is_laid_out_in_parts(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[None]) -> None:
        session = chat_of(pilot).session
        for number in range(30):
            session.begin_reply(session.ask(f"question {number}"), {}).content = f"answer {number}"
        await chat_of(pilot).session_changed()
        assert len(list(pilot.app.screen.query(ReplyView))) == 10
        await pilot.press("ctrl+up", "home")
        await pilot.pause()
        assert len(list(pilot.app.screen.query(ReplyView))) == 20

    drive(make_app(tmp_path, FakeEngine(SCRIPT)), steps)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_mid_reply_saves_what_there_is(tmp_path: Path, number: signal.Signals) -> None:
    engine = FakeEngine(SCRIPT, gated=True)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, wait=False)
        engine.allow(3)
        await until(pilot, lambda: strip(pilot).state.startswith("3 tok"))
        os.kill(os.getpid(), number)
        await until(pilot, lambda: pilot.app.return_code is not None)

    app = drive(make_app(tmp_path, engine), steps)
    assert app.return_code == 128 + number
    message = app.services.store.load(app.session.id).path()[-1]
    assert (message.reasoning, message.finish_reason) == (REASONING, "cancelled")
