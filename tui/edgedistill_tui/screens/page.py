"""Base class of all pages: the bar at the top, the keys at the bottom, typed access to the application."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Footer

from edgedistill_tui.widgets.nav import NavBar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.app import ComposeResult
    from textual.widget import Widget

    from edgedistill_tui.screens.application import Application


def key(name: str, keys: str, action: str, title: str, *, show: bool = True, priority: bool = False) -> Binding:
    """A binding that the palette lists and the settings can move: ``name`` identifies it."""
    return Binding(keys, action, title, show=show, priority=priority, id=name)


class Page(Screen[None]):
    """A page: subclasses give ``PAGE`` (its name in ``nav.PAGES``) and ``body``."""

    PAGE: ClassVar[str] = ""
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (76, "-normal")]  # noqa: RUF012 - Textual's own declaration
    VERTICAL_BREAKPOINTS = [(0, "-low"), (30, "-tall")]  # noqa: RUF012 - Textual's own declaration

    def compose(self) -> ComposeResult:
        """Bar, body, keys."""
        yield NavBar(self.PAGE)
        yield from self.body()
        yield Footer(compact=True, show_command_palette=False)

    def body(self) -> Iterator[Widget]:
        """What is between."""
        raise NotImplementedError

    async def interrupt(self) -> None:
        """Ctrl-C: stop what the page does; leave where it does nothing."""
        await self.run_action("stop" if getattr(self, "running", False) else "app.quit")

    @property
    def tui(self) -> Application:
        """The application."""
        return cast("Application", self.app)
