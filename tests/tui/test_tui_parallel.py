"""Several trajectories in the chat: read while they grow, voted on, stopped, kept with the session."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_engine import FakeEngine, ask, chat_of, drive, make_app, until
from textual.widgets import Input, Markdown, Static

from edgedistill.errors import EdgedistillError, GenerationError
from edgedistill_tui.data.writing import to_markdown
from edgedistill_tui.engine import Request, Sampling
from edgedistill_tui.lanes import Lanes
from edgedistill_tui.runtime_engine import RuntimeEngine
from edgedistill_tui.screens.sampling import SamplingPanel
from edgedistill_tui.widgets.trajectories import LaneLine, TrajectoriesView

if TYPE_CHECKING:
    from textual.pilot import Pilot

ANSWERS = ["32", "23", "32", "32"]


def lines(pilot: Pilot[None]) -> list[str]:
    return [str(line.render()) for line in pilot.app.screen.query(LaneLine)]


def head(pilot: Pilot[None]) -> str:
    return str(pilot.app.screen.query(".lanes-head").last(Static).render())


def pane(pilot: Pilot[None]) -> str:
    return str(pilot.app.screen.query(".lane-text Static").last(Static).render())


def test_each_is_read_while_it_grows_and_the_winner_stands_out(tmp_path: Path) -> None:
    engine = FakeEngine([], gated=True, answers=ANSWERS)

    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press("f9")
        assert str(chat_of(pilot).prompt.border_subtitle).startswith("4 trajectories")
        await ask(pilot, wait=False)
        engine.allow(1)
        await until(pilot, lambda: len(lines(pilot)) == 4 and "1 tok" in lines(pilot)[3])
        assert head(pilot) == "4 trajectories, 0 ended"
        assert pane(pilot) == "It is"
        engine.allow(1)
        await until(pilot, lambda: not chat_of(pilot).busy)
        await pilot.pause()
        assert "vote: 3 for 32, 1 for 23" in head(pilot)
        assert [line[1] for line in lines(pilot)] == ["✓", " ", " ", " "]
        assert pilot.app.screen.query(Markdown).last().source == "It is 32."
        await pilot.press("alt+down", "alt+down")
        assert pane(pilot) == "It is 23."
        await pilot.press("alt+up")
        assert pane(pilot) == "It is 32."
        await pilot.click(list(pilot.app.screen.query(LaneLine))[1])
        assert pane(pilot) == "It is 23."
        await pilot.press("escape", "f9")  # the click took the focus
        engine.script = [("answer", "plain")]
        engine.allow(1)
        await ask(pilot, "Again?")
        assert chat_of(pilot).session.path()[-1].content == "plain"

    app = drive(make_app(tmp_path, engine), steps, size=(100, 40))
    stored = app.services.store.load(app.session.id)
    record = stored.path()[1].parallel
    assert [one["text"] for one in record["trajectories"]] == [f"It is {a}." for a in ANSWERS]
    assert (record["winner"], record["decided_by"]) == (0, "majority")
    assert "trajectory 2: 23, 2 tokens" in to_markdown(stored)


def test_stop_keeps_what_there_is_and_says_so(tmp_path: Path) -> None:
    engine = FakeEngine([], gated=True, answers=ANSWERS)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, wait=False)
        engine.allow(1)
        await until(pilot, lambda: len(lines(pilot)) == 4 and "1 tok" in lines(pilot)[3])
        await pilot.press("escape")
        await until(pilot, lambda: not chat_of(pilot).busy)
        await pilot.pause()
        assert all(line.endswith("stopped") for line in lines(pilot))
        message = chat_of(pilot).session.path()[-1]
        assert message.finish_reason == "cancelled"
        assert not message.can_continue
        assert {one["text"] for one in message.parallel["trajectories"]} == {"It is"}
        await pilot.press("ctrl+g")
        assert len(engine.requests) == 1

    drive(make_app(tmp_path, engine, overrides={"trajectories": 4}), steps)


def test_a_deliberation_is_shown_and_set_in_the_panel(tmp_path: Path) -> None:
    engine = FakeEngine([], answers=ANSWERS)

    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press("ctrl+l")
        await until(pilot, lambda: isinstance(pilot.app.screen, SamplingPanel))
        panel = pilot.app.screen
        panel.query_one("#trajectories", Input).value = "400"
        await pilot.press("ctrl+s")
        assert "expected 1 to 64" in str(panel.query_one("#problem", Static).render())
        panel.query_one("#trajectories", Input).value = "4"
        panel.query_one("#deliberate").press()  # type: ignore[attr-defined]
        await pilot.pause()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: not isinstance(pilot.app.screen, SamplingPanel))
        await ask(pilot)
        assert "decided by deliberation" in head(pilot)
        assert lines(pilot)[-1].strip() == "✓ +  deliberation"
        assert chat_of(pilot).session.path()[-1].content == "Having read them: 32."

    drive(make_app(tmp_path, engine), steps, size=(100, 40))


def test_an_error_gives_the_question_back(tmp_path: Path) -> None:
    engine = FakeEngine([], error=GenerationError("At temperature 0 all trajectories are equal."))

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await until(pilot, lambda: bool(pilot.app.screen.query(".notice")))
        assert chat_of(pilot).prompt.text == "How many?"
        assert not pilot.app.screen.query(TrajectoriesView)

    drive(make_app(tmp_path, engine, overrides={"trajectories": 4}), steps)


def test_a_real_run_is_the_record(tiny_bundle_dir: Path) -> None:
    engine = RuntimeEngine.open(tiny_bundle_dir, overrides={"temperature": 1.0, "seed": 5, "max_new_tokens": 12})
    sampling = replace(engine.defaults, trajectories=3, parallel={"deliberate": True})
    lanes = Lanes()
    request = Request([{"role": "user", "content": "hello"}], sampling)
    result = engine.trajectories(request, cancel=threading.Event(), on_event=lanes.add)
    record = lanes.record()
    assert [one["text"] for one in record["trajectories"]] == [one.text for one in result.trajectories]
    assert record["decided_by"] == result.decided_by
    with pytest.raises(EdgedistillError):
        engine.trajectories(
            replace(request, sampling=sampling.merged({"temperature": 0.0})),
            cancel=threading.Event(), on_event=lanes.add,
        )  # fmt: skip
    engine.close()


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(EdgedistillError):
        Sampling().merged({"trajectories": 65})
    with pytest.raises(EdgedistillError):
        Sampling().merged({"trajectories": 4, "parallel": {"vote": "loudest"}})
