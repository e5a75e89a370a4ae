from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ["torch", "transformers", "onnx", "onnx_ir", "onnxruntime_genai", "textual", "rich"]


@pytest.mark.parametrize(
    "module",
    [
        "edgedistill.runtime.model",
        "edgedistill.runtime.measure.bench",
        "edgedistill.runtime.measure.selftest",
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
        "package = Path(importlib.util.find_spec('edgedistill').origin).parent\n"
        "path = package / 'runtime' / 'text' / 'chat_template_worker.py'\n"
        "before = set(sys.modules)\n"
        "runpy.run_path(str(path), run_name='worker')\n"
        "print([m for m in set(sys.modules) - before if m.split('.')[0] in ('edgedistill', 'numpy', 'onnxruntime')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_reported_unless_the_user_asks_for_it(tmp_path: Path) -> None:
    """ONNX Runtime's telemetry leaves an identifier of the device in the cache as soon as it is loaded."""
    code = "import os, edgedistill.runtime.session; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, expected in ((None, "1"), ("0", "0")):
        env = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
        env |= {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
        env |= {} if given is None else {"ORT_DISABLE_TELEMETRY": given}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        assert done.stdout.strip() == expected
        if given is None:
            assert not list(tmp_path.rglob("deviceid"))
