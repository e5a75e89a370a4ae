"""The CI examples: shell that does what it says for every exit code, and only options that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from edgedistill.cli.parser import Parser, load_verb

EXAMPLES = Path(__file__).parents[2] / "examples" / "ci"
FAKE = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$RECORD"
exit "$CODE"
"""


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, str]:
    """An environment whose edgedistill writes its arguments to a file and exits with $CODE."""
    tool = tmp_path / "bin" / "edgedistill"
    tool.parent.mkdir()
    tool.write_text(FAKE)
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}", "RECORD": str(tmp_path / "arguments")}
    return {**environment, "GITHUB_OUTPUT": str(tmp_path / "output")}


def shell(script: str | Path, environment: dict[str, str], cwd: Path) -> int:
    command = ["bash", str(script)] if isinstance(script, Path) else ["bash", "-c", script]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, timeout=300, check=False).returncode


def action_script() -> str:
    action = yaml.safe_load((EXAMPLES / "action.yml").read_text())
    (step,) = action["runs"]["steps"]
    assert set(step["env"]) == {name.upper() for name in action["inputs"]}
    script = step["run"]
    assert isinstance(script, str)
    assert "${{" not in script, "inputs must come through the environment, or they could inject commands"
    return script


@pytest.mark.parametrize(
    ("code", "inconclusive", "expected", "outcome"),
    [(0, "fail", 0, "pass"), (1, "warn", 1, "fail"), (3, "fail", 3, "inconclusive"), (3, "warn", 0, "inconclusive"),
     (2, "warn", 2, None)],
)  # fmt: skip
def test_the_action_passes_the_outcome_on(
    code: int, inconclusive: str, expected: int, outcome: str | None, fake: dict[str, str], tmp_path: Path
) -> None:
    inputs = {
        "BUNDLE": "my bundle", "BASELINE": "b.baseline", "REFERENCE": "", "SUITE": "arithmetic", "PRESET": "fast",
        "PROCEDURE": "vote",
        "MARGINS": "accuracy=0.05\nagreement=0.1\n", "INCONCLUSIVE": inconclusive, "OUT": "reports", "CODE": str(code),
    }  # fmt: skip
    assert shell(action_script(), {**fake, **inputs}, tmp_path) == expected
    given = (tmp_path / "arguments").read_text().splitlines()
    assert given[:2] == ["verify", "my bundle"]
    assert given.count("--margin") == 2
    assert given[given.index("--procedure") + 1] == "vote"
    assert "--fast" in given
    assert "--reference" not in given
    output = tmp_path / "output"
    assert (output.read_text() if output.exists() else None) == (None if outcome is None else f"outcome={outcome}\n")
    parser = Parser(allow_abbrev=False)
    load_verb("verify").configure(parser)
    parser.parse_intermixed_args(given[1:])


def test_the_action_refuses_an_unknown_preset(fake: dict[str, str], tmp_path: Path) -> None:
    names = ("BUNDLE", "BASELINE", "REFERENCE", "SUITE", "PROCEDURE", "MARGINS", "INCONCLUSIVE", "OUT")
    assert shell(action_script(), {**fake, **dict.fromkeys(names, ""), "PRESET": "slow", "CODE": "0"}, tmp_path) == 2


@pytest.mark.parametrize(
    ("code", "strict", "expected"), [(0, "0", 0), (1, "0", 1), (2, "0", 2), (3, "0", 0), (3, "1", 3)]
)
def test_the_hook_stops_what_fails(code: int, strict: str, expected: int, fake: dict[str, str], tmp_path: Path) -> None:
    environment = {**fake, "CODE": str(code), "EDGEDISTILL_STRICT": strict}
    hook = EXAMPLES / "pre-push.sh"
    assert shell(hook, environment, tmp_path) == 0, "no bundle, nothing to do"
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    assert shell(hook, environment, tmp_path) == 2, "no baseline"
    (tmp_path / "reference.baseline").write_text("x")
    (tmp_path / ".edgedistill-reports").mkdir()
    assert shell(hook, environment, tmp_path) == expected
    record = tmp_path / "arguments"
    assert record.read_text().startswith("verify\nbundle\n")
    record.unlink()
    shell(hook, environment, tmp_path)
    assert record.exists() == (code != 0), "what passed is not verified again until it changes"
    (tmp_path / "bundle" / "manifest.json").write_text("{ }")
    shell(hook, environment, tmp_path)
    assert record.exists()


def test_the_workflow_uses_what_exists() -> None:
    text = (EXAMPLES / "verify.yml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow["jobs"]["verify"]["needs"] == "baseline"
    commands = re.findall(r"^\s+(?:- run: )?edgedistill ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        verb, *arguments = shlex.split(command.replace("\\\n", " "))
        parser = Parser(allow_abbrev=False)
        load_verb(verb).configure(parser)
        numbered = ["16" if argument == "$SAMPLES" else argument for argument in arguments]
        (parser.parse_args if parser.has_actions else parser.parse_intermixed_args)(numbered)
