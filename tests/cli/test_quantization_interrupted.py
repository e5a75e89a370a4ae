"""An export that is interrupted in each of its phases in turn ends with the bytes of one that never was.

Everything that quantization has is in it: own traces, sensitivity, smoothing and a second form, calibration, a
quantized KV cache. Every other interruption is Ctrl-C, the others are kills that leave no time to tidy up.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cli_support import environment

if TYPE_CHECKING:
    from pathlib import Path

# A function of the phase that, called for the n-th time, ends the process by the signal.
PHASES: dict[str, tuple[str, str, int, signal.Signals]] = {
    "traces": ("edgedistill.workflow.calibration_traces", "self_generated", 1, signal.SIGKILL),
    "sensitivity": ("edgedistill.export.mixed_precision.sensitivity", "_Run.damages", 3, signal.SIGKILL),
    "smoothing": ("edgedistill.export.calibrate.smoothquant", "_column_maxima", 2, signal.SIGINT),
    "calibration": ("edgedistill.export.calibrate.gptq_layers", "_Run._moments", 6, signal.SIGKILL),
    "calibration again": ("edgedistill.export.calibrate.gptq_layers", "_Run._moments", 2, signal.SIGINT),
    "writing": ("edgedistill.export.native", "write_graphs", 1, signal.SIGKILL),
    "KV cache": ("edgedistill.export.calibrate.kv_cache", "run_in_child", 1, signal.SIGINT),
    "last step": ("edgedistill.bundle.staging", "_fsync", 2, signal.SIGKILL),
}
# One process imports everything; each run of the command is a fork of it, which saves most of the time.
FORKS = """
import importlib, json, os, sys
import onnx_ir, onnxruntime, tokenizers
import edgedistill.workflow.export
from edgedistill.cli import main
def hook(module, name, count, number):
    owner = importlib.import_module(module)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), []
    def function(*arguments, **options):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), number)
        return real(*arguments, **options)
    setattr(owner, name, function)
for place, cache, arguments in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        os.environ["EDGEDISTILL_CACHE"] = cache
        if place:
            hook(*place)
        code = main(arguments)
        sys.stdout.flush()
        os._exit(code)
    print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)
"""
OPTIONS = (
    "--max-kl", "0.02", "--prefill", "w8a8", "--kv-cache", "int8", "--calibration-tokens", "256", "--no-verify",
    "--no-check", "--json",
)  # fmt: skip


@pytest.mark.slow
def test_every_phase(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    def run(name: str, place: object = None) -> list[object]:
        (tmp_path / name).mkdir(exist_ok=True)
        out = tmp_path / name / "out"
        return [place, str(tmp_path / name / "cache"), ["export", str(tiny_checkpoint_dir), "-o", str(out), *OPTIONS]]

    runs = [run("parts", place) for place in PHASES.values()] + [run("parts"), run("whole")]
    done = subprocess.run(
        [sys.executable, "-c", FORKS, json.dumps(runs)],
        capture_output=True, text=True, timeout=300, check=False, env=environment(),
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    *codes, resumed, code, _, last = [json.loads(line) for line in documents(done.stdout)]
    expected = [130 if number == signal.SIGINT else -signal.SIGKILL for *_, number in PHASES.values()]
    assert dict(zip(PHASES, codes, strict=True)) == dict(zip(PHASES, expected, strict=True)), done.stderr
    assert (code, last) == (0, 0), done.stderr
    assert resumed["reused_weights"] > 10
    assert contents(tmp_path / "parts" / "out") == contents(tmp_path / "whole" / "out")
    # Nothing stays behind but the results that are kept on purpose.
    kept = [path.suffix for path in (tmp_path / "parts" / "cache").rglob("*") if path.is_file()]
    assert set(kept) == {".jsonl"}
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["cache", "out"]


def documents(text: str) -> list[str]:
    """The JSON documents of a text, one after another."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        _, end = decoder.raw_decode(text, at)
        found.append(text[at:end])
        at = end + 1
    return found


def contents(bundle: Path) -> dict[str, Any]:
    """All files; of the manifest what does not depend on the time."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in bundle.iterdir()}
    manifest = json.loads(found.pop("manifest.json"))
    for name in ("created", "check", "predicted", "files"):
        manifest.pop(name)
    del found["README.md"]  # names the time
    return found | {"manifest": manifest}
