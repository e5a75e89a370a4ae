"""Staging: one rename makes a bundle, nothing else does, and nothing of the user's is overwritten."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from edgedistill import file_lock
from edgedistill.bundle import own_directory
from edgedistill.bundle.bundle import MANIFEST, Bundle, file_entry
from edgedistill.bundle.manifest import KVCacheInfo, Manifest, ModelInfo
from edgedistill.bundle.signature import SIGNATURE
from edgedistill.bundle.staging import Staging, check_target, free_disk, os_error, remove_bundle
from edgedistill.errors import OutputError

if TYPE_CHECKING:
    from filelock import BaseFileLock


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


def test_any_other_os_error_is_told_as_it_is(tmp_path: Path) -> None:
    assert "Cannot write" in str(os_error(OSError(errno.EIO, "Input/output error"), tmp_path))


def test_missing_parents_are_made(tmp_path: Path) -> None:
    write_bundle(tmp_path / "x" / "y" / "b", "one")
    assert Bundle.open(tmp_path / "x" / "y" / "b", check="full")


def synced(monkeypatch: pytest.MonkeyPatch, code: int | None = None) -> list[tuple[str, str]]:
    """Names of what is synced in order, with what its directory was called; each sync fails with ``code``."""
    found: list[tuple[str, str]] = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        found.append((path.parent.name, path.name))
        if code is not None:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_everything_is_on_the_disk_before_the_bundle_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = synced(monkeypatch)
    write_bundle(tmp_path / "b", "one")
    folder = tmp_path.name
    assert set(found[:2]) == {(".b.partial", "data"), (".b.partial", MANIFEST)}
    assert found[2:] == [(folder, ".b.partial"), (tmp_path.parent.name, folder)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_filesystem_that_cannot_sync_is_no_error(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert synced(monkeypatch, code) == []
    write_bundle(tmp_path / "b", "one")
    assert Bundle.open(tmp_path / "b", check="full")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_disk_that_fails_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "b", "one")
    synced(monkeypatch, errno.EIO)
    with pytest.raises(OutputError, match=rf"Cannot write {tmp_path / 'b'}: {os.strerror(errno.EIO)}"):
        write_bundle(tmp_path / "b", "two", force=True)
    assert (tmp_path / "b" / "data").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_an_old_bundle_that_cannot_be_removed_waits_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "b"
    write_bundle(out, "one")

    def fail(path: Path) -> None:
        raise OSError(errno.EBUSY, "busy", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(own_directory, "exchange", lambda *_: False)
        patch.setattr(own_directory, "remove", fail)
        write_bundle(out, "two", force=True)
    assert (out / "data").read_text() == "two"
    assert len(list(tmp_path.iterdir())) == 2
    write_bundle(out, "three", force=True)
    assert (out / "data").read_text() == "three"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_free_disk_is_of_the_filesystem_that_will_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(total=30, used=20, free=10)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert free_disk(tmp_path / "x" / "y") == 10
    assert free_disk(tmp_path) == 10
    monkeypatch.chdir(tmp_path)
    assert free_disk(Path("z")) == 10
    assert asked == [tmp_path] * 3


def test_a_bundle_that_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "b", "one")

    def fail(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        with pytest.raises(OutputError, match=f"^{tmp_path / 'b'} is not writable"):
            remove_bundle(tmp_path / "b")
    assert Bundle.open(tmp_path / "b", check="full")


def test_the_manifest_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal that is cut short leaves nothing that looks like a bundle."""
    write_bundle(tmp_path / "b", "one")
    gone: list[str] = []
    real = Path.unlink

    def unlink(path: Path) -> None:
        gone.append(path.name)
        real(path)

    monkeypatch.setattr(Path, "unlink", unlink)
    remove_bundle(tmp_path / "b")
    assert gone == [MANIFEST, "data"]


