"""bench/load.py on a tiny bundle: every phase is measured, and memory where the system tells it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "load.py"


def test_a_table_with_every_phase(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    memory = [] if sys.platform == "linux" else ["--no-memory"]
    command = [sys.executable, str(BENCH), "--bundle", str(tiny_bundle_dir), "--rounds", "1", *memory]
    command += ["--work", str(tmp_path / "work"), "--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    assert "| first token, s from process start |" in done.stdout
    (row,) = json.loads((tmp_path / "found.json").read_text())
    (taken,) = row["rounds"]
    phases = [taken[name] for name in ("start", "imports", "check", "model", "token")]
    assert min(phases) >= 0
    assert abs(sum(phases) - taken["total"]) < 1e-3
    assert taken["processor"] > 0
    if sys.platform == "linux":
        (seen,) = row["memory"]
        assert seen["weights"] == (tiny_bundle_dir / "weights.bin").stat().st_size
        assert 0 < seen["opened"] <= seen["peak"]
        assert "| private / weights, opened |" in done.stdout
