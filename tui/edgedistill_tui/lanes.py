"""Collects the events of a run of several trajectories, guarded by a lock, as a record to draw and to store."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgedistill.trajectories import TrajectoryEvent, TrajectoryResult, VoteResult

LABELS = {
    "unparsed": "no answer found",
    "truncated": "truncated",
    "cancelled": "stopped",
    "cut": "cut off: the vote was decided",
    "running": "…",
}


class Lanes:
    """Filled by the generating thread, read by the screen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: dict[int, dict[str, Any]] = {}
        self._passes: dict[str, str] = {}
        self._stage = ""
        self._vote: VoteResult | None = None
        self._result: TrajectoryResult | None = None
        self._notes: list[str] = []

    def add(self, event: TrajectoryEvent) -> None:
        """Take an event in."""
        with self._lock:
            if event.kind == "start":
                self._lanes = {index: _lane(index) for index in range(event.total)}
            elif event.kind in ("reasoning", "answer", "marker"):
                if event.index is None:
                    self._passes[self._stage] = self._passes.get(self._stage, "") + event.text
                else:
                    lane = self._lanes.setdefault(event.index, _lane(event.index))
                    lane["text"] += event.text
                    lane["tokens"] += event.tokens
            elif event.kind == "finished" and event.trajectory is not None:
                one = event.trajectory
                self._lanes[one.index] = {
                    "index": one.index, "kind": one.kind, "vote": one.vote, "tokens": len(one.tokens),
                    "text": one.text, "confidence": one.confidence,
                }  # fmt: skip
            elif event.kind == "vote":
                self._vote = event.vote
            elif event.kind == "stage":
                self._stage = event.stage or ""
            elif event.kind == "note":
                self._notes.append(event.text)
            elif event.kind == "done":
                self._result = event.result

    @property
    def note(self) -> str:
        """Sentences for the user."""
        with self._lock:
            return " ".join(self._notes)

    @property
    def longest(self) -> int:
        """Tokens of the longest trajectory."""
        with self._lock:
            return max((lane["tokens"] for lane in self._lanes.values()), default=0)

    def record(self) -> dict[str, Any]:
        """JSON-able: ``trajectories`` (index, kind, vote, tokens, text, confidence), ``tallies`` as (answer, votes),
        ``winner`` (index of the final trajectory; None before the end, and after a deliberation), the text of the
        passes, ``summary``.
        """
        with self._lock:
            vote, result = self._vote, self._result
            winner = vote.winner if vote is not None else None
            return {
                "trajectories": [dict(self._lanes[index]) for index in sorted(self._lanes)],
                "tallies": [[tally.answer, tally.votes] for tally in vote.tallies] if vote else [],
                "winner": result.winner if result is not None else winner,
                "decided_by": result.decided_by if result is not None else "",
                "passes": dict(self._passes),
                "summary": self._summary(),
            }

    def _summary(self) -> str:
        total = len(self._lanes)
        ended = sum(lane["kind"] != "running" for lane in self._lanes.values())
        if self._vote is None:
            return f"{total} trajectories, {ended} ended" if total else "trajectories"
        votes = ", ".join(f"{tally.votes} for {short(tally.answer)}" for tally in self._vote.tallies)
        parts = [f"{total} trajectories", f"vote: {votes or 'nobody voted'}"]
        if self._vote.tied:
            parts.append("a tie, the first counts")
        if self._result is None:
            parts += [f"{self._stage}…"] if self._stage else []
        elif self._result.decided_by == "none":
            parts.append("no answer")
        elif self._result.decided_by not in ("majority", "confidence"):
            parts.append(f"decided by {self._result.decided_by}")
        return " · ".join(parts)


def short(text: str, most: int = 40) -> str:
    """One line of at most ``most`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _lane(index: int) -> dict[str, Any]:
    return {"index": index, "kind": "running", "vote": None, "tokens": 0, "text": "", "confidence": None}
