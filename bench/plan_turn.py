"""Memory and speed of one bundle, measured in this process: ``python bench/plan_turn.py BUNDLE`` prints JSON.

Must not import the exporter or the planner: their memory would count as the bundle's.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgedistill.runtime import stats
from edgedistill.runtime.chunks import chunk_bounds
from edgedistill.runtime.model import open_bundle
from edgedistill.runtime.sampling import greedy

CONTEXTS = (64, 256, 1024, 2048)
MEMORY_AT = (256, 2048)
DECODE_AT = (64, 1024)
PREFILL = 256
STEPS = 32


def measure(path: Path) -> dict[str, float]:
    """One bundle in this process: memory first, because every later measurement would add to it."""
    model = open_bundle(path)
    session, chunk = model.session, model.prefill_chunk
    info = model.bundle.manifest.model
    ids = np.random.default_rng(0).integers(0, info.vocab_size, max(CONTEXTS)).tolist()
    found: dict[str, float] = {}
    decoder: Any = session.decoder()

    def prefill(count: int) -> float:
        decoder.truncate(0)
        start = time.perf_counter()
        for a, b in chunk_bounds(count, chunk):
            decoder.feed(ids[a:b], exact=True, logits=b == count)
        return time.perf_counter() - start

    def steps(count: int) -> float:
        laps, token = [], ids[0]
        for _ in range(count):
            start = time.perf_counter()
            token = greedy(decoder.feed([token]))
            laps.append(time.perf_counter() - start)
        return median(laps)

    for at in MEMORY_AT:
        if at <= info.context_length:
            prefill(at - 8)
            steps(8)
            found[f"memory {at}"] = stats.rss_bytes()
    found[f"prefill {PREFILL}"] = PREFILL / median(prefill(PREFILL) for _ in range(3))
    for at in DECODE_AT:
        if at + STEPS <= info.context_length:
            prefill(at - STEPS // 2)
            found[f"decode {at}"] = 1 / steps(STEPS)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
