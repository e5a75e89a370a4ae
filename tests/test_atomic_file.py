"""Files appear whole or not at all, over nothing but the file of their name."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from edgedistill.atomic_file import replacing, try_to_write, write_whole

if TYPE_CHECKING:
    from pathlib import Path


def test_text_and_bytes_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for content in ("one\n", b"\0two"):
        write_whole(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as stream:
        stream.write(b"half")
        raise ZeroDivisionError

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / "report").symlink_to(tmp_path / "precious")
    write_whole(tmp_path / "report", "new")
    assert (tmp_path / "precious").read_text() == "x"


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 255)
    write_whole(path, "x")
    assert path.read_text() == "x"


def test_trying_touches_nothing(tmp_path: Path) -> None:
    users = tmp_path / f".report.{os.getpid()}.partial"
    users.write_text("precious")
    try_to_write(tmp_path / "report")
    assert [p.name for p in tmp_path.iterdir()] == [users.name]
    with pytest.raises(FileNotFoundError):
        try_to_write(tmp_path / "none" / "report")
