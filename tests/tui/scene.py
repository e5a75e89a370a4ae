"""Where the test of one key takes place: the running application, the key, what the test needs around it.

A case is written for a (class, action) and pressed with each key of it, or for a (class, method) that takes keys and
clicks by itself. ``CASES`` is what ``test_tui_bindings.py`` compares with the keys that exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fake_engine import FakeEngine, chat_of, until
from textual.widgets import Static

from edgedistill_tui.app import TuiApp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from textual.pilot import Pilot
    from textual.screen import Screen

    from edgedistill_tui.data.session import Message
    from edgedistill_tui.screens.chat import ChatScreen

    Case = Callable[["Scene"], Awaitable[None]]

CASES: dict[tuple[str, str], Case] = {}


def proves(owner: str, action: str) -> Callable[[Case], Case]:
    """The decorated case tests this action (or method) of this class."""

    def put(case: Case) -> Case:
        assert (owner, action) not in CASES, f"{owner} {action} has two cases"
        CASES[owner, action] = case
        return case

    return put


@dataclass(slots=True)
class Scene:
    """One key in one application.

    Attributes:
        key: Pressed by ``press``; empty for a method that takes its keys and clicks itself.
        directory: Of this application: exports go there, bundles are looked for in ``work``.
        bundle: A real bundle to copy.
    """

    pilot: Pilot[None]
    engine: FakeEngine
    directory: Path
    bundle: Path
    key: str = ""
    pressed: bool = False

    async def press(self) -> None:
        """The key under test."""
        self.pressed = True
        await self.pilot.press(self.key)
        await self.pilot.pause()

    async def type(self, *keys: str) -> None:
        """Other keys."""
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the application work until ``condition`` holds."""
        await until(self.pilot, condition)

    async def until_screen(self, name: str) -> None:
        """Until the screen of that class is on top."""
        await self.until(lambda: type(self.screen).__name__ == name)
        await self.pilot.pause()

    async def go(self, page: str) -> None:
        """Show a page."""
        self.app.go(page)
        await self.pilot.pause()

    @property
    def app(self) -> TuiApp:
        """The application."""
        app = self.chat.tui
        assert isinstance(app, TuiApp)
        return app

    @property
    def chat(self) -> ChatScreen:
        """Its chat."""
        return chat_of(self.pilot)

    @property
    def screen(self) -> Any:
        """What is on top."""
        top: Screen[Any] = self.pilot.app.screen
        return top

    @property
    def path(self) -> list[Message]:
        """The messages on the screen."""
        return self.chat.session.path()

    @property
    def text(self) -> str:
        """What the lines of the top screen say."""
        return "\n".join(str(widget.render()) for widget in self.screen.query(Static))

    @property
    def said(self) -> str:
        """What was notified."""
        return "\n".join(notice.message for notice in self.pilot.app._notifications)
