"""A scripted engine: gives out chunks one by one, each when the test allows it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from edgedistill_tui.engine import Chunk, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STATS: dict[str, Any] = {
    "decode_tps": 42.0, "prefill_tps": 900.0, "ttft_s": 0.05, "kv_bytes": 2_000_000, "rss_bytes": 180_000_000,
}  # fmt: skip


class FakeEngine:
    """Answers every question with the same script.

    Args:
        script: (kind, text) pairs.
        gated: True: each chunk waits for ``allow``; the reply ends at the script's end or on cancel.
        error: Raised instead of a reply.
    """

    def __init__(
        self, script: Sequence[tuple[Any, str]], *, gated: bool = False, error: Exception | None = None
    ) -> None:
        self.script = list(script)
        self.error = error
        self.asked: list[list[dict[str, Any]]] = []
        self._gate = threading.Semaphore(0) if gated else None

    @property
    def about(self) -> dict[str, Any]:
        return {"bundle": "demo-bundle", "model": "qwen3 2.1 M", "profile": "laptop-cpu"}

    def allow(self, chunks: int) -> None:
        """Let the next chunks through."""
        assert self._gate is not None
        self._gate.release(chunks)

    def reply(
        self, messages: Sequence[dict[str, Any]], *, cancel: threading.Event, on_chunk: Callable[[Chunk], None]
    ) -> Reply:
        self.asked.append(list(messages))
        if self.error is not None:
            raise self.error
        done: dict[str, list[str]] = {"reasoning": [], "answer": []}
        for kind, text in self.script:
            while self._gate is not None and not self._gate.acquire(timeout=0.01):
                if cancel.is_set():
                    break
            if cancel.is_set():
                return self._reply(done, "cancelled")
            done[kind].append(text)
            on_chunk(Chunk(kind, text))
        return self._reply(done, "stop")

    @staticmethod
    def _reply(done: dict[str, list[str]], reason: str) -> Reply:
        return Reply("".join(done["reasoning"]).strip(), "".join(done["answer"]).strip(), reason, dict(STATS))
