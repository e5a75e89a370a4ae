"""The profiler page: measures speed and memory of a bundle on this machine, and compares with earlier runs."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from rich.text import Text
from textual import work
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import DataTable, Static

from edgedistill.errors import EdgedistillError
from edgedistill.units import format_bytes, format_seconds
from edgedistill_tui import profiling
from edgedistill_tui.data.database import StoreError
from edgedistill_tui.data.writing import write_new
from edgedistill_tui.neutral import plain
from edgedistill_tui.plots import bar_plot, line_plot
from edgedistill_tui.profiling import LiveRun, Run
from edgedistill_tui.screens.dialogs import Ask
from edgedistill_tui.screens.page import Page, key
from edgedistill_tui.screens.sessions import when

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from textual.widget import Widget

_IDLE = "S measures the loaded bundle, in a process of its own (20 s of decoding, T changes that)."
_EMPTY = (
    "decode speed over time: whether the machine slows down as it gets warm",
    "latencies of the steps as a histogram",
    "prefill speed by the length of the prompt",
    "memory over the context; below, earlier runs on this machine",
)
_MIB = 1 << 20


class ProfilerScreen(Page):
    """Four plots over a table of runs."""

    PAGE = "profiler"
    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        key("profiler.start", "s", "start", "Start"),
        key("profiler.stop", "escape", "stop", "Stop"),
        key("profiler.time", "t", "time", "Time"),
        key("profiler.json", "j", "export('.json')", "JSON"),
        key("profiler.csv", "c", "export('.csv')", "CSV"),
        key("profiler.svg", "v", "export('.svg')", "SVG"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.live: LiveRun | None = None
        self.seconds = 20.0
        self.runs: list[Run] = []
        self._cancel = threading.Event()
        self._measuring = False
        self._note = Static(_IDLE, markup=False, classes="note")
        self._plots = [Static("", markup=False) for _ in range(4)]
        self.table: DataTable[Text | str] = DataTable(cursor_type="row")

    def body(self) -> Iterator[Widget]:
        """Note, plots, runs."""
        with Vertical(classes="page"):
            yield self._note
            with VerticalScroll(classes="plots"):
                with Horizontal(classes="pair"):
                    yield self._plots[0]
                    yield self._plots[1]
                with Horizontal(classes="pair"):
                    yield self._plots[2]
                    yield self._plots[3]
            yield self.table

    def on_mount(self) -> None:
        """The columns of the table."""
        self.table.add_columns("run", "bundle", "decode tok/s", "prefill", "p50", "p95", "decay", "memory")
        self.set_interval(0.5, self._draw_new)

    def on_screen_resume(self) -> None:
        """Read the earlier runs of this machine."""
        self.fill()
        self.table.focus()
        self.draw()

    def on_resize(self) -> None:
        """Plots fit the terminal."""
        self.draw()

    def on_unmount(self) -> None:
        """End the measuring process."""
        self._cancel.set()

    # ---- measuring -------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether something is being measured."""
        return self._measuring

    def action_start(self) -> None:
        """Measure the loaded bundle."""
        engine = self.tui.engine
        if self._measuring:
            self.notify("Already measuring: Esc stops.")
        elif engine is None:
            self.notify("No bundle is loaded: F4 opens one.", severity="warning")
        elif what := self.tui.occupied():
            self.notify(f"{what} Two measurements at once would disturb each other.", severity="warning")
        else:
            facts = engine.facts
            self.live = LiveRun(Run(facts.bundle, facts.hash, self.tui.services.machine, time.time()))
            self._cancel = threading.Event()
            self._measuring = True
            self._say(f"Measuring {facts.bundle}: loading…")
            self._measure(facts.path, self.live, self._cancel, self.seconds)

    def action_stop(self) -> None:
        """End it early; a run that was stopped is not kept."""
        self._cancel.set()

    @work
    async def action_time(self) -> None:
        """How long to decode."""
        text = await self.app.push_screen_wait(
            Ask("Seconds of decoding (a minute or more shows heat)", f"{self.seconds:g}")
        )
        try:
            value = float(text) if text is not None else self.seconds
        except ValueError:
            value = 0.0
        if 1 <= value <= 3600:
            self.seconds = value
            self._say(f"The next run decodes for {format_seconds(value)}.")
        else:
            self.notify(f"{text!r} is not a number from 1 to 3600.", severity="error")

    @work(thread=True)
    def _measure(self, path: str, live: LiveRun, cancel: threading.Event, seconds: float) -> None:
        problem = ""
        try:
            for event in self.tui.services.trace(path, seconds=seconds, cancel=cancel):
                live.add(event)
        except (EdgedistillError, OSError) as error:
            problem = str(error)
        self.app.call_from_thread(self._ended, live, problem)

    def _ended(self, live: LiveRun, problem: str) -> None:
        self._measuring = False
        run = live.run
        if problem:
            self._say(problem)
            self.notify(problem, severity="error", timeout=8)
        elif not run.done:
            self._say("Stopped; this run is not kept.")
        else:
            try:
                self.tui.services.store.add_run(run.machine, run.bundle, run.bundle_hash, run.to_dict())
            except (StoreError, OSError) as error:
                self.notify(f"The run is not kept: {error}", severity="warning")
            self._say(f"Done. {_sentence(run)} J, C, V write it as JSON, CSV, SVG.")
        self.fill()
        self.draw()

    # ---- drawing ---------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self._note.update(text)

    def _draw_new(self) -> None:
        if self.live is not None and self.live.look() and self.is_current:
            self.draw()
            if self._measuring:
                self._say(f"Measuring {self.live.run.bundle}. {_sentence(self.live.run)} Esc stops.")

    def draw(self) -> None:
        """All four plots: the present run, and the one under the cursor beside it."""
        run = self.live.run if self.live is not None else self.runs[0] if self.runs else None
        if run is None:
            for plot, what in zip(self._plots, _EMPTY, strict=True):
                plot.update(f"{what}\n")
            return
        other = self._compared(run)
        wide = self.size.width >= 76
        width = (self.size.width - 4) // 2 if wide else self.size.width - 4
        height = 11 if self.size.height >= 34 else 8
        lines = [(run.speed, "cyan")] if other is None else [(other.speed, "dim"), (run.speed, "cyan")]
        prefill = [([(float(n), r) for n, r in r_.prefill], s) for r_, s in ((other, "dim"), (run, "green")) if r_]
        memory = [([(float(n), rss / _MIB) for n, rss, _ in run.memory], "yellow"),
                  ([(float(n), kv / _MIB) for n, _, kv in run.memory], "magenta")]  # fmt: skip
        bins = run.histogram(max(8, min(30, width - 10)))
        edges = (1e3 * bins[0][0], 1e3 * bins[-1][1]) if bins else (0.0, 0.0)
        texts = [
            line_plot(lines, width, height, title="decode speed", unit="tok/s over time", x_unit="s"),
            bar_plot(
                [float(n) for *_, n in bins], *edges, width, height, title="step latency", unit="steps", x_unit="ms"
            ),
            line_plot(prefill, width, height, title="prefill", unit="tok/s over prompt", x_unit="tok"),
            line_plot(memory, width, height, title="memory", unit="MiB: resident, KV over context", x_unit="tok"),
        ]
        for plot, text in zip(self._plots, texts, strict=True):
            text.no_wrap = True
            plot.update(text)

    def _compared(self, run: Run) -> Run | None:
        row = self.table.cursor_row
        other = self.runs[row] if 0 <= row < len(self.runs) else None
        return other if other is not None and other.created != run.created else None

    def on_data_table_row_highlighted(self) -> None:
        """Another run to compare with."""
        self.draw()

    def fill(self) -> None:
        """The runs of this machine, with the present one's difference to each."""
        try:
            stored = self.tui.services.store.runs(self.tui.services.machine)
        except (StoreError, OSError) as error:
            self.notify(str(error), severity="warning")
            stored = []
        self.runs = [Run.from_dict(data, created) for *_, created, data in stored]
        self.table.clear()
        newest = self.live.run.summary() if self.live is not None and self.live.run.done else None
        for (_, bundle, _, created, data), _run in zip(stored, self.runs, strict=True):
            s = data.get("summary", {})
            rate = Text(f"{s.get('decode_tps', 0):,.0f}")
            if newest and s.get("decode_tps") and (change := newest["decode_tps"] / s["decode_tps"] - 1):
                rate.append(f"  now {change:+.0%}", "green" if change > 0 else "red")
            self.table.add_row(
                when(created), plain(bundle), rate, f"{s.get('prefill_tps', 0):,.0f}",
                format_seconds(s.get("p50_s", 0)), format_seconds(s.get("p95_s", 0)),
                f"{s.get('decay', 0) - 1:+.0%}" if s.get("decay") else "",
                format_bytes(s.get("rss", 0)),
            )  # fmt: skip

    # ---- out of here -----------------------------------------------------------------------------------------

    def action_export(self, suffix: str) -> None:
        """Write the present run, or the one under the cursor."""
        row = self.table.cursor_row
        run = self.live.run if self.live is not None else self.runs[row] if 0 <= row < len(self.runs) else None
        if run is None or not run.speed:
            self.notify("There is no run to write yet.")
            return
        text = {".json": profiling.to_json, ".csv": profiling.to_csv, ".svg": profiling.to_svg}[suffix](run)
        try:
            path: Path = write_new(self.tui.services.config.exports, f"profile-{run.bundle}", suffix, text)
        except EdgedistillError as error:
            self.notify(str(error), severity="error")
        else:
            self.notify(f"Written to {path.name}.")


def _sentence(run: Run) -> str:
    s = run.summary()
    if not s["decode_tps"]:
        return f"Loaded in {format_seconds(run.load_s)}." if run.load_s else ""
    decay = f", {s['decay'] - 1:+.0%} from first to last" if s["decay"] else ""
    return (
        f"decode {s['decode_tps']:,.0f} tok/s{decay}; steps p50 {format_seconds(s['p50_s'])}, "
        f"p95 {format_seconds(s['p95_s'])}, p99 {format_seconds(s['p99_s'])}."
    )
