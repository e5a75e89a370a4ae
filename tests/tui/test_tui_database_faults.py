"""The sessions' database in trouble: damaged, locked, shared, or the program gone before it could save."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fake_engine import FakeEngine, ask, chat_of, drive, make_app, until
from test_tui_chat import last
from textual.widgets import Markdown

from edgedistill_tui.data.store import Store

if TYPE_CHECKING:
    from textual.pilot import Pilot

ANSWER = [("reasoning", "14 + 18. "), ("answer", "There are "), ("answer", "32.")]


def test_a_database_that_is_damaged_while_it_is_open_is_moved_aside_and_the_conversation_written_anew(
    tmp_path: Path,
) -> None:
    app = make_app(tmp_path, FakeEngine(ANSWER))

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        app.services.store.close()  # as after any failure; SQLite itself may keep pages of an open file in memory
        path = app.services.store.path
        for beside in path.parent.glob("sessions.db-*"):
            beside.unlink()
        content = bytearray(path.read_bytes())
        content[200:] = b"\xff" * (len(content) - 200)
        path.write_bytes(content)
        await ask(pilot, "And now?")
        assert any("damaged" in notice.message for notice in pilot.app._notifications)

    drive(app, steps)
    assert [m.content for m in app.services.store.load(app.session.id).path()] == [
        "How many?", "There are 32.", "And now?", "There are 32.",
    ]  # fmt: skip
    assert len(list((tmp_path / "data").glob("sessions.db.damaged-*"))) == 1


def test_two_at_once_share_the_database_and_one_may_delete_what_the_other_talks_in(tmp_path: Path) -> None:
    first, second = make_app(tmp_path, FakeEngine(ANSWER)), make_app(tmp_path, FakeEngine(ANSWER))

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, "From the first")
        async with second.run_test(size=(80, 24)) as other:
            await until(other, lambda: second.engine is not None)
            await ask(other, "From the second")
            await pilot.press("f3")
            await pilot.pause()
            page: Any = pilot.app.screen
            await until(pilot, lambda: len(page.summaries) == 2)
            titles = [summary.title for summary in page.summaries]
            assert titles == ["From the first", "From the second"]  # the own one was just saved
            # The one deletes the session that the other talks in; its next save brings all of it back.
            first.services.store.delete(second.session.id)
            await ask(other, "Still there?")

    drive(first, steps)
    reopened = Store(first.services.store.path)
    assert len(reopened.load(second.session.id).path()) == 4
    assert len(reopened.load(first.session.id).path()) == 2


def test_a_lock_is_waited_for_and_said_once(tmp_path: Path) -> None:
    app = make_app(tmp_path, FakeEngine(ANSWER))

    async def steps(pilot: Pilot[None]) -> None:
        app.services.store.sessions()
        other = sqlite3.connect(app.services.store.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        await ask(pilot)
        await ask(pilot, "And now?")
        assert len([n for n in pilot.app._notifications if n.message.startswith("Not saved yet")]) == 1
        other.execute("ROLLBACK")
        other.close()
        app._save_again()
        await pilot.pause()
        assert not any(m.dirty for m in app.session.messages.values())
        assert any(n.message == "The session is saved now." for n in pilot.app._notifications)

    drive(app, steps)


def test_a_reply_is_kept_when_the_program_ends_without_asking(tmp_path: Path) -> None:
    engine = FakeEngine(ANSWER, gated=True)
    app = make_app(tmp_path, engine)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, wait=False)
        engine.allow(2)
        await until(pilot, lambda: chat_of(pilot).strip.state.startswith("2 tok"))
        app.exit()  # as a browser's tab that is closed, or an error in a screen

    drive(app, steps)
    message = app.services.store.load(app.session.id).path()[-1]
    assert (message.content, message.finish_reason) == ("There are", "cancelled")


def test_a_locked_database_delays_saving_and_the_end_rescues(tmp_path: Path) -> None:
    app = make_app(tmp_path, FakeEngine(ANSWER))
    app.services.store.sessions()
    other = sqlite3.connect(app.services.store.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        assert last(pilot).query_one(Markdown).source == "There are 32."
        await pilot.press("ctrl+q")

    drive(app, steps)
    other.execute("ROLLBACK")
    assert app.services.store.take_in_rescued() == 1
    assert app.services.store.load(app.session.id).path()[-1].content == "There are 32."
