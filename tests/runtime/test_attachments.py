"""Files named in a question."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.errors import UsageError
from edgedistill.runtime.text.attachments import LARGEST, attach


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "notes.txt").write_text("first\nsecond\n", encoding="utf-8")
    (tmp_path / "my plan.md").write_text("﻿# plan\n```\ncode\n```\n", encoding="utf-8")
    (tmp_path / "README").write_text("read me", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_contents_follow_the_question(base: Path) -> None:
    found = attach("Sum up @notes.txt, please.", base)
    assert found.text == "Sum up notes.txt, please.\n\nnotes.txt:\n```\nfirst\nsecond\n```"
    assert found.files == (("notes.txt", "first\nsecond\n"),)


def test_a_name_with_spaces_and_a_fence_within(base: Path) -> None:
    found = attach('Compare @"my plan.md" with (@README) and @README', base)
    assert found.text.startswith("Compare my plan.md with (@README) and README\n\n"), "in a word, it is none"
    assert "my plan.md:\n````\n# plan\n```\ncode\n```\n````" in found.text
    assert [name for name, _ in found.files] == ["my plan.md", "README"]


@pytest.mark.parametrize("text", ["ask @bob", "mail a@b.de", "@@notes.txt", "a @ b", "@", '@""', "5 @ 3"])
def test_what_is_no_file_stays(text: str, base: Path) -> None:
    assert attach(text, base).text == text.replace("@@", "@")
    assert attach(text, base).files == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@absent.txt", r"absent\.txt does not exist.*@@absent\.txt"),
        ("see @folder/", r"folder/ is a directory"),
        ("@big.txt", r"big\.txt has .*; expected at most 1\.00 MiB"),
        ("@picture.png", r"picture\.png is not UTF-8 text"),
        ("@zero.bin", r"zero\.bin is not text"),
    ],
)
def test_what_is_refused(text: str, said: str, base: Path) -> None:
    (base / "big.txt").write_bytes(b"x" * (LARGEST + 1))
    (base / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    (base / "zero.bin").write_bytes(b"a\0b")
    with pytest.raises(UsageError, match=said):
        attach(text, base)


@given(st.text(alphabet="@abc. \n\"'`", max_size=40))
def test_any_question_is_taken_or_refused(text: str) -> None:
    try:
        found = attach(text, Path("/nowhere"))
    except UsageError:
        return
    assert found.files == ()
    assert found.text == text or "@@" in text
