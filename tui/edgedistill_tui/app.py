"""The Textual application: one chat screen over one bundle.

Must not know: how a bundle is run (engine.py does), how a conversation is drawn (the screen does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import App

from edgedistill_tui.screens.chat import ChatScreen

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgedistill_tui.engine import Engine


class ChatApp(App[None]):
    """Chat with a bundle.

    Args:
        load: Makes the engine; called once in a thread, so that the screen is there at once.
        system: System prompt.
    """

    CSS_PATH = "app.tcss"
    TITLE = "edgedistill"
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, load: Callable[[], Engine], *, system: str | None = None) -> None:
        super().__init__()
        self._load = load
        self._system = system

    def on_mount(self) -> None:
        """Show the chat."""
        self.push_screen(ChatScreen(self._load, system=self._system))
