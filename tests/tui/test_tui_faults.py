"""What goes wrong around a chat: files that change, a terminal that goes away or changes."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_engine import FakeEngine, ask, chat_of, drive, make_app, services, until
from pty_terminal import Terminal
from textual.widgets import Static
from waiting import wait_until

from edgedistill.errors import BundleError
from edgedistill.system.file_leases import SIGNAL, MappedFiles
from edgedistill_tui.data.store import Store
from edgedistill_tui.runtime_engine import RuntimeEngine

if TYPE_CHECKING:
    from textual.pilot import Pilot

ANSWER = [("reasoning", "14 + 18. "), ("answer", "There are "), ("answer", "32.")]
HERE = Path(__file__).parent

# ---- the bundle's files ------------------------------------------------------------------------------------------

_SPOIL = {
    "truncated": "import os; os.truncate({path!r}, 0)",
    "overwritten": "f = open({path!r}, 'r+b'); f.write(bytes(range(256)) * ({size} // 256)); f.close()",
}
# In a process of its own: without protection it ends with a bus error.
_CHAT = """
import asyncio, json, os, subprocess, sys
from pathlib import Path
from fake_engine import ask, chat_of, services, until
from edgedistill_tui.app import TuiApp
from edgedistill_tui.runtime_engine import RuntimeEngine

bundle, data, spoil = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
answers = []

async def go():
    app = TuiApp(services(data, lambda path: RuntimeEngine.open(path, lease=True)), bundle=bundle,
                 overrides={"temperature": 0.0})
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.engine is not None)
        await ask(pilot, "What is 17 + 25?")
        other = subprocess.Popen([sys.executable, "-S", "-c", spoil])
        await until(pilot, lambda: other.poll() is not None)
        await pilot.pause()
        said = [n.message for n in app._notifications if "Another program" in n.message]
        await ask(pilot, "What is 17 + 25?")
        await pilot.press("alt+r")
        await until(pilot, lambda: not chat_of(pilot).busy)
        answers.extend(m.content for m in app.session.messages.values() if m.role == "assistant")
    app.close_engine()
    print(json.dumps({"said": said, "answers": answers}))

asyncio.run(go())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="leases on files are Linux's")
@pytest.mark.parametrize("how", _SPOIL)
def test_weights_that_are_changed_in_place_stay_as_they_were_loaded(
    reasoner_dir: Path, tmp_path: Path, how: str
) -> None:
    bundle = shutil.copytree(reasoner_dir, tmp_path / "bundle")
    weights = bundle / "weights.bin"
    watched = MappedFiles([weights], lease=True)
    leased = watched.leased
    watched.close()
    if not leased:
        pytest.skip("no leases on this file system")
    spoil = _SPOIL[how].format(path=str(weights), size=weights.stat().st_size)
    done = subprocess.run(
        [sys.executable, "-c", _CHAT, str(bundle), str(tmp_path), spoil], capture_output=True, text=True,
        timeout=300, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["said"]) == 1
    assert len(found["answers"]) == 3
    assert all("42" in answer for answer in found["answers"])
    with pytest.raises(BundleError):
        RuntimeEngine.open(bundle, check="full")


def test_without_leases_changed_weights_are_noticed_before_the_next_reply(
    tiny_bundle_dir: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(tiny_bundle_dir, tmp_path / "bundle")
    engine = RuntimeEngine.open(bundle)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, "hello")
        assert chat_of(pilot).session.path()[-1].finish_reason
        with (bundle / "weights.bin").open("ab") as stream:  # more of it is safe even where the pages are mapped
            stream.write(b"x")
        await ask(pilot, "And now?")
        await until(pilot, lambda: bool(pilot.app.screen.query(".notice")))
        said = str(pilot.app.screen.query(".notice").last(Static).render())
        assert "weights.bin has" in said
        assert "Alt+M" in said
        assert chat_of(pilot).prompt.text == "And now?"
        # Deleted, it stays for whoever has it open.
        shutil.rmtree(bundle)
        await ask(pilot, "")
        assert [m.role for m in chat_of(pilot).session.path()] == ["user", "assistant"] * 2

    given = services(tmp_path, lambda path: engine)  # type: ignore[arg-type,return-value]
    drive(make_app(tmp_path, FakeEngine([]), services=given, overrides={"max_new_tokens": 8}), steps)
    engine.close()


@pytest.mark.skipif(SIGNAL is None, reason="no such signal here")
def test_where_the_memory_does_not_suffice_the_model_is_closed_and_the_reply_kept(tmp_path: Path) -> None:
    engine = FakeEngine(ANSWER, gated=True)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, wait=False)
        engine.allow(2)
        await until(pilot, lambda: chat_of(pilot).strip.state.startswith("2 tok"))
        os.kill(os.getpid(), SIGNAL or 0)  # for something else
        await pilot.pause(0.05)
        assert chat_of(pilot).busy
        engine.secured = False
        os.kill(os.getpid(), SIGNAL or 0)
        await until(pilot, lambda: engine.closed)
        assert chat_of(pilot).session.path()[-1].content == "There are"
        assert not chat_of(pilot).ready
        await until(pilot, lambda: bool(pilot.app.screen.query(".notice")))

    drive(make_app(tmp_path, engine), steps)


# ---- the terminal ------------------------------------------------------------------------------------------------

_PROGRAM = """
import sys
from pathlib import Path
from fake_engine import FakeEngine, make_app
engine = FakeEngine([("answer", "so far"), ("answer", " and on")], gated=True)
engine.allow(1)
# Textual draws from a thread with a queue. Where that is full, the program waits for the terminal; a file says so.
from textual.drivers._writer_thread import WriterThread
write = WriterThread.write
def noted_write(self, text):
    if self._queue.full():
        Path(sys.argv[1], "stuck").touch()
    write(self, text)
WriterThread.write = noted_write
app = make_app(Path(sys.argv[1]), engine)
app.run()
sys.exit(app.return_code)
"""
_SHORT_QUEUE = "from textual.drivers import _writer_thread\n_writer_thread.MAX_QUEUED_WRITES = 3\n"
"""Soon full; of 30 otherwise."""


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, _PROGRAM)


def test_a_terminal_that_goes_away_leaves_the_reply_so_far(terminal: Terminal) -> None:
    terminal.ask()
    terminal.hang_up()
    assert terminal.wait() == 128 + signal.SIGHUP
    assert terminal.reply() == ("so far", "cancelled")


def test_a_terminal_that_takes_nothing_more_does_not_keep_the_program(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, _SHORT_QUEUE + _PROGRAM)
    terminal.ask()
    terminal.stop_reading()
    widths = itertools.cycle((200, 201))

    def stuck() -> bool:
        terminal.resize(next(widths), 60)  # it draws everything anew
        return (tmp_path / "stuck").exists()

    wait_until(stuck, "it goes on drawing", every_s=0.05)
    terminal.hang_up()
    assert terminal.wait() == 128 + signal.SIGHUP
    Store(tmp_path / "data" / "sessions.db").take_in_rescued()
    assert terminal.reply() == ("so far", "cancelled")


def test_sigterm_leaves_the_reply_so_far_and_the_terminal_as_it_was_also_after_a_resize(terminal: Terminal) -> None:
    terminal.ask()
    terminal.seen = b""
    terminal.resize(60, 20)
    terminal.wait_for(b"\x1b[20;")  # drawn anew down to the last line there is now
    os.kill(terminal.pid, signal.SIGTERM)
    terminal.wait_for(b"\x1b[?1049l")  # back from the alternate screen
    assert terminal.wait() == 128 + signal.SIGTERM
    assert terminal.reply() == ("so far", "cancelled")
