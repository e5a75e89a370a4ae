"""The grammar: help, versions, misspelt names, and errors that take one line."""

from __future__ import annotations

import errno
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cli_support import COMMAND, edgedistill, environment, here

import edgedistill.cli as command
from edgedistill._version import __version__
from edgedistill.cli import parser, verification
from edgedistill.cli.parser import VERBS
from edgedistill.verify.options import AuditOptions, VerifyOptions

if TYPE_CHECKING:
    from pathlib import Path


def test_version() -> None:
    assert edgedistill("--version").out == f"edgedistill {__version__}\n"


def test_help_names_every_command_and_every_command_has_help_with_examples() -> None:
    overview = edgedistill("--help")
    assert overview.code == 0
    assert edgedistill().out == overview.out
    for verb in VERBS:
        assert f"  {verb.name} " in overview.out
        page = here(verb.name, "--help")
        assert page.code == 0
        assert f"edgedistill {verb.name}" in page.out.split("examples:")[1]


@pytest.mark.parametrize(
    ("arguments", "found", "suggestion"),
    [
        (["exprot", "x"], "'exprot'", "edgedistill export"),
        (["xyzzy"], "'xyzzy'", "edgedistill --help"),
        (["export", "x", "-o", "y", "--profle", "z"], "--profle", "--profile"),
        (["export", "x"], "-o", "edgedistill export --help"),
        (["export", "-o", "y"], "MODEL", "tiny-reasoner"),
        (["export", "x", "--model", "y", "-o", "z"], "MODEL", "tiny-reasoner"),
        (["export", "x", "-o", "y", "--exporter", "optimun"], "optimun", "optimum"),
        (["export", "x", "-o", "y", "--context", "many"], "'many'", "--help"),
        (["run", "b", "q", "--temprature", "1"], "--temprature", "--temperature"),
        (["profiles", "lst"], "lst", "list"),
        (["models", "pull"], "NAME", "--help"),
        (["chat", "--json", "b"], "--json", "--plain"),
        (["chat", "b"], "terminal", "--plain"),
        (["run", "b", ""], "empty", "edgedistill run"),
        (["run", "b", "-"], "empty", "edgedistill run"),
        (["run", "b", "q", "--raw", "--system", "s"], "--raw", "--system"),
        (["models", "pull", "nonsense"], "nonsense", "smollm2-135m"),
        (["profiles", "show", "laptop-cpux"], "laptop-cpux", "laptop-cpu"),
    ],
)
def test_usage_errors_name_what_was_found_and_what_to_try(
    arguments: list[str], found: str, suggestion: str, tmp_path: Path
) -> None:
    message = here(*arguments, home=tmp_path).one_error()
    assert found in message
    assert suggestion in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "b", "q", "-n", "9"],
        ["run", "b", "-n", "9", "q"],
        ["run", "-n", "9", "b", "q"],
        ["run", "-n", "9", "b", "--raw", "q"],
    ],
)
def test_options_and_arguments_come_in_any_order(arguments: list[str]) -> None:
    args = parser.parse(arguments)
    assert args is not None
    assert (str(args.bundle), args.prompt, args.max_new_tokens) == ("b", "q", 9)


def test_old_names_of_options_go_on_working(capsys: pytest.CaptureFixture[str]) -> None:
    args = parser.parse(["export", "tiny-reasoner", "--output=out"])
    assert args is not None
    assert str(args.out) == "out"
    assert capsys.readouterr().err == "note: --output is called --out now.\n"


