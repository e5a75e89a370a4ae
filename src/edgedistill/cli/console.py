"""What every verb writes with: results to stdout, notes to stderr, tables, one JSON document, progress.

Colour where the stream is a terminal, NO_COLOR is not set and ``--color`` does not say otherwise; progress bars on a
terminal with and without colour. Tables are plain aligned text, so that they survive pipes of any width.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import textwrap
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO

from edgedistill.progress import NullProgress
from edgedistill.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from edgedistill.progress import Progress, Unit

_STYLES = {"bold": "1", "dim": "2", "green": "32", "red": "31", "yellow": "33"}
_REPORT_EVERY_S = 10.0
_NARROWEST = 30


Color = Literal["auto", "always", "never"]


@dataclass(slots=True)
class _Chosen:
    """What ``--quiet`` and ``--color`` of the current command say."""

    quiet: bool = False
    color: Color = "auto"


_chosen = _Chosen()


def configure(*, quiet: bool, color: Color) -> None:
    """Set how this process writes: ``quiet`` leaves out progress and notes, ``color`` overrules the terminal."""
    _chosen.quiet, _chosen.color = quiet, color


def is_terminal(stream: TextIO) -> bool:
    """Whether lines on ``stream`` can be drawn again (a terminal, and not a dumb one)."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """Whether ANSI styles belong on ``stream``."""
    if _chosen.color != "auto":
        return _chosen.color == "always"
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def style(text: str, name: str, stream: TextIO | None = None) -> str:
    """``text`` in a style (bold, dim, green, red, yellow) if ``stream`` (default stdout) shows colour."""
    return f"\x1b[{_STYLES[name]}m{text}\x1b[0m" if text and has_colour(stream or sys.stdout) else text


def out(text: str = "") -> None:
    """A line of the result."""
    print(text)


def note(text: str) -> None:
    """A line about the work, on stderr; left out by ``--quiet``."""
    if not _chosen.quiet:
        problem(text)


def problem(text: str) -> None:
    """A line on stderr that ``--quiet`` does not leave out."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


def out_json(value: Any) -> None:
    """The one JSON document of ``--json``."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = (), wrap: int | None = None
) -> str:
    """Aligned columns under a bold header.

    Columns whose index is in ``right`` are right-aligned. On a terminal that is too narrow, column ``wrap`` is broken
    over several lines; in a pipe every row stays on one line.
    """
    widths = [max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
    if wrap is not None and sys.stdout.isatty():
        others = sum(widths) - widths[wrap] + 2 * (len(widths) - 1)
        widths[wrap] = min(widths[wrap], max(_NARROWEST, shutil.get_terminal_size().columns - others))
    lines = [style(_row(headers, widths, right), "bold")]
    for row in rows:
        cells = [[cell] if i != wrap else textwrap.wrap(cell, widths[i]) or [""] for i, cell in enumerate(row)]
        lines += (_row(part, widths, right) for part in itertools.zip_longest(*cells, fillvalue=""))
    return "\n".join(lines)


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    padded = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
    return "  ".join(padded).rstrip()


def fields(pairs: Sequence[tuple[str, str]]) -> str:
    """``name  value`` lines with the values aligned."""
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{style(name.ljust(width), 'dim')}  {value}".rstrip() for name, value in pairs)


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """Progress on stderr: bars on a terminal, a line per stage elsewhere, nothing if ``quiet``.

    A context, so that an error or Ctrl-C in mid-stage gives the terminal its cursor back.
    """
    if quiet or _chosen.quiet:
        yield NullProgress()
        return
    bars = BarProgress() if is_terminal(sys.stderr) else LineProgress()
    try:
        yield bars
    finally:
        bars.close()


def _amount(count: float, unit: Unit) -> str:
    """An amount of progress in its unit."""
    if unit == "bytes":
        return format_bytes(count)
    return format_count(count) + (" tokens" if unit == "tokens" else "")


class LineProgress:
    """A line when a stage ends, and every ten seconds while it lasts: for logs and pipes.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._unit: Unit = "items"
        self._total = self._done = 0
        self._start = self._reported = 0.0

    def begin(self, stage: str, total: int, unit: Unit) -> None:
        """Start counting; nothing is printed yet."""
        self._stage, self._total, self._unit, self._done = stage, total, unit, 0
        self._start = self._reported = self._clock()

    def advance(self, amount: int) -> None:
        """Count, and print a line if the last one is old."""
        self._done += amount
        now = self._clock()
        if now - self._reported >= _REPORT_EVERY_S and self._total:
            self._reported = now
            note(f"{self._stage}: {100 * self._done // self._total} %")

    def end(self) -> None:
        """Print what the stage did and how long it took."""
        if not self._stage:
            return
        done = f"{_amount(self._done, self._unit)} in " if self._done else ""
        note(f"{self._stage}: {done}{format_seconds(self._clock() - self._start)}")
        self._stage = ""

    def close(self) -> None:
        """Forget a stage that did not end."""
        self._stage = ""


class BarProgress:
    """A bar per stage, drawn by rich on stderr; finished stages stay on screen with their time."""

    def __init__(self) -> None:
        self._bars: RichProgress | None = None
        self._task: TaskID | None = None
        self._unit: Unit = "items"
        self._done = self._total = 0

    def begin(self, stage: str, total: int, unit: Unit) -> None:
        """Draw a new bar; one without a total pulses."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        if self._bars is not None:
            self.end()
        self._unit, self._done, self._total = unit, 0, total
        self._bars = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TextColumn("{task.fields[amount]:>12}"),
            TimeElapsedColumn(),
            console=Console(stderr=True, no_color=not has_colour(sys.stderr)),
        )
        self._task = self._bars.add_task(stage, total=total or None, amount="")
        self._bars.start()

    def advance(self, amount: int) -> None:
        """Move the bar."""
        self._done += amount
        if self._bars is not None and self._task is not None:
            text = format_bytes(self._done) if self._unit == "bytes" else format_count(self._done)
            self._bars.update(self._task, advance=amount, amount=text)

    def end(self) -> None:
        """Fill the bar and leave it on the screen."""
        if self._bars is None or self._task is None:
            return
        self._bars.update(self._task, total=self._total or 1, completed=self._total or 1)
        self._bars.stop()
        self._bars = self._task = None

    def close(self) -> None:
        """Stop drawing a stage that did not end."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = self._task = None
