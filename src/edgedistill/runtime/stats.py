"""Timings and memory of a generation, taken inside the steps they describe.

The clock runs while the model computes and a token is chosen, not while the consumer of a stream draws it.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from edgedistill.json_codec import Record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class GenerationStats(Record):
    """Counts, seconds and bytes of one generation.

    Attributes:
        prompt_tokens: Tokens of the rendered prompt.
        cached_tokens: Of those, how many the KV cache held already (a conversation's earlier turns, the prompt cache on
            disk).
        new_tokens: Generated tokens, the end-of-sequence token included.
        reasoning_tokens: Of those, the ones inside the reasoning.
        ttft_s: From the call to the first token: rendering, encoding, prefill, choice.
        prefill_s: Computing the prompt.
        decode_s: Sum of the decode steps (the first token comes out of the prefill and has no step).
        step_p50_s, step_p95_s: Percentiles of the decode steps' latency; 0 where there was none.
        kv_tokens, kv_bytes: Tokens in the KV cache at the end, and the memory allocated for it.
        rss_bytes, peak_rss_bytes: Resident memory of the process at the end, and its maximum so far.
        seed: The seed in effect; None when greedy.
        drafted_tokens, accepted_tokens: Tokens that were guessed and computed in advance, and those of them that were
            right (see ``GenerationSettings.speculate``).
    """

    DERIVED = ("prefill_tps", "decode_tps")

    prompt_tokens: int
    cached_tokens: int
    new_tokens: int
    reasoning_tokens: int
    ttft_s: float
    prefill_s: float
    decode_s: float
    step_p50_s: float
    step_p95_s: float
    kv_tokens: int
    kv_bytes: int
    rss_bytes: int
    peak_rss_bytes: int
    seed: int | None
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prefill_tps(self) -> float:
        """Prompt tokens computed per second (cached ones do not count)."""
        return _rate(self.prompt_tokens - self.cached_tokens, self.prefill_s)

    @property
    def decode_tps(self) -> float:
        """Tokens per second of the decode steps."""
        return _rate(self.new_tokens - 1, self.decode_s)


@dataclass(frozen=True, slots=True)
class Spread(Record):
    """Values of several rounds."""

    DERIVED = ("median", "min", "max")

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Their median."""
        return statistics.median(self.values)

    @property
    def min(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def max(self) -> float:
        """The largest."""
        return max(self.values)


@dataclass(slots=True)
class Stopwatch:
    """Adds up the time spent inside ``with`` blocks; ``laps`` holds each block's seconds."""

    laps: list[float] = field(default_factory=list)
    _started: float = 0.0

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.laps.append(time.perf_counter() - self._started)

    @property
    def total(self) -> float:
        """Seconds of all blocks together."""
        return sum(self.laps)


def percentile(seconds: Sequence[float], q: float) -> float:
    """The ``q``-th percentile (0-100, linear interpolation); 0.0 for no values."""
    return float(np.percentile(np.asarray(seconds, dtype=np.float64), q)) if len(seconds) else 0.0


def rss_bytes() -> int:
    """Resident memory of this process in bytes."""
    status = _proc_status("VmRSS")
    if status is not None:
        return status
    return int(_memory_info().rss)


def private_bytes() -> int | None:
    """Memory of this process that no file backs, in bytes: the system cannot take it back but by swapping. None where
    the system does not say (macOS).

    Linux counts resident pages, Windows what is committed.
    """
    status = _proc_status("RssAnon")
    if status is not None:
        return status
    private = getattr(_memory_info(), "private", None)
    return None if private is None else int(private)


def peak_rss_bytes() -> int:
    """Highest resident memory of this process so far, in bytes.

    On Linux from /proc: ``getrusage`` would also count what the parent held when it started this process.
    """
    status = _proc_status("VmHWM")
    if status is not None:
        return status
    if sys.platform != "win32":
        with suppress(ImportError):
            import resource

            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak if sys.platform == "darwin" else peak * 1024
    info = _memory_info()
    return int(getattr(info, "peak_wset", info.rss))


def _proc_status(key: str) -> int | None:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return None


def _memory_info() -> Any:
    """psutil's record for this process; imported by name because only systems without /proc need it."""
    return import_module("psutil").Process().memory_info()


def _rate(count: int, seconds: float) -> float:
    return count / seconds if count > 0 and seconds > 0 else 0.0