@pytest.mark.parametrize(
    ("old", "name", "value"),
    [
        (["verify", "b", "--mode", "vote"], "procedure", "vote"),
        (["verify", "b", "--path=exact"], "numerics", "exact"),
        (["run", "b", "--mode", "exact"], "numerics", "exact"),
        (["run", "b", "--deliberate"], "procedure", "deliberate"),
        (["compare", "m", "--formats", "int8"], "format", "int8"),
        (["bench", "b", "--repeats", "3"], "rounds", 3),
    ],
)
def test_every_old_name_gets_one_note(
    old: list[str], name: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    args = parser.parse(old)
    assert getattr(args, name) == value
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(("given", "thinking"), [(["--think"], True), (["--no-think"], False), ([], None)])
def test_models_are_verified_with_reasoning_or_without(given: list[str], thinking: bool | None) -> None:
    audited, verified = parser.parse(["audit", "b", *given]), parser.parse(["verify", "b", *given])
    assert audited is not None
    assert verified is not None
    assert verification.options(audited, AuditOptions).thinking is thinking
    assert verification.options(verified, VerifyOptions).thinking is thinking


def test_the_model_may_come_last() -> None:
    args = parser.parse(["export", "-o", "out", "--json", "tiny-reasoner"])
    assert args is not None
    assert (args.model, str(args.out)) == ("tiny-reasoner", "out")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/weights.bin"), 2, "/x/weights.bin"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), 2, "Read-only file system: /x"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "Permission denied: /x"),
        (MemoryError(), 2, "not enough memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_whatever_the_system_refuses_is_one_line(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Verb:
        EXAMPLES = ""

        @staticmethod
        def configure(parser: object) -> None: ...

        @staticmethod
        def run(args: object) -> int:
            raise error

    monkeypatch.setattr(parser, "load_verb", lambda name: Verb)
    assert command.main(["inspect"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert text in captured.err


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "parse", lambda arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command.main(["inspect"])


def test_a_closed_pipe_is_no_error() -> None:
    script = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdout=-1, stderr=-1);"
    script += "p.stdout.close(); e = p.stderr.read().decode(); print(p.wait(), repr(e))"
    done = subprocess.run(
        [sys.executable, "-c", script, *COMMAND, "profiles", "show", "laptop-cpu"],
        capture_output=True, text=True, timeout=300, check=True, env=environment(),
    )  # fmt: skip
    assert done.stdout == "141 ''\n"


def test_profiles_shown_as_toml_read_back_as_the_same(tmp_path: Path) -> None:
    shown = here("profiles", "show", "laptop-cpu", home=tmp_path)
    copy = tmp_path / "copy.toml"
    copy.write_text(shown.out)
    assert here("profiles", "show", copy, home=tmp_path).out == shown.out
    assert here("profiles", "validate", copy, "--json", home=tmp_path).json[0]["valid"] is True


def test_validate_reports_every_broken_profile(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text('extends = "laptop-cpu"\ncontex = 3\n')
    unfinished = tmp_path / "unfinished.toml"
    unfinished.write_text("name = [")
    result = here("profiles", "validate", broken, "laptop-cpu", unfinished, home=tmp_path)
    assert result.code == 2
    first, second = result.err.splitlines()
    assert "contex" in first
    assert "context" in first
    assert "TOML" in second
    assert "laptop-cpu: valid" in result.out


def test_models_list_is_json_on_demand(tmp_path: Path) -> None:
    entries = here("models", "list", "--json", home=tmp_path).json
    assert {"tiny-reasoner", "smollm2-135m"} <= {entry["name"] for entry in entries}
    assert str(tmp_path) in next(e["path"] for e in entries if e["name"] == "smollm2-135m")


def test_a_kv_cache_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    result = here("export", "tiny-reasoner", "-o", tmp_path / "out", "--kv-cache", "int3")
    assert result.code == 2
    assert "int8" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("closed", [("stdout",), ("stderr",), ("stdin", "stdout", "stderr")])
def test_streams_that_the_shell_closed(closed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """``edgedistill profiles list >&-``: the command does its work, and what it prints is lost."""
    for name in closed:
        monkeypatch.setattr(sys, name, None)
    assert command.main(["profiles", "list"]) == 0
    assert command.main(["profiles", "show", "no-such-profile"]) == 2
