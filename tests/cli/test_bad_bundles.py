"""Bundles, prompts and settings that cannot be used: one line, and no traceback."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cli_support import here

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def bundle(tiny_bundle_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle to spoil."""
    return shutil.copytree(tiny_bundle_dir, tmp_path / "bundle")


def rewrite_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_weights_altered_in_place(bundle: Path) -> None:
    path = bundle / "weights.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert "weights.bin" in here("inspect", bundle, "--verify", "--json").one_error()
    assert "weights.bin" in here("run", bundle, "hello", "--verify").one_error()


@pytest.mark.parametrize("verb", ["inspect", "run", "bench", "selftest"])
def test_bundles_that_do_not_open(verb: str, bundle: Path) -> None:
    arguments = ("hello",) if verb == "run" else ()

    def message() -> str:
        return here(verb, bundle, *arguments).one_error()

    rewrite_manifest(bundle, lambda manifest: manifest.update(schema_version=99))
    assert "99" in message()
    (bundle / "manifest.json").write_text("[]")
    assert "manifest.json" in message()
    (bundle / "manifest.json").unlink()
    assert "manifest.json" in message()
    shutil.rmtree(bundle)
    assert "edgedistill export" in message()


def test_a_manifest_gives_the_terminal_no_orders(bundle: Path) -> None:
    attack = "a\x1b]52;c;QQ==\x07\x9b2J\u202e\n::error::b"

    def change(manifest: dict[str, Any]) -> None:
        manifest["source"].update(name=attack, license=attack, revision=attack)
        manifest["profile"]["name"] = manifest["model"]["family"] = manifest["created"] = attack
        manifest["weights"][0]["name"] = attack

    def harmless(text: str) -> bool:
        return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]|^::", text, re.MULTILINE)

    rewrite_manifest(bundle, change)
    shown = here("inspect", bundle, "--weights", GITHUB_ACTIONS="true")
    assert shown.code == 0
    assert "52;c;QQ==" in shown.out
    assert harmless(shown.out + shown.err)
    assert harmless(here("inspect", bundle, "--json").out)
    rewrite_manifest(bundle, lambda manifest: manifest.update(schema_version=attack, extra={attack: 1}))
    assert harmless(here("inspect", bundle).one_error())
    hostile = bundle.rename(bundle.with_name("b\x1b]52;c;QQ==\x07"))
    assert harmless(here("run", hostile, "hello").one_error())


def test_a_truncated_bundle(bundle: Path) -> None:
    path = bundle / "weights.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert "weights.bin" in here("run", bundle, "hello").one_error()


def test_a_prompt_longer_than_the_context(bundle: Path) -> None:
    message = here("run", bundle, "-", stdin="word " * 5000).one_error()
    assert "512" in message


@pytest.mark.parametrize(
    "options",
    [
        ("--temperature", "-1"),
        ("--top-p", "0"),
        ("--min-p", "2"),
        ("--repetition-penalty", "nan"),
        ("--seed", "-3"),
        ("-n", "0"),
        ("--threads", "-1"),
    ],
)
def test_generation_options_out_of_range(options: tuple[str, ...], tiny_bundle_dir: Path) -> None:
    assert options[1] in here("run", tiny_bundle_dir, "hello", *options).one_error()


def test_stdin_that_is_no_text(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    import subprocess

    from cli_support import COMMAND, environment

    done = subprocess.run(
        [*COMMAND, "run", str(tiny_bundle_dir), "-"],
        input=bytes(range(128, 256)), capture_output=True, timeout=300, check=False, env=environment(PYTHONUTF8="1"),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.decode().startswith("error: The prompt is not UTF-8")
    assert done.stderr.count(b"\n") == 1
