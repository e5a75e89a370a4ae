"""``--json``: what every command prints is what its published schema says, no field more and none less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cli_support import here

from edgedistill.cli.json_outputs import OUTPUTS, REPORTS, schema
from edgedistill.cli.parser import VERBS, verb_parser

SMALL = ("--fast", "--prompts", 3, "--samples", 2, "-n", 60, "--seed", 1, "--no-store")
QUESTION = "What is 12 + 30?"


def closed(value: Any) -> Any:
    """The schema with objects that have only the properties it names."""
    if isinstance(value, list):
        return [closed(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    found = {key: closed(entry) for key, entry in value.items()}
    return {**found, "additionalProperties": False} if isinstance(value.get("properties"), dict) else found


def check(command: str, *arguments: object, code: int | None = 0, **keywords: Any) -> Any:
    """Run a command with ``--json``, validate what it prints, and give that back."""
    done = here(*arguments, "--json", **keywords)
    assert code is None or done.code == code, done.err
    errors = list(jsonschema.Draft202012Validator(closed(schema(command))).iter_errors(done.json))
    assert not errors, f"{command}: {[(error.json_path, error.message[:300]) for error in errors]}"
    return done.json


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-reasoner in int8, since reports need answers."""
    out = tmp_path_factory.mktemp("json") / "bundle"
    check("export", "export", "tiny-reasoner", "-o", out, "--format", "int8", "--context", 512, "--no-verify")
    return out


def test_every_command_with_json_has_a_schema() -> None:
    leaves = [leaf for verb in VERBS for leaf in verb_parser(verb).leaves()]
    printing = {
        leaf.prog.removeprefix("edgedistill ")
        for leaf in leaves
        if any("--json" in action.option_strings for action in leaf._actions)
    }
    assert printing == {name for name in (*OUTPUTS, *REPORTS) if name.islower()}
    for command in (*OUTPUTS, *REPORTS):
        jsonschema.Draft202012Validator.check_schema(schema(command))


def test_a_field_that_the_schema_does_not_name_is_found() -> None:
    strict = jsonschema.Draft202012Validator(closed(schema("models pull")))
    assert not list(strict.iter_errors({"name": "a", "path": "b"}))
    assert list(strict.iter_errors({"name": "a", "path": "b", "size": 1}))
    assert list(strict.iter_errors({"name": "a"}))


def test_a_bundle(bundle: Path, tmp_path: Path) -> None:
    assert check("inspect", "inspect", bundle)["verified"] == "size"
    assert check("selftest", "selftest", bundle)["passed"]
    check("sign", "sign", bundle, "--new-key", tmp_path / "key", code=None)
    check("bench", "bench", bundle, "--prompt-tokens", 16, "--new-tokens", 8, "--rounds", 1)


def test_answers(bundle: Path) -> None:
    check("run", "run", bundle, QUESTION, "-n", 60, "--seed", 1)
    voted = check("run", "run", bundle, QUESTION, "--trajectories", 3, "-n", 60, "--seed", 1)
    assert len(voted["trajectories"]) == 3
    check("run", "run", bundle, QUESTION, "--procedure", "deliberate", "--trajectories", 2, "-n", 60, "--seed", 1)
    asked = f"{QUESTION}\n"
    assert len(check("chat", "chat", bundle, "--plain", "-n", 60, "--seed", 1, stdin=asked)["turns"]) == 2
    check("chat", "chat", bundle, "--plain", "--trajectories", 2, "-n", 60, "--seed", 1, stdin=asked)


@pytest.mark.slow
def test_reports_and_baselines(bundle: Path, tmp_path: Path) -> None:
    check("audit", "audit", bundle, *SMALL, "-o", tmp_path / "first", code=None)
    check("verify", "verify", bundle, "--reference", bundle, *SMALL, "-o", tmp_path / "second", code=None)
    reports = [tmp_path / name / "report.json" for name in ("first", "second")]
    check("report", "report", reports[0])
    assert check("report FIRST SECOND", "report", *reports)["common_prompts"] == 3
    made = check("baseline create", "baseline", "create", bundle, "-o", tmp_path / "a.baseline", *SMALL)
    assert check("baseline show", "baseline", "show", tmp_path / "a.baseline") == made


def test_before_there_is_a_bundle(tmp_path: Path) -> None:
    check("plan", "plan", "tiny-reasoner", "--format", "int8,fp32", "--context", "64,128", "--no-measure")
    check("families", "families")
    check("suite check", "suite", "check", "arithmetic")
    for suite in ("arithmetic", "instructions"):
        check("suite show", "suite", "show", suite)
    check("profiles list", "profiles", "list")
    check("profiles show", "profiles", "show", "laptop-cpu")
    check("profiles detect", "profiles", "detect")
    check("profiles validate", "profiles", "validate", "laptop-cpu", tmp_path / "missing.toml", code=2)
    check("cache show", "cache", "show")
    check("cache clear", "cache", "clear")
    check("models list", "models", "list")
    check("models where", "models", "where", "tiny-reasoner")
    check("models pull", "models", "pull", "tiny-reasoner")
    check("models remove", "models", "remove", "tiny-reasoner")


def test_formats_side_by_side(tiny_checkpoint_dir: Path) -> None:
    check("compare", "compare", tiny_checkpoint_dir, "--format", "int8", "--max-tokens", 64, "--rounds", 1,
          "--prompt-tokens", 16, "--new-tokens", 8)  # fmt: skip


@pytest.mark.slow
def test_tuning(tiny_bundle_dir: Path, tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"{i} and {i * i % 7} of the tide," for i in range(100)))
    check("tune", "tune", tiny_bundle_dir, "-o", tmp_path / "out", "--reference", tiny_checkpoint_dir,
          "--calibration", text, "--steps", 2)  # fmt: skip
