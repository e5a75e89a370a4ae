"""A buffer between the generating thread, which appends text, and the screen, which takes it and draws it."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgedistill_tui.engine import Chunk, Reply

_LAPS = 512
"""Number of token latencies for the live percentiles."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What arrived since the last drain, and counts since the start.

    Attributes:
        reasoning, answer: New text.
        reasoning_tokens, tokens: Since the start.
        prefilled, prompt: Prompt tokens computed, and all of them.
        seconds: Age of the reply; ``reasoning_s`` up to the first text of the answer.
        ttft_s: Seconds to the first token; 0 before it.
        tokens_per_s: From the first token to now.
        p50_s, p95_s: Percentiles of the last tokens' latencies.
        reply, error: Set once, with the last text.
    """

    reasoning: str
    answer: str
    reasoning_tokens: int
    tokens: int
    prefilled: int
    prompt: int
    seconds: float
    reasoning_s: float
    ttft_s: float
    tokens_per_s: float
    p50_s: float
    p95_s: float
    reply: Reply | None
    error: BaseException | None


class ReplyBuffer:
    """The text of one reply, guarded by a lock.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._new: dict[str, list[str]] = {"reasoning": [], "answer": [], "marker": []}
        self._all: list[tuple[str, str]] = []
        self._tokens = {"reasoning": 0, "answer": 0, "marker": 0}
        self._prefill = (0, 0)
        self._started = clock()
        self._first: float | None = None
        self._answered: float | None = None
        self._last = 0.0
        self._laps: deque[float] = deque(maxlen=_LAPS)
        self._reply: Reply | None = None
        self._error: BaseException | None = None

    def append(self, chunk: Chunk) -> None:
        """Called by the generating thread for every chunk."""
        now = self._clock()
        with self._lock:
            if chunk.kind == "prefill":
                self._prefill = (chunk.tokens, chunk.total)
                return
            if self._first is None:
                self._first = now
            elif chunk.tokens:
                self._laps.append((now - self._last) / chunk.tokens)
            self._last = now
            if chunk.kind == "answer" and self._answered is None and chunk.text.strip():
                self._answered = now
            self._new[chunk.kind].append(chunk.text)
            self._all.append((chunk.kind, chunk.text))
            self._tokens[chunk.kind] += chunk.tokens

    def finish(self, reply: Reply) -> None:
        """Called by the generating thread once, after the last chunk."""
        with self._lock:
            self._reply = reply

    def fail(self, error: BaseException) -> None:
        """Called by the generating thread instead of ``finish``."""
        with self._lock:
            self._error = error

    def text(self, *kinds: str) -> str:
        """All text so far, or that of some kinds; all kinds together are what the model wrote."""
        with self._lock:
            return "".join(text for kind, text in self._all if not kinds or kind in kinds)

    def drain(self) -> Drained:
        """Called by the screen: returns the new text and the counts."""
        with self._lock:
            reasoning, answer = "".join(self._new["reasoning"]), "".join(self._new["answer"])
            for parts in self._new.values():
                parts.clear()
            tokens = sum(self._tokens.values())
            now = self._clock()
            running = now - self._first if self._first is not None else 0.0
            laps = sorted(self._laps)
            return Drained(
                reasoning=reasoning,
                answer=answer,
                # The tags are tokens of the reasoning without a text to show.
                reasoning_tokens=self._tokens["reasoning"] + self._tokens["marker"],
                tokens=tokens,
                prefilled=self._prefill[0],
                prompt=self._prefill[1],
                seconds=now - self._started,
                reasoning_s=(self._answered if self._answered is not None else now) - self._started,
                ttft_s=self._first - self._started if self._first is not None else 0.0,
                tokens_per_s=(tokens - 1) / running if running > 0 and tokens > 1 else 0.0,
                p50_s=laps[len(laps) // 2] if laps else 0.0,
                p95_s=laps[min(len(laps) - 1, int(len(laps) * 0.95))] if laps else 0.0,
                reply=self._reply,
                error=self._error,
            )
