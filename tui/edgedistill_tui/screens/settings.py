"""The settings page: settings of the UI, and its key bindings, which can be changed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import work
from textual.widgets import DataTable, Static

from edgedistill_tui.data.config import CLIPBOARDS
from edgedistill_tui.neutral import plain
from edgedistill_tui.screens.bindings import all_bindings
from edgedistill_tui.screens.dialogs import Ask, Choose, PressKey
from edgedistill_tui.screens.page import Page, key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text
    from textual.widget import Widget


class SettingsScreen(Page):
    """One table: settings first, then every key."""

    PAGE = "settings"
    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        key("settings.change", "enter", "change", "Change", priority=True),
        key("settings.reset", "delete,d", "reset", "Default key"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.table: DataTable[str | Text] = DataTable(cursor_type="row")
        self._where = Static("", markup=False, classes="note")

    def body(self) -> Iterator[Widget]:
        """The table and where it is kept."""
        yield self.table
        yield self._where

    def on_mount(self) -> None:
        """The columns."""
        self.table.add_columns("setting", "value", "")
        self.table.focus()

    def on_screen_resume(self) -> None:
        """Draw the present values."""
        self.fill()

    def fill(self) -> None:
        """All rows."""
        config, row = self.tui.services.config, self.table.cursor_row
        self.table.clear()
        fps = f"{config.frames_per_s:g}" if config.frames_per_s else f"automatic ({self.tui.fps:g} here)"
        self.table.add_row("theme", self.tui.theme, "ansi-dark and ansi-light use the terminal's colours", key="theme")
        self.table.add_row("frames a second", fps, "at most, while text arrives", key="frames_per_s")
        unfold = "unfolded" if config.unfold_reasoning else "folded"
        self.table.add_row("reasoning", unfold, "of new replies", key="unfold_reasoning")
        where = config.export_dir or "the current directory"
        self.table.add_row("exports go to", plain(str(where)), "conversations, plots, copies", key="export_dir")
        self.table.add_row("clipboard", config.clipboard, " / ".join(CLIPBOARDS), key="clipboard")
        for name, (binding, _) in sorted(all_bindings().items()):
            own = config.keys.get(name)
            keys = own or binding.key
            page = name.partition(".")[0]
            self.table.add_row(
                f"key: {binding.description}", plain(keys), f"{page}{', changed' if own else ''}", key=name
            )
        self.table.move_cursor(row=row)
        self._where.update(
            f"Kept in {config.path}" if config.path else "The settings file is not written: see the start."
        )

    def on_data_table_row_selected(self) -> None:
        """A second click."""
        self.action_change()

    @property
    def selected(self) -> str:
        """The row's name."""
        return str(self.table.coordinate_to_cell_key(self.table.cursor_coordinate).row_key.value)

    @work
    async def action_change(self) -> None:
        """Ask for another value."""
        name, config = self.selected, self.tui.services.config
        if name == "theme":
            names = sorted(self.app.available_themes)
            chosen = await self.app.push_screen_wait(Choose("Theme", names))
            if chosen is not None:
                self.tui.choose_theme(names[chosen])
        elif name == "unfold_reasoning":
            config.unfold_reasoning = not config.unfold_reasoning
        elif name == "clipboard":
            config.clipboard = CLIPBOARDS[(CLIPBOARDS.index(config.clipboard) + 1) % len(CLIPBOARDS)]
        elif name == "export_dir":
            text = await self.app.push_screen_wait(Ask("Directory for exports", config.export_dir or "."))
            config.export_dir = config.export_dir if text is None else "" if text == "." else text
        elif name == "frames_per_s":
            text = await self.app.push_screen_wait(Ask("Frames a second (0: automatic)", f"{config.frames_per_s:g}"))
            self._set_frames(text)
        else:
            await self._rebind(name)
        self.tui.save_config()
        self.fill()

    def _set_frames(self, text: str | None) -> None:
        if text is None:
            return
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if 0 <= value <= 60:
            self.tui.services.config.frames_per_s = value
        else:
            self.notify(f"{text!r} is not a number from 0 to 60.", severity="error")

    async def _rebind(self, name: str) -> None:
        binding, page = all_bindings()[name]
        pressed = await self.app.push_screen_wait(PressKey(f"New key for: {binding.description}"))
        if pressed is None:
            return
        taken = self._owner(pressed, name, page)
        if taken:
            self.notify(f"{pressed} is taken by: {taken}", severity="error")
            return
        self.tui.services.config.keys[name] = pressed
        self.app.update_keymap({name: pressed})

    def _owner(self, pressed: str, name: str, page: str) -> str:
        """What a key does already on the same page or everywhere."""
        keys = self.tui.services.config.keys
        for other, (binding, where) in all_bindings().items():
            current = keys.get(other, binding.key).split(",")
            if other != name and pressed in current and (where in (page, "app") or page == "app"):
                return binding.description
        return ""

    def action_reset(self) -> None:
        """Back to the key that came with the program."""
        name = self.selected
        if self.tui.services.config.keys.pop(name, None) is not None:
            self.app.set_keymap(self.tui.services.config.keys)
            self.tui.save_config()
            self.fill()
