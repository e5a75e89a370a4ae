"""The CI examples: shell that does what it says for every exit code, and only options that exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from composite_action import Job, run_action, runner_environment

from edgedistill.cli.parser import Parser, load_verb

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "ci"
FAKE = """#!/usr/bin/env bash
if [ "$1" = --version ]; then exit 0; fi
printf '%s\\n' "$@" > "$RECORD"
out=""
while [ $# -gt 0 ]; do if [ "$1" = --out ]; then out=$2; fi; shift; done
if [ "$CODE" != 2 ]; then mkdir -p "$out" && echo '## the table' > "$out/report.md"; fi
exit "$CODE"
"""
GH = """#!/usr/bin/env bash
# Comments of a pull request: a GET tells the one that is there, anything else stores its body.
printf '%s\\n' "$*" >> "$COMMENTS/calls"
case "$*" in
  *--method*)
    for word in "$@"; do case "$word" in body=@*) cp "${word#body=@}" "$COMMENTS/body" ;; esac; done ;;
  *) if [ -n "${FORK:-}" ]; then exit 1; fi
     if [ -f "$COMMENTS/body" ]; then echo 77; fi ;;
esac
"""
PULL_REQUEST = {"event_name": "pull_request", "repository": "them/theirs", "event": {"pull_request": {"number": 5}}}


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, str]:
    """An environment whose edgedistill writes its arguments to a file and exits with $CODE."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("edgedistill", FAKE), ("gh", GH)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    comments = tmp_path / "comments"
    comments.mkdir()
    return {**runner_environment(tools), "RECORD": str(tmp_path / "arguments"), "COMMENTS": str(comments)}


def shell(script: str | Path, environment: dict[str, str], cwd: Path) -> int:
    command = ["bash", str(script)] if isinstance(script, Path) else ["bash", "-c", script]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, timeout=300, check=False).returncode


def scratch_repository(tmp_path: Path) -> Path:
    """Somebody else's repository: the action lies in it as a copy, the tool does not."""
    repository = tmp_path / "theirs"
    action = repository / ".github" / "actions" / "edgedistill"
    action.mkdir(parents=True)
    shutil.copy(EXAMPLES / "action.yml", action)
    return repository


def act(tmp_path: Path, env: dict[str, str], inputs: dict[str, str], github: dict[str, Any] = PULL_REQUEST) -> Job:
    """The action with the fake tool in the place of what its second step installs."""
    repository = scratch_repository(tmp_path)
    copied = repository / ".github" / "actions" / "edgedistill" / "action.yml"
    text = copied.read_text()
    step = text[text.index("    - id: install") : text.index("    - id: verify")]
    installed = '    - id: install\n      shell: bash\n      run: echo tool=edgedistill >> "$GITHUB_OUTPUT"\n'
    copied.write_text(text.replace(step, installed))
    scratch = tmp_path / "runner"
    scratch.mkdir()
    return run_action(copied, repository, scratch, {"bundle": "my bundle", **inputs}, env, github)


@pytest.mark.parametrize(
    ("code", "inconclusive", "expected", "outcome"),
    [(0, "fail", 0, "pass"), (1, "warn", 1, "fail"), (3, None, 3, "inconclusive"), (3, "fail", 3, "inconclusive"),
     (3, "warn", 0, "inconclusive"), (2, "warn", 2, ""), (3, "Warn", 2, "")],
)  # fmt: skip
def test_the_action_passes_the_outcome_on(
    code: int, inconclusive: str | None, expected: int, outcome: str, fake: dict[str, str], tmp_path: Path
) -> None:
    inputs = {"baseline": "b.baseline", "preset": "fast", "procedure": "vote", "margins": "accuracy=0.05\nentropy=1\n"}
    if inconclusive is not None:
        inputs["inconclusive"] = inconclusive
    job = act(tmp_path, {**fake, "CODE": str(code)}, inputs)
    assert job.codes["verify"] == expected
    assert job.failed == (expected != 0), "an undecided run is green only where that was asked for"
    assert job.outputs == {"outcome": outcome}
    assert (job.artifacts is not None) == (outcome != ""), "the reports of a failed run are wanted most"
    assert (tmp_path / "comments" / "body").exists() == (outcome != "")
    if inconclusive == "Warn":
        assert "expected fail or warn" in job.said
        return
    given = (tmp_path / "arguments").read_text().splitlines()
    assert given[:2] == ["verify", "my bundle"]
    assert given.count("--margin") == 2
    assert given[given.index("--procedure") + 1] == "vote"
    assert "--fast" in given
    assert "--reference" not in given
    parser = Parser(allow_abbrev=False)
    load_verb("verify").configure(parser)
    parser.parse_intermixed_args(given[1:])


def test_the_action_refuses_an_unknown_preset(fake: dict[str, str], tmp_path: Path) -> None:
    job = act(tmp_path, {**fake, "CODE": "0"}, {"baseline": "b.baseline", "preset": "slow"})
    assert job.codes == {"install": 0, "verify": 2}


