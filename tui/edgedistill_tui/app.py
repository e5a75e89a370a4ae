"""The application: owns the loaded model, the session that is talked in, and the way between the pages.

Must not know: how a bundle is run (engine.py does), how anything is drawn (the screens do).
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding

from edgedistill.errors import EdgedistillError
from edgedistill_tui import clipboard
from edgedistill_tui.data.session import Session
from edgedistill_tui.data.store import StoreError
from edgedistill_tui.data.writing import write_new
from edgedistill_tui.engine import Sampling
from edgedistill_tui.frames import frames_per_s, is_remote
from edgedistill_tui.screens import make_page
from edgedistill_tui.theme import EDGEDISTILL
from edgedistill_tui.widgets.nav import PAGES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from textual.screen import Screen

    from edgedistill_tui.engine import Engine
    from edgedistill_tui.screens.chat import ChatScreen
    from edgedistill_tui.services import Services

_RETRY_S = 5.0
"""Seconds between attempts to save what could not be saved."""


class TuiApp(App[None]):
    """The terminal UI.

    Args:
        services: What is behind the screens.
        bundle: Opened at once; None: no model yet.
        page: The page to begin with.
        system: System prompt of the first session.
        overrides: Sampling settings of the first session, on top of the bundle's.
        offer_default: Without any known bundle, export the default one at once.
    """

    CSS_PATH = "app.tcss"
    TITLE = "edgedistill"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        Binding("ctrl+q", "quit", "Quit", id="app.quit", priority=True),
        *(
            Binding(key, f"go('{page}')", title, id=f"go.{page}", show=False, priority=True)
            for page, key, title, _ in PAGES
        ),
    ]

    def __init__(
        self,
        services: Services,
        *,
        bundle: Path | None = None,
        page: str = "chat",
        system: str = "",
        overrides: dict[str, Any] | None = None,
        offer_default: bool = False,
    ) -> None:
        super().__init__()
        self.services = services
        self.engine: Engine | None = None
        self.loading: Path | None = None
        self.session = Session(system=system, settings=dict(overrides or {}))
        self._first_bundle = bundle
        self._first_page = page
        self._offer_default = offer_default
        self._pages: dict[str, Screen[None]] = {}
        self._told_locked = False

    # ---- start and end ---------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Show the first page, load the first bundle, be ready for signals."""
        self.register_theme(EDGEDISTILL)
        self.theme = (
            self.services.config.theme if self.services.config.theme in self.available_themes else "edgedistill"
        )
        self.set_keymap(self.services.config.keys)
        if is_remote():
            self.animation_level = "none"
        self._handle_signals()
        self.go(self._first_page)
        if self._first_bundle is not None:
            self.open_bundle(self._first_bundle)
        elif self._offer_default and not self.services.registry.bundles():
            self.export_default()
        taken = self.services.store.take_in_rescued()
        if taken:
            self.services.notices.append(f"{taken} session(s) that could not be saved last time are in the list now.")
        for notice in self.services.notices:
            self.notify(notice, severity="warning", timeout=10)
        self.set_interval(_RETRY_S, self._save_again)

    def _handle_signals(self) -> None:
        """SIGTERM and a lost terminal end the program in order, with the conversation saved."""
        import asyncio

        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):
            if number is not None:
                loop.add_signal_handler(number, self._end_by_signal, int(number))

    def _end_by_signal(self, number: int) -> None:
        self.save_everything()
        self.exit(return_code=128 + number)

    async def action_quit(self) -> None:
        """Save and leave."""
        self.save_everything()
        self.exit()

    def save_everything(self) -> None:
        """The session with a reply that is just being written; beside the database if it cannot be in it."""
        chat = self._pages.get("chat")
        if chat is not None:
            self.chat.cut_reply()
        if not self.save():
            try:
                self.services.store.rescue(self.session)
            except OSError as error:
                self.exit(message=f"error: the session could not be saved: {error}")
        self.services.store.close()

    @work
    async def export_default(self) -> None:
        """Make the default bundle, with its progress on the screen, and open it."""
        from edgedistill_tui.screens.exporting import ExportScreen

        make = self.services.make_default
        if make is None:
            self.notify("No exporter here. On the command line: edgedistill export tiny-reasoner -o DIR")
            return
        path = await self.push_screen_wait(ExportScreen(make, self.services.registry.home))
        if path is not None:
            self.services.registry.remember(path)
            self.open_bundle(path)
            self.go("chat")

    def close_engine(self) -> None:
        """Release the model, after the screen is gone."""
        if self.engine is not None:
            self.engine.close()
            self.engine = None

    # ---- pages -----------------------------------------------------------------------------------------------

    @property
    def chat(self) -> ChatScreen:
        """The chat, which is there as long as the application."""
        return self.page("chat")  # type: ignore[return-value]

    def page(self, name: str) -> Screen[None]:
        """The page ``name``; made when it is first wanted, then kept."""
        if name not in self._pages:
            self._pages[name] = make_page(name)
            self.install_screen(self._pages[name], name)
        return self._pages[name]

    def go(self, name: str) -> None:
        """Show a page."""
        page = self.page(name)
        if self.screen is page:
            return
        while len(self.screen_stack) > 1 and self.screen.is_modal:
            self.pop_screen()
        if len(self.screen_stack) == 1:
            self.push_screen(page)
        else:
            self.switch_screen(page)

    def action_go(self, name: str) -> None:
        """Show a page."""
        self.go(name)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: every page, and every action that has a key here."""
        for page, key, title, _ in PAGES:
            yield SystemCommand(f"Go to {title}", f"Key: {key.upper()}", lambda page=page: self.go(page))
        seen = set()
        for _, binding, enabled, _tooltip in screen.active_bindings.values():
            if not binding.id or not enabled or binding.id in seen or binding.id.startswith("go."):
                continue
            seen.add(binding.id)
            keys = self.get_key_display(binding)
            yield SystemCommand(
                binding.tooltip or binding.description, f"Key: {keys}",
                lambda action=binding.action, node=_: self.run_worker(node.run_action(action)),
            )  # fmt: skip
        for theme in sorted(self.available_themes):
            yield SystemCommand(f"Theme: {theme}", "Change the colours", lambda theme=theme: self.choose_theme(theme))

    def choose_theme(self, name: str) -> None:
        """Change the colours, and remember it."""
        self.theme = name
        self.services.config.theme = name
        self.save_config()

    def save_config(self) -> None:
        """Write the settings."""
        try:
            self.services.config.save()
        except EdgedistillError as error:
            self.notify(str(error), severity="warning")

    @property
    def fps(self) -> float:
        """Frames per second at most."""
        return frames_per_s(self.services.config.frames_per_s)

    # ---- the model -------------------------------------------------------------------------------------------

    def open_bundle(self, path: Path) -> None:
        """Load another bundle; the conversation goes on with it. Not while a reply is written."""
        if self.loading is not None:
            self.notify("Another bundle is being loaded.", severity="warning")
        elif self.chat.busy:
            self.notify("Still answering: stop the reply first (Esc).", severity="warning")
        else:
            self.loading = path
            self.chat.loading_started(path)
            self._load(path)

    @work(thread=True)
    def _load(self, path: Path) -> None:
        try:
            engine = self.services.open_engine(path)
        except (EdgedistillError, OSError) as error:
            self.call_from_thread(self._not_loaded, str(error))
            return
        except Exception as error:  # a damaged graph makes onnxruntime raise exceptions of its own
            self.call_from_thread(self._not_loaded, f"{path} cannot be loaded: {str(error).splitlines()[0]}")
            return
        self.call_from_thread(self._loaded, path, engine)

    def _loaded(self, path: Path, engine: Engine) -> None:
        before, self.engine, self.loading = self.engine, engine, None
        if before is not None:
            before.close()
        self.services.registry.remember(path)
        self.session.bundle = str(path)
        self.chat.engine_changed(engine)

    def _not_loaded(self, message: str) -> None:
        self.loading = None
        self.chat.loading_failed(message)
        if self.screen is not self.chat:
            self.notify(message, severity="error", timeout=10)
        if self.engine is None:
            self.go("bundles")

    @property
    def sampling(self) -> Sampling:
        """The session's settings on top of the bundle's."""
        defaults = self.engine.defaults if self.engine is not None else Sampling()
        try:
            return defaults.merged(self.session.settings)
        except EdgedistillError as error:
            self.notify(f"The session's settings do not fit: {error}", severity="warning")
            self.session.settings = {}
            return defaults

    # ---- the session -----------------------------------------------------------------------------------------

    def save(self) -> bool:
        """Write the session; False if that has to wait, which is said once."""
        store = self.services.store
        try:
            store.save(self.session)
        except (StoreError, OSError) as error:
            if not self._told_locked and self.is_running:
                self.notify(f"Not saved yet: {error}", severity="warning", timeout=8)
            self._told_locked = True
            return False
        if self._told_locked:
            self._told_locked = False
            self.notify("The session is saved now.")
        while store.notices:
            self.notify(store.notices.pop(0), severity="warning", timeout=10)
        return True

    def _save_again(self) -> None:
        if any(message.dirty for message in self.session.messages.values()):
            self.save()

    async def show_session(self, session: Session) -> None:
        """Talk in another session from now on."""
        self.save()
        self.session = session
        await self.chat.session_changed()

    # ---- copying ---------------------------------------------------------------------------------------------

    def copy(self, text: str, what: str) -> None:
        """To the clipboard, or where there is none to a file."""
        mode = self.services.config.clipboard
        if mode != "file" and (self.is_headless or clipboard.copy_with_tool(text)):
            self.copy_to_clipboard(text) if self.is_headless else None
            self.notify(f"{what} copied.")
        elif mode == "terminal" or (mode == "auto" and clipboard.terminal_can_copy()):
            self.copy_to_clipboard(text)
            self.notify(f"{what} handed to the terminal's clipboard. Nothing there? Settings: clipboard to file.")
        else:
            try:
                path = write_new(self.services.config.exports, "copied", ".md", text + "\n")
            except EdgedistillError as error:
                self.notify(str(error), severity="error")
            else:
                self.notify(f"No clipboard here: {what.lower()} written to {path}.")
