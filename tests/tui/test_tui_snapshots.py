"""What people see, as SVG: after a wanted change run with --snapshot-update and look at the difference."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_engine import FakeEngine, ask, chat_of, drive, make_app, services, until
from test_tui_measuring import fake_trace
from textual import _doc
from textual._compositor import Compositor
from textual.app import App
from textual.widgets import DataTable, Input

from edgedistill.runtime.tools.rounds import ToolRounds
from edgedistill.runtime.tools.types import Tool, ToolCall
from edgedistill_tui.app import TuiApp
from edgedistill_tui.buffer import ReplyBuffer
from edgedistill_tui.screens import reply_run, sessions
from edgedistill_tui.screens.dialogs import AllowCall, Ask, Choose, Confirm, PressKey

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

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
Size = tuple[int, int]
SMALLEST: Size = (60, 20)
SIZES = pytest.mark.parametrize("size", [SMALLEST, (80, 24), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
KEYS = {
    "sessions": "f3",
    "bundles": "f4",
    "profiler": "f5",
    "ab": "f6",
    "consistency": "f7",
    "settings": "f8",
    "help": "f1",
}


def run(made: TuiApp, steps: Callable[[Pilot[Any]], Coroutine[Any, Any, None]], size: Size) -> None:
    """Nothing moves by itself (clocks, times of day), and nothing is drawn but the pictures that are compared."""
    ticks = itertools.chain([0.0, 1.0], itertools.repeat(3.0))
    update = Compositor.render_update

    def pictures(self: Compositor, full: bool = False, **options: Any) -> Any:
        return update(self, full=True, **options) if full else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reply_run, "ReplyBuffer", functools.partial(ReplyBuffer, clock=lambda: next(ticks)))
        patch.setattr(sessions, "when", lambda timestamp, now=None: "14:05")
        patch.setattr("edgedistill_tui.screens.profiler.when", lambda timestamp, now=None: "14:05")
        patch.setattr(Input, "cursor_blink", False)
        patch.setattr(Compositor, "render_update", pictures)
        drive(made, steps, size, notifications=True)


def app(directory: Path) -> TuiApp:
    engine = FakeEngine(SCRIPT, answers=["32", "32", "32", "32", None, "23", "32", "50"])
    given = services(directory, engine, trace=fake_trace)
    given.config.path = None
    given.config.export_dir = "exports"
    return make_app(directory, engine, services=given)


async def show(pilot: Pilot[Any], page: str) -> None:
    """Bring an application into the state that is worth a look."""
    chat = chat_of(pilot)
    chat.prompt.cursor_blink = False
    await until(pilot, lambda: chat.ready)
    if page == "trajectories":
        await pilot.press("f9")
    if page != "welcome":
        await ask(pilot, QUESTION)
    if page == "sampling":
        await pilot.press("ctrl+l")
    elif page == "trajectories":
        await pilot.press("alt+down", "alt+down")
    elif page == "reasoning":
        await pilot.press("ctrl+t")


async def turn_to(pilot: Pilot[Any], page: str) -> None:
    """Show a page, after some work on it."""
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


async def picture(pilot: Pilot[Any]) -> str:
    """The screen as SVG, once nothing on it has anything to do."""
    screen = pilot.app.screen
    for _ in range(2):  # a table measures its columns when it has nothing else to do, and may have been filled again
        await pilot.pause()
        for table in screen.query(DataTable):
            await until(pilot, lambda table=table: not table._require_update_dimensions)  # type: ignore[misc]
    await pilot.wait_for_scheduled_animations()
    await pilot.pause()
    return pilot.app.export_screenshot(simplify=True)


def shot(made: TuiApp, size: Size, steps: Callable[[Pilot[Any]], Coroutine[Any, Any, None]]) -> str:
    """The screen of an application after ``steps``."""
    found = []

    async def go(pilot: Pilot[Any]) -> None:
        await steps(pilot)
        found.append(await picture(pilot))

    run(made, go, size)
    return found[0]


@pytest.fixture
def same(snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], bool]:
    """Whether a picture is the kept one. (``snap_compare`` alone would start an application for each.)"""

    def compare(svg: str) -> bool:
        monkeypatch.setattr(_doc, "take_svg_screenshot", lambda **_: svg)
        return snap_compare(App())

    return compare


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Size], dict[str, str]]:
    """Pictures of every page of a size, the smallest with dialogs, from one run of the application.

    To start it and to ask a question costs more than most pages.
    """

    @functools.cache
    def taken(size: Size) -> dict[str, str]:
        found: dict[str, str] = {}

        async def steps(pilot: Pilot[Any]) -> None:
            await show(pilot, "chat")
            found["chat"] = await picture(pilot)
            for name, dialog in DIALOGS.items() if size == SMALLEST else ():
                await pilot.app.push_screen(dialog())
                found[name] = await picture(pilot)
                await pilot.app.pop_screen()
            for page in KEYS:
                await turn_to(pilot, page)
                found[page] = await picture(pilot)

        run(app(tmp_path_factory.mktemp("pages")), steps, size)
        return found

    return taken


@SIZES
@pytest.mark.parametrize("page", ["chat", *KEYS])
def test_every_page(
    page: str, size: Size, pages: Callable[[Size], dict[str, str]], same: Callable[[str], bool]
) -> None:
    assert same(pages(size)[page])


@pytest.mark.parametrize("dialog", DIALOGS)
def test_dialogs(dialog: str, pages: Callable[[Size], dict[str, str]], same: Callable[[str], bool]) -> None:
    assert same(pages(SMALLEST)[dialog])


@SIZES
def test_sampling_panel(size: Size, same: Callable[[str], bool], tmp_path: Path) -> None:
    assert same(shot(app(tmp_path), size, lambda pilot: show(pilot, "sampling")))


@pytest.mark.parametrize("page", ["welcome", "reasoning", "trajectories"])
def test_states_of_the_chat(page: str, same: Callable[[str], bool], tmp_path: Path) -> None:
    assert same(shot(app(tmp_path), (80, 24), lambda pilot: show(pilot, page)))


def test_calls_tables_and_code(same: Callable[[str], bool], tmp_path: Path) -> None:
    engine = FakeEngine([("reasoning", "I look it up."), ("answer", TABLE)], calls=[(CALL,)])
    tool = Tool("weather", function=lambda city, days: f"{city}: sun, {days} d", parameters=PARAMETERS)
    given = services(tmp_path, engine)
    made = make_app(tmp_path, engine, services=given, tools=ToolRounds((tool,), unasked=True))
    assert same(shot(made, (80, 40), lambda pilot: show(pilot, "chat")))


def test_without_colour(same: Callable[[str], bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert same(shot(app(tmp_path), (80, 24), lambda pilot: show(pilot, "chat")))


def test_with_the_terminals_own_colours(same: Callable[[str], bool], tmp_path: Path) -> None:
    made = app(tmp_path)
    made.services.config.theme = "ansi-dark"
    assert same(shot(made, (80, 24), lambda pilot: show(pilot, "chat")))


@pytest.mark.parametrize("size", [(60, 20), (120, 40)], ids=["60x20", "120x40"])
def test_trajectories(size: Size, same: Callable[[str], bool], tmp_path: Path) -> None:
    assert same(shot(app(tmp_path), size, lambda pilot: show(pilot, "trajectories")))
