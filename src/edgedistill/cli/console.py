"""What every verb writes with: results to stdout, notes to stderr, tables, one JSON document, progress.

Colour where the stream is a terminal, NO_COLOR is not set and ``--color`` does not say otherwise; progress bars on a
terminal with and without colour. Tables are plain aligned text, so that they survive pipes of any width.

Everything passes one gate (``_safe``): what comes from a file or a model cannot command a terminal, begin a line of its
own, or give orders to GitHub Actions. Styles that this module put in are told from others by a mark of this process.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
import shutil
import sys
import textwrap
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO

from edgedistill.progress import NullProgress
from edgedistill.safe_text import visible, visible_json
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


class Block(str):
    """Text of several lines, each made safe already: ``table``, ``fields``, ``lines``."""

    __slots__ = ()


_MARK = f"\x1b<{secrets.token_hex(8)}>"
_STYLE = re.compile(f"{_MARK}([0-9]+);")


def style(text: str, name: str, stream: TextIO | None = None) -> str:
    """``text`` in a style (bold, dim, green, red, yellow) if ``stream`` (default stdout) shows colour.

    For ``out``, ``note``, ``problem`` and ``write``, which put the style's code in; nothing else may print it.
    """
    return f"{_MARK}{_STYLES[name]};{text}{_MARK}0;" if text and has_colour(stream or sys.stdout) else text


def _safe(text: str, *, line: bool) -> str:
    """``text`` without anything that a terminal obeys, styles of this module aside; one ``line`` or several."""
    parts = _STYLE.split(text)  # text, code, text, code, ...
    return "".join(f"\x1b[{part}m" if at % 2 else visible(part, line=line) for at, part in enumerate(parts))


def _one_line(text: str) -> str:
    """``text``, styles still marked, without line breaks and tabs: for cells."""
    parts = _STYLE.split(text)
    return "".join(f"{_MARK}{part};" if at % 2 else visible(part, line=True) for at, part in enumerate(parts))


def _no_commands(text: str) -> str:
    """Lines that GitHub Actions would take for commands, told apart from them by a word before."""
    if not os.environ.get("GITHUB_ACTIONS"):
        return text
    return re.sub(r"^(?=\s*(::|##\[))", "text: ", text, flags=re.MULTILINE)


def out(text: str = "") -> None:
    """A line of the result, or a ``Block``."""
    print(_no_commands(_safe(text, line=not isinstance(text, Block))))


def lines(text: str) -> Block:
    """``text`` with the line breaks in it: for what this program wrote, or a paragraph of a model."""
    return Block(text)


def write(text: str) -> None:
    """A part of a model's text that comes piece by piece, flushed; where no terminal is, as the model wrote it."""
    sys.stdout.write(_safe(text, line=False) if sys.stdout.isatty() or has_colour(sys.stdout) else text)
    sys.stdout.flush()


def command(text: str, *, stream: TextIO | None = None) -> None:
    """A command to GitHub Actions (``::error ...``), a line; its parts are escaped by whoever made it."""
    print(visible(text, line=True), file=stream or sys.stdout, flush=True)


def note(text: str) -> None:
    """A line about the work, or a ``Block``, on stderr; left out by ``--quiet``."""
    if not _chosen.quiet:
        problem(text)


def problem(text: str) -> None:
    """A line on stderr, or a ``Block``, that ``--quiet`` does not leave out."""
    sys.stdout.flush()
    print(_no_commands(_safe(text, line=not isinstance(text, Block))), file=sys.stderr, flush=True)


def out_json(value: Any) -> None:
    """The one JSON document of ``--json``."""
    out_json_text(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def out_json_text(text: str) -> None:
    """The same, given as the text of the document."""
    print(visible_json(text.rstrip("\n")))


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = (), wrap: int | None = None
) -> Block:
    """Aligned columns under a bold header.

    Columns whose index is in ``right`` are right-aligned. On a terminal that is too narrow, column ``wrap`` is broken
    over several lines; in a pipe every row stays on one line.
    """
    rows = [[_one_line(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
    if wrap is not None and sys.stdout.isatty():
        others = sum(widths) - widths[wrap] + 2 * (len(widths) - 1)
        widths[wrap] = min(widths[wrap], max(_NARROWEST, shutil.get_terminal_size().columns - others))
    lines = [style(_row(headers, widths, right), "bold")]
    for row in rows:
        cells = [[cell] if i != wrap else textwrap.wrap(cell, widths[i]) or [""] for i, cell in enumerate(row)]
        lines += (_row(part, widths, right) for part in itertools.zip_longest(*cells, fillvalue=""))
    return Block("\n".join(lines))


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    padded = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
    return "  ".join(padded).rstrip()


def fields(pairs: Sequence[tuple[str, str]]) -> Block:
    """``name  value`` lines with the values aligned."""
    width = max((len(name) for name, _ in pairs), default=0)
    return Block("\n".join(f"{style(name.ljust(width), 'dim')}  {_one_line(value)}".rstrip() for name, value in pairs))


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

    def note(self, sentence: str) -> None:
        """A sentence between two stages."""
        note(sentence)

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
            TextColumn("{task.description:<24}", markup=False),
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TextColumn("{task.fields[amount]:>12}"),
            TimeElapsedColumn(),
            console=Console(stderr=True, no_color=not has_colour(sys.stderr)),
        )
        self._task = self._bars.add_task(visible(stage, line=True), total=total or None, amount="")
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

    def note(self, sentence: str) -> None:
        """A sentence between two stages."""
        note(sentence)

    def close(self) -> None:
        """Stop drawing a stage that did not end."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = self._task = None
