"""A directory that appears whole under its name, or not at all."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from edgedistill.bundle import own_directory
from edgedistill.bundle.own_directory import MARKER, appearing
from edgedistill.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("there", [False, True])
def test_it_appears_with_what_was_put_in_and_nothing_else(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "x" / "y" / "out"
    if there:
        out.mkdir(parents=True)
    with appearing(out) as partial:
        assert partial.parent == out.parent
        assert out.exists() is there
        (partial / "data").write_text("1")
        (partial / "sub").mkdir()
    assert sorted(p.name for p in out.iterdir()) == ["data", "sub"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_taken_over_and_emptied(tmp_path: Path) -> None:
    partial = tmp_path / ".out.partial"
    own_directory.make(partial)
    (partial / "sub").mkdir()
    (partial / "sub" / "stale").write_text("x")
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "photo").write_text("precious")
    (partial / "link").symlink_to(tmp_path / "users")
    with appearing(tmp_path / "out") as found:
        assert found == partial
        assert [p.name for p in partial.iterdir()] == [MARKER]
    assert list((tmp_path / "out").iterdir()) == []
    assert (tmp_path / "users" / "photo").read_text() == "precious"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_any_error_nothing_is_left(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), appearing(tmp_path / "out") as partial:
        (partial / "data").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_what_the_user_put_in_the_place_of_the_partial_directory_stays(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad"), appearing(tmp_path / "out") as partial:
        shutil.rmtree(partial)
        partial.mkdir()
        (partial / "photo").write_text("precious")
        raise ValueError("bad")
    assert (partial / "photo").read_text() == "precious"


@pytest.mark.parametrize("kind", ["file", "link", "link to nothing", "full"])
def test_what_is_there_is_never_replaced(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    if kind == "file":
        out.write_text("precious")
    elif kind == "full":
        out.mkdir()
        (out / "photo").write_text("precious")
    else:
        out.symlink_to(tmp_path / ("empty" if kind == "link" else "nothing"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="replaces nothing"), appearing(out):
        pytest.fail("nothing may be written before")
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_removed_from_a_directory_without_the_mark(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_text("precious")
    for remove in (own_directory.clear, own_directory.remove):
        with pytest.raises(OSError, match="replaced by something else"):
            remove(tmp_path / "photos")
    assert (tmp_path / "photos" / "1.jpg").read_text() == "precious"
    own_directory.mark(tmp_path / "photos")
    assert (tmp_path / "photos" / MARKER).stat().st_mode & 0o777 == 0o600
    own_directory.remove(tmp_path / "photos")
    assert not (tmp_path / "photos").exists()
