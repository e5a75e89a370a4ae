"""The directory in which a bundle grows until one rename makes it real.

``OUT`` is written as ``.OUT.partial`` beside it (same filesystem, so the rename is atomic), locked against a second
export, and kept after an interruption so that the next run of the same command resumes. It never holds a manifest
before everything else is there, so nothing half-written opens as a bundle. Whatever of the user's lies under that name
is left alone (``own_directory``), and ``--force`` replaces a bundle alone: not a file that is none of its own.

``amend`` changes a finished bundle in steps that leave it valid at every moment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import json
import os
import re
import shutil
from typing import TYPE_CHECKING

from edgedistill import file_lock
from edgedistill.atomic_file import write_whole
from edgedistill.bundle import own_directory
from edgedistill.bundle.bundle import MANIFEST, MODEL_CARD, Bundle, file_entry
from edgedistill.bundle.own_directory import MARKER
from edgedistill.bundle.signature import SIGNATURE
from edgedistill.errors import BundleError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from filelock import BaseFileLock

    from edgedistill.bundle.manifest import Manifest


_FINGERPRINT = ".fingerprint"
_LEFT_OVER = re.compile(r"\.(manifest\.json|manifest\.sig|README\.md)\.[0-9a-f]{16}\.partial")
"""Of a change that was killed; see ``atomic_file``."""
_OLD = ".old"
"""End of the name of a bundle that steps aside; a random part before it makes it nobody else's."""


def check_target(out: Path, *, force: bool) -> None:
    """Refuse an output path that is in use before any work starts.

    An empty directory is fine; a bundle is replaced only with ``force``, and only if nothing else lies in it; anything
    else is never replaced.

    Raises:
        OutputError: ``out`` is in use, or its parent is missing, a file or read-only.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out} exists and is not a directory.", hint="Choose another output directory.")
    if out.is_dir() and (found := sorted(entry.name for entry in out.iterdir())):
        if MANIFEST not in found:
            raise OutputError(
                f"{out} is not empty and not a bundle, so it is never overwritten.",
                hint="Choose another output directory.",
            )
        if not force:
            raise OutputError(
                f"{out} already holds a bundle.", hint="Choose another directory, or replace it with --force."
            )
        if others := [name for name in found if name not in _files_of_bundle(out)]:
            raise OutputError(
                f"{out} holds {others[0]!r}, which is not a file of the bundle there and would be deleted with it.",
                hint="Move it away, or choose another output directory.",
            )
    parent = out.absolute().parent
    existing = next(p for p in (parent, *parent.parents) if p.exists())
    if not existing.is_dir():
        raise OutputError(f"{existing} is a file, expected a directory.", hint="Choose another output directory.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{existing} is not writable.", hint="Choose another output directory.")


def remove_bundle(path: Path) -> None:
    """Remove a bundle, or a link to one; raises OutputError where other files lie in the directory, or it fails."""
    if path.is_symlink():
        with disk_errors(path):
            path.unlink()
        return
    if not (path / MANIFEST).is_file():
        raise OutputError(f"{path} has no {MANIFEST}, so it is not removed.", hint="Remove it by hand.")
    check_target(path, force=True)
    with disk_errors(path):
        names = [entry.name for entry in path.iterdir()]
        # The manifest last would leave a directory that looks whole if this is interrupted.
        for name in sorted(names, key=lambda name: name != MANIFEST):
            (path / name).unlink()
        path.rmdir()


def _files_of_bundle(out: Path) -> set[str]:
    """Names in ``out`` that its manifest lists or that this program writes beside; of any version, damaged or not."""
    own = {MANIFEST, SIGNATURE, MODEL_CARD}
    try:
        entries = json.loads((out / MANIFEST).read_bytes())["files"]
        listed = {entry["name"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise OutputError(
            f"The manifest of {out} cannot be read, so the files of the bundle cannot be told from others.",
            hint="Move the directory away, or choose another one.",
        ) from error
    return own | listed | {MARKER} | {path.name for path in out.iterdir() if _LEFT_OVER.fullmatch(path.name)}


def free_disk(out: Path) -> int:
    """Free bytes on the filesystem that will hold ``out``."""
    target = out.absolute()
    return shutil.disk_usage(next(p for p in (target, *target.parents) if p.exists())).free


class Staging:
    """Context manager around the partial directory.

    Leaving it without ``commit`` after an interruption keeps the directory for resuming; after any other error it is
    removed, so that a full disk is freed again, unless ``keep`` says that too much work is in it.
    """

    def __init__(self, out: Path, *, force: bool = False, keep: bool = False) -> None:
        self.out = out.absolute()
        self.force = force
        self.keep = keep
        self.path = self.out.parent / f".{self.out.name}.partial"
        self._lock: BaseFileLock | None = None

    def __enter__(self) -> Staging:
        check_target(self.out, force=self.force)
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = file_lock.acquire(self.out)
            except TimeoutError as error:
                raise OutputError(
                    f"Another run is writing to {self.out}.", hint="Wait for it or choose another output directory."
                ) from error
        try:
            with disk_errors(self.path):
                own_directory.claim(self.path)
            self._tidy()
        except BaseException:
            self._unlock()
            raise
        return self

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _tidy(self) -> None:
        """What a run left that was killed while it replaced a bundle: put the old one back, or remove it."""
        for old in self.out.parent.glob(f".{glob.escape(self.out.name)}.????????{_OLD}"):
            if not own_directory.is_own(old):
                with contextlib.suppress(OSError):  # killed at the last step of a removal: it is empty, or stays
                    old.rmdir()
                continue
            with disk_errors(old):
                if os.path.lexists(self.out):
                    own_directory.remove(old)
                else:
                    old.rename(self.out)
                    (self.out / MARKER).unlink()
        check_target(self.out, force=self.force)

    def resume_or_clear(self, fingerprint: str) -> bool:
        """Whether what lies here was made by the same plan; if not, clear it and remember the new ``fingerprint``."""
        note = self.path / _FINGERPRINT
        if note.is_file() and note.read_text(encoding="utf-8", errors="replace") == fingerprint:
            return True
        with disk_errors(self.path):
            own_directory.clear(self.path)
            note.write_text(fingerprint, encoding="utf-8")
        return False

    def commit(self, manifest: Manifest) -> None:
        """Drop what the manifest does not list, write the manifest, rename the directory to its final name."""
        keep = {MANIFEST, *(f.name for f in manifest.files)}
        with disk_errors(self.out):
            (self.path / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
            # What a resumed run needs goes last: writing out gigabytes leaves time to be killed.
            for name in keep:
                _fsync(self.path / name)
            try:
                check_target(self.out, force=self.force)  # what lies there may have changed since the start
            except OutputError:
                self.keep = True
                raise
            for entry in self.path.iterdir():
                if entry.name not in keep and entry.name != MARKER:
                    own_directory.remove_entry(entry)
            _fsync(self.path)
            self._replace() if self.out.is_dir() else self.path.rename(self.out)
            with contextlib.suppress(OSError):  # hidden, and no part of the bundle
                (self.out / MARKER).unlink()
            _fsync(self.out.parent)

    def _replace(self) -> None:
        """Put the new directory in the place of the old one, which is removed: at no time is there none of the two."""
        (self.out / MARKER).unlink(missing_ok=True)  # of a run that was killed right here
        own_directory.mark(self.out)
        try:
            old = self.path if own_directory.exchange(self.path, self.out) else self._replace_by_two_renames()
        except BaseException:
            (self.out / MARKER).unlink(missing_ok=True)
            raise
        with contextlib.suppress(OSError):  # the new bundle is there; the next run tries again
            own_directory.remove(old)

    def _replace_by_two_renames(self) -> Path:
        """Where there is no exchange: the old one steps aside, and comes back if the new one cannot take its place."""
        old = own_directory.unused_name(self.out, _OLD)
        self.out.rename(old)
        try:
            self.path.rename(self.out)
        except BaseException as error:
            try:
                old.rename(self.out)
            except OSError:
                self.keep = True
                raise OutputError(
                    f"{self.out} could not be replaced ({error}); the old bundle is now {old}, the new {self.path}.",
                    hint=f"Rename the one that you want to {self.out.name}.",
                ) from error
            raise
        return old

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
        if not interrupted and not self.keep:
            with contextlib.suppress(OSError):  # after a commit there is none, or what could not be removed then
                own_directory.remove(self.path)
        self._unlock()


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no directories
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:  # some filesystems refuse fsync on directories
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn failed file operations below ``path`` into one clear OutputError."""
    try:
        yield
    except OSError as error:
        raise os_error(error, path) from error


