"""The sessions page: searches titles, answers and reasoning; opens, renames, exports and deletes sessions."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from rich.text import Text
from textual import work
from textual.widgets import DataTable, Input, Static
from textual.worker import Worker, get_current_worker

from edgedistill.errors import EdgedistillError
from edgedistill_tui.data import writing
from edgedistill_tui.data.database import StoreError
from edgedistill_tui.data.session import Session
from edgedistill_tui.neutral import plain
from edgedistill_tui.screens.dialogs import Ask, Confirm
from edgedistill_tui.screens.page import Page, key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.widget import Widget

    from edgedistill_tui.data.search import Summary

PAGE = 50
"""Number of sessions read at a time; more are read when the cursor reaches the end."""
_DAY = 86_400

_NONE_YET = (
    "No sessions yet. Every conversation is kept here, with its alternatives, reasoning and figures:\n"
    "F2 is the chat, and what you ask there is the first one. / searches them all."
)
_NO_MATCH = "No session holds all these words. Esc goes back to the list; an empty search shows every session."


class SessionsScreen(Page):
    """A search field over a table."""

    PAGE = "sessions"
    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        key("sessions.open", "enter", "open", "Open", priority=True),
        key("sessions.search", "slash", "search", "Search"),
        key("sessions.new", "n", "new", "New"),
        key("sessions.rename", "r", "rename", "Rename"),
        key("sessions.export", "e", "export", "Export"),
        key("sessions.delete", "d,delete", "delete", "Delete"),
        key("sessions.back", "escape", "leave_search", "To the list", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.search = Input(placeholder="Search titles, answers, reasoning  ( / )", compact=True, classes="bar")
        self.table: DataTable[Text | str] = DataTable(cursor_type="row")
        self.summaries: list[Summary] = []
        self.empty = Static("", markup=False, classes="note empty")
        self._complete = False
        self._looking: Worker[None] | None = None

    def body(self) -> Iterator[Widget]:
        """Search field and table."""
        yield self.search
        yield self.empty
        yield self.table

    def on_mount(self) -> None:
        """The columns."""
        self.table.add_columns("when", "title", "messages", "bundle")

    def on_screen_resume(self) -> None:
        """Read again whenever the page is shown."""
        self.tui.save()
        self.fill()
        self.table.focus()

    def on_input_changed(self) -> None:
        """Search while typing."""
        self.fill()

    def fill(self) -> None:
        """Read the first sessions that match."""
        self._complete = False
        self._looking = self._look(self.search.value, 0)

    @property
    def searching(self) -> bool:
        """Whether the list is being read."""
        return self._looking is not None and not self._looking.is_finished

    def _more(self) -> None:
        if not self._complete and not self.searching:
            self._looking = self._look(self.search.value, len(self.summaries))

    @work(thread=True, exclusive=True, group="search")
    def _look(self, query: str, offset: int) -> None:
        """Search in a thread; typing meanwhile cancels it and starts another search."""
        worker = get_current_worker()
        store = self.tui.services.store
        try:
            found = store.find(query, limit=PAGE, offset=offset, wanted=lambda: not worker.is_cancelled)
        except (StoreError, OSError) as error:
            self.app.call_from_thread(self._not_found, str(error))
        else:
            if not worker.is_cancelled:
                self.app.call_from_thread(self._found, query, offset, found)

    def _not_found(self, problem: str) -> None:
        self.notify(problem, severity="warning")
        self._complete = True

    def _found(self, query: str, offset: int, found: list[Summary]) -> None:
        if query != self.search.value:
            return
        if not offset:
            self.summaries = []
            self.table.clear()
        self._complete = len(found) < PAGE
        self.summaries += found
        for summary in found:
            here = summary.id == self.tui.session.id
            title = Text(("● " if here else "  ") + (summary.title or "untitled"), "bold" if here else "")
            if summary.snippet and self.search.value.strip():
                title.append(f"  {summary.snippet}", "dim italic")
            bundle = summary.bundle.rstrip("/").rpartition("/")[2]
            self.table.add_row(when(summary.updated), title, str(summary.messages), plain(bundle))
        self.empty.display = not self.summaries
        self.empty.update(_NO_MATCH if query.strip() else _NONE_YET)
        # Lines that the table drew before it had measured its columns would stay cut.
        self.set_timer(0.1, self.table.notify_style_update)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Near the end of what was read: read more."""
        if event.cursor_row >= len(self.summaries) - 1:
            self._more()

    def on_data_table_row_selected(self) -> None:
        """A second click."""
        self.action_open()

    @property
    def selected(self) -> Summary | None:
        """The session under the cursor."""
        row = self.table.cursor_row
        return self.summaries[row] if 0 <= row < len(self.summaries) else None

    def _load(self) -> Session | None:
        summary = self.selected
        if summary is None:
            return None
        if summary.id == self.tui.session.id:
            return self.tui.session
        try:
            return self.tui.services.store.load(summary.id)
        except (StoreError, OSError) as error:
            self.notify(str(error), severity="error")
            return None

    @work
    async def action_open(self) -> None:
        """Go on with it; from the search field, first to the results."""
        if self.focused is self.search:
            self.table.focus()
            return
        if self.tui.chat.busy:
            self.notify("Still answering: stop the reply first (Esc in the chat).", severity="warning")
            return
        while self.searching:  # what is under the cursor is not what was searched for yet
            await asyncio.sleep(0.02)
        session = self._load()
        if session is not None:
            await self.tui.show_session(session)
            self.tui.go("chat")

    def action_search(self) -> None:
        """Type into the search field."""
        self.search.focus()

    def action_leave_search(self) -> None:
        """Back to the list."""
        self.table.focus()

    @work
    async def action_new(self) -> None:
        """Begin one."""
        if self.tui.chat.busy:
            self.notify("Still answering: stop the reply first (Esc in the chat).", severity="warning")
        else:
            await self.tui.show_session(Session(bundle=self.tui.session.bundle))
            self.tui.go("chat")

    @work
    async def action_rename(self) -> None:
        """Another title."""
        summary = self.selected
        if summary is None:
            return
        title = await self.app.push_screen_wait(Ask("Title of this session", summary.title))
        if title is None:
            return
        try:
            self.tui.services.store.rename(summary.id, title)
        except StoreError as error:
            self.notify(str(error), severity="warning")
            return
        if summary.id == self.tui.session.id:
            self.tui.session.title = title
        self.fill()

    def action_export(self) -> None:
        """Write it as Markdown."""
        session = self._load()
        if session is None:
            return
        try:
            path = writing.save(session, self.tui.services.config.exports, ".md")
        except EdgedistillError as error:
            self.notify(str(error), severity="error")
        else:
            self.notify(f"Saved to {path.name}.")

    @work
    async def action_delete(self) -> None:
        """Remove it, after a question."""
        summary = self.selected
        if summary is None:
            return
        question = f"Delete “{summary.title}” with {summary.messages} messages?"
        if not await self.app.push_screen_wait(Confirm(question, "Delete", "Keep")):
            return
        if summary.id == self.tui.session.id:
            if self.tui.chat.busy:
                self.notify("Still answering in this session.", severity="warning")
                return
            self.tui.session = Session(bundle=self.tui.session.bundle)
            await self.tui.chat.session_changed()
        try:
            self.tui.services.store.delete(summary.id)
        except StoreError as error:
            self.notify(str(error), severity="warning")
        self.fill()


def when(timestamp: float, now: float | None = None) -> str:
    """A time as people say it: ``14:05`` today, ``Mon 14:05`` this week, a date before."""
    now = time.time() if now is None else now
    local = time.localtime(timestamp)
    if time.localtime(now)[:3] == local[:3]:
        return time.strftime("%H:%M", local)
    return time.strftime("%a %H:%M" if now - timestamp < 6 * _DAY else "%Y-%m-%d", local)
