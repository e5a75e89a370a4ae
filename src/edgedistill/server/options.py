"""Options of a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedistill.runtime.settings import Numerics


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Who may ask, for how much, and how it is computed.

    Attributes:
        name: Of the model, for clients.
        host: Where it listens. names: By which other names it may be asked.
        api_key: What clients have to send; None: nothing.
        cors_origins: Pages of other servers that may ask.
        parallel: Sequences at a time, at most: fewer where the memory does not suffice.
        queue: Requests that wait for a place, at most.
        context: Most tokens of a prompt with its answer; None: the bundle's context.
        prefill_chunk: Tokens of a prompt computed between two tokens of the others.
        max_body: Bytes of a request.
        timeout_s: Longest time of a request. grace_s: What running ones are given when the server ends.
        connections: At a time.
        numerics: ``exact``: answers do not depend on what runs beside them, on any machine.
        thinking, think_budget: Of requests that say nothing of reasoning; as in ``Model.generate``.
    """

    name: str
    host: str = "127.0.0.1"
    names: tuple[str, ...] = ()
    api_key: str | None = None
    cors_origins: tuple[str, ...] = ()
    parallel: int = 8
    queue: int = 64
    context: int | None = None
    prefill_chunk: int = 64
    max_body: int = 4_000_000
    timeout_s: float = 600.0
    grace_s: float = 10.0
    connections: int = 256
    numerics: Numerics = "fast"
    thinking: bool | None = None
    think_budget: int = 0
