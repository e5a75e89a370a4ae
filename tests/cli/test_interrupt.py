"""Ctrl-C: an interrupted export leaves nothing that opens and is resumed; an interrupted answer keeps its text."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
from cli_support import COMMAND, edgedistill, environment, here
from waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

# The command with a hook: after three quantized weights a file says so, and nothing goes on until a second one says
# that Ctrl-C was sent.
SLOW_EXPORT = """
import os, sys, time
from edgedistill.export import writer
from edgedistill.cli import main
real, calls = writer.quantize_rows, []
def quantize_rows(*arguments, **options):
    calls.append(1)
    if len(calls) == 4:
        open(os.environ["MARK"], "w").close()
    while len(calls) >= 4 and not os.path.exists(os.environ["MARK"] + ".sent"):
        time.sleep(0.02)
    return real(*arguments, **options)
writer.quantize_rows = quantize_rows
sys.exit(main(sys.argv[1:]))
"""

# Likewise: after twenty tokens a file says so, and nothing goes on until a second one says that Ctrl-C was sent.
SLOW_ANSWER = """
import os, sys, time
from edgedistill.cli import main
from edgedistill.runtime.generate import TokenLoop
real = TokenLoop.__iter__
def tokens(loop):
    for count, token in enumerate(real(loop)):
        if count == 20:
            open(os.environ["MARK"], "w").close()
            while not os.path.exists(os.environ["MARK"] + ".sent"):
                time.sleep(0.02)
        yield token
TokenLoop.__iter__ = tokens
sys.exit(main(sys.argv[1:]))
"""


def test_an_interrupted_export_leaves_no_bundle_and_is_resumed(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["export", str(tiny_checkpoint_dir), "-o", str(out), "--no-check", "--no-verify", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_EXPORT, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(MARK=str(tmp_path / "mark")),
    )  # fmt: skip
    interrupt_at(process, tmp_path / "mark")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted."
    assert "Traceback" not in err
    assert not out.exists()
    partial = tmp_path / ".out.partial"
    assert partial.is_dir()
    assert "not a finished" in here("inspect", partial).one_error()

    resumed = edgedistill(*arguments)
    assert resumed.code == 0
    assert 1 <= resumed.json["reused_weights"] < 20
    assert not partial.exists()
    fresh = tmp_path / "fresh"
    here("export", tiny_checkpoint_dir, "-o", fresh, "--no-check", "--no-verify")
    assert (out / "weights.bin").read_bytes() == (fresh / "weights.bin").read_bytes()


def slow(mark: Path, *arguments: object, **pipes: Any) -> subprocess.Popen[str]:
    """The command that makes the file ``mark`` after twenty tokens and waits for ``interrupt_at``."""
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_ANSWER, *(str(argument) for argument in arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        env=environment(MARK=str(mark)), **pipes,
    )  # fmt: skip


def interrupt_at(process: subprocess.Popen[str], mark: Path) -> None:
    """Send Ctrl-C once the file is there, and say so with another one."""
    wait_until(lambda: mark.exists() or process.poll() is not None)
    assert process.poll() is None, "the process ended first"
    process.send_signal(signal.SIGINT)
    mark.with_name(f"{mark.name}.sent").touch()


# Likewise: the short verification makes the file and hangs.
HANGING_VERIFICATION = """
import subprocess, sys
import edgedistill.workflow.export as workflow
from edgedistill.cli import main
real_popen, real_look = subprocess.Popen, workflow._look
def hang(command, **options):
    code = "import os, time; open(os.environ['MARK'], 'w').close(); time.sleep(600)"
    return real_popen([sys.executable, "-c", code], **options)
def look(*arguments):
    subprocess.Popen = hang
    return real_look(*arguments)
workflow._look = look
sys.exit(main(sys.argv[1:]))
"""


def test_an_interrupted_verification_leaves_a_bundle_without_the_record(
    tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING_VERIFICATION, "export", str(tiny_checkpoint_dir), "-o", str(out), "--no-check"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(MARK=str(tmp_path / "mark")),
    )  # fmt: skip
    interrupt_at(process, tmp_path / "mark")
    children = psutil.Process(process.pid).children(recursive=True)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted."
    assert not any(child.is_running() for child in children)
    inspected = here("inspect", out, "--verify", "--json")
    assert inspected.code == 0
    assert inspected.json["manifest"]["verification"] == {}


def test_an_interrupted_answer_keeps_its_text(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    process = slow(tmp_path / "mark", "run", tiny_bundle_dir, "hello", "--raw", "--seed", 7, "-n", 400)
    interrupt_at(process, tmp_path / "mark")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert out.strip()
    assert out.endswith("\n")
    stats, last = err.splitlines()
    assert stats.endswith("cancelled")
    assert last == "interrupted."


def test_an_interrupted_answer_as_json_is_still_one_document(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    process = slow(tmp_path / "mark", "run", tiny_bundle_dir, "hello", "--raw", "--seed", 7, "-n", 400, "--json")
    interrupt_at(process, tmp_path / "mark")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err == "interrupted.\n"
    answer = json.loads(out)
    assert answer["finish_reason"] == "cancelled"
    assert len(answer["tokens"]) >= 20


def test_a_chat_goes_on_after_ctrl_c_and_keeps_the_text(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    process = slow(tmp_path / "mark", "chat", "--plain", tiny_bundle_dir, "--seed", 7, "-n", 400, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write("hello\n")
    process.stdin.flush()
    interrupt_at(process, tmp_path / "mark")
    saved = tmp_path / "chat.json"
    _, err = process.communicate(f"/stats\n/save {saved}\n/exit\n", timeout=300)
    assert process.returncode == 0
    assert "stopped; the text so far is kept." in err
    assert "tok/s" in err
    answer = json.loads(saved.read_text())["turns"][1]
    assert answer["finish_reason"] == "cancelled"
    assert answer["stats"]["new_tokens"] >= 20
    assert answer["content"] + answer.get("reasoning", "")


def test_an_interrupted_bench_is_one_line(tiny_bundle_dir: Path) -> None:
    # A terminal sends Ctrl-C to every process of the group.
    process = subprocess.Popen(
        [*COMMAND, "bench", str(tiny_bundle_dir), "--rounds", "1000000", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True,
    )  # fmt: skip
    measuring = [psutil.Process(process.pid)]

    def loaded() -> bool:
        assert process.poll() is None
        measuring[:] = psutil.Process(process.pid).children()
        return any("weights" in part.path for child in measuring for part in child.memory_maps())

    wait_until(loaded, "no process opened the bundle")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert out == ""
    assert err == "interrupted.\n"
    assert not any(child.is_running() for child in measuring)
