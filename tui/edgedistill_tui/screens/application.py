"""Protocols of the application as pages use it: the model, the session, navigation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.runtime.tools.rounds import ToolRounds
    from edgedistill_tui.data.session import Session
    from edgedistill_tui.engine import Engine, Sampling
    from edgedistill_tui.services import Services
    from edgedistill_tui.tool_desk import ToolDesk


class Conversation(Protocol):
    """The chat page as the other pages see it."""

    @property
    def busy(self) -> bool:
        """Whether a reply is being written."""
        ...

    async def session_changed(self) -> None:
        """Draw another session, or another path through it."""
        ...


class Application(Protocol):
    """The application as pages use it; ``app.TuiApp`` implements it."""

    services: Services
    session: Session
    engine: Engine | None
    loading: Path | None
    theme: str
    tools: ToolRounds

    @property
    def chat(self) -> Conversation:
        """The chat page."""
        ...

    @property
    def sampling(self) -> Sampling:
        """The session's settings on top of the bundle's."""
        ...

    def keep_settings(self) -> None:
        """Begin the next conversation with this bundle as this one is set now."""
        ...

    def tool_desk(self) -> ToolDesk | None:
        """What the model may call in this session; None: nothing."""
        ...

    @property
    def fps(self) -> float:
        """Frames per second at most."""
        ...

    def go(self, name: str) -> None:
        """Show a page."""
        ...

    def open_bundle(self, path: Path) -> None:
        """Load another bundle; the conversation goes on with it."""
        ...

    def load(self, path: Path) -> Engine:
        """Load a bundle, in any thread but the screen's."""
        ...

    def occupied(self) -> str:
        """What keeps the model busy, as a sentence; empty if nothing does."""
        ...

    def export_default(self) -> Any:
        """Export the built-in model and open it."""
        ...

    def choose_theme(self, name: str) -> None:
        """Change the colours and remember them."""
        ...

    def save_config(self) -> None:
        """Write the settings."""
        ...

    def save(self) -> bool:
        """Write the session; False if that has to wait."""
        ...

    async def show_session(self, session: Session) -> None:
        """Switch to another session."""
        ...

    def copy(self, text: str, what: str) -> None:
        """Copy to the clipboard, or to a file where there is none."""
        ...
