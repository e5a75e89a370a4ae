"""The application's model: loaded, exchanged, kept whole while its files change, lent to one page at a time; tools."""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import work

from edgedistill.errors import EdgedistillError
from edgedistill.runtime.tools.rounds import ToolRounds
from edgedistill_tui.engine import Sampling
from edgedistill_tui.neutral import NeutralApp
from edgedistill_tui.opening import LeftError, Opening
from edgedistill_tui.screens.dialogs import AllowCall
from edgedistill_tui.tool_desk import Permission, ToolDesk

if TYPE_CHECKING:
    from textual.screen import Screen

    from edgedistill.runtime.tools.types import ToolCall
    from edgedistill_tui.data.session import Session
    from edgedistill_tui.engine import Engine
    from edgedistill_tui.screens.chat import ChatScreen
    from edgedistill_tui.services import Services

NOT_KEPT = ("kept_from", "summary")
"""Settings that belong to one conversation."""


class ModelApp(NeutralApp):
    """What the application does with its model; the pages and the session are ``app.TuiApp``'s.

    Args:
        services: What is behind the screens.
        tools: What the model may call in the chat.
    """

    session: Session
    _given: tuple[dict[str, Any], str]
    """Settings and system prompt of the command line."""
    _pages: dict[str, Screen[None]]

    def __init__(self, services: Services, tools: ToolRounds | None = None) -> None:
        super().__init__()
        self.services = services
        self.tools = tools or ToolRounds()
        self._allowed: dict[int, set[str]] = {}
        self.engine: Engine | None = None
        self.loading: Path | None = None
        self._opening = Opening(services.open_engine)
        self._engines: weakref.WeakSet[Engine] = weakref.WeakSet()

    @property
    def chat(self) -> ChatScreen:
        """The chat page."""
        raise NotImplementedError

    def go(self, name: str) -> None:
        """Show a page."""
        raise NotImplementedError

    def open_bundle(self, path: Path) -> None:
        """Load another bundle; the conversation goes on with it. Not while a reply is written."""
        if self.loading is not None:
            self.notify("Another bundle is being loaded.", severity="warning")
        elif what := self.occupied():
            self.notify(what, severity="warning")
        else:
            self.loading = path
            self.chat.loading_started(path)
            self._load(path)

    def load(self, path: Path) -> Engine:
        """Load a bundle, in any thread but the screen's, and watch over its files.

        Raises:
            LeftError: The program ends.
            Exception: What ``Services.open_engine`` raises.
        """
        engine = self._opening.load(path)
        self._engines.add(engine)
        return engine

    def _files_wanted(self) -> None:
        """Another program waits to change files of a loaded bundle."""
        for engine in list(self._engines):
            secured = engine.secure()
            if secured:
                self.notify(
                    f"Another program is changing the files of {engine.facts.bundle}. This chat continues with what "
                    "it had loaded; Alt+M opens the bundle again.", severity="warning", timeout=15,
                )  # fmt: skip
            elif secured is False:
                self._let_go(engine)

    @work
    async def _let_go(self, engine: Engine) -> None:
        """End what runs and close a model whose files another program waits for."""
        for name in ("chat", "ab", "consistency"):
            if name in self._pages:
                self._pages[name].stop()  # type: ignore[attr-defined]
        if engine is not self.engine:
            return
        while self.chat.busy or getattr(self._pages.get("consistency"), "running", False):
            await asyncio.sleep(0.05)
        self.engine = None
        engine.close()
        self.chat.loading_failed(
            f"Another program is changing the files of {engine.facts.bundle}, and there is not enough memory to keep a "
            "copy: the model is closed. Open a bundle with Alt+M or F4."
        )

    @work(thread=True)
    def _load(self, path: Path) -> None:
        try:
            engine = self.load(path)
        except LeftError:
            return
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
        if not self.session.messages:
            settings, system = self.services.registry.settings_of(path)
            self.session.settings = settings | self._given[0]
            self.session.system = self._given[1] or system
            if settings or system:
                self.notify("Settings and system prompt are those of last time; /defaults takes the bundle's own.")
        self.chat.engine_changed(engine)

    def _not_loaded(self, message: str) -> None:
        self.loading = None
        self.chat.loading_failed(message)
        if self.screen is not self.chat:
            self.notify(message, severity="error", timeout=10)
        if self.engine is None:
            self.go("bundles")

    def occupied(self) -> str:
        """What the model, or the machine that it would be measured on, is busy with; empty if with nothing."""
        if self.loading is not None:
            return f"{self.loading.name} is being loaded."
        works = (("chat", "The chat is answering"), ("ab", "A/B is asking"), ("profiler", "The profiler is measuring"),
                 ("consistency", "Samples are being drawn"))  # fmt: skip
        for name, what in works:
            page = self._pages.get(name)
            if page is not None and page.running:  # type: ignore[attr-defined]
                return f"{what}: Esc on that page stops it."
        return ""

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

    def keep_settings(self) -> None:
        """Begin the next conversation with this bundle as this one is set now, but for what the command line said."""
        if self.engine is None or not self.engine.facts.path:
            return
        path, (given, system) = Path(self.engine.facts.path), self._given
        before, system_before = self.services.registry.settings_of(path)
        settings: dict[str, Any] = {}
        for name, value in self.session.settings.items():
            if name in given and given[name] == value:
                settings |= {name: before[name]} if name in before else {}
            elif name not in NOT_KEPT:
                settings[name] = value
        kept = system_before if system and self.session.system == system else self.session.system
        self.services.registry.keep_settings(path, settings, kept)

    def tool_desk(self) -> ToolDesk | None:
        """What the model may call in this session; None: nothing. What the user allows holds for the session."""
        if not self.tools.tools:
            return None
        return ToolDesk(self.tools, self._ask_about, self._allowed.setdefault(self.session.id, set()))

    async def _ask_about(self, call: ToolCall) -> Permission | None:
        about = next((tool.description for tool in self.tools.tools if tool.name == call.name), "")
        return await self.push_screen_wait(AllowCall(call, about))

    def on_unmount(self) -> None:
        """The end does not wait for a model that is being loaded."""
        self._opening.leave()

    @property
    def unfinished(self) -> bool:
        """Whether a model is being loaded yet, after the screen is gone."""
        return self._opening.unfinished

    def close_engine(self) -> None:
        """Release the model, after the screen is gone."""
        if self.engine is not None:
            self.engine.close()
            self.engine = None
