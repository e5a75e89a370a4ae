"""What somebody typed is never lost: drafts, questions that wait or are refused, the end on a full disk."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_engine import FakeEngine, ask, chat_of, drive, make_app, until
from pty_terminal import Terminal
from test_tui_chat import last, tag
from textual.widgets import Static

from edgedistill import atomic_file
from edgedistill.errors import BundleError, ContextLengthError
from edgedistill_tui.data import store as store_module
from edgedistill_tui.data.database import StoreError
from edgedistill_tui.data.store import Store
from edgedistill_tui.screens.dialogs import Confirm

if TYPE_CHECKING:
    from textual.pilot import Pilot

ANSWER = [("answer", "There are "), ("answer", "32.")]


def test_a_reply_that_is_being_written_is_not_called_interrupted(tmp_path: Path) -> None:
    engine = FakeEngine(ANSWER, gated=True)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, wait=False)
        engine.allow(1)
        await until(pilot, lambda: chat_of(pilot).strip.state.startswith("1 tok"))
        assert tag(last(pilot)) == ""
        await pilot.press("ctrl+c")
        await until(pilot, lambda: not chat_of(pilot).busy)
        assert "stopped" in tag(last(pilot))
        await pilot.press("ctrl+g")
        await until(pilot, lambda: chat_of(pilot).busy)
        assert "stopped" not in tag(last(pilot))
        engine.allow(2)
        await until(pilot, lambda: not chat_of(pilot).busy)

    drive(make_app(tmp_path, engine), steps)


def test_an_edit_that_is_left_gives_the_draft_back_and_is_there_again(tmp_path: Path) -> None:
    engine = FakeEngine(ANSWER)

    async def steps(pilot: Pilot[None]) -> None:
        prompt = chat_of(pilot).prompt
        await ask(pilot)
        prompt.insert("A long draft")
        await pilot.press("ctrl+e")
        assert prompt.text == "How many?"
        await pilot.press("end", *" pears")
        await pilot.press("escape")
        assert prompt.text == "A long draft"
        await pilot.press("ctrl+e")
        assert prompt.text == "How many? pears"
        await ask(pilot, "?")
        assert [m.content for m in chat_of(pilot).session.path()] == ["How many? pears?", "There are 32."]
        assert prompt.text == "A long draft"

    drive(make_app(tmp_path, engine), steps)


@pytest.mark.parametrize("opens", [True, False])
def test_a_question_asked_while_the_model_loads_waits_for_it(tmp_path: Path, opens: bool) -> None:
    engine, loaded = FakeEngine(ANSWER), threading.Event()

    def open_engine(path: Path) -> FakeEngine:
        assert loaded.wait(60)
        if not opens:
            raise BundleError("weights.bin is missing.")
        return engine

    async def steps(pilot: Pilot[None]) -> None:
        chat = chat_of(pilot)
        chat.prompt.insert("Early?")
        await pilot.press("enter")
        await pilot.pause()
        assert chat.prompt.text == ""
        assert "Early?" in str(pilot.app.screen.query_one("#waiting", Static).render())
        await pilot.press("escape")
        assert chat.prompt.text == "Early?"
        await pilot.press("enter")
        chat.prompt.insert("A draft")
        loaded.set()
        if opens:
            await until(pilot, lambda: bool(engine.requests) and not chat.busy)
            assert engine.requests[0].messages == [{"role": "user", "content": "Early?"}]
            assert chat.prompt.text == "A draft"
            assert not chat.query("#waiting")
        else:
            await until(pilot, lambda: chat.prompt.text == "Early?\nA draft")

    drive(make_app(tmp_path, open_engine), steps, ready=False)


def test_a_refused_question_leaves_no_rows_and_an_edit_goes_back_to_what_it_forked_from(tmp_path: Path) -> None:
    refusal = ContextLengthError("The prompt has 9000 tokens, 4096 fit.")
    engine = FakeEngine(ANSWER, error=refusal)

    async def steps(pilot: Pilot[None]) -> None:
        chat, store = chat_of(pilot), chat_of(pilot).tui.services.store
        await ask(pilot)
        await until(pilot, lambda: bool(pilot.app.screen.query(".notice")))
        assert store.sessions() == []
        assert (chat.session.title, chat.prompt.text) == ("", "How many?")
        engine.error = None
        await ask(pilot, "")
        engine.error = refusal
        chat.prompt.insert("A draft")
        await pilot.press("ctrl+e")
        await ask(pilot, " pears", wait=False)
        await until(pilot, lambda: len(engine.requests) == 3 and not chat.busy)
        await until(pilot, lambda: chat.prompt.text.endswith("A draft"))
        assert [m.content for m in chat.session.path()] == ["How many?", "There are 32."]
        assert chat.prompt.text == "How many? pears\nA draft"
        assert store.sessions()[0].messages == 2

    drive(make_app(tmp_path, engine), steps)


# ---- earlier questions, commands ----------------------------------------------------------------------------------


def test_up_goes_through_the_questions_of_all_sessions_and_down_back_to_the_draft(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[None]) -> None:
        prompt = chat_of(pilot).prompt
        await ask(pilot, "First?")
        await pilot.press("ctrl+n")
        await ask(pilot, "Second?")
        await ask(pilot, "//help me")
        assert chat_of(pilot).session.path()[2].content == "/help me"
        await pilot.press(*"draft", "up")
        assert prompt.text == "//help me"
        await pilot.press("up", "up")
        assert prompt.text == "First?"
        await pilot.press("up")
        assert prompt.text == "First?"
        await pilot.press("down", "down")
        assert prompt.text == "//help me"
        await pilot.press("down")
        assert prompt.text == "draft"
        await pilot.press("down")
        assert prompt.text == "draft"

    drive(make_app(tmp_path, FakeEngine(ANSWER)), steps)


def test_the_commands_of_the_plain_chat(tmp_path: Path) -> None:
    engine = FakeEngine(ANSWER)

    async def command(pilot: Pilot[None], text: str) -> str:
        chat = chat_of(pilot)
        before = len(chat.query(".notice")) + len(pilot.app._notifications)
        chat.prompt.put(text)
        await pilot.press("enter")
        await until(pilot, lambda: len(chat.query(".notice")) + len(pilot.app._notifications) > before)
        return "\n".join(
            [*(str(view.render()) for view in chat.query(".notice").results(Static)),
             *(notice.message for notice in pilot.app._notifications)]
        )  # fmt: skip

    async def steps(pilot: Pilot[None]) -> None:
        chat = chat_of(pilot)
        await pilot.press("slash", "s")
        await until(pilot, lambda: "/system TEXT  /save FILE  /stats" in str(chat.prompt.border_title))
        assert "/trajectories K|off" in await command(pilot, "/help")
        assert "Did you mean /stats?" in await command(pilot, "/statz")
        assert chat.prompt.text == "/statz"
        assert "No answer yet" in await command(pilot, "/stats")
        await command(pilot, "/system Be brief.")
        await command(pilot, "/think off")
        assert "/think auto" in await command(pilot, "/think maybe")
        await command(pilot, "/trajectories 3")
        assert chat.tui.sampling.trajectories == 3
        await command(pilot, "/trajectories off")
        chat.prompt.clear()
        await ask(pilot)
        assert engine.requests[0].messages[0] == {"role": "system", "content": "Be brief."}
        assert engine.requests[0].sampling.thinking is False
        assert "new_tokens 56" in await command(pilot, "/stats")
        await command(pilot, f"/save {tmp_path / 'talk.md'}")
        assert "already exists" in await command(pilot, f"/save {tmp_path / 'talk.md'}")
        assert "/save FILE" in await command(pilot, "/save")
        chat.prompt.put("/exit")
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.return_code is not None)

    drive(make_app(tmp_path, engine), steps)
    assert "There are 32." in (tmp_path / "talk.md").read_text()


# ---- the end -----------------------------------------------------------------------------------------------------


def full_disk(monkeypatch: pytest.MonkeyPatch, store: Store, full: set[Path]) -> None:
    """Nothing can be written into the database, nor into files below ``full``."""

    def save(session: Any) -> None:
        raise StoreError("sessions.db: database or disk is full.")

    def write_whole(path: Path, content: bytes) -> None:
        if path.parent in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        atomic_file.write_whole(path, content)

    monkeypatch.setattr(store, "save", save)
    monkeypatch.setattr(store_module, "write_whole", write_whole)


def printed(app: Any) -> str:
    return "\n".join(str(text) for text in app._exit_renderables)


def test_on_a_full_disk_the_conversation_goes_elsewhere_and_the_end_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setattr(Path, "home", lambda: home)
    app = make_app(tmp_path, FakeEngine(ANSWER))
    full_disk(monkeypatch, app.services.store, {tmp_path / "data"})
    said: list[str] = []

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await pilot.press("ctrl+d")
        await until(pilot, lambda: pilot.app.return_code is not None)
        said.append(printed(app))

    drive(app, steps)
    (kept,) = home.glob("rescued-*.json")
    assert str(kept) in said[0].replace("\n", "")
    kept.rename(tmp_path / "data" / kept.name)
    monkeypatch.undo()
    assert app.services.store.take_in_rescued() == 1
    assert app.services.store.load(app.session.id).path()[-1].content == "There are 32."


def test_with_room_nowhere_leaving_is_asked_about_and_prints_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(tmp_path, FakeEngine([*ANSWER, ("answer", "\x1b]0;x\x07")]))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(store_module, "_private", lambda: tmp_path)
    full_disk(monkeypatch, app.services.store, {tmp_path / "data", tmp_path})
    said: list[str] = []

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await pilot.press("ctrl+q")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is chat_of(pilot))
        assert pilot.app.return_code is None
        await pilot.press("ctrl+q")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: pilot.app.return_code is not None)
        said.append(printed(app))

    drive(app, steps)
    assert "There are 32." in said[0]
    assert "\x1b" not in said[0]  # the terminal obeys nothing that a model wrote
    assert "No space left" in said[0]
    assert not list(tmp_path.glob("rescued-*"))


_PROGRAM = """
import sys
from pathlib import Path
from fake_engine import FakeEngine, make_app
app = make_app(Path(sys.argv[1]), FakeEngine([("answer", "There are 32.")]))
app.run()
sys.exit(app.return_code or 0)
"""


@pytest.mark.parametrize("key", [b"\x03", b"\x04"], ids=["ctrl-c", "ctrl-d"])
def test_in_a_terminal_alt_enter_breaks_the_line_and_the_shells_keys_leave(tmp_path: Path, key: bytes) -> None:
    terminal = Terminal(tmp_path, _PROGRAM)
    terminal.wait_for(b"ready")
    terminal.press(b"one\x1b\rtwo\r")
    terminal.wait_for(b"There are 32.")
    terminal.wait_for(b"tok at")
    terminal.press(key)
    assert terminal.wait() == 0
    store = Store(tmp_path / "data" / "sessions.db")
    (summary,) = store.sessions()
    assert store.load(summary.id).path()[0].content == "one\ntwo"
    assert json.dumps(summary.title) == '"one two"'


def test_files_personas_and_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(ANSWER)
    monkeypatch.setattr("platformdirs.user_config_path", lambda *_, **__: tmp_path / "config")
    for name, text in (("personas/terse", "Be terse."), ("prompts/sum", "Sum up: {text}")):
        path = tmp_path / "config" / f"{name}.md"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (tmp_path / "notes.txt").write_text("three short words")
    monkeypatch.chdir(tmp_path)

    async def steps(pilot: Pilot[None]) -> None:
        chat = chat_of(pilot)
        chat.prompt.put("What is in @absent.txt?")
        await pilot.press("enter")
        await until(pilot, lambda: any("absent.txt does not exist" in n.message for n in pilot.app._notifications))
        assert chat.prompt.text == "What is in @absent.txt?", "the draft stays"
        chat.prompt.clear()
        await ask(pilot, "Count @notes.txt.")
        question = chat.session.path()[0].content
        assert question == "Count notes.txt.\n\nnotes.txt:\n```\nthree short words\n```"
        assert any("notes.txt: 3 tokens" in str(notice.content) for notice in chat.query(".notice").results(Static))
        for typed in ("/persona terse", "/prompt sum all of it"):
            chat.prompt.put(typed)
            await pilot.press("enter")
            await pilot.pause()
        await until(pilot, lambda: chat.session.system == "Be terse.")
        await until(pilot, lambda: chat.prompt.text == "Sum up: all of it")

    drive(make_app(tmp_path, engine), steps)
