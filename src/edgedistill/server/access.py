"""Who may ask: the name that the server is asked by, the page that asks, the key; and a count of the responses.

What the served terminal UI does against pages of other servers holds here as well (``system.host_names``).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from edgedistill.server.errors import ApiError, failure
from edgedistill.system.host_names import host_name, is_own_page, names_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from edgedistill.server.options import ServeOptions
    from edgedistill.server.service import Service

OPEN = ("/health",)
"""What is answered without a key: probes of containers and proxies have none."""


class Access:
    """ASGI middleware; every error inside becomes a response in OpenAI's form.

    Args:
        app: What is protected.
        service: Counts the responses.
        routes: Known paths, for the counts.
        report: Told of what is a bug: an exception that is no ``ApiError``.
    """

    def __init__(
        self, app: ASGIApp, *, service: Service, routes: Collection[str], report: Callable[[Exception], object]
    ) -> None:
        self._app, self._service, self._routes, self._report = app, service, frozenset(routes), report
        options: ServeOptions = service.options
        self._names = names_of(options.host, options.names)
        self._origins = frozenset(options.cors_origins)
        self._key = None if options.api_key is None else options.api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit, answer, count."""
        if scope["type"] != "http":
            return
        path = scope["path"] if scope["path"] in self._routes else "other"
        begun = False

        async def counted(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self._service.metrics.responded(path, message["status"])
            await send(message)

        try:
            self._admit(scope)
            await self._app(scope, receive, counted)
        except Exception as error:
            told = failure(error)
            if told.code == "internal_error":
                self._report(error)
            if begun:
                raise  # the connection is closed: the client sees that the answer is not whole
            await told.response()(scope, receive, counted)

    def _admit(self, scope: Scope) -> None:
        """Raises ApiError."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host_name(host) not in self._names:
            raise ApiError(
                403, f"This is not {host[:80]!r}: start the server with --allow-host NAME.", code="unknown_host"
            )
        origin = headers.get("origin")
        if origin is not None and not (is_own_page(origin, host) or origin in self._origins or "*" in self._origins):
            raise ApiError(
                403, f"A page of {origin[:80]!r} may not ask: start the server with --cors-origin.", code="origin"
            )
        if self._key is None or scope["path"] in OPEN:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._key):
            raise ApiError(401, "A valid API key is needed: Authorization: Bearer KEY.", code="invalid_api_key")
