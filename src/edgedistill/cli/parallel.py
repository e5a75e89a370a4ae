"""What ``run`` and ``chat`` share for parallel reasoning: options, showing trajectories as they end, the vote.

Must not know: how trajectories are decoded or counted.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.cli import console, generation
from edgedistill.errors import OutOfMemoryError
from edgedistill.units import format_bytes, format_rate, format_seconds

if TYPE_CHECKING:
    import argparse
    import threading
    from collections.abc import Iterator

    from edgedistill.runtime.model import Model
    from edgedistill.runtime.settings import GenerationSettings
    from edgedistill.trajectories.options import TrajectoryOptions
    from edgedistill.trajectories.result import RunStats, Trajectory, TrajectoryEvent, TrajectoryResult
    from edgedistill.trajectories.vote import VoteResult

DEFAULT_COUNT = 8
_FRAME_S = 0.1
_SHOWN = 60
_LABELS = {
    "unparsed": "no answer found",
    "truncated": "truncated",
    "cancelled": "stopped",
    "cut": "cut off, the vote was decided",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of parallel reasoning; any of them switches it on."""
    group = parser.add_argument_group(
        "parallel reasoning", f"Any of these decodes several trajectories together, {DEFAULT_COUNT} by default."
    )
    group.add_argument("--trajectories", type=int, metavar="K", help="decode K of them together and let them vote")
    group.add_argument(
        "--vote",
        choices=("majority", "confidence", "universal"),
        help="majority (default); confidence: weighted by how sure the model was; universal: the model picks the most "
        "consistent reply, as always where replies have no answer that can be compared",
    )
    group.add_argument("--deliberate", action="store_true", help="one more pass reads the trajectories and answers")
    group.add_argument("--deliberation-prompt", type=Path, metavar="FILE", help="Jinja file instead of the shipped one")
    group.add_argument(
        "--early-stop",
        choices=("exact", "sequential", "off"),
        help="exact (default of a plain majority): cut the rest off once it cannot change the vote; sequential: once "
        "it hardly will",
    )
    group.add_argument("--error-rate", type=float, metavar="P", help="of --early-stop sequential (default 0.05)")
    group.add_argument(
        "--answers",
        choices=("auto", "boxed", "hash", "phrase", "number", "choice", "text", "free"),
        help="where the answer of a reply is looked for (default auto); free: the reply itself is the answer",
    )
    group.add_argument(
        "--confidence",
        choices=("tail", "lowest", "mean"),
        help="of a trajectory: over its last tokens (default), the least sure ones in a row, or all",
    )
    group.add_argument(
        "--keep", type=float, metavar="SHARE", help="of the voters, surest first, in a confidence vote (default 0.9)"
    )


def options(args: argparse.Namespace) -> TrajectoryOptions | None:
    """The options of the command line; None where none was given. Raises UsageError."""
    given: dict[str, Any] = {
        "count": args.trajectories,
        "vote": args.vote,
        "deliberate": args.deliberate or None,
        "early_stop": args.early_stop,
        "error_rate": args.error_rate,
        "answers": args.answers,
        "measure": args.confidence,
        "keep": args.keep,
        "prompt": args.deliberation_prompt,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return None
    from edgedistill.trajectories.options import TrajectoryOptions

    return TrajectoryOptions(**given)


def overrides(chosen: TrajectoryOptions) -> dict[str, Any]:
    """The options as a session of the terminal UI keeps them: the count, and what differs from the defaults."""
    values = {f.name: getattr(chosen, f.name) for f in fields(chosen) if getattr(chosen, f.name) != f.default}
    values.pop("count", None)
    if chosen.prompt is not None:
        values["prompt"] = str(chosen.prompt.absolute())
    return {"trajectories": chosen.count, "parallel": values}


def settings(args: argparse.Namespace, defaults: dict[str, Any]) -> GenerationSettings:
    """Sampling settings; where the bundle is greedy by itself, a temperature that leaves a choice."""
    from edgedistill.trajectories.options import DEFAULT_TEMPERATURE

    chosen = generation.settings(args, defaults)
    if chosen.greedy and args.temperature is None:
        console.note(
            f"note: the bundle decodes greedily; its trajectories are drawn at temperature {DEFAULT_TEMPERATURE}."
        )
        return chosen.replace(temperature=DEFAULT_TEMPERATURE)
    return chosen


def solve(
    model: Model,
    prompt: str | list[dict[str, Any]],
    args: argparse.Namespace,
    chosen: TrajectoryOptions,
    *,
    cancel: threading.Event,
    raw: bool = False,
    show_all: bool = False,
    quiet: bool = False,
) -> tuple[TrajectoryResult, OutOfMemoryError | None]:
    """Run with the options of ``args``, telling on stderr how far it is.

    Returns:
        The result, and the error that the run ended with if the memory ran out on the way.
    """
    from edgedistill.trajectories.run import stream

    result: TrajectoryResult | None = None
    events = stream(
        model,
        prompt,
        options=chosen,
        settings=settings(args, model.bundle.generation),
        mode=args.mode,
        thinking=generation.thinking(args),
        raw=raw,
        cancel=cancel,
    )
    with _status(quiet=quiet) as status:
        try:
            for event in events:
                status.take(event, show_all=show_all)
                result = event.result or result
        except OutOfMemoryError as error:
            if result is None:
                raise
            return result, error
    if result is None:
        raise RuntimeError("a run ended without its last event")
    return result, None


def print_answer(result: TrajectoryResult, *, show_reasoning: bool) -> None:
    """The text that stands, on stdout; nothing where no trajectory won."""
    if not result.answer:
        return
    printer = generation.AnswerPrinter(show_reasoning=show_reasoning)
    if result.reasoning:
        printer.write("reasoning", result.reasoning)
    printer.write("answer", result.answer)
    printer.finish()


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


def record(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory as a saved conversation keeps it."""
    names = ("index", "kind", "vote", "text", "confidence")
    return {**{name: getattr(trajectory, name) for name in names}, "tokens": len(trajectory.tokens)}


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


class _Status:
    """Lines on stderr as trajectories end, and on a terminal a last line that counts tokens."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._live = not quiet and console.has_colour(sys.stderr)
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
                self._line(event.trajectory.text.strip().translate(generation.CONTROLS) + "\n")
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
def _status(*, quiet: bool) -> Iterator[_Status]:
    status = _Status(quiet=quiet)
    try:
        yield status
    finally:
        status.clear()


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
