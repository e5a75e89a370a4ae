"""Runs the steps of a composite action as GitHub's runner does, as far as ``examples/ci/action.yml`` needs it.

Shell steps run for real, with bash's flags of the runner. Of ``uses`` two are known: setup-python gives this Python,
upload-artifact copies the files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_NAME = re.compile(r"\b(inputs|steps|github)((?:\.[\w-]+)+)")


@dataclass
class Job:
    """What a run of the action left: what its steps said, its outputs, the uploaded files, whether the job failed."""

    failed: bool = False
    codes: dict[str, int] = field(default_factory=dict)
    said: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    artifacts: Path | None = None


def run_action(
    path: Path, repository: Path, scratch: Path, inputs: dict[str, str], env: dict[str, str], github: dict[str, Any]
) -> Job:
    """The action at ``path`` in a checkout of ``repository``; ``scratch``: the runner's own directory."""
    action = yaml.safe_load(path.read_text())
    unknown = set(inputs) - set(action["inputs"])
    assert not unknown, unknown
    missing = [name for name, one in action["inputs"].items() if one.get("required") and name not in inputs]
    assert not missing, missing
    context: dict[str, Any] = {
        "github": {"action_path": str(path.parent), "token": "a-token", **github},
        "steps": {step["id"]: {"outputs": {}} for step in action["runs"]["steps"] if "id" in step},
        "inputs": {},
    }
    given = {name: inputs.get(name, str(one.get("default", ""))) for name, one in action["inputs"].items()}
    context["inputs"] = {name: _filled(value, context) for name, value in given.items()}
    job = Job()
    for at, step in enumerate(action["runs"]["steps"]):
        condition = step.get("if", "success()")
        if not _condition(condition, context, job):
            continue
        name = step.get("id", str(at))
        outputs = scratch / f"outputs-{at}"
        outputs.touch()
        if "uses" in step:
            _use(step, context, repository, scratch, job)
            continue
        assert "${{" not in step["run"], "inputs must come through the environment, or they could inject commands"
        own = {key: _filled(value, context) for key, value in step.get("env", {}).items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            env={**env, **own, "GITHUB_OUTPUT": str(outputs), "RUNNER_TEMP": str(scratch)},
            cwd=repository, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        job.said += done.stdout + done.stderr
        job.codes[name] = done.returncode
        job.failed |= done.returncode != 0
        pairs = (line.partition("=") for line in outputs.read_text().splitlines())
        context["steps"].setdefault(name, {})["outputs"] = {key: value for key, _, value in pairs}
    job.outputs = {name: _filled(one["value"], context) for name, one in action["outputs"].items()}
    return job


def runner_environment(tools: Path) -> dict[str, str]:
    """The environment of the steps: ``tools`` comes first on the path."""
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}


def _use(step: dict[str, Any], context: dict[str, Any], repository: Path, scratch: Path, job: Job) -> None:
    action, _, pin = step["uses"].partition("@")
    assert re.fullmatch("[0-9a-f]{40}", pin), f"{step['uses']} is not pinned"
    given = {key: _filled(str(value), context) for key, value in step["with"].items()}
    if action == "actions/setup-python":
        context["steps"][step["id"]]["outputs"] = {"python-path": sys.executable}
        return
    assert action == "actions/upload-artifact"
    source = repository / given["path"]
    if not source.is_dir():
        job.failed |= given["if-no-files-found"] == "error"
        return
    job.artifacts = scratch / given["name"]
    shutil.copytree(source, job.artifacts)


def _look_up(match: re.Match[str], context: dict[str, Any]) -> str:
    value: Any = context[match[1]]
    for key in match[2].removeprefix(".").split("."):
        value = (value or {}).get(key)
    return "" if value is None else str(value)


def _filled(text: str, context: dict[str, Any]) -> str:
    return re.sub(r"\$\{\{ *(.*?) *\}\}", lambda found: _look_up(_name(found[1]), context), str(text))


def _name(expression: str) -> re.Match[str]:
    match = _NAME.fullmatch(expression)
    assert match is not None, expression
    return match


def _condition(text: str, context: dict[str, Any], job: Job) -> bool:
    """Comparisons with constants, joined by &&."""
    for part in text.split("&&"):
        term = part.strip()
        if term in ("always()", "success()"):
            if term == "success()" and job.failed:
                return False
            continue
        left, operator, right = re.fullmatch(r"(\S+) (==|!=) '(.*)'", term).groups()  # type: ignore[union-attr]
        if (_look_up(_name(left), context) == right) != (operator == "=="):
            return False
    # Without a status function a step runs only while nothing failed.
    return "always()" in text or not job.failed
