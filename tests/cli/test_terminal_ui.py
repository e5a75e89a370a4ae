"""What stands behind ``chat`` and ``tui``: the default bundle made in a process of its own, and what is refused."""

from __future__ import annotations

import argparse
import builtins
import shutil
import sys
from typing import TYPE_CHECKING, Any, get_args

import pytest
from cli_support import edgedistill

from edgedistill.bundle.bundle import Bundle
from edgedistill.cli import terminal_ui
from edgedistill.errors import ExportError, MissingExtraError, OutputError, UsageError
from edgedistill.progress import Unit

if TYPE_CHECKING:
    from pathlib import Path


class Stages:
    """A progress that notes what it is told, and leaves when it is told to."""

    def __init__(self, leave_at: int = 0) -> None:
        self.stages: list[tuple[str, int, int]] = []
        self._leave_at = leave_at

    def begin(self, stage: str, total: int, unit: str) -> None:
        assert unit in get_args(Unit)
        self.stages.append((stage, 0, total))
        if len(self.stages) == self._leave_at:
            raise ExportError("The user left.")

    def advance(self, amount: int) -> None:
        stage, done, total = self.stages[-1]
        self.stages[-1] = (stage, done + amount, total)

    def end(self) -> None:
        pass


def test_the_default_bundle_is_made_with_progress_once_and_after_an_interruption(tmp_path: Path) -> None:
    home = tmp_path / "data" / "bundles"
    with pytest.raises(ExportError, match="The user left"):
        terminal_ui.make_default(home, Stages(leave_at=2))
    assert not (home / "tiny-reasoner" / "manifest.json").exists()
    seen = Stages()
    path = terminal_ui.make_default(home, seen)
    assert path == home / "tiny-reasoner"
    assert Bundle.open(path, check="full").manifest.source["name"] == "tiny-reasoner"
    assert not [p for p in home.iterdir() if p != path]
    (weights,) = {(done, total) for stage, done, total in seen.stages if stage == "calibrating"}
    assert weights[0] == weights[1] > 0
    again = Stages()
    assert terminal_ui.make_default(home, again) == path
    assert again.stages == []


def test_an_export_that_fails_says_why_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny-reasoner").write_text("in the way")
    with pytest.raises(OutputError, match=str(tmp_path / "tiny-reasoner")):
        terminal_ui.make_default(tmp_path, Stages())
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    with pytest.raises(ExportError, match=r"ended early \(exit code 1\)"):
        terminal_ui.make_default(tmp_path / "other", Stages())


def test_without_a_terminal_one_line_names_the_plain_chat(tmp_path: Path) -> None:
    assert "--plain" in edgedistill("tui", home=tmp_path).one_error()


def arguments(**values: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    terminal_ui.add_serve_options(parser)
    return argparse.Namespace(**{**vars(parser.parse_args(["--serve"])), **values})


def test_serving_refuses_ports_that_are_none_and_warns_of_other_machines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serving = pytest.importorskip("edgedistill.cli.serving", reason="textual-serve (extra serve) is not installed")
    for port in (0, 65536):
        with pytest.raises(UsageError, match=f"--port is {port}; expected 1 to 65535"):
            terminal_ui.serve(arguments(port=port), ["true"])
    served: list[tuple[str, str, int]] = []
    monkeypatch.setattr(serving.LocalServer, "serve", lambda self: served.append((self.command, self.host, self.port)))
    assert terminal_ui.serve(arguments(), ["edgedistill", "tui"]) == 0
    assert capsys.readouterr().err == ""
    assert terminal_ui.serve(arguments(host="0.0.0.0", port=9000), ["edgedistill", "tui"]) == 0
    assert "can be reached from other machines" in capsys.readouterr().err
    assert served == [("edgedistill tui", "localhost", 8000), ("edgedistill tui", "0.0.0.0", 9000)]


def test_serving_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] in ("textual_serve", "aiohttp"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.delitem(sys.modules, "edgedistill.cli.serving", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'textual-serve.*the extra 'serve'"):
        terminal_ui.serve(arguments(), "true")
