"""Counters of a server in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgedistill.runtime.batch.live import LiveBatch
    from edgedistill.runtime.batch.live_sequence import Timings

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Histogram:
    """Seconds, counted by upper bounds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self._counts[sum(seconds > bound for bound in _BUCKETS)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterable[str]:
        """Cumulative counts, their sum and number."""
        total = 0
        for bound, count in zip((*map(str, _BUCKETS), "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum:g}"
        yield f"{name}_count {total}"


class Metrics:
    """What a server did so far; used from the loop's thread alone."""

    def __init__(self) -> None:
        self._responses: Counter[tuple[str, int]] = Counter()
        self._first_token, self._queued = Histogram(), Histogram()

    def responded(self, route: str, status: int) -> None:
        """A response was begun."""
        self._responses[route, status] += 1

    def ended(self, timings: Timings) -> None:
        """A sequence ended."""
        if timings.new_tokens:
            self._first_token.add(timings.ttft_s)
        self._queued.add(timings.queue_s)

    def text(self, batch: LiveBatch) -> str:
        """All of it."""
        load = batch.load
        counters = {
            "prompt_tokens": (load.prompt_tokens, "Tokens of prompts"),
            "prompt_tokens_cached": (load.cached_tokens, "Tokens of prompts that were not computed again"),
            "generated_tokens": (load.new_tokens, "Tokens generated"),
            "decode_steps": (load.steps, "Steps of the batch"),
            "decode_row_steps": (load.row_steps, "Tokens generated in them: divided by the steps, how full they were"),
            "prefill_seconds": (load.prefill_s, "Time spent on prompts"),
            "decode_seconds": (load.decode_s, "Time spent on steps of the batch"),
        }
        gauges = {
            "sequences_running": (batch.running, "Sequences in progress"),
            "requests_waiting": (batch.waiting, "Requests that wait for a place"),
            "places": (batch.places, "Sequences that can run at a time"),
            "kv_cache_bytes": (batch.kv_bytes, "Memory allocated for keys and values"),
        }
        lines = []
        for kind, values in (("counter", counters), ("gauge", gauges)):
            for name, (value, help_) in values.items():
                full = f"edgedistill_{name}" + ("_total" if kind == "counter" else "")
                lines += [f"# HELP {full} {help_}.", f"# TYPE {full} {kind}", f"{full} {value:.10g}"]
        lines += [
            "# HELP edgedistill_responses_total Responses by route and status.",
            "# TYPE edgedistill_responses_total counter",
        ]
        lines += [
            f'edgedistill_responses_total{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in sorted(self._responses.items())
        ]
        for name, histogram, help_ in (
            ("edgedistill_time_to_first_token_seconds", self._first_token, "From a request to its first token"),
            ("edgedistill_queue_seconds", self._queued, "From a request to the beginning of its prompt"),
        ):
            lines += [f"# HELP {name} {help_}.", f"# TYPE {name} histogram", *histogram.lines(name)]
        return "\n".join(lines) + "\n"
