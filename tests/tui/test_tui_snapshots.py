"""What people see, as SVG: after a wanted change run with --snapshot-update and look at the difference."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_engine import FakeEngine, ask, chat_of, make_app, services, until
from test_tui_measuring import fake_trace
from textual.widgets import DataTable, Input

from edgedistill.runtime.tools.rounds import ToolRounds
from edgedistill.runtime.tools.types import Tool, ToolCall
from edgedistill_tui.app import TuiApp
from edgedistill_tui.buffer import ReplyBuffer
from edgedistill_tui.screens import reply_run, sessions
from edgedistill_tui.screens.dialogs import AllowCall, Ask, Choose, Confirm, PressKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.pilot import Pilot
    from textual.screen import Screen

CALL = ToolCall("aaaaaaaaa", "weather", '{"city": "Rome", "days": 2}')
DIALOGS: dict[str, Callable[[], Screen[Any]]] = {
    "allow": lambda: AllowCall(CALL, "The weather of a city."),
    "ask": lambda: Ask("Title of this session", "How many apples does Mia have now?"),
    "choose": lambda: Choose("Go on with which bundle?", [f"bundle-{i}  5.6 bits/weight  ~/models" for i in range(9)]),
    "confirm": lambda: Confirm("Delete ~/bundles/demo-bundle, 1.97 MiB?", "Delete", "Keep"),
    "key": lambda: PressKey("New key for: Copy code"),
}
QUESTION = "Mia has 14 apples and buys 3 bags of 6 apples each. How many apples does Mia have now?"
SCRIPT = [
    ("reasoning", "Mia starts with 14 apples.\n3 bags of 6 apples are 3 * 6 = 18 apples.\n"),
    ("reasoning", "Together that is 14 + 18 = 32."),
    ("answer", "Mia has **32** apples now.\n\n- 3 bags of 6 are 18\n- 14 + 18 = 32\n\n"),
    ("answer", "The answer is `\\boxed{32}`."),
]
TABLE = "| city | days | degrees |\n|:--|:-:|--:|\n| Rome | 2 | 21.5 |\n\n"
TABLE += "```python\nprint('" + "a long line, " * 8 + "')\n```\n"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
SIZES = pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
KEYS = {
    "sessions": "f3",
    "bundles": "f4",
    "profiler": "f5",
    "ab": "f6",
    "consistency": "f7",
    "settings": "f8",
    "help": "f1",
}


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that moves by itself: clocks, times of day."""
    ticks = itertools.chain([0.0, 1.0], itertools.repeat(3.0))
    monkeypatch.setattr(reply_run, "ReplyBuffer", functools.partial(ReplyBuffer, clock=lambda: next(ticks)))
    monkeypatch.setattr(sessions, "when", lambda timestamp, now=None: "14:05")
    monkeypatch.setattr("edgedistill_tui.screens.profiler.when", lambda timestamp, now=None: "14:05")
    monkeypatch.setattr(Input, "cursor_blink", False)


def app(directory: Path) -> TuiApp:
    engine = FakeEngine(SCRIPT, answers=["32", "32", "32", "32", None, "23", "32", "50"])
    given = services(directory, engine, trace=fake_trace)
    given.config.path = None
    given.config.export_dir = "exports"
    return make_app(directory, engine, services=given)


