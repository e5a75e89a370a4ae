"""The navigation bar: all pages by name and key, with the current one marked; a click opens a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Horizontal
from textual.widgets import Static

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.events import Click, Resize

PAGES: tuple[tuple[str, str, str, str], ...] = (
    ("help", "f1", "Help", "?"),
    ("chat", "f2", "Chat", "Chat"),
    ("sessions", "f3", "Sessions", "Sess"),
    ("bundles", "f4", "Bundles", "Bundles"),
    ("profiler", "f5", "Profiler", "Prof"),
    ("ab", "f6", "A/B", "A/B"),
    ("consistency", "f7", "Consistency", "Consist"),
    ("settings", "f8", "Settings", "Set"),
)
"""(name, key, title, short title), in the order of the keys."""


class NavItem(Static):
    """One page's name."""

    def __init__(self, page: str, key: str, title: str, short: str, *, current: bool) -> None:
        super().__init__(title, markup=False, classes="nav-item -current" if current else "nav-item")
        self.page, self._key, self._title, self._short = page, key, title, short
        self.tooltip = f"{title} ({key.upper()})"

    def fit(self, width: int) -> None:
        """Choose the longest form that the line of ``width`` columns has room for."""
        long = f"{self._key.upper()} {self._title}"
        self.update(long if width >= 104 else self._title if width >= 76 else self._short)

    async def on_click(self, event: Click) -> None:
        """Go there."""
        event.stop()
        await self.run_action(f"app.go('{self.page}')")


class PaletteItem(Static):
    """The palette for the mouse: through it every action can be clicked, those without room in the footer too."""

    def __init__(self) -> None:
        super().__init__("^P", markup=False, classes="nav-item")
        self.tooltip = "Every command by name (^P)"

    def fit(self, width: int) -> None:
        """Choose the longest form that the line of ``width`` columns has room for."""
        self.update("^P Commands" if width >= 108 or 84 <= width < 104 else "^P")

    async def on_click(self, event: Click) -> None:
        """Open it."""
        event.stop()
        await self.run_action("app.command_palette")


class NavBar(Horizontal):
    """All pages and the palette; ``current`` is the page this bar is on."""

    def __init__(self, current: str) -> None:
        super().__init__(id="nav")
        self._current = current

    def compose(self) -> ComposeResult:
        """The items."""
        for page, key, title, short in PAGES:
            yield NavItem(page, key, title, short, current=page == self._current)
        yield PaletteItem()

    def on_resize(self, event: Resize) -> None:
        """Fit the words."""
        for item in self.query(NavItem):
            item.fit(event.size.width)
        self.query_one(PaletteItem).fit(event.size.width)
