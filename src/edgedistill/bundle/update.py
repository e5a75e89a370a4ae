"""Changes to a finished bundle that leave it valid at every moment, whatever interrupts them.

A file that the manifest lists cannot be replaced together with its hash in one step. So the manifest forgets it first
(texts for people need not be listed), then the file is replaced, then the manifest learns it again; each step is a
rename.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgedistill.atomic_file import write_whole
from edgedistill.bundle.bundle import MANIFEST, Bundle, file_entry
from edgedistill.errors import BundleError, OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgedistill.bundle.manifest import Manifest


def amend(path: Path, before: Manifest, after: Manifest, texts: Mapping[str, str]) -> Manifest:
    """Replace the manifest of the bundle at ``path`` and some text files; the manifest as written.

    Args:
        before: The manifest that is expected there.
        after: The one to write; its entries of ``texts`` are brought up to date.
        texts: Contents of files in the bundle, by name.

    Raises:
        BundleError: There is no bundle, or another one than ``before`` by now.
        OutputError: The disk is full or read-only; the bundle is valid and may lack the change.
    """
    if Bundle.open(path).manifest != before:
        raise BundleError(f"{path} was replaced by another bundle in the meantime.")
    others = tuple(entry for entry in after.files if entry.name not in texts)
    try:
        if texts:
            replace_file(path, MANIFEST, dataclasses.replace(before, files=others).to_json())
        for name, text in texts.items():
            replace_file(path, name, text)
        entries = (*others, *(file_entry(path, name) for name in texts))
        done = dataclasses.replace(after, files=tuple(sorted(entries, key=lambda entry: entry.name)))
        replace_file(path, MANIFEST, done.to_json())
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.", hint="Make room on it.") from error
    return done


def replace_file(directory: Path, name: str, text: str) -> None:
    """Write a text file of a bundle in one go; raises OSError."""
    write_whole(directory / name, text)
