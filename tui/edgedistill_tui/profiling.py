"""A profiler run as data: collects events, summarises them, and writes JSON, CSV and SVG."""

from __future__ import annotations

import csv
import io
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgedistill.svg_plots import Axes, Series, sheet

if TYPE_CHECKING:
    from edgedistill.runtime.measure.latency_trace import TraceEvent

_MOST_STEPS = 200_000


@dataclass(slots=True)
class Run:
    """One run, growing. Rates in tokens per second, times in s, sizes in bytes.

    Attributes:
        speed: (seconds since decoding began, tokens per second) per interval.
        steps: Latency of every decode step.
        prefill: (prompt tokens, tokens per second).
        memory: (tokens in the context, resident bytes, bytes of the KV cache).
        stored: Result of ``to_dict``, for an earlier run whose single steps were not kept.
    """

    bundle: str
    bundle_hash: str = ""
    machine: str = ""
    created: float = 0.0
    load_s: float = 0.0
    speed: list[tuple[float, float]] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    prefill: list[tuple[int, float]] = field(default_factory=list)
    memory: list[tuple[int, int, int]] = field(default_factory=list)
    done: bool = False
    stored: dict[str, Any] = field(default_factory=dict)

    def add(self, event: TraceEvent) -> None:
        """Take one measurement."""
        if event.kind == "loaded":
            self.load_s = event.seconds
        elif event.kind == "prefill" and event.seconds:
            self.prefill.append((event.tokens, event.tokens / event.seconds))
        elif event.kind == "memory":
            self.memory.append((event.tokens, event.rss, event.kv))
        elif event.kind == "decode" and event.seconds:
            self.speed.append((event.at, event.tokens / event.seconds))
            self.steps += event.steps[: _MOST_STEPS - len(self.steps)]
        elif event.kind == "done":
            self.done = True

    def summary(self) -> dict[str, float]:
        """The numbers by which runs are compared; 0 if not measured.

        ``decay`` is the speed in the last fifth of the time over that in the first: below 1, the machine became slower.
        """
        if self.stored:
            return dict(self.stored.get("summary", {}))
        rates = [rate for _, rate in self.speed]
        fifth = max(1, len(rates) // 5)
        ordered = sorted(self.steps)
        return {
            "decode_tps": _median(rates),
            "prefill_tps": max((rate for _, rate in self.prefill), default=0.0),
            "p50_s": quantile(ordered, 0.5),
            "p95_s": quantile(ordered, 0.95),
            "p99_s": quantile(ordered, 0.99),
            "decay": _median(rates[-fifth:]) / _median(rates[:fifth]) if len(rates) >= 5 else 0.0,
            "rss": float(max((rss for _, rss, _ in self.memory), default=0)),
            "load_s": self.load_s,
        }

    def histogram(self, bins: int = 24) -> list[tuple[float, float, int]]:
        """(from, to, count) of the step latencies, up to their 99.5th percentile; the rest is in the last bin."""
        if self.stored:
            return [(float(a), float(b), int(n)) for a, b, n in self.stored.get("histogram", [])]
        ordered = sorted(self.steps)
        if not ordered:
            return []
        low, high = ordered[0], quantile(ordered, 0.995)
        width = max(high - low, 1e-6) / bins
        counts = [0] * bins
        for step in ordered:
            counts[min(bins - 1, int((step - low) / width))] += 1
        return [(low + i * width, low + (i + 1) * width, count) for i, count in enumerate(counts)]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; ``from_dict`` reads it back. Steps are kept as a histogram and percentiles only."""
        return {
            "bundle": self.bundle, "bundle_hash": self.bundle_hash, "machine": self.machine, "created": self.created,
            "load_s": self.load_s, "summary": self.summary(), "speed": self.speed, "prefill": self.prefill,
            "memory": self.memory, "histogram": self.histogram(),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any], created: float) -> Run:
        """An earlier run; fields that a damaged record lacks are empty."""
        return cls(
            bundle=str(data.get("bundle", "")), bundle_hash=str(data.get("bundle_hash", "")),
            machine=str(data.get("machine", "")), created=created, load_s=float(data.get("load_s", 0)),
            speed=[(float(a), float(b)) for a, b in data.get("speed", [])],
            prefill=[(int(a), float(b)) for a, b in data.get("prefill", [])],
            memory=[(int(a), int(b), int(c)) for a, b, c in data.get("memory", [])],
            done=True, stored=data,
        )  # fmt: skip


class LiveRun:
    """A run that a thread fills and the screen draws."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._lock = threading.Lock()
        self._changed = False

    def add(self, event: TraceEvent) -> None:
        """Called by the measuring thread."""
        with self._lock:
            self.run.add(event)
            self._changed = True

    def look(self) -> bool:
        """Called by the screen: whether there is something new to draw since the last call."""
        with self._lock:
            changed, self._changed = self._changed, False
            return changed


def quantile(ordered: list[float], q: float) -> float:
    """The ``q``-quantile of ordered values (nearest rank); 0 for none."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def _median(values: list[float]) -> float:
    return quantile(sorted(values), 0.5)


def to_json(run: Run) -> str:
    """Everything about a run."""
    return json.dumps(run.to_dict(), indent=2) + "\n"


def to_csv(run: Run) -> str:
    """One table of all series: series, x, y, in the units of their names."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("series", "x", "y"))
    writer.writerows(("decode_tps_at_s", f"{at:.3f}", f"{rate:.3f}") for at, rate in run.speed)
    writer.writerows(("prefill_tps_at_tokens", n, f"{rate:.3f}") for n, rate in run.prefill)
    writer.writerows(("rss_bytes_at_context_tokens", n, rss) for n, rss, _ in run.memory)
    writer.writerows(("kv_bytes_at_context_tokens", n, kv) for n, _, kv in run.memory)
    writer.writerows(("step_count_from_ms", f"{1000 * low:.4f}", count) for low, _, count in run.histogram())
    return out.getvalue()


def to_svg(run: Run) -> str:
    """Four plots on one picture."""
    mib = 1 << 20
    latency = [(1e3 * low, float(count)) for low, _, count in run.histogram()]
    prefill = [(float(tokens), rate) for tokens, rate in run.prefill]
    resident = Series("resident", "bundle", [(float(n), rss / mib) for n, rss, _ in run.memory])
    cache = Series("KV cache", "other", [(float(n), kv / mib) for n, _, kv in run.memory])
    steps = Series("steps", "bundle", latency, "columns")
    plots = [
        ("decode speed over time", [Series("speed", "bundle", run.speed)], Axes("s", "tok/s")),
        ("step latency", [steps], Axes("ms", "steps")),
        ("prefill speed over prompt", [Series("speed", "bundle", prefill)], Axes("tokens", "tok/s")),
        ("memory over context", [resident, cache], Axes("tokens", "MiB")),
    ]
    return sheet(f"{run.bundle} on {run.machine}", plots)