def os_error(error: OSError, path: Path) -> OutputError:
    """The user-facing form of a failed write to ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"The disk is full: writing {path} stopped.", hint="Free space or choose another output directory."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{path} is not writable ({error.strerror}).", hint="Choose another output directory.")
    return OutputError(f"Cannot write {path}: {error.strerror or error}.", hint="Choose another output directory.")


def amend(path: Path, before: Manifest, after: Manifest, card: str) -> Manifest:
    """Replace the manifest and the model card of the bundle at ``path``; the manifest as written.

    A file that the manifest lists cannot be replaced together with its hash in one step. So the manifest forgets the
    card first (the one text that need not be listed), then the card is replaced, then the manifest learns it again;
    each step is a rename.

    Args:
        before: The manifest that is expected there.
        after: The one to write; its entry of the card is brought up to date.
        card: Text of the model card.

    Raises:
        BundleError: There is no bundle, or another one than ``before`` by now.
        OutputError: The disk is full or read-only; the bundle is valid and may lack the change.
    """
    if Bundle.open(path).manifest != before:
        raise BundleError(f"{path} was replaced by another bundle in the meantime.")
    others = tuple(entry for entry in after.files if entry.name != MODEL_CARD)
    try:
        replace_file(path, MANIFEST, dataclasses.replace(before, files=others).to_json())
        replace_file(path, MODEL_CARD, card)
        entries = (*others, file_entry(path, MODEL_CARD))
        done = dataclasses.replace(after, files=tuple(sorted(entries, key=lambda entry: entry.name)))
        replace_file(path, MANIFEST, done.to_json())
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.", hint="Make room on it.") from error
    return done


def replace_file(directory: Path, name: str, text: str) -> None:
    """Write a text file of a bundle in one go; raises OSError."""
    write_whole(directory / name, text)
