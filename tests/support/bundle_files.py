"""Changes to copies of bundles, with a manifest that goes along or not."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

from edgedistill.bundle.bundle import MANIFEST, file_entry
from edgedistill.bundle.manifest import Manifest

if TYPE_CHECKING:
    from pathlib import Path


def copy_bundle(bundle: Path, out: Path, **contents: bytes) -> Path:
    """A copy with other contents of some files (``model_onnx`` for model.onnx), listed as they are."""
    shutil.copytree(bundle, out)
    for name, content in contents.items():
        (out / name.replace("_", ".")).write_bytes(content)
    relist(out)
    return out


def relist(bundle: Path, *more: str) -> None:
    """Bring the manifest's sizes and hashes up to date and list ``more`` besides."""
    path = bundle / MANIFEST
    manifest = Manifest.from_json(path.read_text(encoding="utf-8"))
    names = sorted({entry.name for entry in manifest.files} | set(more))
    files = tuple(file_entry(bundle, name) for name in names)
    path.write_text(dataclasses.replace(manifest, files=files).to_json(), encoding="utf-8")
