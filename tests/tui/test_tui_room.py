"""A context that fills: a warning, and turns that are dropped, summarised or left behind, each undone again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fake_engine import STATS, FakeEngine, ask, chat_of, drive, make_app, until
from textual.widgets import Static

from edgedistill.errors import ContextLengthError
from edgedistill_tui.data.session import Session
from edgedistill_tui.screens.dialogs import Choose

if TYPE_CHECKING:
    import pytest
    from textual.pilot import Pilot

ANSWER = [("answer", "There are 32.")]


async def choose(pilot: Pilot[None], number: int) -> None:
    await until(pilot, lambda: isinstance(pilot.app.screen, Choose))
    await pilot.pause()
    await pilot.press(*["down"] * number, "enter")
    await until(pilot, lambda: pilot.app.screen is chat_of(pilot))
    await pilot.pause()


def sent(request: Any) -> list[str]:
    return [message["content"] for message in request.messages]


def test_a_full_context_is_told_before_and_a_question_too_many_offers_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(ANSWER)

    async def steps(pilot: Pilot[None]) -> None:
        chat = chat_of(pilot)
        await ask(pilot, "First?")
        monkeypatch.setitem(STATS, "kv_tokens", 1800)
        await ask(pilot, "Second?")
        assert sum("87 % full" in notice.message for notice in pilot.app._notifications) == 1
        engine.error = ContextLengthError("The prompt has 3000 tokens, 2048 fit.")
        await ask(pilot, "Third?", wait=False)
        await choose(pilot, 0)
        assert chat.prompt.text == "Third?"
        engine.error = None
        await pilot.press("enter")
        await until(pilot, lambda: len(engine.requests) == 4 and not chat.busy)
        assert sent(engine.requests[-1]) == ["Second?", "There are 32.", "Third?"]
        assert [m.content for m in chat.session.path() if m.role == "user"] == ["First?", "Second?", "Third?"]
        said = "\n".join(str(view.render()) for view in chat.query(".notice").results(Static))
        assert "do not go to the model" in said
        await pilot.press("f10")
        await choose(pilot, 3)
        await ask(pilot, "Fourth?")
        assert sent(engine.requests[-1])[0] == "First?"

    app = drive(make_app(tmp_path, engine), steps)
    assert app.services.store.load(app.session.id).kept_from is None


def test_the_oldest_turns_are_summarised_by_the_model(tmp_path: Path) -> None:
    engine = FakeEngine(ANSWER)

    async def steps(pilot: Pilot[None]) -> None:
        chat = chat_of(pilot)
        for question in ("First?", "Second?"):
            await ask(pilot, question)
        engine.script = [("answer", "Apples were counted.")]
        await pilot.press("f10")
        await choose(pilot, 1)
        await until(pilot, lambda: chat.session.kept_from is not None and not chat.busy)
        assert sent(engine.requests[-1])[:2] == ["First?", "There are 32."]
        assert engine.requests[-1].sampling.thinking is False
        await ask(pilot, "Third?")
        assert sent(engine.requests[-1])[0].endswith("Apples were counted.")
        assert sent(engine.requests[-1])[1] == "Second?"
        engine.hold()
        await pilot.press("f10")
        await choose(pilot, 1)
        await until(pilot, lambda: chat.busy)
        await pilot.press("escape")
        await until(pilot, lambda: not chat.busy)
        assert chat.session.kept_from is chat.session.path()[2]  # as before

    drive(make_app(tmp_path, engine), steps)


def test_the_rest_goes_on_in_a_session_of_its_own(tmp_path: Path) -> None:
    engine = FakeEngine(ANSWER)

    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press("f10")
        assert any("one question only" in notice.message for notice in pilot.app._notifications)
        for question in ("First?", "Second?", "Third?"):
            await ask(pilot, question)
        before = chat_of(pilot).session
        await pilot.press("f10")
        await choose(pilot, 2)
        assert chat_of(pilot).session is not before
        assert [m.content for m in chat_of(pilot).session.path()][::2] == ["Second?", "Third?"]
        await ask(pilot, "Fourth?")
        assert sent(engine.requests[-1])[0] == "Second?"

    app = drive(make_app(tmp_path, engine), steps)
    assert [summary.messages for summary in app.services.store.sessions()] == [6, 6]


def test_what_was_dropped_stays_dropped_in_a_fork() -> None:
    session = Session()
    for question in ("First?", "Second?"):
        session.begin_reply(session.ask(question), {}).content = "So."
    assert session.drop_oldest() == 1
    assert session.drop_oldest() == 0
    fork = session.fork(session.path()[-1])
    assert [m["content"] for m in fork.template_messages()] == ["Second?", "So."]
    assert fork.keep_all()
    assert not fork.keep_all()
    assert len(fork.template_messages()) == 4