async def show(pilot: Pilot[Any], page: str) -> None:
    """Bring a page into the state that is worth a look."""
    chat = chat_of(pilot)
    chat.prompt.cursor_blink = False
    await until(pilot, lambda: chat.ready)
    if page == "trajectories":
        await pilot.press("f9")
    if page != "welcome":
        await ask(pilot, QUESTION)
    if page in KEYS:
        await pilot.press(KEYS[page])
        await pilot.pause()
    screen: Any = pilot.app.screen
    if page == "sessions":
        await until(pilot, lambda: bool(screen.summaries) and not screen.searching)
    elif page == "profiler":
        await pilot.press("s")
        await until(pilot, lambda: bool(screen.runs) and not screen.running)
        await pilot.pause()
    elif page == "ab":
        screen.sides[1].path = screen.sides[0].path
        screen.seed.value = "7"
        await pilot.press("enter")
        await until(pilot, lambda: not screen.running and screen.parting is not None)
    elif page == "consistency":
        await pilot.press("enter")
        await until(pilot, lambda: not screen.running and screen.count.total == 64)
        screen._began, screen._ended = 0.0, 8.0
        screen.draw()
    elif page == "sampling":
        await pilot.press("ctrl+l")
    elif page == "trajectories":
        await pilot.press("alt+down", "alt+down")
    elif page == "reasoning":
        await pilot.press("ctrl+t")
    for _ in range(2):  # a table measures its columns when it has nothing else to do, and may have been filled again
        for table in screen.query(DataTable):
            await until(pilot, lambda table=table: not table._require_update_dimensions)  # type: ignore[misc]
        await pilot.pause(0.1)
    for table in screen.query(DataTable):  # lines that were drawn before it had measured are kept
        table._clear_caches()
        table.refresh()
    await pilot.pause(0.1)


def check(snap_compare: Callable[..., bool], directory: Path, page: str, size: tuple[int, int]) -> bool:
    return snap_compare(app(directory), terminal_size=size, run_before=lambda pilot: show(pilot, page))


@SIZES
@pytest.mark.parametrize("page", ["chat", *KEYS])
def test_every_page(page: str, size: tuple[int, int], snap_compare: Callable[..., bool], tmp_path: Path) -> None:
    assert check(snap_compare, tmp_path, page, size)


@SIZES
def test_sampling_panel(size: tuple[int, int], snap_compare: Callable[..., bool], tmp_path: Path) -> None:
    assert check(snap_compare, tmp_path, "sampling", size)


@pytest.mark.parametrize("dialog", DIALOGS)
def test_dialogs(dialog: str, snap_compare: Callable[..., bool], tmp_path: Path) -> None:
    async def steps(pilot: Pilot[Any]) -> None:
        await show(pilot, "chat")
        pilot.app.push_screen(DIALOGS[dialog]())
        await pilot.pause()

    assert snap_compare(app(tmp_path), terminal_size=(60, 20), run_before=steps)


@pytest.mark.parametrize("page", ["welcome", "reasoning", "trajectories"])
def test_states_of_the_chat(page: str, snap_compare: Callable[..., bool], tmp_path: Path) -> None:
    assert check(snap_compare, tmp_path, page, (80, 24))


def test_calls_tables_and_code(snap_compare: Callable[..., bool], tmp_path: Path) -> None:
    engine = FakeEngine([("reasoning", "I look it up."), ("answer", TABLE)], calls=[(CALL,)])
    tool = Tool("weather", function=lambda city, days: f"{city}: sun, {days} d", parameters=PARAMETERS)
    given = services(tmp_path, engine)
    made = make_app(tmp_path, engine, services=given, tools=ToolRounds((tool,), unasked=True))
    assert snap_compare(made, terminal_size=(80, 40), run_before=lambda pilot: show(pilot, "chat"))


def test_without_colour(snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert check(snap_compare, tmp_path, "chat", (80, 24))


def test_with_the_terminals_own_colours(snap_compare: Callable[..., bool], tmp_path: Path) -> None:
    made = app(tmp_path)
    made.services.config.theme = "ansi-dark"
    assert snap_compare(made, terminal_size=(80, 24), run_before=lambda pilot: show(pilot, "chat"))


@pytest.mark.parametrize("size", [(60, 20), (120, 40)], ids=["60x20", "120x40"])
def test_trajectories(size: tuple[int, int], snap_compare: Callable[..., bool], tmp_path: Path) -> None:
    assert check(snap_compare, tmp_path, "trajectories", size)
