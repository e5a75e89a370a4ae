"""Changes to copies of bundles, with a manifest that goes along or not."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

from edgedistill.bundle.bundle import MANIFEST, MODEL, file_entry
from edgedistill.bundle.manifest import Manifest
from edgedistill.runtime.bit_planes import Widening

if TYPE_CHECKING:
    from pathlib import Path


def copy_bundle(bundle: Path, out: Path, **contents: bytes) -> Path:
    """A copy with other contents of some files, listed as they are; ``model_onnx`` is the graph that is opened."""
    shutil.copytree(bundle, out)
    for name, content in contents.items():
        (out / (opened_graph(out) if name == "model_onnx" else name.replace("_", "."))).write_bytes(content)
    relist(out)
    return out


def opened_graph(bundle: Path) -> str:
    """Name of the graph that the runtime opens: model.onnx, or the one that stands for it."""
    return Widening.in_directory(bundle).graph(MODEL)


def relist(bundle: Path, *more: str) -> None:
    """Bring the manifest's sizes and hashes up to date and list ``more`` besides."""
    path = bundle / MANIFEST
    manifest = Manifest.from_json(path.read_text(encoding="utf-8"))
    names = sorted({entry.name for entry in manifest.files} | set(more))
    files = tuple(file_entry(bundle, name) for name in names)
    path.write_text(dataclasses.replace(manifest, files=files).to_json(), encoding="utf-8")
