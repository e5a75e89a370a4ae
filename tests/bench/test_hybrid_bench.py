"""bench/hybrid.py on small models: every speed, and the memory that a text adds where the system tells it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "hybrid.py"


def test_tables_of_speed_and_memory(tmp_path: Path) -> None:
    memory = ["--memory", "1024"] if sys.platform == "linux" else []
    command = [sys.executable, str(BENCH), "--quick", "--threads", "1", "--rounds", "1", "--held", "256", *memory]
    command += ["--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    assert "| gated delta rule |" in done.stdout
    models = json.loads((tmp_path / "found.json").read_text())["models"]
    for model in models.values():
        assert all(rate > 0 for rates in model["speed"]["256"] for rate in rates)
    if memory:
        grown = {name: model["memory"]["after"] - model["memory"]["before"] for name, model in models.items()}
        assert {model["memory"]["tokens"] for model in models.values()} == {1024}
        assert "| private memory of a process |" in done.stdout
        # Keys and values of 768 tokens more, in four layers and in one (states are small, copies of them and all).
        assert grown["attention"] > 0.9 * models["attention"]["bytes"] * 0.75
        assert grown["short convolution"] < grown["attention"]
