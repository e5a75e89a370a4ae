"""Ctrl-C: an interrupted export leaves nothing that opens and is resumed; an interrupted answer keeps its text."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from cli_support import COMMAND, edgedistill, environment

if TYPE_CHECKING:
    from pathlib import Path

# The command with a hook: after three quantized weights it says so and goes on very slowly.
SLOW_EXPORT = """
import sys, time
import edgedistill.export.writer as writer
from edgedistill.cli import main
real, calls = writer.quantize_rows, []
def quantize_rows(*arguments, **options):
    calls.append(1)
    if len(calls) == 4:
        print("in the middle", flush=True)
    if len(calls) >= 4:
        time.sleep(0.5)
    return real(*arguments, **options)
writer.quantize_rows = quantize_rows
sys.exit(main(sys.argv[1:]))
"""


def interrupt_when(process: subprocess.Popen[str], text: str) -> None:
    """Send Ctrl-C once ``text`` is on stdout."""
    assert process.stdout is not None
    seen = ""
    while text not in seen:
        character = process.stdout.read(1)
        assert character, "the process ended first"
        seen += character
    process.send_signal(signal.SIGINT)


def test_an_interrupted_export_leaves_no_bundle_and_is_resumed(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["export", str(tiny_checkpoint_dir), "-o", str(out), "--no-check", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_EXPORT, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    interrupt_when(process, "in the middle")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted."
    assert "Traceback" not in err
    assert not out.exists()
    partial = tmp_path / ".out.partial"
    assert partial.is_dir()
    assert "not a finished" in edgedistill("inspect", partial).one_error()

    resumed = edgedistill(*arguments)
    assert resumed.code == 0
    assert 1 <= resumed.json["reused_weights"] < 20
    assert not partial.exists()
    fresh = tmp_path / "fresh"
    edgedistill("export", tiny_checkpoint_dir, "-o", fresh, "--no-check")
    assert (out / "weights.bin").read_bytes() == (fresh / "weights.bin").read_bytes()


def test_an_interrupted_answer_keeps_its_text(tiny_bundle_dir: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", str(tiny_bundle_dir), "--raw", "--temperature", "1", "-n", "480", "word " * 4],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    # A machine that is fast enough may have finished between the first character and the signal.
    if process.returncode == 0 and "length" in err:
        pytest.skip("the answer was complete before the signal came")
    assert process.returncode == 130
    assert "Traceback" not in err
    stats, last = err.splitlines()
    assert stats.endswith("cancelled")
    assert last == "interrupted."


def test_a_chat_goes_on_after_ctrl_c(tiny_bundle_dir: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "chat", "--plain", str(tiny_bundle_dir), "--temperature", "1", "-n", "400"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        env=environment(PYTHONUNBUFFERED="1"),
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("word word\n")
    process.stdin.flush()
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    _, err = process.communicate("/stats\n/exit\n", timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert "tok/s" in err
