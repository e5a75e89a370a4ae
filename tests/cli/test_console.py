"""Progress, tables and styles."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest

from edgedistill.cli import console
from edgedistill.cli.generation import AnswerPrinter

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stdout and stderr one terminal with colour; no fixture: pytest sets its own streams after those."""
    stream = Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_stages_in_a_pipe_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    times: Iterator[float] = iter([0.0, 5.0, 12.0, 13.0, 14.0, 20.0])
    progress = console.LineProgress(clock=lambda: next(times))
    progress.begin("quantizing weights", 4 << 20, "bytes")
    for _ in range(4):
        progress.advance(1 << 20)
    progress.end()
    assert capsys.readouterr().err.splitlines() == [
        "quantizing weights: 50 %",
        "quantizing weights: 4.00 MiB in 20.0 s",
    ]


def test_an_error_in_mid_stage_gives_the_cursor_back(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)

    def fail() -> None:
        with console.progress() as progress:
            assert isinstance(progress, console.BarProgress)
            progress.begin("quantizing weights", 10, "items")
            progress.advance(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    text = terminal.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_tables_wrap_on_a_terminal_and_not_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    rows = [("a", "word " * 40, "1"), ("bcd", "x", "23")]
    monkeypatch.setenv("COLUMNS", "60")
    wrapped = re.sub(r"\x1b\[\d+m", "", console.table(("name", "what", "n"), rows, right=(2,), wrap=1)).splitlines()
    assert max(len(line) for line in wrapped) <= 60
    assert " ".join(wrapped).count("word") == 40
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert len(console.table(("name", "what", "n"), rows, right=(2,), wrap=1).splitlines()) == 3


def test_no_colour_means_no_escape_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    assert console.style("x", "bold") == "\x1b[1mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert console.style("x", "bold") == "x"


SEGMENTS = [("reasoning", "\n14 + "), ("reasoning", "18\n"), ("answer", "\n\n32"), ("answer", ".")]


def test_an_answer_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    printer = AnswerPrinter()
    for kind, text in SEGMENTS:
        printer.write(kind, text)
    printer.finish()
    assert terminal.getvalue() == (
        "\x1b[2m14 +\x1b[0m\x1b[2m 18\x1b[0m\n\n\x1b[1m32\x1b[0m\x1b[1m.\x1b[0m\n"
    )  # fmt: skip


def test_an_answer_in_a_pipe_marks_the_reasoning(capsys: pytest.CaptureFixture[str]) -> None:
    printer = AnswerPrinter()
    for kind, text in SEGMENTS:
        printer.write(kind, text)
    printer.finish()
    assert capsys.readouterr().out == "<think>\n14 + 18\n</think>\n\n32.\n"


def test_an_answer_without_its_reasoning(capsys: pytest.CaptureFixture[str]) -> None:
    printer = AnswerPrinter(show_reasoning=False)
    for kind, text in SEGMENTS:
        printer.write(kind, text)
    printer.finish()
    assert capsys.readouterr().out == "32.\n"


def test_reasoning_that_was_cut_off_is_closed(capsys: pytest.CaptureFixture[str]) -> None:
    printer = AnswerPrinter()
    printer.write("reasoning", "14 +")
    printer.finish()
    assert capsys.readouterr().out == "<think>\n14 +\n</think>\n"


def test_a_terminal_never_obeys_what_a_model_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    printer = AnswerPrinter()
    printer.write("answer", "a\x1b]0;title\x07\tb\nc")
    assert terminal.getvalue() == "\x1b[1ma\N{REPLACEMENT CHARACTER}]0;title\N{REPLACEMENT CHARACTER}\tb\nc\x1b[0m"