def test_a_pull_request_gets_one_comment(fake: dict[str, str], tmp_path: Path) -> None:
    comments = tmp_path / "comments"
    for number in range(2):
        part = tmp_path / str(number)
        part.mkdir()
        assert not act(part, {**fake, "CODE": "0"}, {"baseline": "b"}).failed
    asked, posted, again, changed = (comments / "calls").read_text().splitlines()
    assert "POST repos/them/theirs/issues/5/comments" in posted
    assert "PATCH repos/them/theirs/issues/comments/77" in changed
    assert asked == again
    marker, table = (comments / "body").read_text().splitlines()
    assert marker in asked
    assert table == "## the table"


def test_no_comment_where_none_can_be_made(fake: dict[str, str], tmp_path: Path) -> None:
    for name, env, github in (("fork", {"FORK": "1"}, PULL_REQUEST), ("push", {}, {"event_name": "push"})):
        part = tmp_path / name
        part.mkdir()
        assert not act(part, {**fake, **env, "CODE": "0"}, {"baseline": "b"}, github).failed
    assert not (tmp_path / "comments" / "body").exists()


def wheel(directory: Path) -> Path:
    """The package as a wheel, without a build backend."""
    path = directory / "edgedistill-0.0.1-py3-none-any.whl"
    info = "edgedistill-0.0.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for top in (ROOT / "src", ROOT / "tui"):
            for file in sorted(top.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    archive.write(file, file.relative_to(top))
        for file in (ROOT / "profiles").glob("*.toml"):
            archive.write(file, f"edgedistill/_profiles/{file.name}")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: edgedistill\nVersion: 0.0.1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nedgedistill = edgedistill.cli:main\n")
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in archive.namelist()))
    return path


@pytest.mark.slow
def test_the_action_installs_the_tool_and_verifies(tiny_bundle_dir: Path, fake: dict[str, str], tmp_path: Path) -> None:
    """The real tool, in a repository that knows nothing of it: a model against itself, so that nothing may fail."""
    repository = scratch_repository(tmp_path)
    header = {"suite": "texts", "sampling": {"temperature": 0.5, "max_new_tokens": 24}}
    prompts = [{"id": f"p{i}", "prompt": f"Say {i}", "extract": "text"} for i in range(6)]
    (repository / "texts.jsonl").write_text("\n".join(json.dumps(line) for line in (header, *prompts)))
    summary = tmp_path / "summary.md"
    # What the wheel depends on is here already; nothing comes from an index.
    libraries = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    env = {
        **fake,
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PYTHONPATH": libraries,
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    (tmp_path / "bin" / "edgedistill").unlink()
    inputs = {
        "bundle": str(tiny_bundle_dir), "reference": str(tiny_bundle_dir), "suite": "texts.jsonl", "preset": "fast",
        "install": str(wheel(tmp_path)),
    }  # fmt: skip
    action = repository / ".github" / "actions" / "edgedistill" / "action.yml"
    (tmp_path / "runner").mkdir()
    job = run_action(action, repository, tmp_path / "runner", inputs, env, PULL_REQUEST)
    assert job.codes["install"] == 0, job.said
    assert job.outputs["outcome"] in ("pass", "inconclusive"), job.said
    assert job.failed == (job.outputs["outcome"] == "inconclusive")
    assert job.artifacts is not None
    names = {path.name for path in job.artifacts.iterdir()}
    assert names == {"report.json", "report.html", "report.junit.xml", "report.md"}
    table = (job.artifacts / "report.md").read_text()
    assert "| endpoint |" in table
    assert table in (tmp_path / "comments" / "body").read_text()
    assert table in summary.read_text()


def test_the_action_says_that_there_is_nothing_to_install(fake: dict[str, str], tmp_path: Path) -> None:
    action = scratch_repository(tmp_path) / ".github" / "actions" / "edgedistill" / "action.yml"
    (tmp_path / "runner").mkdir()
    job = run_action(action, tmp_path, tmp_path / "runner", {"bundle": "b"}, {**fake, "CODE": "0"}, PULL_REQUEST)
    assert job.codes == {"install": 2}
    assert "expected the input 'install'" in job.said


def test_nothing_in_the_examples_comes_from_the_index() -> None:
    """The name is not on the package index; and what an example runs is one version of it."""
    for path in EXAMPLES.iterdir():
        text = path.read_text()
        assert not re.search(r"pip install \"?edgedistill", text)
        for used in re.findall(r"^[ -]*uses: (\S+)", text, re.MULTILINE):
            assert used.startswith("./") or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", used), used


@pytest.mark.parametrize(
    ("code", "undecided", "expected"),
    [(0, "fail", 0), (1, "warn", 1), (2, "warn", 2), (3, "fail", 3), (3, "warn", 0), (3, "", 3)],
)
def test_the_hook_stops_what_fails(
    code: int, undecided: str, expected: int, fake: dict[str, str], tmp_path: Path
) -> None:
    environment = {**fake, "CODE": str(code)} | ({"EDGEDISTILL_INCONCLUSIVE": undecided} if undecided else {})
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
