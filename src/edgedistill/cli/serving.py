"""The server behind ``--serve``: textual-serve, for whoever has this run's token, and within limits.

A port is within reach of every user of this machine, of every web page that a browser on it shows (pages may open
websockets to any address, and a name of theirs may resolve to 127.0.0.1), and with ``--host`` of the network. So:

- a token, new with every run, is in the address that is printed; a cookie keeps it for the page's own requests,
- requests of a page of another origin, and those under a name that is not this server's, are refused,
- so many sessions at once, each a process with a model of its own, and so many connections that ask nothing,
- the sessions' processes end with the server, whatever ended it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import secrets
import signal
import time
from asyncio.subprocess import PIPE, Process
from typing import TYPE_CHECKING, Any

from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server

from edgedistill.cli import console
from edgedistill.system.host_names import address, host_name, is_own_page, names_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

SESSIONS = 4
IDLE_S = 10.0
"""After so many seconds a connection that has asked nothing, or nothing more, is closed."""
IDLE_CONNECTIONS = 32
"""At most so many of them; the oldest are closed first."""
_MOST_CELLS = 1000
_GRACE_S = 5.0
_ELSEWHERE = re.compile(r'<link\b[^>]*\bhref="(?:https?:)?//(?!\{)[^"]*"[^>]*>', re.DOTALL)
_OWN = """\
<style>
  @font-face {{ font-family: "Roboto Mono"; src: url("{url}/static/fonts/RobotoMono-VariableFont_wght.ttf"); }}
</style>
<script>
  // Keys go to the terminal from the start, without a click into it.
  window.addEventListener("load", () => document.querySelector(".xterm-helper-textarea")?.focus());
