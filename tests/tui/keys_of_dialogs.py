"""What each key of the dialogs, of every screen and of the application does, one case a key."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fake_engine import ask
from keys_of_chat import begin, quiet, suspended
from scene import Scene, proves
from textual.widgets import Button, Static

from edgedistill.runtime.tools.types import ToolCall
from edgedistill_tui.screens.dialogs import AllowCall, Ask, Choose, Confirm, PressKey, Recall
from edgedistill_tui.screens.exporting import ExportScreen
from edgedistill_tui.widgets.nav import PAGES, NavItem, PaletteItem

if TYPE_CHECKING:
    from edgedistill.progress import Progress

CALL = ToolCall("aaaaaaaaa", "weather", '{"city": "Rome"}')


# ---- dialogs -----------------------------------------------------------------------------------------------------


async def dialog(scene: Scene) -> None:
    """Any page, for a dialog over it."""
    await quiet(scene)


async def shown(scene: Scene, screen: Any) -> list[Any]:
    """Push a dialog; the list that its result goes into."""
    results: list[Any] = []
    scene.app.push_screen(screen, results.append)
    await scene.until(lambda: scene.screen is screen)
    await scene.pilot.pause()
    return results


async def click_hint(scene: Scene, words: str) -> None:
    """Click on some words of the line below."""
    hint = scene.screen.query_one(".hint", Static)
    await scene.pilot.click(hint, offset=(str(hint.render()).index(words) + 1, 0))
    await scene.pilot.pause()


@proves("Ask", "dismiss(None)")
async def _ask_leave(scene: Scene) -> None:
    results = await shown(scene, Ask("What?", "this"))
    await scene.press()
    assert results == [None]
    results = await shown(scene, Ask("What?", "this"))
    await click_hint(scene, "Esc leaves")
    assert results == [None]


@proves("Ask", "on_input_submitted")
async def _ask_enter(scene: Scene) -> None:
    results = await shown(scene, Ask("What?", "this"))
    await scene.type("end", "!", "enter")
    assert results == ["this!"]
    results = await shown(scene, Ask("What?", "this"))
    await click_hint(scene, "Enter accepts")
    assert results == ["this"]


@proves("Choose", "dismiss(None)")
async def _choose_leave(scene: Scene) -> None:
    results = await shown(scene, Choose("Which?", ["one", "two"]))
    await scene.press()
    assert results == [None]


@proves("Choose", "on_option_list_option_selected")
async def _choose_one(scene: Scene) -> None:
    results = await shown(scene, Choose("Which?", ["one", "two"]))
    await scene.type("down", "enter")
    assert results == [1]


@proves("Confirm", "dismiss(False)")
async def _no(scene: Scene) -> None:
    results = await shown(scene, Confirm("Sure?"))
    await scene.press()
    assert results == [False]


@proves("Confirm", "dismiss(True)")
async def _yes(scene: Scene) -> None:
    results = await shown(scene, Confirm("Sure?"))
    await scene.press()
    assert results == [True]


@proves("Confirm", "on_button_pressed")
async def _yes_and_no_by_mouse(scene: Scene) -> None:
    for button, expected in (("yes", True), ("no", False)):
        results = await shown(scene, Confirm("Sure?"))
        assert scene.screen.focused is scene.screen.query_one("#no", Button)
        await scene.pilot.click(f"#{button}")
        await scene.until(lambda results=results: bool(results))  # type: ignore[misc]
        assert results == [expected]


@proves("Recall", "dismiss(None)")
async def _recall_leave(scene: Scene) -> None:
    results = await shown(scene, Recall(["one", "two"]))
    await scene.press()
    assert results == [None]


@proves("Recall", "app.focus_next")
@proves("Recall", "on_option_list_option_selected")
async def _recall_choose(scene: Scene) -> None:
    results = await shown(scene, Recall(["one", "two", "twelve"]))
    await scene.type("t", "w")
    if scene.key:
        await scene.press()
    else:
        await scene.type("down")
    scene.screen.query_one("OptionList").highlighted = 1
    await scene.type("enter")
    assert results == ["twelve"]


@proves("Recall", "on_input_submitted")
async def _recall_first(scene: Scene) -> None:
    results = await shown(scene, Recall(["one", "two", "twelve"]))
    await scene.type("t", "w", "enter")
    assert results == ["two"]


@proves("AllowCall", "dismiss(None)")
async def _refuse_a_call(scene: Scene) -> None:
    results = await shown(scene, AllowCall(CALL, ""))
    await scene.press()
    assert results == [None]


@proves("AllowCall", "app.focus_next")
async def _allow_once(scene: Scene) -> None:
    results = await shown(scene, AllowCall(CALL, ""))
    await scene.press()
    await scene.type("enter")
    assert results == ["once"]


@proves("AllowCall", "app.focus_previous")
async def _allow_in_the_chat(scene: Scene) -> None:
    results = await shown(scene, AllowCall(CALL, ""))
    await scene.press()
    await scene.type("enter")
    assert results == ["always"]


@proves("AllowCall", "on_button_pressed")
async def _answers_by_mouse(scene: Scene) -> None:
    for button, expected in (("refuse", None), ("once", "once"), ("always", "always")):
        results = await shown(scene, AllowCall(CALL, "What it does."))
        assert scene.screen.focused is scene.screen.query_one("#refuse", Button)
        await scene.pilot.click(f"#{button}")
        await scene.until(lambda results=results: bool(results))  # type: ignore[misc]
        assert results == [expected]


@proves("PressKey", "on_key")
async def _press_a_key(scene: Scene) -> None:
    for pressed, expected in (("f12", "f12"), ("escape", None), ("ctrl+k", "ctrl+k")):
        results = await shown(scene, PressKey("Which key?"))
        await scene.type(pressed)
        assert results == [expected]


@proves("ExportScreen", "dismiss(None)")
async def _stop_exporting(scene: Scene) -> None:
    ended: list[str] = []

    def make(home: Path, progress: Progress) -> Path:
        try:
            progress.begin("quantizing weights", 1000, "items")
            while True:
                threading.Event().wait(0.01)
                progress.advance(1)
        except BaseException as error:
            ended.append(str(error))
            raise

    results = await shown(scene, ExportScreen(make, scene.directory))
    await scene.press()
    assert results == [None]
    await scene.until(lambda: bool(ended))
    assert ended[0].startswith("The export was stopped.")


# ---- everywhere --------------------------------------------------------------------------------------------------


async def anywhere(scene: Scene) -> None:
    """Any page."""
    await quiet(scene)


def _goes(page: str) -> None:
    @proves("TuiApp", f"go('{page}')")
    async def _(scene: Scene) -> None:
        if scene.screen is scene.app.page(page):
            await scene.go("help" if page != "help" else "chat")
        # From a dialog as well; whoever opened it is told that nobody answered.
        results = await shown(scene, Ask("What?")) if page in ("chat", "bundles") else [None]
        await scene.press()
        assert scene.screen is scene.app.page(page)
        assert results == [None]


for _page, *_ in PAGES:
    _goes(_page)


@proves("NavItem", "on_click")
async def _click_every_page(scene: Scene) -> None:
    for page, *_ in PAGES:
        (item,) = [item for item in scene.screen.query(NavItem) if item.page == page]
        await scene.pilot.click(item)
        await scene.pilot.pause()
        assert scene.screen is scene.app.page(page)


@proves("PaletteItem", "on_click")
async def _click_the_palette(scene: Scene) -> None:
    await scene.pilot.click(PaletteItem)
    await scene.until_screen("CommandPalette")
    await scene.type("escape")


@proves("App", "command_palette")
async def _palette(scene: Scene) -> None:
    await scene.press()
    await scene.until_screen("CommandPalette")
    await scene.type(*"Go to Profiler")
    await scene.until(lambda: scene.screen.query_one("CommandList").option_count > 0)
    await scene.type("enter")
    if type(scene.screen).__name__ == "CommandPalette":
        await scene.type("enter")
    await scene.until_screen("ProfilerScreen")


@proves("Screen", "app.focus_next")
async def _tab(scene: Scene) -> None:
    await scene.go("consistency")
    scene.screen.prompt.focus()
    await scene.press()
    assert scene.screen.focused is scene.screen.samples


@proves("Screen", "app.focus_previous")
async def _shift_tab(scene: Scene) -> None:
    await scene.go("consistency")
    scene.screen.samples.focus()
    await scene.press()
    assert scene.screen.focused is scene.screen.prompt


@proves("Screen", "screen.copy_text")
async def _copy_selected_text(scene: Scene) -> None:
    await begin(scene)
    await ask(scene.pilot, "A question to select")
    question = scene.screen.query_one(".question .text", Static)
    scene.chat.transcript.focus()
    scene.screen.text_select_all()
    await scene.pilot.pause()
    assert question in scene.screen.selections
    await scene.press()
    assert "A question to select" in scene.app.clipboard
    scene.screen.clear_selection()


@proves("App", "help_quit")
@proves("TuiApp", "interrupt")
async def _ctrl_c_stops_what_a_page_does(scene: Scene) -> None:
    await begin(scene)
    await scene.go("consistency")
    scene.engine.hold()
    scene.screen.prompt.value = "How many?"
    scene.screen.prompt.focus()
    await scene.type("enter")
    await scene.until(lambda: scene.screen.running)
    scene.screen.set_focus(None)
    await scene.press()
    await scene.until(lambda: not scene.screen.running)
    assert scene.app.return_code is None


@proves("TuiApp", "suspend_process")
async def _suspends(scene: Scene) -> None:
    await suspended(scene)


@proves("App", "quit")
@proves("TuiApp", "quit")
async def _leave_with_a_question(scene: Scene) -> None:
    """Only once in an application: the second time there is nothing to leave."""
    if scene.app.return_code is None:
        scene.chat.session.ask("Not saved yet")
        await scene.press()
    scene.pressed = True
    assert scene.app.return_code == 0
    assert scene.app.services.store.load(scene.chat.session.id).title == "Not saved yet"
