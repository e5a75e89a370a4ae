"""Parallel reasoning from the command line, on the built-in model."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cli_support import edgedistill, environment, here
from waiting import wait_until

from edgedistill.trajectories.decode import Decoding

if TYPE_CHECKING:
    from pathlib import Path

STORY = "Mia has 14 apples. Then Mia finds 3 bags of 6 apples. Mia gives away 7. How many apples does Mia have now?"


@pytest.fixture(scope="module")
def bundle(reasoner_dir: Path) -> Path:
    return reasoner_dir


def test_trajectories_vote_and_the_answer_alone_is_on_stdout(bundle) -> None:
    result = edgedistill("run", bundle, STORY, "--trajectories", 6, "--seed", 1, "--hide-reasoning")
    assert result.code == 0, result.err
    assert r"\boxed{25}" in result.out
    lines = result.err.splitlines()
    assert sum(line.startswith("[") for line in lines) == 6
    assert any(line.startswith("vote: ") and " for 25" in line for line in lines)
    assert any(line.startswith("decided by majority") for line in lines)


def test_json_holds_every_trajectory(bundle) -> None:
    options = ("--trajectories", 5, "--vote", "confidence", "--seed", 1)
    first, second = (run("run", bundle, STORY, *options, "--json").json for run in (edgedistill, here))
    assert [t["tokens"] for t in first["trajectories"]] == [t["tokens"] for t in second["trajectories"]]
    assert len(first["trajectories"]) == 5
    assert first["final"] == "25"
    assert all(t["confidence"] > 0 for t in first["trajectories"])
    assert first["stats"]["seed"] == 1


def test_deliberation_says_how_it_ended(bundle) -> None:
    result = here(
        "run", bundle, STORY, "--trajectories", 3, "--procedure", "deliberate", "--seed", 1, "--show-trajectories"
    )
    assert result.code == 0, result.err
    assert "deliberation ..." in result.err
    assert "<think>" in result.err  # the trajectories' texts
    assert "decided by" in result.err


def test_no_answer_is_an_exit_code_of_its_own(bundle) -> None:
    result = here("run", bundle, STORY, "--trajectories", 3, "-n", 4, "--seed", 1)
    assert (result.code, result.out) == (1, "")
    assert "no trajectory came to an answer: 3 truncated" in result.err


# The command; after twenty steps a file says so, and nothing goes on until a second one says that Ctrl-C was sent.
SLOW = """
import os, sys, time
from edgedistill.cli import main
from edgedistill.trajectories.decode import Decoding
real, steps = Decoding.step, []
def step(self):
    steps.append(1)
    if len(steps) == 20:
        open(os.environ["MARK"], "w").close()
        while not os.path.exists(os.environ["MARK"] + ".sent"):
            time.sleep(0.02)
    return real(self)
