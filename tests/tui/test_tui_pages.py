"""Pages beside the chat, driven by keys: sessions, bundles, settings, help."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_engine import FakeEngine, ask, chat_of, drive, make_app, services, until
from textual.widgets import Static

from edgedistill.errors import ExportError
from edgedistill_tui.app import TuiApp
from edgedistill_tui.data.config import Config, ConfigError
from edgedistill_tui.screens.bindings import all_bindings
from edgedistill_tui.screens.dialogs import Ask, Confirm

if TYPE_CHECKING:
    from textual.pilot import Pilot

ANSWER = [("answer", "There are 32 apples.")]
NO_LOAD: dict[str, Any] = {"bundle": None}


def page_text(pilot: Pilot[None]) -> str:
    return "\n".join(str(widget.render()) for widget in pilot.app.screen.query(Static))


def app_of(pilot: Pilot[None]) -> TuiApp:
    app = chat_of(pilot).tui
    assert isinstance(app, TuiApp)
    return app


def test_sessions_search_open_rename_export_delete(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, "How many apples?")
        await pilot.press("ctrl+n")
        await ask(pilot, "What weather?")
        await pilot.press("f3")
        await pilot.pause()
        page: Any = pilot.app.screen
        await until(pilot, lambda: [s.title for s in page.summaries] == ["What weather?", "How many apples?"])
        await pilot.press("slash", *"weath")
        await until(pilot, lambda: [s.title for s in page.summaries] == ["What weather?"])
        await pilot.press("escape")
        page.search.value = ""
        await until(pilot, lambda: len(page.summaries) == 2)
        page.table.move_cursor(row=1)
        await pilot.press("r")
        await until(pilot, lambda: isinstance(pilot.app.screen, Ask))
        await pilot.press("end", "!", "enter")
        await until(pilot, lambda: any(s.title.endswith("?!") for s in page.summaries))
        await pilot.press("e")
        renamed = next(i for i, s in enumerate(page.summaries) if s.title.startswith("How many"))
        assert page.summaries[renamed].title == "How many apples?!"
        page.table.move_cursor(row=renamed)
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is chat_of(pilot))
        assert chat_of(pilot).session.path()[0].content == "How many apples?"
        await pilot.press("f3")
        await until(pilot, lambda: not page.searching)
        page.table.move_cursor(row=0)
        await pilot.press("d")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("n")
        await until(pilot, lambda: pilot.app.screen is page)
        assert len(page.summaries) == 2
        await pilot.press("d")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: len(page.summaries) == 1)
        await pilot.press("n")
        await until(pilot, lambda: pilot.app.screen is chat_of(pilot))

    drive(make_app(tmp_path, FakeEngine(ANSWER)), steps)
    assert list(tmp_path.glob("conversation-*.md"))


def test_bundles_inspect_check_add_open_delete(tmp_path: Path, tiny_bundle_dir: Path) -> None:
    mine, broken = tmp_path / "work" / "mine", tmp_path / "work" / "broken"
    shutil.copytree(tiny_bundle_dir, mine)
    shutil.copytree(tiny_bundle_dir, broken)
    (broken / "weights.bin").write_bytes(b"short")

    async def steps(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: type(pilot.app.screen).__name__ == "BundlesScreen")
        page: Any = pilot.app.screen
        await until(pilot, lambda: len(page.known) == 2)
        page.table.move_cursor(row=[k.name for k in page.known].index("broken"))
        await pilot.pause()
        assert "bytes, the manifest says" in page_text(pilot)
        await pilot.press("enter")
        assert app_of(pilot).loading is None
        await pilot.press("d")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: not broken.exists())
        await until(pilot, lambda: pilot.app.screen is page)
        await pilot.pause()
        assert "layers" in page_text(pilot)
        await pilot.press("v")
        await until(pilot, lambda: "files are as the manifest says" in page_text(pilot))
        (mine / "tokenizer.json").write_bytes(b"x" + (mine / "tokenizer.json").read_bytes()[1:])
        await pilot.press("v")
        await until(pilot, lambda: "DAMAGED" in page_text(pilot))
        await pilot.press("o")
        await until(pilot, lambda: isinstance(pilot.app.screen, Ask))
        await pilot.press(*"/nowhere", "enter")
        await until(pilot, lambda: pilot.app.screen is page)
        await pilot.press("r", "e", "enter")
        await until(pilot, lambda: app_of(pilot).engine is not None)
        assert pilot.app.screen is chat_of(pilot)

    drive(make_app(tmp_path, FakeEngine(ANSWER), page="bundles", **NO_LOAD), steps, ready=False)


@pytest.mark.parametrize("fails", [False, True])
def test_without_any_bundle_the_default_one_is_exported(tmp_path: Path, tiny_bundle_dir: Path, fails: bool) -> None:
    def make(home: Path, progress: Any) -> Path:
        progress.begin("quantizing weights", 10, "items")
        progress.advance(5)
        if fails:
            raise ExportError("No space left.")
        shutil.copytree(tiny_bundle_dir, home / "tiny-reasoner")
        return home / "tiny-reasoner"

    async def steps(pilot: Pilot[None]) -> None:
        if fails:
            await until(pilot, lambda: any("No space left" in n.message for n in pilot.app._notifications))
        else:
            await until(pilot, lambda: app_of(pilot).engine is not None)
            assert app_of(pilot).services.registry.bundles()[0].name == "tiny-reasoner"

    given = services(tmp_path, FakeEngine(ANSWER), make_default=make)
    app = make_app(tmp_path, FakeEngine(ANSWER), page="bundles", offer_default=True, services=given, **NO_LOAD)
    drive(app, steps, ready=False)


def test_settings_change_rebind_and_outlive_the_program(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press("f8")
        await pilot.pause()
        page: Any = pilot.app.screen
        names = [str(row.value) for row in page.table.rows]
        page.table.move_cursor(row=names.index("unfold_reasoning"))
        await pilot.press("enter")
        await pilot.pause()
        page.table.move_cursor(row=names.index("chat.save"))
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is not page)
        await pilot.press("ctrl+r")  # taken
        await until(pilot, lambda: pilot.app.screen is page)
        assert "chat.save" not in app_of(pilot).services.config.keys
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is not page)
        await pilot.press("f12")
        await until(pilot, lambda: pilot.app.screen is page)
        await pilot.pause()
        await pilot.press("f2")
        await ask(pilot)
        await pilot.press("f12")
        await pilot.pause()

    drive(make_app(tmp_path, FakeEngine(ANSWER)), steps)
    assert list(tmp_path.glob("conversation-*.md"))
    config = Config.load(tmp_path / "tui.toml")
    assert config.keys == {"chat.save": "f12"}
    assert config.unfold_reasoning is True


@pytest.mark.parametrize("text", ["theme = 3", "colour = 'red'", "theme = [", "frames_per_s = 'many'"])
def test_a_settings_file_that_makes_no_sense_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tui.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"tui\.toml"):
        Config.load(path)


def test_every_binding_has_a_key_of_its_own_on_its_page() -> None:
    by_page: dict[str, list[str]] = {}
    for binding, page in all_bindings().values():
        by_page.setdefault(page, []).extend(binding.key.split(","))
    for page, keys in by_page.items():
        everywhere = [] if page == "app" else by_page["app"]
        assert len(set(keys + everywhere)) == len(keys + everywhere), page
