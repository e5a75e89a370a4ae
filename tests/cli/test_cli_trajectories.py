"""Parallel reasoning from the command line, on the built-in model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from cli_support import edgedistill, environment

from edgedistill.export.pipeline import export

if TYPE_CHECKING:
    from pathlib import Path

STORY = "Mia has 14 apples. Then Mia finds 3 bags of 6 apples. Mia gives away 7. How many apples does Mia have now?"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export("tiny-reasoner", tmp_path_factory.mktemp("bundle") / "tiny", profile="laptop-cpu", check=False).path


def test_trajectories_vote_and_the_answer_alone_is_on_stdout(bundle):
    result = edgedistill("run", bundle, STORY, "--trajectories", 6, "--seed", 1, "--hide-reasoning")
    assert result.code == 0, result.err
    assert r"\boxed{25}" in result.out
    lines = result.err.splitlines()
    assert sum(line.startswith("[") for line in lines) == 6
    assert any(line.startswith("vote: ") and " for 25" in line for line in lines)
    assert any(line.startswith("decided by majority") for line in lines)


def test_json_holds_every_trajectory(bundle):
    options = ("--trajectories", 5, "--vote", "confidence", "--seed", 1)
    first, second = (edgedistill("run", bundle, STORY, *options, "--json").json for _ in range(2))
    assert [t["tokens"] for t in first["trajectories"]] == [t["tokens"] for t in second["trajectories"]]
    assert len(first["trajectories"]) == 5
    assert first["final"] == "25"
    assert all(t["confidence"] > 0 for t in first["trajectories"])
    assert first["stats"]["seed"] == 1


def test_deliberation_says_how_it_ended(bundle):
    result = edgedistill("run", bundle, STORY, "--trajectories", 3, "--deliberate", "--seed", 1, "--show-trajectories")
    assert result.code == 0, result.err
    assert "deliberation ..." in result.err
    assert "<think>" in result.err  # the trajectories' texts
    assert "decided by" in result.err


def test_no_answer_is_an_exit_code_of_its_own(bundle):
    result = edgedistill("run", bundle, STORY, "--trajectories", 3, "-n", 4, "--seed", 1)
    assert (result.code, result.out) == (1, "")
    assert "no trajectory came to an answer: 3 truncated" in result.err


# The command with a pause after every step, and a file once there are twenty.
SLOW = """
import os, sys, time
from edgedistill.cli import main
from edgedistill.trajectories.batch import Together
real, steps = Together.step, []
def step(self):
    steps.append(1)
    if len(steps) == 20:
        open(os.environ["MARK"], "w").close()
    time.sleep(0.03)
    return real(self)
Together.step = step
sys.exit(main(sys.argv[1:]))
"""


def test_interrupting_keeps_and_labels_the_trajectories(bundle, tmp_path):
    mark = tmp_path / "mark"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "run", str(bundle), STORY, "--trajectories", "4", "--json", "--seed", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(MARK=str(mark)),
    )  # fmt: skip
    while not mark.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    result = json.loads(out)
    assert result["cancelled"]
    assert {trajectory["kind"] for trajectory in result["trajectories"]} == {"cancelled"}
    assert all(trajectory["text"] for trajectory in result["trajectories"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trajectories", "0"], "expected 1 to 64"),
        (["--trajectories", "9999999"], "expected 1 to 64"),
        (["--trajectories", "4", "--temperature", "0"], "leave a choice"),
        (["--vote", "confidence", "--early-stop", "exact"], "majority vote"),
        (["--deliberation-prompt", "x.jinja"], "--deliberate"),
        (["--deliberate", "--deliberation-prompt", "missing.jinja"], "cannot be read"),
        (["--deliberate", "--raw"], "chat template"),
        (["--show-trajectories"], "--trajectories"),
        (["--mode", "exact"], "--path exact"),
    ],
)
def test_bad_input_is_one_line(bundle, options, message):
    assert message in edgedistill("run", bundle, STORY, *options).one_error()


def test_a_prompt_file_without_a_field_is_refused(bundle, tmp_path):
    (tmp_path / "mine.jinja").write_text("{{ question }}: what do you think?")
    options = ("--deliberate", "--deliberation-prompt", tmp_path / "mine.jinja")
    error = edgedistill("run", bundle, STORY, *options).one_error()
    assert "'trajectories'" in error


def test_the_plain_chat_votes(bundle):
    lines = f"{STORY}\n/trajectories 3\nNow add 12 to that.\n/trajectories 99\n/trajectories off\n/trajectories x\n"
    result = edgedistill("chat", bundle, "--plain", "--trajectories", 4, "--seed", 1, stdin=lines)
    assert result.code == 0, result.err
    assert result.err.count("vote: ") == 2
    assert result.out.count("boxed") == 2
    assert "expected 1 to 64" in result.err
    assert "One trajectory answers." in result.err
    saved = edgedistill("chat", bundle, "--plain", "--trajectories", 4, "--seed", 1, "--json", stdin=f"{STORY}\n").json
    assert saved["turns"][1]["stats"]["vote"]["answer"] == "25"
