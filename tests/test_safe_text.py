"""Text from files and models: what terminals, spreadsheets and file systems are given of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.safe_text import FILE_NAME, csv_cell, file_name, visible


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert "\n" not in visible(text, line=True)
    shown.encode()


def test_what_is_harmless_stays() -> None:
    text = "Antwort: 3 ≤ π\n\t中文 🙂 é"
    assert visible(text) == text
    assert visible("\x1b]52;c;QQ==\x07a\u202eb\r\n", line=True) == "\\x1b]52;c;QQ==\\x07a\\u202eb\\r\\n"


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-cmd", "@SUM(A1)", " =1"])
def test_a_spreadsheet_computes_nothing(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


def test_numbers_stay_numbers() -> None:
    assert [csv_cell(text) for text in ("-1.5", "+2", "1e-3", "")] == ["-1.5", "+2", "1e-3", ""]


@given(st.text())
def test_every_text_gives_a_name_that_every_system_takes(text: str) -> None:
    assert re.fullmatch(FILE_NAME, file_name(text))


@pytest.mark.parametrize(
    "name", ["CON", "nul.txt", "COM1", "a:b", "a/b", "a\\b", "..", ".", "", "x.", "x ", "a\x1b", "a?"]
)
def test_names_that_some_system_refuses(name: str) -> None:
    assert re.fullmatch(FILE_NAME, name) is None
    assert re.fullmatch(FILE_NAME, "model.onnx")
