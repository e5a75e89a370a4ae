"""A longer measurement of a bundle on this machine: decode speed over time, every step's latency, prefill by length,
memory.

Where ``bench`` gives medians, a trace shows how a machine behaves: whether it slows down as it gets warm, which steps
take longer, what a longer prompt costs, how memory grows with the context. It is taken in a process of its own, so
that its memory is the bundle's and whoever draws it does not disturb it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.bundle.bundle import Bundle
from edgedistill.errors import BundleError, ChildError, GenerationError
from edgedistill.system.child import iterate_in_child

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

SWEEP = (16, 32, 64, 128, 256, 512, 1024, 2048)
DEFAULT_SECONDS = 20.0
INTERVAL_S = 0.25
"""Between two points of the speed over time."""
_PROMPT = 32


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One measurement.

    Attributes:
        kind: ``loaded`` (seconds, rss), ``prefill`` (tokens, seconds), ``memory`` (tokens in the context, rss, kv),
            ``decode`` (at: seconds since decoding began, tokens in this interval, seconds it took, steps: latency of
            each in s), ``done``.
    """

    kind: str
    tokens: int = 0
    seconds: float = 0.0
    at: float = 0.0
    rss: int = 0
    kv: int = 0
    steps: tuple[float, ...] = ()


def trace(
    path: str | Path,
    *,
    seconds: float = DEFAULT_SECONDS,
    threads: int | None = None,
    cancel: threading.Event | None = None,
) -> Iterator[TraceEvent]:
    """Measure the bundle at ``path``; events come as they happen, the last is ``done``.

    Args:
        path: Bundle directory.
        seconds: How long to decode, at least 1; prefill and memory take what they take.
        threads: Overrides the profile's.
        cancel: Ends the measuring process, whatever it is doing.

    Raises:
        BundleError: No bundle, a damaged one, or a measuring process that died.
        GenerationError: ``seconds`` out of range; what the measuring process reported.
    """
    if not 1 <= seconds <= 3600:
        raise GenerationError(f"seconds is {seconds:g}; expected 1 to 3600.")
    Bundle.open(path)
    request = {"path": str(Path(path).resolve()), "seconds": seconds, "threads": threads}
    try:
        for values in iterate_in_child(measure_events, request, cancel=cancel):
            yield TraceEvent(**{**values, "steps": tuple(values["steps"])})
            if cancel is not None and cancel.is_set():
                return
    except ChildError as error:
        if error.kind == "cancelled":
            return
        raise BundleError(
            f"The process that measures {Path(path).name} ended early ({error}).",
            hint="Is there enough memory? Compare with: edgedistill inspect BUNDLE",
        ) from error


# ---- the measuring process --------------------------------------------------------------------------------------


def measure_events(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Measure in this process; the events as dicts."""
    return map(asdict, measure(request["path"], seconds=request["seconds"], threads=request["threads"]))


def measure(path: str, *, seconds: float, threads: int | None) -> Iterator[TraceEvent]:
    """Measure in this process."""
    import numpy as np

    from edgedistill.runtime.chunks import chunk_bounds
    from edgedistill.runtime.model import open_bundle
    from edgedistill.runtime.sampling import greedy
    from edgedistill.runtime.stats import rss_bytes

    with open_bundle(path, threads=threads) as model:
        yield TraceEvent("loaded", seconds=model.load_s, rss=rss_bytes())
        info, chunk = model.bundle.manifest.model, model.prefill_chunk
        limit = info.context_length
        ids = np.random.default_rng(0).integers(0, info.vocab_size, limit).tolist()
        decoder = model.session.decoder()
        yield TraceEvent("memory", tokens=0, rss=rss_bytes(), kv=decoder.kv_bytes)
        # The longest prompt first, cut short enough to take seconds: its chunks give the memory over the context.
        longest = max(n for n in (*SWEEP, 2) if n < limit)
        for start, stop in chunk_bounds(longest, chunk):
            decoder.feed(ids[start:stop], exact=True, logits=stop == longest)
            yield TraceEvent("memory", tokens=stop, rss=rss_bytes(), kv=decoder.kv_bytes)
        for count in (n for n in SWEEP if n <= longest):
            times = []
            for _ in range(3 if count <= 512 else 1):
                decoder.truncate(0)
                begun = time.perf_counter()
                for start, stop in chunk_bounds(count, chunk):
                    decoder.feed(ids[start:stop], exact=True, logits=stop == count)
                times.append(time.perf_counter() - begun)
            yield TraceEvent("prefill", tokens=count, seconds=sorted(times)[len(times) // 2])
        prompt = max(1, min(_PROMPT, limit // 2))
        most = min(limit - 1, 1024)
        token, steps = ids[0], []  # type: tuple[int, list[float]]
        decoder.truncate(0)
        decoder.feed(ids[:prompt], exact=True)
        begun = last = time.perf_counter()
        while last - begun < seconds:
            if decoder.length >= most:  # the same contexts again and again: what changes is the machine
                decoder.truncate(prompt)
            before = time.perf_counter()
            token = greedy(decoder.feed([token]))
            now = time.perf_counter()
            steps.append(now - before)
            if now - last >= INTERVAL_S:
                yield TraceEvent(
                    "decode", tokens=len(steps), seconds=now - last, at=now - begun, rss=rss_bytes(),
                    kv=decoder.kv_bytes, steps=tuple(steps),
                )  # fmt: skip
                steps, last = [], time.perf_counter()
    yield TraceEvent("done")
