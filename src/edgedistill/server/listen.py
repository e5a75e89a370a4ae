"""Running the application on uvicorn: a socket, signals, an end within a limit."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn

from edgedistill.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp

    from edgedistill.server.options import ServeOptions

IDLE_S = 10.0
"""After so many seconds a connection that has asked nothing is closed."""

_HEADER_BYTES = 64 << 10


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is a free one. Raises UsageError where it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"Cannot listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}.",
            hint="Choose another one with --port.",
        ) from error
    # Connections inherit it. asyncio would set it only on sockets that were made with the protocol's number; without it
    # the body of an answer, and every part of a stream, waits 40 ms for the client's word that it has the part before.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class Listener(uvicorn.Server):
    """A server that closes connections which ask nothing."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._silent_since: dict[Any, float] = {}

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if counter % 10 == 0:
            self._close_silent()
        return await super().on_tick(counter)

    def _close_silent(self) -> None:
        now = time.monotonic()
        silent = {one for one in self.server_state.connections if getattr(one, "cycle", None) is None}
        self._silent_since = {one: self._silent_since.get(one, now) for one in silent}
        for one, since in self._silent_since.items():
            if now - since > IDLE_S and (transport := getattr(one, "transport", None)) is not None:
                transport.close()


def listener(app: ASGIApp, options: ServeOptions) -> Listener:
    """The server of ``app``; its ``run(sockets=[...])`` returns when it is told to end."""
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    logging.getLogger("uvicorn").propagate = False
    return Listener(
        uvicorn.Config(
            app,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=max(1, round(options.grace_s)),
            limit_concurrency=options.connections,
            h11_max_incomplete_event_size=_HEADER_BYTES,
        )
    )


def serve(app: ASGIApp, sock: socket.socket, options: ServeOptions, *, ready: Callable[[], object]) -> None:
    """Answer on ``sock`` until Ctrl-C or SIGTERM; ``ready`` is called once it is listened on.

    Running requests have ``grace_s`` seconds to end; a second Ctrl-C ends them at once.
    """
    server = listener(app, options)
    with _interrupted_by_sigterm(), contextlib.suppress(KeyboardInterrupt):
        ready()  # the socket is open: what comes before the loop runs waits in its backlog
        server.run(sockets=[sock])


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """uvicorn raises the signal that ended it once more: SIGTERM then is what Ctrl-C is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
