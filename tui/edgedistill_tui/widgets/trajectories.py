"""The trajectories of one reply: a line for each with its tokens and answer, and the text of the chosen one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Static

from edgedistill_tui.lanes import LABELS, short

if TYPE_CHECKING:
    from textual.app import ComposeResult

_TAIL = 1200
"""Number of characters that are laid out while text arrives; all of them once the run has ended."""


class LaneLine(Static):
    """One trajectory or pass; a click reads it."""

    class Picked(Message):
        """Line ``number`` was clicked."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, number: int) -> None:
        super().__init__("", markup=False, classes="lane")
        self.number = number

    def on_click(self) -> None:
        """Read this one."""
        self.post_message(self.Picked(self.number))


class TrajectoriesView(Vertical):
    """Draws a ``lanes.Lanes.record``.

    Args:
        record: What there is so far.
        live: The run goes on; a trajectory that has not ended is else shown as interrupted.
    """

    def __init__(self, record: dict[str, Any], *, live: bool = False) -> None:
        super().__init__(classes="trajectories")
        self._record, self._live = record, live
        self.selected: int | None = None
        self._chosen = self._composed = False
        self._head = Static("", markup=False, classes="lanes-head")
        self._lines = Vertical(classes="lanes")
        self._text = Static("", markup=False)
        self._pane = VerticalScroll(self._text, classes="lane-text", can_focus=False)

    def compose(self) -> ComposeResult:
        """Summary, lines, text."""
        yield self._head
        yield self._lines
        yield self._pane

    def on_mount(self) -> None:
        """Draw what was given."""
        self._composed = True  # ``is_mounted`` is only set after this
        self.show(self._record, live=self._live)

    def show(self, record: dict[str, Any], *, live: bool) -> None:
        """Draw the run as it is now; when it ends, the text folds unless the reader had chosen one."""
        self._record, self._live = record, live
        if live and not self._chosen and self.selected is None:
            self.selected = 0
        elif not live and not self._chosen:
            self.selected = None
        if self._composed:
            self._draw()

    def step(self, step: int) -> None:
        """Choose the next line; past either end, none."""
        places = [None, *range(len(self._rows()))]
        at = places.index(self.selected) if self.selected in places else 0
        self.pick(places[(at + step) % len(places)])

    def pick(self, number: int | None) -> None:
        """Choose a line; the chosen one again folds it."""
        self.selected, self._chosen = number, True
        self._draw()

    def on_lane_line_picked(self, message: LaneLine.Picked) -> None:
        """The mouse chose."""
        message.stop()
        self.pick(None if message.number == self.selected else message.number)

    def _rows(self) -> list[tuple[str, str, bool]]:
        """(line, text, whether it is the one that stands)."""
        record = self._record
        winner, rows = record.get("winner"), []
        for one in record.get("trajectories", ()):
            what = short(one["vote"]) if one["vote"] is not None else LABELS.get(one["kind"], "a reply")
            if one["kind"] == "running" and not self._live:
                what = "interrupted"
            sure = "" if one.get("confidence") is None else f"  confidence {one['confidence']:.1f}"
            rows.append((f"{one['index'] + 1:>2}  {one['tokens']:>5} tok  {what}{sure}", one["text"],
                         one["index"] == winner))  # fmt: skip
        for name, text in record.get("passes", {}).items():
            rows.append((f" +  {name}", text, record.get("decided_by") == name))
        return rows

    def _draw(self) -> None:
        rows = self._rows()
        self._head.update(self._record.get("summary", "trajectories"))
        lines = list(self._lines.query(LaneLine))
        if len(lines) < len(rows):
            more = [LaneLine(number) for number in range(len(lines), len(rows))]
            self._lines.mount(*more)
            lines += more
        for number, (line, (words, _, stands)) in enumerate(zip(lines, rows, strict=False)):
            mark = "▸" if number == self.selected else " "
            line.update(f"{mark}{'✓' if stands else ' '}{words}")
            line.set_class(stands, "-stands")
            line.set_class(number == self.selected, "-selected")
        text = rows[self.selected][1] if self.selected is not None and self.selected < len(rows) else ""
        self._pane.display = bool(text.strip())
        self._text.update((text[-_TAIL:] if self._live else text).strip())
        if self._live and not self._chosen:
            self._pane.scroll_end(animate=False)
