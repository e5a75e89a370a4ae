"""The bundle manager: lists bundles with their details; opens, verifies, adds and deletes them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text
from textual import work
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import DataTable, Static

from edgedistill.bundle.bundle import Bundle
from edgedistill.errors import EdgedistillError
from edgedistill.progress import NullProgress
from edgedistill.units import format_bytes
from edgedistill_tui.data.bundles import Known, describe
from edgedistill_tui.neutral import plain
from edgedistill_tui.opening import LeftError
from edgedistill_tui.screens.dialogs import Ask, Confirm
from edgedistill_tui.screens.page import Page, key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.widget import Widget

    from edgedistill.progress import Unit

_EMPTY = (
    "No bundles yet.\n\nE exports the built-in tiny-reasoner, O opens a directory.\n"
    "On the command line: edgedistill export MODEL -o DIR"
)


class Hashing(NullProgress):
    """Progress of hashing a bundle, which stops at its next report once ``left`` is set.

    Raises:
        LeftError: From ``advance``: the program ends.
    """

    def __init__(self, left: threading.Event) -> None:
        self._left = left
        self._done, self._total = 0, 1

    def begin(self, stage: str, total: int, unit: Unit) -> None:
        """Bytes of all files."""
        super().begin(stage, total, unit)
        self._done, self._total = 0, max(1, total)

    def advance(self, amount: int) -> None:
        """So many more were hashed."""
        if self._left.is_set():
            raise LeftError
        self._done += amount

    def end(self) -> None:
        """All of them."""
        self._done = self._total

    @property
    def percent(self) -> int:
        """How much is done."""
        return 100 * self._done // self._total


class BundlesScreen(Page):
    """A table of bundles beside the details of the selected one."""

    PAGE = "bundles"
    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        key("bundles.open", "enter", "open", "Open", priority=True),
        key("bundles.verify", "v", "verify", "Check hashes"),
        key("bundles.add", "o", "add", "Add a directory"),
        key("bundles.export", "e", "export", "Export default"),
        key("bundles.delete", "d,delete", "delete", "Delete"),
        key("bundles.refresh", "r", "refresh", "Refresh"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.table: DataTable[Text | str] = DataTable(cursor_type="row", zebra_stripes=False)
        self._detail = Static("", markup=False)
        self.known: list[Known] = []
        self._checked: dict[Path, str] = {}
        self._hashing: dict[Path, Hashing] = {}
        self._left = threading.Event()

    def body(self) -> Iterator[Widget]:
        """Table and details."""
        with Horizontal(classes="columns"):
            yield self.table
            with VerticalScroll(classes="detail", can_focus=False):
                yield self._detail

    def on_mount(self) -> None:
        """The columns."""
        self.table.add_columns("bundle", "model", "bits", "size", "profile")
        self.table.focus()
        self.set_interval(0.25, self._show_hashing)

    def on_screen_resume(self) -> None:
        """Look again whenever the page is shown."""
        self.action_refresh()

    def action_refresh(self) -> None:
        """Look for bundles again."""
        row = self.table.cursor_row
        self.known = self.tui.services.registry.bundles()
        self.table.clear()
        engine = self.tui.engine
        for known in self.known:
            loaded = engine is not None and engine.facts.path == str(known.path.resolve())
            name = Text(("● " if loaded else "  ") + known.name, "bold" if loaded else "")
            if known.bundle is None:
                self.table.add_row(name, Text("cannot be opened", "italic red"), "", "", "")
                continue
            manifest = known.bundle.manifest
            self.table.add_row(
                name, plain(manifest.model.family), f"{manifest.bits_per_weight:.1f}", format_bytes(known.bundle.size),
                plain(str(manifest.profile.get("name", ""))),
            )  # fmt: skip
        if self.known:
            self.table.move_cursor(row=min(row, len(self.known) - 1))
        self._show()

    @property
    def selected(self) -> Known | None:
        """The bundle under the cursor."""
        row = self.table.cursor_row
        return self.known[row] if 0 <= row < len(self.known) else None

    def on_data_table_row_highlighted(self) -> None:
        """Show what is in it."""
        self._show()

    def on_data_table_row_selected(self) -> None:
        """A second click."""
        self.action_open()

    def _show(self) -> None:
        known = self.selected
        if known is None:
            self._detail.update(_EMPTY)
            return
        if known.bundle is None:
            self._detail.update(f"{known.name}\n\n{known.path}\n\n{known.problem}\n\nD deletes it.")
            return
        text = Text.assemble((f"{known.name}\n\n", "bold"))
        for label, value in describe(known.bundle):
            text.append(f"{label:<10} ", "dim")
            text.append(f"{value}\n")
        text.append(f"{'hashes':<10} ", "dim")
        text.append(self._checked.get(known.path, "V compares every SHA-256"))
        self._detail.update(text)

    def action_open(self) -> None:
        """Load it and go to the chat."""
        known = self.selected
        if known is None:
            return
        if known.bundle is None:
            self.notify(known.problem, severity="error", timeout=8)
            return
        self.tui.open_bundle(known.path)
        self.tui.go("chat")

    def action_verify(self) -> None:
        """Compare every file's SHA-256 with the manifest."""
        known = self.selected
        if known is not None and known.bundle is not None and known.path not in self._hashing:
            self._hashing[known.path] = Hashing(self._left)
            self._show_hashing()
            self._verify(known.path, self._hashing[known.path])

    @work(thread=True)
    def _verify(self, path: Path, hashing: Hashing) -> None:
        try:
            bundle = Bundle.open(path, check="full", progress=hashing)
            found = f"all {len(bundle.manifest.files)} files are as the manifest says"
        except LeftError:
            return
        except (EdgedistillError, OSError) as error:
            found = f"DAMAGED: {error}"
        self.app.call_from_thread(self._verified, path, found)

    def _verified(self, path: Path, found: str) -> None:
        self._hashing.pop(path, None)
        self._checked[path] = found
        self._show()

    def _show_hashing(self) -> None:
        for path, hashing in self._hashing.items():
            self._checked[path] = f"checking… {hashing.percent} %"
        if self._hashing:
            self._show()

    def on_unmount(self) -> None:
        """Stop hashing, so that the program can end at once."""
        self._left.set()

    @work
    async def action_add(self) -> None:
        """Put a directory on the list."""
        text = await self.app.push_screen_wait(Ask("Which bundle directory?", placeholder="./my-bundle"))
        if text is None:
            return
        path = Path(text).expanduser()
        try:
            Bundle.open(path)
        except EdgedistillError as error:
            self.notify(str(error), severity="error", timeout=8)
            return
        self.tui.services.registry.remember(path)
        self.action_refresh()

    def action_export(self) -> None:
        """Export the default bundle."""
        self.tui.export_default()

    @work
    async def action_delete(self) -> None:
        """Remove a bundle's files, after a question."""
        known = self.selected
        if known is None:
            return
        engine = self.tui.engine
        if engine is not None and engine.facts.path == str(known.path.resolve()):
            self.notify(f"{known.name} is loaded: open another bundle first.", severity="warning")
            return
        size = f", {format_bytes(known.bundle.size)}" if known.bundle is not None else ""
        if not await self.app.push_screen_wait(Confirm(f"Delete {known.path}{size}?", "Delete", "Keep")):
            return
        try:
            self.tui.services.registry.delete(known.path)
        except EdgedistillError as error:
            self.notify(str(error), severity="error", timeout=8)
        else:
            self.notify(f"{known.name} is deleted.")
        self.action_refresh()