</script>
</head>"""


class LocalServer(Server):  # type: ignore[misc] # textual-serve is an extra
    """Serves a command that opens the UI; ``serve()`` returns on Ctrl-C.

    Args:
        command: Run in a process of its own for every page.
        host, port: Where to listen.
        names: Names besides those of this machine that it may be asked by, of a proxy for example.
        sessions: Most pages at a time.
    """

    def __init__(
        self, command: Sequence[str], host: str, port: int, *, names: Sequence[str] = (), sessions: int = SESSIONS
    ) -> None:
        super().__init__(" ".join(command), host=host, port=port, title="edgedistill")
        self._command, self._most = list(command), sessions
        self._names = names_of(host, names)
        self._token = secrets.token_urlsafe(24)
        self._cookie = f"edgedistill-{port}"  # cookies know no ports
        self._sessions: set[_Session] = set()
        self._idle_since: dict[object, float] = {}

    @property
    def url(self) -> str:
        """What a person opens."""
        return f"{address(self.host, self.port)}/?token={self._token}"

    def serve(self, debug: bool = False) -> None:  # noqa: ARG002 - textual-serve's signature
        """Until Ctrl-C or SIGTERM; raises OSError where the port is taken."""
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        # No access log: it would hold the token.
        runner = web.AppRunner(await self._make_app(), access_log=None, keepalive_timeout=IDLE_S, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port, backlog=16).start()
            console.out(f"Open {self.url}")
            console.note("Whoever has this address can use it. Ctrl-C ends the server and its sessions.")
            ended = asyncio.Event()
            for name in ("SIGINT", "SIGTERM"):
                with contextlib.suppress(NotImplementedError):  # on Windows, Ctrl-C ends the loop itself
                    asyncio.get_running_loop().add_signal_handler(getattr(signal, name), ended.set)
            assert runner.server is not None
            while not ended.is_set():
                self._close_idle(runner.server)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), 0.5)
        finally:
            await asyncio.gather(*(session.stop() for session in list(self._sessions)), return_exceptions=True)
            await runner.cleanup()

    def _close_idle(self, server: web.Server) -> None:
        """Close connections that ask nothing: after a while, and the oldest of too many at once."""
        now, idle = time.monotonic(), []
        for handler in server.connections:
            since = self._idle_since.setdefault(handler, now)
            if since != _BUSY and handler.transport is not None:
                idle.append((since, handler.transport))
        idle.sort(key=lambda pair: pair[0])
        for number, (since, transport) in enumerate(idle):
            if now - since > IDLE_S or number < len(idle) - IDLE_CONNECTIONS:
                transport.abort()
        there = set(server.connections)
        self._idle_since = {handler: since for handler, since in self._idle_since.items() if handler in there}

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.middlewares.append(self._admit)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """What textual-serve prints there has no token."""

    @web.middleware
    async def _admit(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self._idle_since[request.protocol] = _BUSY
        try:
            self._refuse_strangers(request)
            return await handler(request)
        finally:
            self._idle_since[request.protocol] = time.monotonic()

    def _refuse_strangers(self, request: web.Request) -> None:
        if host_name(request.host) not in self._names:
            hint = f"open http://localhost:{self.port}, or start it with --allow-host NAME"
            raise web.HTTPForbidden(text=f"This is not {request.host!r}: {hint}.\n")
        origin = request.headers.get("Origin")
        if origin is not None and not is_own_page(origin, request.host):
            raise web.HTTPForbidden(text=f"A page of {origin!r} may not use this server.\n")
        given = request.query.get("token") or request.cookies.get(self._cookie) or ""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
            raise web.HTTPForbidden(text="Open the address with the token that the server printed when it started.\n")

    async def handle_index(self, request: web.Request) -> Any:
        """The page: with addresses under the name it was asked for by, and without anything from other servers."""
        if "token" in request.query:  # out of the address bar, the history and what is sent to other servers
            answer = web.HTTPSeeOther(str(request.rel_url.without_query_params("token")))
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="Strict")
            return answer
        self._require_room()
        self.public_url = f"http://{request.host}"
        page = await super().handle_index(request)
        own = _ELSEWHERE.sub(lambda link: link[0] if request.host in link[0] else "", page.text)
        page.text = own.replace("</head>", _OWN.format(url=self.public_url), 1)
        page.headers.update({"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Cache-Control": "no-store"})
        return page

    def _require_room(self) -> None:
        if len(self._sessions) >= self._most:
            raise web.HTTPServiceUnavailable(text=f"{self._most} sessions are open; close one first.\n")

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """A session: a process for as long as the page is open."""
        self._require_room()
        websocket = web.WebSocketResponse(heartbeat=15, max_msg_size=1 << 20)
        session = _Session(
            self.command,
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=websocket.close,
            download_manager=self.download_manager,
        )
        session.arguments = self._command
        self._sessions.add(session)
        try:
            await websocket.prepare(request)
            await session.start(_cells(request.query.get("width"), 80), _cells(request.query.get("height"), 24))
            await self._process_messages(websocket, session)
        except (ValueError, TypeError, LookupError, AttributeError, AssertionError):
            console.note("a session ended: its page sent something that is not a message of the UI.")
        finally:
            try:
                await session.stop()
            finally:
                self._sessions.discard(session)
        await websocket.close()
        return websocket


class _Session(AppService):  # type: ignore[misc] # textual-serve is an extra
    """The process of a page; ends when the page, the websocket or the server does."""

    arguments: Sequence[str] = ()
    _task: asyncio.Task[None] | None

    def _build_environment(self, width: int = 80, height: int = 24) -> dict[str, str]:
        environment: dict[str, str] = super()._build_environment(width, height)
        # It ends by itself when the server is gone without having said so.
        return environment | {"TEXTUAL_DRIVER": "edgedistill_tui.served_driver:ServedDriver", "TEXTUAL_FPS": "30"}

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        environment = self._build_environment(width, height)
        # Without a shell, and away from the terminal's Ctrl-C: the server ends it.
        self._process = await asyncio.create_subprocess_exec(
            *self.arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, start_new_session=True
        )
        self._stdin = self._process.stdin
        return self._process

    async def set_terminal_size(self, width: int, height: int) -> None:
        """Within reason."""
        await super().set_terminal_size(_cells(width, 80), _cells(height, 24))

    async def stop(self) -> None:
        """Ask the process to end, and end it if it does not."""
        task, self._task = self._task, None
        if task is None or self._process is None:
            return
        await self._download_manager.cancel_app_downloads(app_service_id=self.app_service_id)
        await self.send_meta({"type": "quit"})
        if self._stdin is not None:
            self._stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _GRACE_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        finally:
            task.cancel()


_BUSY = -1.0


def _cells(value: object, default: int) -> int:
    try:
        return min(_MOST_CELLS, max(1, int(str(value))))
    except ValueError:
        return default
