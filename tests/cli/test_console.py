"""Progress, tables and styles."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING

import pytest
from cli_support import Result

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


def test_a_refusal_is_one_line_however_long_its_stages_took(capsys: pytest.CaptureFixture[str]) -> None:
    times: Iterator[float] = iter([0.0, 12.0, 65.0, 65.0])
    progress = console.LineProgress(clock=lambda: next(times))
    progress.begin("drawing samples", 4, "items")
    progress.advance(2)
    progress.advance(2)
    progress.end()
    lines = capsys.readouterr().err
    assert lines == "drawing samples: 50 %\ndrawing samples: 100 %\ndrawing samples: 4 in 1 min 05 s\n"
    assert Result(2, "", f"{lines}error: no room\n").one_error() == "error: no room"
    with pytest.raises(AssertionError):
        Result(2, "", "Something else.\nerror: no room\n").one_error()


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
    terminal = on_terminal(monkeypatch)
    rows = [("a", "word " * 40, "1"), ("bcd", "x", "23")]
    monkeypatch.setenv("COLUMNS", "60")
    console.out(console.table(("name", "what", "n"), rows, right=(2,), wrap=1))
    wrapped = re.sub(r"\x1b\[\d+m", "", terminal.getvalue()).splitlines()
    assert max(len(line) for line in wrapped) <= 60
    assert " ".join(wrapped).count("word") == 40
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert len(console.table(("name", "what", "n"), rows, right=(2,), wrap=1).splitlines()) == 3


def test_no_colour_means_no_escape_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    console.out(console.style("x", "bold"))
    monkeypatch.setenv("NO_COLOR", "1")
    console.out(console.style("x", "bold"))
    assert terminal.getvalue() == "\x1b[1mx\x1b[0m\nx\n"


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
    assert terminal.getvalue() == "\x1b[1ma\\x1b]0;title\\x07\tb\nc\x1b[0m"


ATTACK = "a\x1b]52;c;QQ==\x07b\x9b2Jc\u202ed\n::error::e\r\x1b[2K\x1b[32mf"


def harmless(text: str) -> bool:
    """Whether nothing is left of ``ATTACK`` that a terminal obeys, and it begins no line."""
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]|^\\s*::", text, re.MULTILINE)


def test_what_a_file_says_neither_commands_the_terminal_nor_begins_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.out(ATTACK)
    console.note(f"{ATTACK}{console.style(ATTACK, 'green')}")
    console.problem(ATTACK)
    console.out(console.table(("name", "size"), [(ATTACK, "1")]))
    console.out(console.fields([("name", ATTACK)]))
    with console.progress() as progress:
        progress.begin(ATTACK, 1, "items")
        progress.end()
    shown = capsys.readouterr()
    assert harmless(shown.out + shown.err)
    assert len(shown.out.splitlines()) == 4


def test_its_colours_are_not_those_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    console.out(f"{console.style(ATTACK, 'red')} \x1b[32mAll hashes match\x1b[0m")
    assert re.findall(r"\x1b\[\d+m", terminal.getvalue()) == ["\x1b[31m", "\x1b[0m"]


def test_json_says_the_same_in_characters_that_are_safe_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": ATTACK + "\x7f\U000e0041 é 中"}
    console.out_json(value)
    shown = capsys.readouterr().out
    assert harmless(shown)
    assert "é 中" in shown
    assert json.loads(shown) == value


def test_no_line_is_a_command_to_github_but_those_that_are_meant(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    console.out("::stop-commands::x")
    console.problem(" ##[error]x")
    console.out(console.lines("a\n::error::b"))
    console.command("::error title=t::m")
    shown = capsys.readouterr()
    orders = [line for line in (shown.out + shown.err).splitlines() if line.strip().startswith(("::", "##["))]
    assert orders == ["::error title=t::m"]


def test_a_progress_bar_takes_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with console.progress() as progress:
        progress.begin("[link=http://x]\x1b]52;c;Q\x07", 2, "items")
        progress.advance(1)
        progress.end()
    assert "\x1b]" not in terminal.getvalue()
    assert "[link=http://x]" in terminal.getvalue()
