"""What is said about trajectories on stderr: a line as each ends, the vote, what decided, how long it took."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.units import format_bytes, format_rate, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.trajectories.result import RunStats, Trajectory, TrajectoryEvent, TrajectoryResult
    from edgedistill.trajectories.vote import VoteResult

_FRAME_S = 0.1
_SHOWN = 60
_LABELS = {
    "unparsed": "no answer found",
    "truncated": "truncated",
    "cancelled": "stopped",
    "cut": "cut off, the vote was decided",
}


def outcome(result: TrajectoryResult) -> str:
    """One line: what decided."""
    if result.decided_by == "none":
        return f"no trajectory came to an answer: {_without_vote(result.vote) or 'none was complete'}"
    if result.decided_by == "deliberation":
        vote = result.vote.answer
        agrees = "as the vote did" if result.final == vote else f"against the vote's {_cut(vote)}"
        return "decided by the deliberation" + (f", {agrees}" if vote is not None else "")
    number = "" if result.winner is None else f", trajectory {result.winner + 1}"
    return f"decided by {result.decided_by}{number}"


def vote_line(vote: VoteResult) -> str:
    """One line: the answers and their votes, ties, and who had no vote."""
    weighted = vote.rule == "confidence"
    parts = [
        f"{tally.votes} for {_cut(tally.answer)}" + (f" (weight {tally.weight:.1f})" if weighted else "")
        for tally in vote.tallies
    ]
    line = f"vote: {', '.join(parts) or 'nobody voted'}"
    if vote.tied:
        line += f"; a tie of {len(vote.tied)}, that of trajectory {(vote.winner or 0) + 1} counts"
    if vote.dropped:
        line += f"; {len(vote.dropped)} dropped for low confidence"
    without = _without_vote(vote)
    return f"{line}; {without}" if without else line


def stats_line(stats: RunStats) -> str:
    """One line of statistics."""
    parts = [
        f"{stats.prompt_tokens} tokens in, {stats.trajectory_tokens} out"
        + (f" and {stats.pass_tokens} in the pass" if stats.pass_tokens else ""),
        f"first token {format_seconds(stats.ttft_s)}",
        f"decode {format_rate(stats.decode_tps)} over {stats.rows} at a time",
        f"total {format_seconds(stats.total_s)}",
        f"KV {format_bytes(stats.kv_bytes)}",
        f"memory {format_bytes(stats.peak_rss_bytes)}",
        f"seed {stats.seed}",
    ]
    if stats.saved_tokens:
        parts.insert(1, f"about {stats.saved_tokens} saved by stopping early")
    return " | ".join(parts)


def _without_vote(vote: VoteResult) -> str:
    counts = {
        "without an answer": vote.unparsed,
        "truncated": vote.truncated,
        "stopped": vote.cancelled,
        "cut off": vote.cut,
    }
    return ", ".join(f"{count} {label}" for label, count in counts.items() if count)


def _cut(text: str | None) -> str:
    """An answer in a line: printable, and not longer than a line has room for."""
    shown = " ".join((text or "").split())
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"


class Status:
    """Lines on stderr as trajectories end, and on a terminal a last line that counts tokens."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._live = not quiet and console.is_terminal(sys.stderr)
        self._total = self._done = self._tokens = 0
        self._stage = ""
        self._drawn = 0.0

    def take(self, event: TrajectoryEvent, *, show_all: bool) -> None:
        """Tell what an event says."""
        if event.kind in ("reasoning", "answer", "marker"):
            self._tokens += event.tokens
        elif event.kind == "start":
            self._total = event.total
        elif event.kind == "finished" and event.trajectory is not None:
            self._done += 1
            self._line(_trajectory_line(event.trajectory, self._total))
            # What was interrupted would be lost: nothing else shows it.
            if (show_all or event.trajectory.kind == "cancelled") and event.trajectory.text:
                self._line(console.lines(event.trajectory.text.strip() + "\n"))
        elif event.kind == "vote" and event.vote is not None and event.vote.tallies:
            self._line(vote_line(event.vote))
        elif event.kind == "note":
            self._line(f"note: {event.text}")
        elif event.kind == "stage":
            self._stage, self._tokens = event.stage or "", 0
            self._line(f"{self._stage} ...")
        self._draw()

    def clear(self) -> None:
        """Take the counting line away."""
        if self._live and self._drawn:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()

    def _line(self, text: str) -> None:
        if not self._quiet:
            self.clear()
            console.note(text)
            self._drawn = 0.0

    def _draw(self) -> None:
        now = time.monotonic()
        if not self._live or now - self._drawn < _FRAME_S:
            return
        self._drawn = now
        what = self._stage or f"{self._done} of {self._total} trajectories"
        sys.stderr.write(f"\r\x1b[2K{what}, {self._tokens} tokens")
        sys.stderr.flush()


@contextmanager
def status(*, quiet: bool) -> Iterator[Status]:
    """A status whose counting line is gone at the end, however that comes."""
    shown = Status(quiet=quiet)
    try:
        yield shown
    finally:
        shown.clear()


def _trajectory_line(trajectory: Trajectory, total: int) -> str:
    if trajectory.kind == "answered":
        what = _cut(trajectory.vote)
    elif trajectory.complete and trajectory.vote is None:
        what = _cut(trajectory.answer)
    else:
        what = f"({_LABELS[trajectory.kind]})"
    sure = "" if trajectory.confidence is None else f", confidence {trajectory.confidence:.1f}"
    number = f"[{trajectory.index + 1:>{len(str(total))}}]"
    return f"{number} {what}  {len(trajectory.tokens)} tokens{sure}"
