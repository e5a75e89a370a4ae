"""bench/operators.py on tiny bundles: matrices and attention are found in the nodes of either form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edgedistill import export

BENCH = Path(__file__).parents[2] / "bench" / "operators.py"


def test_shares_of_both_forms(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    activations = tmp_path / "w8a8"
    export("tiny-reasoner", activations, format="w8a8", calibrate=False, check=False, verify=False)
    command = [sys.executable, str(BENCH), str(tiny_bundle_dir), str(activations), "--prompts", "16", "40"]
    command += ["--chunk", "16", "--rounds", "1", "--threads", "1", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    found = json.loads((tmp_path / "found.json").read_text())
    titles = ["prefill 16", "decode at 16", "prefill 40", "decode at 40"]
    assert [list(one) for one in found.values()] == [titles, titles]
    for name, matrix in ((tiny_bundle_dir.name, "MatMulNBits"), (activations.name, "MatMulIntegerToFloat")):
        for title in titles:
            assert f"| {title} | " in done.stdout
            assert found[name][title][matrix] > 0
            assert found[name][title]["GroupQueryAttention"] > 0
