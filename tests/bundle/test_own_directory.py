"""Nothing of the user's is ever deleted: names that look like staging, links, files beside a bundle, failed renames."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from test_staging import manifest_of, write_bundle

from edgedistill.bundle import own_directory
from edgedistill.bundle.bundle import MANIFEST, Bundle
from edgedistill.bundle.own_directory import MARKER
from edgedistill.bundle.staging import Staging, remove_bundle
from edgedistill.errors import OutputError
from edgedistill.system.temporary import scratch

if TYPE_CHECKING:
    from collections.abc import Callable


def tree(path: Path) -> dict[str, bytes | None]:
    """All below ``path`` with its content."""
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else None for p in sorted(path.rglob("*"))}


def users_directory(parent: Path) -> None:
    (parent / ".b.partial" / "photos").mkdir(parents=True)
    (parent / ".b.partial" / "photos" / "1.jpg").write_bytes(b"precious")


def users_file(parent: Path) -> None:
    (parent / ".b.partial").write_bytes(b"precious")


def link_to_users_directory(parent: Path) -> None:
    (parent / "photos").mkdir()
    (parent / "photos" / "1.jpg").write_bytes(b"precious")
    (parent / ".b.partial").symlink_to(parent / "photos")


def link_to_own_directory(parent: Path) -> None:
    own_directory.make(parent / "elsewhere")
    (parent / "elsewhere" / "1.jpg").write_bytes(b"precious")
    (parent / ".b.partial").symlink_to(parent / "elsewhere")


def dangling_link(parent: Path) -> None:
    (parent / ".b.partial").symlink_to(parent / "nowhere")


def copy_of_own_directory(parent: Path) -> None:
    own_directory.make(parent / "elsewhere")
    (parent / "elsewhere" / "1.jpg").write_bytes(b"precious")
    shutil.copytree(parent / "elsewhere", parent / ".b.partial")


def as_earlier_versions_left_it(parent: Path) -> None:
    (parent / ".b.partial").mkdir()
    (parent / ".b.partial" / ".lock").touch()
    (parent / ".b.partial" / ".fingerprint").write_text("a")


def marker_that_is_a_link(parent: Path) -> None:
    own_directory.make(parent / ".b.partial")
    (parent / ".b.partial" / MARKER).rename(parent / "marker")
    (parent / ".b.partial" / MARKER).symlink_to(parent / "marker")


def marker_of_another_user(parent: Path) -> None:
    own_directory.make(parent / ".b.partial")
    path = parent / ".b.partial" / MARKER
    path.write_text(json.dumps({**json.loads(path.read_text()), "uid": 12345}))


@pytest.mark.parametrize(
    "lay",
    [users_directory, users_file, link_to_users_directory, link_to_own_directory, dangling_link, copy_of_own_directory,
     as_earlier_versions_left_it, marker_that_is_a_link, marker_of_another_user],
)  # fmt: skip
@pytest.mark.parametrize("force", [False, True])
def test_what_lies_under_the_name_is_left_alone_and_named(
    tmp_path: Path, lay: Callable[[Path], None], force: bool
) -> None:
    lay(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=r"\.b\.partial exists and is not an unfinished export of this user"):
        write_bundle(tmp_path / "b", "one", force=force)
    assert tree(tmp_path) == before


def test_an_empty_directory_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".b.partial").mkdir()
    write_bundle(tmp_path / "b", "one")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_users_old_directory_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".b.old").mkdir()
    (tmp_path / ".b.old" / "notes").write_text("precious")
    (tmp_path / ".b.01234567.old").mkdir()
    (tmp_path / ".b.01234567.old" / "notes").write_text("precious")
    for possible in (True, False):
        write_bundle(tmp_path / "b", "one", force=True)
        if not possible:
            monkeypatch.setattr(own_directory, "exchange", lambda *_: False)
        write_bundle(tmp_path / "b", "two", force=True)
    assert (tmp_path / ".b.old" / "notes").read_text() == "precious"
    assert (tmp_path / ".b.01234567.old" / "notes").read_text() == "precious"
    assert {p.name for p in tmp_path.iterdir()} == {".b.old", ".b.01234567.old", "b"}


@pytest.mark.parametrize("name", ["notes.txt", ".git", "reports"])
def test_force_does_not_delete_files_that_are_none_of_the_bundles(tmp_path: Path, name: str) -> None:
    out = tmp_path / "b"
    write_bundle(out, "one")
    (out / name).mkdir()
    (out / name / "precious").write_text("x")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=f"holds '{name}', which is not a file of the bundle"):
        write_bundle(out, "two", force=True)
    assert tree(tmp_path) == before


def test_files_that_come_while_the_export_runs_are_not_deleted_either(tmp_path: Path) -> None:
    out = tmp_path / "b"
    with pytest.raises(OutputError, match="not empty and not a bundle"), Staging(out) as staging:
        staging.resume_or_clear("a")
        (staging.path / "data").write_text("hours of work")
        out.mkdir()
        (out / "precious").write_text("x")
        staging.commit(manifest_of(staging.path, ["data"]))
    assert (out / "precious").read_text() == "x"
    assert (staging.path / "data").read_text() == "hours of work"
    shutil.rmtree(out)
    with Staging(out) as again:
        assert again.resume_or_clear("a")
        again.commit(manifest_of(again.path, ["data"]))
    assert Bundle.open(out, check="full")


def test_a_bundle_whose_manifest_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", "one")
    (tmp_path / "b" / MANIFEST).write_text("{")
    with pytest.raises(OutputError, match="cannot be read"):
        write_bundle(tmp_path / "b", "two", force=True)
    assert (tmp_path / "b" / "data").read_text() == "one"


def failing_rename(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Path, Path], bool]) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if fails(self, Path(target)):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return real(self, target)

    monkeypatch.setattr(own_directory, "exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", rename)


def test_the_old_bundle_is_restored_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "b"
    write_bundle(out, "one")
    before = tree(tmp_path)
    failing_rename(monkeypatch, lambda source, target: source.name == ".b.partial" and target == out)
    with pytest.raises(OutputError, match="Cannot write"):
        write_bundle(out, "two", force=True)
    assert tree(tmp_path) == before
    assert Bundle.open(out, check="full")


def test_where_not_even_that_is_possible_both_are_named_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "b"
    write_bundle(out, "one")
    failing_rename(monkeypatch, lambda source, target: target == out)
    with pytest.raises(OutputError, match=r"the old bundle is now .*\.old, the new .*\.b\.partial"):
        write_bundle(out, "two", force=True)
    (old,) = tmp_path.glob(".b.*.old")
    assert ((old / "data").read_text(), (tmp_path / ".b.partial" / "data").read_text()) == ("one", "two")
    monkeypatch.undo()
    with pytest.raises(OutputError, match="already holds a bundle"):
        write_bundle(out, "three")  # which first puts the old one back
    assert (out / "data").read_text() == "one"
    assert Bundle.open(out, check="full")


def test_exchange_is_one_step_or_says_that_it_is_not_possible(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_text(name)
    if not own_directory.exchange(tmp_path / "a", tmp_path / "b"):
        assert not _kernel_exchanges(tmp_path)
        pytest.skip("no exchange on this system")
    assert [(tmp_path / name / "data").read_text() for name in "ab"] == ["b", "a"]
    with pytest.raises(FileNotFoundError):
        own_directory.exchange(tmp_path / "a", tmp_path / "none")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EIO])
def test_a_filesystem_without_exchange_is_no_failure(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = SimpleNamespace(renameat2=lambda *_: -1, renamex_np=lambda *_: -1)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: call)
    monkeypatch.setattr(ctypes, "get_errno", lambda: code)
    if code != errno.EIO:
        assert not own_directory.exchange(tmp_path / "a", tmp_path / "b")
        return
    with pytest.raises(OSError, match=os.strerror(code)) as raised:
        own_directory.exchange(tmp_path / "a", tmp_path / "b")
    assert (raised.value.errno, raised.value.filename) == (code, str(tmp_path / "a"))


def _kernel_exchanges(folder: Path) -> bool:
    """Whether renameat2(RENAME_EXCHANGE), called by its number, swaps two names in ``folder``."""
    number = {"x86_64": 316, "aarch64": 276}.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return False
    names = [folder / "kernel-a", folder / "kernel-b"]
    for name in names:
        name.mkdir()
    paths = [ctypes.c_char_p(os.fsencode(name)) for name in names]
    here, flags = ctypes.c_long(-100), ctypes.c_long(2)
    done = ctypes.CDLL(None).syscall(ctypes.c_long(number), here, paths[0], here, paths[1], flags)
    for name in names:
        name.rmdir()
    return bool(done == 0)


def test_the_kernel_is_asked_rightly(tmp_path: Path) -> None:
    """A wrong call would look like a system without exchange, and the two renames would take over unseen."""
    if not _kernel_exchanges(tmp_path):
        pytest.skip("no exchange on this system")
    assert _can_exchange(tmp_path)


def killed_at(limit: int, action: Callable[[], None]) -> bool:
    """Do ``action`` in a process that is killed right before change number ``limit`` of the disk; False: it ended."""
    child = os.fork()
    if child == 0:
        count = 0

        def audit(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            changes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")
            if changes or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT):
                count += 1
                if count == limit:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(audit)
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the child ended with status {status}"
    return status != 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("exchange", [True, False])
def test_killed_before_every_single_change_of_the_disk(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that replaces a bundle is killed before its first change, its second, ...; the next run succeeds."""
    out = tmp_path / "b"
    if not exchange:
        monkeypatch.setattr(own_directory, "exchange", lambda *_: False)
    elif not _can_exchange(tmp_path):
        pytest.skip("no exchange on this system")
    for limit in range(1, 60):
        write_bundle(out, "one", force=True)
        if not killed_at(limit, lambda: write_bundle(out, "two", force=True)):
            break
        if out.exists():  # with an exchange there is a bundle at every moment
            Bundle.open(out, check="full")
            assert (out / "data").read_text() in ("one", "two")
        else:
            assert not exchange
            with pytest.raises(OutputError, match="already holds a bundle"):
                write_bundle(out, "three")
            assert (out / "data").read_text() == "one"
        write_bundle(out, "three", force=True)
        assert (out / "data").read_text() == "three"
        assert [p.name for p in tmp_path.iterdir()] == ["b"]
        assert {p.name for p in out.iterdir()} == {"data", MANIFEST}
    else:
        pytest.fail("the run never ended")
    assert limit > 5


