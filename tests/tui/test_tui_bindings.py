"""Every key does what it says: each binding of every class is pressed, and each action is found without its key.

A binding without a case in one of the ``keys_of_*.py`` fails the first test.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keys_found
import keys_of_chat
import keys_of_dialogs as dialogs
import keys_of_measuring as measuring
import keys_of_messages  # noqa: F401  # cases
import keys_of_pages as pages
import keys_of_sampling  # noqa: F401  # cases
import pytest
from fake_engine import FakeEngine, chat_of, drive, make_app, services, until
from scene import CASES, Scene
from textual._compositor import Compositor
from textual.widgets._footer import FooterKey

from edgedistill_tui.screens.bindings import all_bindings, declared
from edgedistill_tui.widgets.nav import PAGES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from textual.pilot import Pilot

BINDINGS, HANDLERS = keys_found.bindings(), keys_found.handlers()
GROUPS: dict[str, tuple[Callable[[Scene], Awaitable[None]], tuple[str, ...]]] = {
    "chat": (keys_of_chat.begin, ("Prompt", "ChatScreen", "Transcript", "LaneLine", "TrajectoriesView")),
    "sampling": (keys_of_chat.begin, ("SamplingPanel",)),
    "sessions": (pages.sessions, ("SessionsScreen",)),
    "bundles": (pages.bundles, ("BundlesScreen",)),
    "profiler": (measuring.profiler, ("ProfilerScreen",)),
    "ab": (measuring.ab, ("CompareScreen",)),
    "consistency": (measuring.consistency, ("ConsistencyScreen",)),
    "settings": (pages.settings, ("SettingsScreen",)),
    "dialogs": (dialogs.dialog, ("AllowCall", "Ask", "Choose", "Confirm", "PressKey", "Recall", "ExportScreen")),
    "everywhere": (dialogs.anywhere, ("NavItem", "PaletteItem", "Screen", "TuiApp", "App")),
}
"""Classes that are tested in one run of the application, and what makes each case begin from the same state."""


@pytest.fixture(autouse=True)
def _not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Laid out, so that clicks hit, but not drawn: nobody looks, and drawing is a third of the time."""
    monkeypatch.setattr(Compositor, "render_update", lambda *_, **__: None)


def test_every_key_and_click_has_a_case_and_every_case_is_run() -> None:
    assert set(BINDINGS) | HANDLERS == set(CASES)
    assert {owner for owner, _ in CASES} == {owner for _, owners in GROUPS.values() for owner in owners}


@pytest.mark.parametrize("group", GROUPS)
def test_keys(group: str, tmp_path: Path, tiny_bundle_dir: Path) -> None:
    setup, owners = GROUPS[group]
    engine = FakeEngine(keys_of_chat.SCRIPT, answers=["32"])

    def make(home: Path, progress: Any) -> Path:
        progress.begin("copying", 1, "items")
        return Path(shutil.copytree(tiny_bundle_dir, home / "made", dirs_exist_ok=True))

    async def steps(pilot: Pilot[None]) -> None:
        # What ends the application comes last.
        todo = [
            (owner, name, key)
            for owner, name in sorted(set(BINDINGS) | HANDLERS, key=lambda one: one[1] == "quit")
            if owner in owners
            for key in BINDINGS.get((owner, name), [""])
        ]
        failed: list[BaseException] = []
        pilot.app.animation_level = "none"
        for owner, name, key in todo:
            scene = Scene(pilot, engine, tmp_path, tiny_bundle_dir, key)
            try:
                if scene.app.return_code is None:
                    await setup(scene)
                await CASES[owner, name](scene)
                assert scene.pressed == bool(key)
            except (Exception, pytest.fail.Exception) as error:
                error.add_note(f"{owner}: {key} -> {name}")
                failed.append(error)
        if failed:
            raise BaseExceptionGroup(f"keys of {group}", failed)

    given = services(tmp_path, engine, trace=measuring.endless_trace, make_default=make)
    given.registry.remember(tiny_bundle_dir)
    given.config.frames_per_s = 60.0
    drive(make_app(tmp_path, engine, services=given), steps, (100, 30))


def test_every_action_is_in_the_palette_and_by_mouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(keys_of_chat.SCRIPT)
    done: list[tuple[str, str]] = []

    async def steps(pilot: Pilot[None]) -> None:
        for page, *_ in PAGES:
            chat_of(pilot).tui.go(page)
            await pilot.pause()
            screen = pilot.app.screen
            await until(pilot, lambda screen=screen: bool(screen.query(FooterKey)))  # type: ignore[misc]
            nodes = {node for node in (screen.focused, screen, pilot.app) if node is not None}
            expected = {b.action: type(node) for node in nodes for b in declared(type(node)) if b.id}
            done.clear()
            for node in nodes:
                monkeypatch.setattr(node, "run_action", _noting(done, node))
            for command in list(pilot.app.get_system_commands(screen)):
                if not command.title.startswith(("Go to ", "Theme: ")):
                    command.callback()
            await pilot.pause()
            monkeypatch.undo()
            wanted = {(cls.__name__, action) for action, cls in expected.items() if not action.startswith("go(")}
            assert set(done) == wanted, page
            assert len(done) == len(wanted), page

            # What the footer shows is clicked there; all else has the palette, which is a click away (PaletteItem).
            pressed: list[str] = []
            monkeypatch.setattr(pilot.app, "simulate_key", pressed.append)
            for shown in list(screen.query(FooterKey)):
                await pilot.click(shown)
            monkeypatch.undo()
            own = [b for b, where in all_bindings().values() if where == page and b.show]
            assert {b.key.partition(",")[0] for b in own} <= set(pressed), page

    drive(make_app(tmp_path, engine), steps, (200, 40))


def _noting(done: list[tuple[str, str]], node: Any) -> Any:
    async def run_action(action: str, *_: Any) -> bool:
        done.append((type(node).__name__, action))
        return True

    return run_action
