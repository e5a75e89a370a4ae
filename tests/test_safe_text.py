"""Text from files and models: what terminals, spreadsheets and file systems are given of it."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.safe_text import FILE_NAME, escape, file_name, visible, visible_json


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


@given(st.text())
def test_pages_and_pictures_are_well_formed_with_it(text: str) -> None:
    shown = ElementTree.fromstring(f'<p title="{escape(text)}">{escape(text)}</p>')
    assert shown.text is None or "<" not in escape(shown.text)


@given(st.dictionaries(st.text(), st.text()))
def test_json_means_the_same(value: dict[str, str]) -> None:
    shown = visible_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == value
    assert visible(shown) == shown


@given(st.text())
def test_every_text_gives_a_name_that_every_system_takes(text: str) -> None:
    assert re.fullmatch(FILE_NAME, file_name(text))


@pytest.mark.parametrize(
    "name", ["CON", "nul.txt", "COM1", "a:b", "a/b", "a\\b", "..", ".", "", "x.", "x ", "a\x1b", "a?"]
)
def test_names_that_some_system_refuses(name: str) -> None:
    assert re.fullmatch(FILE_NAME, name) is None
    assert re.fullmatch(FILE_NAME, "model.onnx")
