"""Changes of a finished bundle: valid at every moment, and never of another bundle than the one that was read."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import pytest
from test_staging import manifest_of

from edgedistill.atomic_file import write_whole
from edgedistill.bundle import staging
from edgedistill.bundle.bundle import MANIFEST, Bundle
from edgedistill.bundle.manifest import Manifest
from edgedistill.bundle.staging import amend
from edgedistill.errors import BundleError, OutputError

Steps = list[tuple[str, list[str]]]


@pytest.fixture
def before(tmp_path: Path) -> Manifest:
    """A bundle of three files, at ``tmp_path``."""
    names = ["README.md", "data", "notes"]
    for name in names:
        (tmp_path / name).write_text(name)
    manifest = manifest_of(tmp_path, names)
    (tmp_path / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def changed(manifest: Manifest) -> Manifest:
    return dataclasses.replace(manifest, tool={"edgedistill": "2"})


def steps(monkeypatch: pytest.MonkeyPatch, root: Path, fails_at: int = 0, error: BaseException | None = None) -> Steps:
    """Names of the files that are written, each with what the manifest lists then; the bundle is valid all the time."""
    found: Steps = []

    def write(path: Path, text: str) -> None:
        Bundle.open(root, check="full")
        if error is not None and len(found) + 1 == fails_at:
            raise error
        write_whole(path, text)
        found.append((path.name, [entry.name for entry in Bundle.open(root, check="full").manifest.files]))

    monkeypatch.setattr(staging, "write_whole", write)
    return found


def test_the_card_and_its_hash_change_together(tmp_path: Path, before: Manifest) -> None:
    done = amend(tmp_path, before, changed(before), "new card")
    assert Bundle.open(tmp_path, check="full").manifest == done
    assert dataclasses.replace(done, files=before.files) == changed(before)
    assert (tmp_path / "README.md").read_text() == "new card"
    assert {p.name for p in tmp_path.iterdir()} == {"README.md", "data", "notes", MANIFEST}


def test_the_bundle_is_valid_before_and_after_every_step(
    tmp_path: Path, before: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest forgets the card, the card changes, the manifest learns it again."""
    found = steps(monkeypatch, tmp_path)
    amend(tmp_path, before, changed(before), "new card")
    rest = ["data", "notes"]
    assert found == [(MANIFEST, rest), ("README.md", rest), (MANIFEST, ["README.md", *rest])]


def test_another_bundle_that_came_in_the_meantime_is_left_alone(tmp_path: Path, before: Manifest) -> None:
    other = dataclasses.replace(before, tool={"edgedistill": "other"})
    (tmp_path / MANIFEST).write_text(other.to_json(), encoding="utf-8")
    with pytest.raises(BundleError, match="replaced by another bundle"):
        amend(tmp_path, before, changed(before), "new card")
    assert Bundle.open(tmp_path, check="full").manifest == other
    assert (tmp_path / "README.md").read_text() == "README.md"


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_an_end_at_any_step_leaves_a_valid_bundle(
    tmp_path: Path, before: Manifest, fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        steps(patch, tmp_path, fails_at, full)
        with pytest.raises(OutputError, match=f"cannot be written: {os.strerror(errno.ENOSPC)}"):
            amend(tmp_path, before, changed(before), "new card")
    now = Bundle.open(tmp_path, check="full").manifest
    assert now.tool == before.tool
    steps(monkeypatch, tmp_path, fails_at, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        amend(tmp_path, now, changed(now), "new card")
    assert Bundle.open(tmp_path, check="full").manifest.tool == before.tool
