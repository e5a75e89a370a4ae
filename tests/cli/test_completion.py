"""``edgedistill completion``, ``--quiet``, ``--color`` and ``-V`` as shells and users meet them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cli_support import edgedistill, here

from edgedistill.cli import parser


def test_bash_completes_commands_options_and_values() -> None:
    script = edgedistill("completion", "bash").out

    def completed(*words: str) -> list[str]:
        quoted = " ".join(f"'{word}'" for word in ("edgedistill", *words))
        ask = f'COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _shtab_edgedistill; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("ex") == ["export"]
    assert completed("export", "--form") == ["--format"]
    assert completed("verify", "--numerics", "") == ["fast", "exact"]
    assert completed("profiles", "det") == ["detect"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_accepted_by_their_shell(shell: str) -> None:
    script = here("completion", shell).out
    for verb in parser.VERBS:
        assert verb.name in script
    if (program := shutil.which(shell)) is not None:
        subprocess.run([program, "-n"], input=script, text=True, check=True)


def test_an_unknown_shell_is_one_line() -> None:
    assert "zsh" in here("completion", "zhs").one_error()


def test_quiet_leaves_nothing_on_stderr_and_color_can_be_forced(tiny_bundle_dir: Path) -> None:
    plain = here("run", tiny_bundle_dir, "hi", "-n", 3, "--seed", 1)
    assert "tokens in" in plain.err
    quiet = here("run", tiny_bundle_dir, "hi", "-n", 3, "--seed", 1, "-q")
    assert (quiet.err, quiet.out) == ("", plain.out)
    assert "\x1b[1m" in here("run", tiny_bundle_dir, "hi", "-n", 3, "--seed", 1, "--color", "always").out
    assert "\x1b[" not in plain.out
    assert "is no profile" not in here("profiles", "validate", "nothing", "--quiet").out
    assert here("profiles", "validate", "nothing", "--quiet").err.startswith("error: ")


def test_the_version_has_a_short_option() -> None:
    assert edgedistill("-V").out == edgedistill("--version").out != ""


@pytest.mark.parametrize("verb", [verb.name for verb in parser.VERBS])
def test_every_help_has_examples(verb: str) -> None:
    (found,) = [entry for entry in parser.VERBS if entry.name == verb]
    whole = parser.verb_parser(found)
    for one in (whole, *whole.leaves()):
        text = one.format_help()
        assert "examples:" in text
        assert f"edgedistill {verb}" in text.split("examples:")[1]
        assert "--quiet" in text or one is not whole.leaves()[0]
