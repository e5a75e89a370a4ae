"""The benchmark of the server: what it counts is what the server generated."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest
from api_server import serving

from edgedistill.runtime.model import open_bundle

BENCH = Path(__file__).parents[2] / "bench"


def test_a_round_counts_the_tokens_of_all_clients(reasoner_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])
    import serve

    with open_bundle(reasoner_dir, threads=1) as model, serving(model, parallel=3) as served:
        found = serve.measure(serve.Server(served.url, os.getpid()), clients=3, requests=2, tokens=4, first=1)
        made = served.service.batch.load.new_tokens
    assert 6 <= made <= 24
    assert found.rate * found.latency_s > 0
    assert found.cpu_rate > 0 or (math.isnan(found.cpu_rate) and not Path("/proc/self/stat").exists())
