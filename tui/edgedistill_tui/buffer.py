"""The hand-over between the generating thread and the screen: append on one side, drain on the other.

Must not know: Textual, models.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgedistill_tui.engine import Chunk, Reply


@dataclass(frozen=True, slots=True)
class Drained:
    """What arrived since the last drain, and counts since the start.

    ``tokens_per_s`` counts from the first token to now; ``seconds`` is the age of the reply. ``reply`` is set once,
    with the last text.
    """

    reasoning: str
    answer: str
    reasoning_tokens: int
    tokens: int
    seconds: float
    tokens_per_s: float
    reply: Reply | None
    error: BaseException | None


class ReplyBuffer:
    """Lock-guarded text of one reply.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._text = {"reasoning": [], "answer": []}  # type: dict[str, list[str]]
        self._tokens = {"reasoning": 0, "answer": 0}
        self._started = clock()
        self._first: float | None = None
        self._reply: Reply | None = None
        self._error: BaseException | None = None

    def append(self, chunk: Chunk) -> None:
        """Called by the generating thread for every chunk."""
        if chunk.kind == "prefill":
            return
        with self._lock:
            if self._first is None:
                self._first = self._clock()
            self._text[chunk.kind].append(chunk.text)
            self._tokens[chunk.kind] += chunk.tokens

    def finish(self, reply: Reply) -> None:
        """Called by the generating thread once, after the last chunk."""
        with self._lock:
            self._reply = reply

    def fail(self, error: BaseException) -> None:
        """Called by the generating thread instead of ``finish``."""
        with self._lock:
            self._error = error

    def drain(self) -> Drained:
        """Called by the screen: take the text that is there."""
        with self._lock:
            reasoning, answer = "".join(self._text["reasoning"]), "".join(self._text["answer"])
            self._text["reasoning"].clear()
            self._text["answer"].clear()
            tokens = sum(self._tokens.values())
            now = self._clock()
            running = now - self._first if self._first is not None else 0.0
            return Drained(
                reasoning=reasoning,
                answer=answer,
                reasoning_tokens=self._tokens["reasoning"],
                tokens=tokens,
                seconds=now - self._started,
                tokens_per_s=(tokens - 1) / running if running > 0 and tokens > 1 else 0.0,
                reply=self._reply,
                error=self._error,
            )
