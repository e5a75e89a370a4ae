"""What each key of the pages for sessions, bundles and settings does, one case a key."""

from __future__ import annotations

import shutil
from pathlib import Path

from keys_of_chat import quiet
from scene import Scene, proves
from textual.widgets import DataTable, Input

from edgedistill_tui.data.session import Session

# ---- sessions ----------------------------------------------------------------------------------------------------


async def sessions(scene: Scene) -> None:
    """Two sessions, the first one open and under the cursor."""
    await quiet(scene)
    for title in ("pears", "apples"):
        for summary in scene.app.services.store.sessions(title):
            scene.app.services.store.delete(summary.id)
        session = Session()
        session.begin_reply(session.ask(title), {}).content = f"Two {title}."
        await scene.app.show_session(session)
        scene.app.save()
    await scene.go("sessions")
    scene.screen.search.value = ""
    await scene.pilot.pause()
    scene.screen.fill()
    await scene.until(lambda: not scene.screen.searching and len(scene.screen.summaries) > 1)
    scene.screen.table.focus()
    scene.screen.table.move_cursor(row=0)
    await scene.pilot.pause()
    assert [s.title for s in scene.screen.summaries[:2]] == ["apples", "pears"]


@proves("SessionsScreen", "open")
async def _open_session(scene: Scene) -> None:
    scene.screen.table.move_cursor(row=1)
    await scene.press()
    await scene.until_screen("ChatScreen")
    assert scene.chat.session.title == "pears"
    assert "pears" in scene.text


@proves("SessionsScreen", "on_data_table_row_selected")
async def _click_session(scene: Scene) -> None:
    for _ in range(2):
        await scene.pilot.click(DataTable, offset=(5, 2))
    await scene.until_screen("ChatScreen")
    assert scene.chat.session.title == "pears"


@proves("SessionsScreen", "search")
async def _search(scene: Scene) -> None:
    await scene.press()
    await scene.type(*"pear")
    await scene.until(lambda: [s.title for s in scene.screen.summaries] == ["pears"])
    await scene.type("enter")
    assert scene.screen.focused is scene.screen.table
    await scene.type("enter")
    await scene.until_screen("ChatScreen")
    assert scene.chat.session.title == "pears"


@proves("SessionsScreen", "leave_search")
async def _leave_search(scene: Scene) -> None:
    scene.screen.search.focus()
    await scene.press()
    assert scene.screen.focused is scene.screen.table


@proves("SessionsScreen", "new")
async def _new_session(scene: Scene) -> None:
    await scene.press()
    await scene.until_screen("ChatScreen")
    assert scene.path == []


@proves("SessionsScreen", "rename")
async def _rename(scene: Scene) -> None:
    await scene.press()
    await scene.until_screen("Ask")
    await scene.type("end", "!", "enter")
    await scene.until(lambda: scene.screen.summaries[0].title == "apples!")
    scene.app.services.store.delete(scene.chat.session.id)


@proves("SessionsScreen", "export")
async def _export_session(scene: Scene) -> None:
    before = set(scene.directory.glob("conversation-*.md"))
    await scene.press()
    (made,) = set(scene.directory.glob("conversation-*.md")) - before
    assert "Two apples." in made.read_text()


@proves("SessionsScreen", "delete")
async def _delete_session(scene: Scene) -> None:
    await scene.press()
    await scene.until_screen("Confirm")
    await scene.type("y")
    await scene.until(lambda: all(s.title != "apples" for s in scene.app.services.store.sessions()))
    await scene.until_screen("SessionsScreen")
    assert scene.path == []


# ---- bundles -----------------------------------------------------------------------------------------------------


async def bundles(scene: Scene) -> None:
    """A bundle in the current directory, under the cursor."""
    await quiet(scene)
    copy_bundle(scene)
    await scene.go("bundles")
    scene.screen.action_refresh()
    await to_mine(scene)


def copy_bundle(scene: Scene) -> Path:
    mine = scene.directory / "work" / "mine"
    if not mine.exists():
        shutil.copytree(scene.bundle, mine)
    return mine