def test_directories_and_links_in_the_staging_go_and_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "photo").write_text("precious")
    with Staging(tmp_path / "b") as staging:
        (staging.path / "data").write_text("one")
        (staging.path / "scratch" / "deeper").mkdir(parents=True)
        (staging.path / "scratch" / "deeper" / "file").write_text("x")
        (staging.path / "link").symlink_to(tmp_path / "users")
        staging.commit(manifest_of(staging.path, ["data"]))
    assert {p.name for p in (tmp_path / "b").iterdir()} == {"data", MANIFEST}
    assert (tmp_path / "users" / "photo").read_text() == "precious"


def test_work_that_is_to_be_kept_is_there_after_an_error(tmp_path: Path) -> None:
    for keep in (True, False):
        with pytest.raises(ValueError, match="bad"), Staging(tmp_path / "b", keep=keep) as staging:
            resumed = staging.resume_or_clear("a")
            assert resumed is not keep, "the second run finds what the first one kept"
            raise ValueError("bad")
        assert staging.path.exists() is keep


def test_the_lock_ends_with_the_block_even_if_somebody_still_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks, real = [], file_lock.acquire

    def acquire(path: Path) -> BaseFileLock:
        locks.append(real(path))
        return locks[-1]

    monkeypatch.setattr(file_lock, "acquire", acquire)
    with Staging(tmp_path / "b"):
        assert locks[0].is_locked
    (tmp_path / ".b.partial").write_text("precious")
    with pytest.raises(OutputError, match="is not an unfinished export"), Staging(tmp_path / "b"):
        pytest.fail("a file is in the way")
    assert [lock.is_locked for lock in locks] == [False, False]


def test_a_parent_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def access(path: Path, mode: int) -> bool:
        asked.append((path, mode))
        return False

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(OutputError, match=f"^{tmp_path} is not writable"):
        check_target(tmp_path / "x" / "b", force=False)
    assert asked == [(tmp_path, os.W_OK | os.X_OK)], "to make a directory takes both"


def test_what_a_killed_replacement_left_is_put_back_or_removed_at_the_next_start(tmp_path: Path) -> None:
    """Among directories of the user's with names like it, which stay, in whatever order they are listed."""
    out = tmp_path / "b"
    users = {f".b.{n}2345678.old" for n in range(5)}
    for name in users:
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo").write_text("precious")
    (tmp_path / ".b.abcdefgh.old").mkdir()
    write_bundle(out, "one")
    for n in range(5):
        own_directory.make(tmp_path / f".b.{n}abcdefg.old")
        (tmp_path / f".b.{n}abcdefg.old" / "data").write_text("older")
    with Staging(out, force=True):
        assert {p.name for p in tmp_path.iterdir()} == {"b", ".b.partial", *users}
    own_directory.mark(out)
    out.rename(tmp_path / ".b.01234567.old")
    with pytest.raises(OutputError, match="already holds a bundle"), Staging(out):
        pytest.fail("the old bundle is back, so that nothing may be written")
    assert Bundle.open(out, check="full")
    assert not (out / own_directory.MARKER).exists()
    assert {p.name for p in tmp_path.iterdir()} - users <= {"b", ".b.partial"}
    assert all((tmp_path / name / "photo").read_text() == "precious" for name in users)


def test_what_this_program_writes_beside_a_bundle_is_replaced_with_it(tmp_path: Path) -> None:
    out = tmp_path / "b"
    write_bundle(out, "one")
    for name in ("README.md", SIGNATURE, ".README.md.0123456789abcdef.partial", own_directory.MARKER):
        (out / name).write_text("x")
    write_bundle(out, "two", force=True)
    assert {p.name for p in out.iterdir()} == {"data", MANIFEST}
    (out / ".README.md.0123.partial").write_text("x")
    with pytest.raises(OutputError, match=r"holds '\.README\.md\.0123\.partial'"):
        write_bundle(out, "three", force=True)


def test_a_damaged_note_of_the_plan_is_another_plan(tmp_path: Path) -> None:
    with Staging(tmp_path / "b", keep=True) as staging:
        staging.resume_or_clear("a")
        (staging.path / ".fingerprint").write_bytes(b"\xff\xfe")
        assert not staging.resume_or_clear("a")
        assert staging.resume_or_clear("a")
