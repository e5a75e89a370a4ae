"""The server behind ``--serve``: textual-serve, kept to this machine and to its own page.

A port on the loopback address is within reach of every web page that a browser on this machine shows: pages may open
websockets to any address, and a name of theirs may resolve to 127.0.0.1. Requests that a page of another origin makes
are therefore refused, and on the loopback address also those that come under another name than the machine's own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web
from textual_serve.server import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOOPBACK = ("localhost", "127.0.0.1", "::1")
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
    """

    def __init__(self, command: str, host: str, port: int) -> None:
        super().__init__(command, host=host, port=port, title="edgedistill")

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.middlewares.append(self._only_own_page)
        return app

    @web.middleware
    async def _only_own_page(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text=f"A page of {origin} may not use this server.\n")
        if self.host in LOOPBACK and urlsplit(f"//{request.host}").hostname not in LOOPBACK:
            raise web.HTTPForbidden(text=f"This is not {request.host}: open http://{self.host}:{self.port}\n")
        return await handler(request)

    async def handle_index(self, request: web.Request) -> Any:
        """The page: with addresses under the name it was asked for by, and without anything from other servers."""
        self.public_url = f"http://{request.host}"
        page = await super().handle_index(request)
        own = _ELSEWHERE.sub(lambda link: link[0] if request.host in link[0] else "", page.text)
        page.text = own.replace("</head>", _OWN.format(url=self.public_url), 1)
        return page
