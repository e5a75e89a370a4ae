"""The server of ``edgedistill serve`` in a thread of the tests' process, on a port of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from waiting import PATIENCE_S, wait_until

from edgedistill.runtime.model import Model
from edgedistill.server.app import create_app
from edgedistill.server.listen import listener, open_socket
from edgedistill.server.options import ServeOptions
from edgedistill.server.service import Service


@dataclass
class Served:
    """A running server: how to ``stop`` it and whether it is ``alive``. ``bugs``: exceptions that it reported."""

    root: str
    service: Service
    stop: Callable[[], object]
    alive: Callable[[], bool]
    bugs: list[Exception] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The base address for clients."""
        return f"{self.root}/v1"

    @contextmanager
    def held(self) -> Iterator[None]:
        """No token is generated meanwhile; prompts are computed."""
        places, go = self.service.batch._places, threading.Event()
        kept = {name: getattr(places, name) for name in ("step", "step_all")}

        def waiting(step: Callable[..., Any]) -> Callable[..., Any]:
            def wait(tokens: Sequence[int], longest: int) -> Any:
                assert go.wait(PATIENCE_S)
                return step(tokens, longest)

            return wait

        for name, step in kept.items():
            setattr(places, name, waiting(step))
        try:
            yield
        finally:
            for name, step in kept.items():
                setattr(places, name, step)
            go.set()


@contextmanager
def serving(model: Model, **options: Any) -> Iterator[Served]:
    """Serve ``model`` until the context ends; ``options`` are those of ``ServeOptions``."""
    service = Service(model, ServeOptions(**{"name": "tiny", "grace_s": 1.0, **options}))
    sock = open_socket("127.0.0.1", 0)
    bugs: list[Exception] = []
    server = listener(create_app(service, report=bugs.append), service.options)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)

    def stop() -> None:
        server.should_exit = True

    served = Served(f"http://127.0.0.1:{sock.getsockname()[1]}", service, stop, thread.is_alive, bugs)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield served
    finally:
        stop()
        thread.join()
        service.close()
