"""Staging: one rename makes a bundle, nothing else does, and nothing of the user's is overwritten."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from edgedistill.bundle.bundle import MANIFEST, Bundle, file_entry
from edgedistill.bundle.manifest import KVCacheInfo, Manifest, ModelInfo
from edgedistill.bundle.staging import Staging, check_target, os_error
from edgedistill.errors import OutputError


def manifest_of(root: Path, names: list[str]) -> Manifest:
    model = ModelInfo("qwen3", 8, 1, 1, 1, 8, 8, 8, (0,), None, None, False)
    entries = tuple(file_entry(root, name) for name in names)
    return Manifest("now", {}, {}, {}, model, KVCacheInfo("float32", 1), 1, 8.0, (), entries)


def write_bundle(out: Path, text: str, *, force: bool = False) -> None:
    with Staging(out, force=force) as staging:
        staging.resume_or_clear("a")
        (staging.path / "data").write_text(text)
        (staging.path / "scratch").write_text("temporary")
        staging.commit(manifest_of(staging.path, ["data"]))


def test_commit_leaves_exactly_the_listed_files(tmp_path: Path) -> None:
    out = tmp_path / "b"
    write_bundle(out, "one")
    assert {p.name for p in out.iterdir()} == {"data", MANIFEST}
    assert Bundle.open(out, check="full").manifest.files[0].name == "data"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_existing_bundle_needs_force(tmp_path: Path) -> None:
    out = tmp_path / "b"
    write_bundle(out, "one")
    with pytest.raises(OutputError, match="--force"):
        write_bundle(out, "two")
    assert (out / "data").read_text() == "one"
    write_bundle(out, "two", force=True)
    assert (out / "data").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_failed_replacement_keeps_the_old_bundle(tmp_path: Path) -> None:
    out = tmp_path / "b"
    write_bundle(out, "one")
    with pytest.raises(RuntimeError), Staging(out, force=True) as staging:
        staging.resume_or_clear("a")
        raise RuntimeError
    assert Bundle.open(out, check="full")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_foreign_directory_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    for force in (False, True):
        with pytest.raises(OutputError, match="never overwritten"):
            check_target(tmp_path, force=force)


def test_file_and_file_as_parent_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(OutputError, match="not a directory"):
        check_target(tmp_path / "f", force=True)
    with pytest.raises(OutputError, match="is a file"):
        check_target(tmp_path / "f" / "sub", force=False)


def test_interruption_keeps_the_partial_directory_for_resuming(tmp_path: Path) -> None:
    out = tmp_path / "b"
    with pytest.raises(KeyboardInterrupt), Staging(out) as staging:
        assert not staging.resume_or_clear("a")
        (staging.path / "part").write_text("half")
        raise KeyboardInterrupt
    assert not out.exists()
    assert not (staging.path / MANIFEST).exists()
    with Staging(out) as again:
        assert again.resume_or_clear("a")
        assert (again.path / "part").read_text() == "half"
        assert not again.resume_or_clear("another plan")
        assert not (again.path / "part").exists()


def test_any_other_error_frees_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad"), Staging(tmp_path / "b") as staging:
        (staging.path / "part").write_text("half")
        raise ValueError("bad")
    assert list(tmp_path.iterdir()) == []


def test_second_export_to_the_same_place_is_refused(tmp_path: Path) -> None:
    with Staging(tmp_path / "b"), pytest.raises(OutputError, match="Another run"), Staging(tmp_path / "b"):
        pass


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "not writable")])
def test_os_errors_in_words(code: int, words: str, tmp_path: Path) -> None:
    assert words in str(os_error(OSError(code, "x"), tmp_path))