async def to_mine(scene: Scene) -> None:
    scene.screen.table.focus()
    scene.screen.table.move_cursor(row=[k.name for k in scene.screen.known].index("mine"))
    await scene.pilot.pause()


@proves("BundlesScreen", "open")
async def _open_bundle(scene: Scene) -> None:
    scene.chat.session.bundle = ""
    await scene.press()
    await scene.until_screen("ChatScreen")
    await scene.until(lambda: scene.chat.session.bundle.endswith("mine"))


@proves("BundlesScreen", "on_data_table_row_selected")
async def _click_bundle(scene: Scene) -> None:
    scene.chat.session.bundle = ""
    await scene.pilot.click(DataTable, offset=(5, 1 + scene.screen.table.cursor_row))
    await scene.until_screen("ChatScreen")
    await scene.until(lambda: scene.chat.session.bundle.endswith("mine"))


@proves("BundlesScreen", "verify")
async def _verify(scene: Scene) -> None:
    await scene.press()
    await scene.until(lambda: "files are as the manifest says" in scene.text)


@proves("BundlesScreen", "add")
async def _add(scene: Scene) -> None:
    outside = scene.directory / "outside"
    shutil.copytree(scene.bundle, outside, dirs_exist_ok=True)
    await scene.press()
    await scene.until_screen("Ask")
    scene.screen.query_one(Input).value = str(outside)
    await scene.type("enter")
    await scene.until_screen("BundlesScreen")
    assert outside in [k.path for k in scene.screen.known]


@proves("BundlesScreen", "export")
async def _export_default(scene: Scene) -> None:
    await scene.press()
    await scene.until_screen("ChatScreen")
    await scene.until(lambda: scene.chat.session.bundle.endswith("made"))


@proves("BundlesScreen", "delete")
async def _delete_bundle(scene: Scene) -> None:
    await scene.press()
    await scene.until_screen("Confirm")
    await scene.type("y")
    await scene.until_screen("BundlesScreen")
    await scene.until(lambda: not (scene.directory / "work" / "mine").exists())


@proves("BundlesScreen", "refresh")
async def _refresh(scene: Scene) -> None:
    shutil.rmtree(scene.directory / "work" / "mine")
    await scene.press()
    assert "mine" not in [k.name for k in scene.screen.known]


# ---- settings ----------------------------------------------------------------------------------------------------


async def settings(scene: Scene) -> None:
    """The page with the cursor on a setting that a press changes."""
    await quiet(scene)
    await scene.go("settings")
    scene.screen.table.focus()
    _to_setting(scene, "unfold_reasoning")
    await scene.pilot.pause()


def _to_setting(scene: Scene, name: str) -> None:
    table = scene.screen.table
    table.move_cursor(row=[str(row.value) for row in table.rows].index(name))


@proves("SettingsScreen", "change")
async def _change(scene: Scene) -> None:
    config = scene.app.services.config
    before = config.unfold_reasoning
    await scene.press()
    await scene.until(lambda: config.unfold_reasoning is not before)
    assert f"unfold_reasoning = {str(not before).lower()}" in (scene.directory / "tui.toml").read_text()


@proves("SettingsScreen", "on_data_table_row_selected")
async def _click_setting(scene: Scene) -> None:
    config = scene.app.services.config
    before = config.unfold_reasoning
    table = scene.screen.table
    for _ in range(50):  # a table that still scrolls, or has not measured its rows yet, takes no click
        await scene.pilot.click(DataTable, offset=(5, 1 + table.cursor_row - round(table.scroll_offset.y)))
        await scene.pilot.pause(0.1)
        if config.unfold_reasoning is not before:
            break
        _to_setting(scene, "unfold_reasoning")
    assert config.unfold_reasoning is not before


@proves("SettingsScreen", "reset")
async def _reset(scene: Scene) -> None:
    scene.app.services.config.keys["chat.fork"] = "f12"
    scene.app.set_keymap(scene.app.services.config.keys)
    _to_setting(scene, "chat.fork")
    await scene.press()
    assert scene.app.services.config.keys == {}
