"""bench/masks.py with a small vocabulary: every kind of mask is made, used and timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "masks.py"


def test_a_row_for_every_kind(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH), "--quick", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    rows = json.loads((tmp_path / "found.json").read_text())
    kinds = ["none", "schema", "regex", "tools, watched", "tools, in a call"]
    assert [row["kind"] for row in rows] == kinds
    assert all(0 < row["rounds"][0] <= 10 * row["p95"] for row in rows)
    assert all(f"| 2,048 | {kind} |" in done.stdout for kind in kinds)
