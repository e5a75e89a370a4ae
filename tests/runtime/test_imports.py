from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ["torch", "transformers", "onnx", "onnx_ir", "onnxruntime_genai", "textual", "rich"]


@pytest.mark.parametrize(
    "module",
    [
        "edgedistill.runtime.model",
        "edgedistill.runtime.bench",
        "edgedistill.runtime.selftest",
        "edgedistill.trajectories",
    ],
)
def test_the_runtime_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_template_worker_stands_alone() -> None:
    code = (
        "import runpy, sys\n"
        "from pathlib import Path\n"
        "import importlib.util\n"
        "path = Path(importlib.util.find_spec('edgedistill').origin).parent / 'runtime' / 'template_worker.py'\n"
        "before = set(sys.modules)\n"
        "runpy.run_path(str(path), run_name='worker')\n"
        "print([m for m in set(sys.modules) - before if m.split('.')[0] in ('edgedistill', 'numpy', 'onnxruntime')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