Decoding.step = step
sys.exit(main(sys.argv[1:]))
"""


def interrupted(mark: Path, *arguments: str, stdin: str = "", after: str = "") -> tuple[int, str, str]:
    """Exit code and output of a command that got Ctrl-C once the file is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments, "--trajectories", "4", "--seed", "1"], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(MARK=str(mark)),
    )  # fmt: skip
    process.stdin.write(stdin)
    process.stdin.flush()
    wait_until(lambda: mark.exists() or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    mark.with_name(f"{mark.name}.sent").touch()
    out, err = process.communicate(after, timeout=300)
    assert "Traceback" not in err
    return process.returncode, out, err


def test_a_chat_that_is_interrupted_keeps_the_trajectories_and_goes_on(bundle, tmp_path) -> None:
    code, out, err = interrupted(
        tmp_path / "mark", "chat", "--plain", str(bundle), "--json", stdin=f"{STORY}\n", after="What is 3 + 4?\n"
    )
    assert code == 0, err
    assert "stopped; the trajectories so far are kept." in err
    assert err.count("(stopped)") == 4
    turns = json.loads(out)["turns"]
    assert (turns[1]["content"], turns[1]["finish_reason"]) == ("", "cancelled")
    for kept in turns[1]["trajectories"]:
        assert kept["kind"] == "cancelled"
        assert kept["text"].strip() in err  # nothing else shows it
    assert turns[3]["stats"]["vote"]["answer"] == "7"
    assert turns[3]["stats"]["prompt_tokens"] < 20  # the question that was given up is not asked again


def test_interrupting_keeps_and_labels_the_trajectories(bundle, tmp_path) -> None:
    code, out, err = interrupted(tmp_path / "mark", "run", str(bundle), STORY, "--json")
    assert code == 130, err
    result = json.loads(out)
    assert result["cancelled"]
    assert {trajectory["kind"] for trajectory in result["trajectories"]} == {"cancelled"}
    assert all(trajectory["text"] for trajectory in result["trajectories"])


@pytest.fixture
def short_of_memory(monkeypatch) -> None:
    """Memory for twenty steps of a batch."""
    real, steps = Decoding.step, []

    def step(self):
        steps.append(1)
        if len(steps) == 20:
            raise MemoryError
        return real(self)

    monkeypatch.setattr(Decoding, "step", step)


def test_memory_that_runs_out_is_one_line_and_keeps_the_trajectories(bundle, short_of_memory) -> None:
    result = here("run", bundle, STORY, "--trajectories", 4, "--seed", 1, "--json")
    assert result.code == 2
    assert result.err.startswith("error: The memory ran out when 0 of 4 trajectories had ended")
    assert "--trajectories" in result.err
    assert len(result.err.splitlines()) == 1
    kept = json.loads(result.out)
    assert {trajectory["kind"] for trajectory in kept["trajectories"]} == {"cancelled"}
    assert all(trajectory["text"] for trajectory in kept["trajectories"])


def test_a_chat_goes_on_after_memory_ran_out(bundle, short_of_memory) -> None:
    lines = f"{STORY}\nWhat is 3 + 4?\n"
    result = here("chat", bundle, "--plain", "--trajectories", 4, "--seed", 1, "--json", stdin=lines)
    assert result.code == 0, result.err
    assert result.err.count("error: The memory ran out") == 1
    turns = result.json["turns"]
    assert (turns[1]["finish_reason"], len(turns[1]["trajectories"])) == ("cancelled", 4)
    assert turns[3]["stats"]["vote"]["answer"] == "7"


def with_budget(bundle: Path, rows: float, target: Path) -> Path:
    """A copy whose profile leaves memory for so many sequences of up to 256 tokens with a float cache."""
    shutil.copytree(bundle, target)
    manifest = json.loads((target / "manifest.json").read_text())
    predicted, vocabulary = manifest["predicted"], manifest["model"]["vocab_size"]
    rows_bytes = rows * (256 * 2048 + 16 * vocabulary)
    manifest["profile"]["target"]["ram_gb"] = (predicted["ram_bytes"] - predicted["kv_bytes"] + rows_bytes) / 1e9
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


@pytest.mark.slow
def test_memory_is_planned_with_the_rows_of_the_cache_as_it_is_stored(bundle, tmp_path) -> None:
    made = edgedistill("export", "tiny-reasoner", "-o", tmp_path / "out", "--kv-cache", "int8", "--json")
    assert made.code == 0, made.err
    assert "int8 per-channel (calibrated on own texts), 512 B per token" in here("inspect", tmp_path / "out").out
    answer = here("run", tmp_path / "out", "What is 17 + 25?", "--temperature", "0", "--json")
    assert "42" in answer.json["answer"]
    options = (STORY, "--trajectories", 6, "-n", 150, "--seed", 1, "--early-stop", "off", "--json")
    small = here("run", with_budget(tmp_path / "out", 3.5, tmp_path / "int8"), *options).json
    assert (small["stats"]["rows"], small["notes"]) == (6, [])
    large = here("run", with_budget(bundle, 3.5, tmp_path / "float"), *options).json
    assert large["stats"]["rows"] == 2
    assert "2 are decoded at a time. All 6 are made and vote." in large["notes"][0]
    assert "of profile laptop-cpu are left" in large["notes"][0]
    assert len(large["trajectories"]) == large["vote"]["voters"] == 6
    single = here("run", with_budget(bundle, 1.5, tmp_path / "single"), *options).json
    assert "one after the other" in single["notes"][0]
    assert "--kv-cache int8" in here("run", with_budget(bundle, 0.5, tmp_path / "none"), *options).one_error()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trajectories", "0"], "expected 1 to 64"),
        (["--trajectories", "9999999"], "expected 1 to 64"),
        (["--trajectories", "4", "--temperature", "0"], "leave a choice"),
        (["--vote", "confidence", "--early-stop", "exact"], "majority vote"),
        (["--deliberation-prompt", "x.jinja"], "--procedure deliberate"),
        (["--procedure", "deliberate", "--deliberation-prompt", "missing.jinja"], "cannot be read"),
        (["--procedure", "deliberate", "--raw"], "chat template"),
        (["--show-trajectories"], "--trajectories"),
        (["--procedure", "exact"], "--numerics exact"),
    ],
)
def test_bad_input_is_one_line(bundle, options, message) -> None:
    assert message in here("run", bundle, STORY, *options).one_error()


def test_a_prompt_file_without_a_field_is_refused(bundle, tmp_path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ question }}: what do you think?")
    options = ("--procedure", "deliberate", "--deliberation-prompt", tmp_path / "mine.jinja")
    error = here("run", bundle, STORY, *options).one_error()
    assert "'trajectories'" in error


def test_the_plain_chat_votes(bundle) -> None:
    lines = f"{STORY}\n/trajectories 3\nNow add 12 to that.\n/trajectories 99\n/trajectories off\n/trajectories x\n"
    result = here("chat", bundle, "--plain", "--trajectories", 4, "--seed", 1, stdin=lines)
    assert result.code == 0, result.err
    assert result.err.count("vote: ") == 2
    assert result.out.count("boxed") == 2
    assert "expected 1 to 64" in result.err
    assert "One trajectory answers." in result.err
    saved = here("chat", bundle, "--plain", "--trajectories", 4, "--seed", 1, "--json", stdin=f"{STORY}\n").json
    assert saved["turns"][1]["stats"]["vote"]["answer"] == "25"
    assert "25" in [kept["vote"] for kept in saved["turns"][1]["trajectories"]]
    assert len(saved["turns"][1]["trajectories"]) == 4
