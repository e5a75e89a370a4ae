"""The application: owns the current session, navigation between pages, start and exit."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual import work
from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual.app import SystemCommand
from textual.keys import Keys

from edgedistill.errors import EdgedistillError
from edgedistill.safe_text import visible
from edgedistill.system.file_leases import SIGNAL as CHANGE_SIGNAL
from edgedistill_tui import clipboard
from edgedistill_tui.data.database import StoreError
from edgedistill_tui.data.session import Session
from edgedistill_tui.data.writing import to_markdown, write_new
from edgedistill_tui.ending import Ending
from edgedistill_tui.frames import frames_per_s, is_remote
from edgedistill_tui.model_app import ModelApp
from edgedistill_tui.screens import make_page
from edgedistill_tui.screens.bindings import APP_BINDINGS, declared
from edgedistill_tui.screens.dialogs import Confirm
from edgedistill_tui.screens.page import Page
from edgedistill_tui.theme import EDGEDISTILL, EDGEDISTILL_LIGHT
from edgedistill_tui.widgets.nav import PAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from textual.binding import Binding
    from textual.dom import DOMNode
    from textual.screen import Screen

    from edgedistill.runtime.tools.rounds import ToolRounds
    from edgedistill_tui.screens.chat import ChatScreen
    from edgedistill_tui.services import Services

_RETRY_S = 5.0
"""Seconds between attempts to save what could not be saved."""


class TuiApp(ModelApp):
    """The terminal UI.

    Args:
        services: Everything that the application gets from outside.
        bundle: Opened at start; None: no model yet.
        page: The first page.
        system: System prompt of the first session.
        overrides: Sampling settings of the first session, on top of the bundle's.
        tools: What the model may call.
        offer_default: Without any known bundle, export the default one at once.
    """

    CSS_PATH = "app.tcss"
    TITLE = "edgedistill"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS = [*APP_BINDINGS]  # noqa: RUF012 - Textual's own declaration

    def __init__(
        self,
        services: Services,
        *,
        bundle: Path | None = None,
        page: str = "chat",
        system: str = "",
        overrides: dict[str, Any] | None = None,
        tools: ToolRounds | None = None,
        offer_default: bool = False,
    ) -> None:
        super().__init__(services, tools)
        self._given = (dict(overrides or {}), system)
        self.session = Session(system=system, settings=dict(overrides or {}))
        self._first_bundle = bundle
        self._first_page = page
        self._offer_default = offer_default
        self._pages: dict[str, Screen[None]] = {}
        self._told_locked = False
        self._ending: Ending | None = None

    # ---- start and end ---------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Show the first page, load the first bundle, be ready for signals."""
        self.register_theme(EDGEDISTILL)
        self.register_theme(EDGEDISTILL_LIGHT)
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

    def run(self, *arguments: Any, **options: Any) -> Any:
        """Textual's ``run``; restores the handlers of signals once the screen is gone."""
        # Terminals send Alt+Enter as Escape and Enter, which Textual would take for "^" and Enter.
        ANSI_SEQUENCES_KEYS["\x1b\r"] = (Keys.ControlJ,)  # type: ignore[index]  # declared as what nobody changes
        run: Callable[..., Any] = super().run
        try:
            return run(*arguments, **options)
        finally:
            if self._ending is not None:
                self._ending.over()

    def on_unmount(self) -> None:
        """Restore the handlers of signals under test, where ``run`` is not called."""
        if self.is_headless and self._ending is not None:
            self._ending.over()

    def _handle_signals(self) -> None:
        """Save the conversation and end at SIGTERM or a lost terminal; pass on the signal about changed files."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        if CHANGE_SIGNAL is not None:
            loop.add_signal_handler(CHANGE_SIGNAL, self._files_wanted)
        self._ending = Ending(loop, self._end_by_signal, self._rescue)

    def _rescue(self) -> None:
        """Write what the database lacks to a file beside it, because the screen is stuck."""
        if "chat" in self._pages and (run := self.chat.run) is not None:
            run.take_text()
            run.message.finish_reason = "cancelled"
        self.services.store.rescue(self.session)

    def _end_by_signal(self, number: int) -> None:
        self._leave(self.save_everything(), 128 + number)

    async def action_quit(self) -> None:
        """Save and leave; asks first if the conversation cannot be written anywhere."""
        self._quit()

    @work
    async def _quit(self) -> None:
        warning = self.save_everything()
        if self._unsaved and not isinstance(self.screen, Confirm):
            question = f"{warning} Leave, with the conversation printed to the terminal?"
            if not await self.push_screen_wait(Confirm(question, "Leave", "Stay")):
                return
        self._leave(warning)

    async def action_interrupt(self) -> None:
        """Stop what the page does, or leave if it does nothing."""
        if isinstance(self.screen, Page):
            await self.screen.interrupt()

    def _leave(self, warning: str, code: int = 0) -> None:
        """End the program; prints what it could not save to the terminal."""
        text = to_markdown(self.session) if self._unsaved else ""
        said = "\n".join(part for part in (text, warning) if part)
        self.exit(return_code=code, message=Text(visible(said)) if said else None)

    @property
    def _unsaved(self) -> bool:
        return any(message.dirty for message in self.session.messages.values())

    def save_everything(self) -> str:
        """Save the session with the reply that is being written, to a separate file if the database cannot be written.

        Returns a sentence for the user; empty if the database has everything. Messages stay ``dirty`` if they could not
        be written anywhere.
        """
        if "chat" in self._pages:
            self.chat.cut_reply()
        store = self.services.store
        saved, warning = self.save(), ""
        if not saved:
            try:
                path = store.rescue(self.session)
            except OSError as error:
                warning = f"The conversation could not be saved ({error.strerror or error})."
            else:
                if path is not None:
                    warning = f"The conversation could not be saved as usual; it is kept in {path}"
                    here = path.parent == store.path.parent
                    warning += ", and the next start takes it in." if here else (
                        f". Move that file to {store.path.parent}, and the next start takes it in."
                    )  # fmt: skip
                for message in self.session.messages.values():
                    message.dirty = False
        store.close()
        return warning

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

    # ---- pages -----------------------------------------------------------------------------------------------

    @property
    def chat(self) -> ChatScreen:
        """The chat page, which exists as long as the application."""
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
            # With a result: whoever asked is still waiting for one.
            self.screen.dismiss(None)
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
        for node, binding in self._named_bindings(screen):
            if binding.id in seen or (binding.id or "").startswith("go."):
                continue
            seen.add(binding.id)
            keys = self.get_key_display(replace(binding, key=binding.key.partition(",")[0]))
            yield SystemCommand(
                binding.tooltip or binding.description, f"Key: {keys}",
                lambda action=binding.action, node=node: self.run_worker(node.run_action(action)),
            )  # fmt: skip
        for theme in sorted(self.available_themes):
            yield SystemCommand(f"Theme: {theme}", "Change the colours", lambda theme=theme: self.choose_theme(theme))

    def _named_bindings(self, screen: Screen[Any]) -> Iterator[tuple[DOMNode, Binding]]:
        """Bindings with a name, from the focused widget upwards. The palette shows an action even if the focused widget
        uses its key for something else, as a table uses Enter.
        """
        for node in dict.fromkeys((*(screen.focused.ancestors_with_self if screen.focused else ()), screen, self)):
            for binding in declared(type(node)):
                if binding.id:
                    yield node, replace(binding, key=self.services.config.keys.get(binding.id, binding.key))

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

    # ---- the session -----------------------------------------------------------------------------------------

    def save(self) -> bool:
        """Write the session; False if it could not be written now, about which the user is notified once."""
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
        if self._unsaved or self.session.withdrawn:
            self.save()

    async def show_session(self, session: Session) -> None:
        """Switch to another session."""
        self.save()
        self.session = session
        await self.chat.session_changed()

    # ---- copying ---------------------------------------------------------------------------------------------

    def copy(self, text: str, what: str) -> None:
        """Copy ``text`` to the clipboard, or to a file if there is none."""
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
