"""The consistency page: draws many samples of one prompt and counts the answers while they arrive."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from rich.text import Text
from textual import work
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Input, Label, Static

from edgedistill.errors import EdgedistillError
from edgedistill.units import format_seconds
from edgedistill_tui.plots import bar
from edgedistill_tui.screens.page import Page, key
from edgedistill_tui.tallying import Count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.widget import Widget

    from edgedistill.verify.types import Estimate
    from edgedistill_tui.engine import Engine, Sampling

DEFAULT_SAMPLES = 64
_MOST = 4096
_ROWS = 12

_EMPTY = """\
Here will be, as the samples come:

  the answers as a histogram, the most frequent first
  the share of the first one, with its interval
  how spread the answers are: entropy in bits

At temperature 0 all samples are equal; 0.6 to 1 tells more."""


class ConsistencyScreen(Page):
    """A prompt over a histogram."""

    PAGE = "consistency"
    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        key("consistency.run", "ctrl+r", "run", "Run", priority=True),
        key("consistency.stop", "escape", "stop", "Stop"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.prompt = Input(placeholder="A question (empty: the chat's last one)", id="c-prompt", compact=True)
        self.samples = Input(str(DEFAULT_SAMPLES), type="integer", id="c-samples", compact=True)
        self.temperature = Input("", placeholder="bundle's", id="c-temperature", compact=True)
        self.count = Count()
        self.wanted = 0
        self.running = False
        self._asked = ""
        self._lock = threading.Lock()
        self._cancel = threading.Event()
        self._began = self._ended = 0.0
        self._changed = False
        self._note = Static("", markup=False, classes="note")
        self._result = Static("", markup=False)

    def body(self) -> Iterator[Widget]:
        """Fields, numbers, histogram."""
        with Vertical(classes="page"):
            with Horizontal(classes="bar"):
                yield self.prompt
            with Horizontal(classes="bar"):
                yield Label("samples")
                yield self.samples
                yield Label("temperature")
                yield self.temperature
            yield self._note
            with VerticalScroll(classes="plots"):
                yield self._result

    def on_mount(self) -> None:
        """Draw a few times a second while samples come."""
        self.set_interval(0.25, self._draw_new)
        self.prompt.focus()
        self.draw()

    def on_screen_resume(self) -> None:
        """Offer the chat's last question."""
        asked = [m.content for m in self.tui.session.path() if m.role == "user"]
        if asked and not self.prompt.value:
            self.prompt.value = " ".join(asked[-1].split())

    def on_resize(self) -> None:
        """Bars fit the terminal."""
        self.draw()

    def on_unmount(self) -> None:
        """End sampling."""
        self._cancel.set()

    def on_input_submitted(self) -> None:
        """Enter runs."""
        self.action_run()

    def action_stop(self) -> None:
        """End it and keep what was counted."""
        self.stop()

    def stop(self) -> None:
        """End what runs, if anything."""
        self._cancel.set()

    def action_run(self) -> None:
        """Draw the samples."""
        engine = self.tui.engine
        prompt = self.prompt.value.strip()
        text = self.samples.value.strip()
        number = int(text) if text.isdecimal() else 0
        if self.running:
            self.notify("Already sampling: Esc stops.")
        elif engine is None:
            self.notify("No bundle is loaded: F4 opens one.", severity="warning")
        elif not prompt:
            self.notify("A question is needed.", severity="warning")
        elif not 2 <= number <= _MOST:
            self.notify(f"samples is {text!r}; expected 2 to {_MOST}.", severity="error")
        elif what := self.tui.occupied():
            self.notify(what, severity="warning")
        elif (sampling := self._sampling()) is not None:
            self.count, self.wanted, self._asked = Count(), number, prompt
            self._cancel, self.running = threading.Event(), True
            self._began = time.monotonic()
            if sampling.generation.greedy:
                self.notify(
                    "At temperature 0 all samples are equal; that says nothing about consistency.", severity="warning"
                )
            self._draw_samples(engine, prompt, number, sampling, self._cancel)
            self.draw()

    def _sampling(self) -> Sampling | None:
        values = {} if not self.temperature.value.strip() else {"temperature": self.temperature.value.strip()}
        try:
            return self.tui.sampling.merged({name: float(value) for name, value in values.items()})
        except (ValueError, EdgedistillError) as error:
            self.notify(f"temperature: {error}", severity="error")
            return None

    @work(thread=True)
    def _draw_samples(
        self, engine: Engine, prompt: str, number: int, sampling: Sampling, cancel: threading.Event
    ) -> None:
        messages = [{"role": "user", "content": prompt}]
        if self.tui.session.system:
            messages.insert(0, {"role": "system", "content": self.tui.session.system})
        problem = ""
        try:
            for answer in engine.samples(messages, number, sampling, cancel=cancel):
                with self._lock:
                    self.count.add(answer)
                    self._changed = True
        except (EdgedistillError, OSError) as error:
            problem = str(error)
        self.app.call_from_thread(self._finished, problem)

    def _finished(self, problem: str) -> None:
        self.running = False
        self._ended = time.monotonic()
        if problem:
            self.notify(problem, severity="error", timeout=8)
        self.draw()

    # ---- drawing ---------------------------------------------------------------------------------------------

    def _draw_new(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, False
        if changed and self.is_current:
            self.draw()

    def draw(self) -> None:
        """Numbers and bars."""
        if not self.is_mounted:
            return
        with self._lock:
            total, tokens = self.count.total, self.count.tokens
            ranked, estimates = self.count.ranked(), self.count.estimates()
        if not self.wanted:
            self._note.update(
                "Enter draws samples of one question and counts the answers; Esc stops and keeps the count."
            )
            self._result.update(_EMPTY)
            return
        seconds = (time.monotonic() if self.running else self._ended) - self._began
        state = "Esc stops" if self.running else "done" if total >= self.wanted else "stopped"
        rate = f", {tokens / seconds:,.0f} tok/s in all" if seconds > 0 and tokens else ""
        self._note.update(f"{total} of {self.wanted} samples in {format_seconds(max(seconds, 0.0))}{rate} · {state}")
        self._result.update(self._text(total, ranked, estimates))

    def _text(
        self, total: int, ranked: list[tuple[str, int, bool]], estimates: tuple[Estimate, Estimate, Estimate] | None
    ) -> Text:
        text = Text()
        text.append(f"{self._asked}\n\n", "italic")
        if estimates is not None:
            share, agree, entropy = estimates
            for label, shown in (
                ("majority share", _interval(share, 100, 1, " %")),
                ("agreement C", _interval(agree, 1, 3, "")),
                ("answer entropy", _interval(entropy, 1, 3, " bits")),
            ):
                text.append(f"{label:<15} ", "dim").append(f"{shown}\n", "bold")
            text.append("\n")
        width = max(10, (self.size.width or 80) - 38)
        for answer, number, good in ranked[:_ROWS]:
            shown = " ".join(answer.split())
            text.append(f"{shown[:18]:>18} " if good else f"{'(' + shown + ')':>18} ", "" if good else "dim italic")
            text.append(f"{bar(number / total, width):<{width}} ", "cyan" if good else "red")
            text.append(f"{number:>4}  {100 * number / total:5.1f} %\n")
        if len(ranked) > _ROWS:
            rest = sum(n for _, n, _ in ranked[_ROWS:])
            text.append(f"{'…':>18} {len(ranked) - _ROWS} other answers, {rest} samples\n", "dim")
        if ranked and not self.running:
            example = self.count.example.get(ranked[0][0], "")
            text.append("\nthe most frequent, as it was said\n", "dim").append(example)
        return text


def _interval(estimate: Estimate, scale: float, digits: int, unit: str) -> str:
    text = f"{scale * estimate.value:.{digits}f}"
    if estimate.interval is not None:
        ends = [
            f"{scale * end:.{digits}f}" if math.isfinite(end) else "unbounded"
            for end in (estimate.interval.low, estimate.interval.high)
        ]
        text += f" [{ends[0]}, {ends[1]}]"
    return text + unit