def _can_exchange(folder: Path) -> bool:
    for name in "xy":
        (folder / name).mkdir()
    found = own_directory.exchange(folder / "x", folder / "y")
    for name in "xy":
        (folder / name).rmdir()
    return found


def test_removing_a_bundle_takes_nothing_else_along(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_bundle(tmp_path / name, name)
    (tmp_path / "first" / "notes.txt").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "second")
    with pytest.raises(OutputError, match=r"holds 'notes\.txt'"):
        remove_bundle(tmp_path / "first")
    assert Path(tmp_path / "first" / "data").read_text() == "first"
    with pytest.raises(OutputError, match="so it is not removed"):
        remove_bundle(tmp_path)
    remove_bundle(tmp_path / "link")
    assert Bundle.open(tmp_path / "second", check="full")
    remove_bundle(tmp_path / "second")
    assert [p.name for p in tmp_path.iterdir()] == ["first"]


def test_directories_of_the_users_that_look_temporary_stay(tmp_path: Path) -> None:
    users = tmp_path / "work-photos"
    users.mkdir()
    (users / ".lock").touch()
    (users / "1.jpg").write_bytes(b"precious")
    own_directory.make(tmp_path / "work-killed")
    with scratch(tmp_path, "work-") as folder:
        (folder / "data").write_bytes(b"x")
        assert {p.name for p in tmp_path.iterdir()} == {"work-photos", folder.name}
    assert (users / "1.jpg").read_bytes() == b"precious"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.timeout(20)
def test_a_pipe_as_marker_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MARKER)
    assert not own_directory.is_own(tmp_path)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users here")
def test_a_directory_of_another_user_is_not_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with a marker that claims this user: whoever owns the directory could have written it."""
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    own_directory.make(tmp_path / "theirs")
    assert not own_directory.is_own(tmp_path / "theirs")


def test_leaving_twice_or_without_entering_is_harmless(tmp_path: Path) -> None:
    Staging(tmp_path / "a").__exit__(None, None, None)
    with Staging(tmp_path / "b") as staging:
        pass
    staging.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []
