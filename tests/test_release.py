"""Versions, workflows and templates agree with the code that they are about."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import release_check
import yaml

from edgedistill import __version__
from edgedistill.cli.parser import parse

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def _locked() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.partition(" ;")[0].strip().split("==") for line in lines if "==" in line and line[0] != "#")


def test_every_file_names_this_version() -> None:
    found = [line for line in release_check.problems(__version__) if "'unreleased'" not in line]
    assert found == []


def test_a_release_that_is_not_ready_says_why(tmp_path: Path) -> None:
    (tmp_path / "src/edgedistill").mkdir(parents=True)
    (tmp_path / "src/edgedistill/_version.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CITATION.cff").write_text("version: 1.2.2\n")
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [1.2.3] - unreleased\n\n- a\n\n## [1.2.2] - 2026-01-02\n- b\n"
    )
    assert [line.split(" has ")[0] for line in release_check.problems("1.2.3", tmp_path)] == [
        "CITATION.cff",
        "The section [1.2.3] of CHANGELOG.md",
    ]
    assert release_check.section((tmp_path / "CHANGELOG.md").read_text(), "1.2.2") == ("2026-01-02", "- b")
    (tmp_path / "CITATION.cff").write_text("version: 1.2.2\n")
    (tmp_path / "src/edgedistill/_version.py").write_text('__version__ = "1.2.2"\n')
    assert release_check.problems("1.2.2", tmp_path) == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_targets_and_files_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    called = set(re.findall(r"run: make ([a-z-]+)", text))
    for job in jobs.values():
        matrix = job.get("strategy", {}).get("matrix", {})
        called |= {target.split()[0] for target in matrix.get("target", ())}
        assert job["timeout-minutes"] <= 360
    assert called <= targets
    for name in re.findall(r"python (tests/\S+\.py)", text):
        assert (ROOT / name).is_file(), name
    for arguments in re.findall(r"\bedgedistill ([a-z][^|\n]*)", text):
        assert parse(arguments.split()) is not None, arguments
    assert "contents: read" in text
    assert not re.search(r"permissions: write-all|pull_request_target", text)


def test_the_matrix_is_what_the_documentation_names() -> None:
    matrix = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["tests"]["strategy"]["matrix"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = [c.rpartition(" :: ")[2] for c in project["classifiers"] if re.search(r"Python :: 3\.\d+$", c)]
    assert matrix["python"] == versions
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert any(name.endswith("-arm") for name in matrix["os"])


def test_the_lock_has_every_requirement_and_what_is_held_back() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = {name.lower().replace("_", "-") for name in _locked()}
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {re.match(r"[\w.-]+", one)[0].lower().replace("_", "-") for one in wanted}  # type: ignore[index]
    assert names - {"edgedistill"} <= locked
    assert _locked()["onnx-ir"].startswith("0.1.")
    for line in (ROOT / "constraints-dev.txt").read_text(encoding="utf-8").splitlines():
        if "==" in line and not line.startswith("#"):
            name, version = line.split("==")
            assert _locked()[name] == version


def test_hooks_have_the_versions_of_the_lock() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    revisions = {hook["repo"].rpartition("/")[2]: hook.get("rev") for hook in hooks}
    assert revisions["ruff-pre-commit"] == f"v{_locked()['ruff']}"


@pytest.mark.parametrize("name", ["bug", "feature", "model", "config"])
def test_templates_are_forms(name: str) -> None:
    form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text())
    if name != "config":
        assert all(part["attributes"]["label"] for part in form["body"])


def test_every_target_says_what_it_does() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):(?!=)(.*)$", MAKEFILE, re.MULTILINE)
    assert len(targets) > 20
    for name, rest in targets:
        assert "## " in rest, name
        assert re.search(rf"\.PHONY:.*\b{name}\b", MAKEFILE), name
