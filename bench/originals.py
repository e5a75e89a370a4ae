"""The full-precision models from which benchmarks of quality start: unchanged, or dithered off a quantization grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dither import dithered_gguf

from edgedistill.catalog.builtin import resolve

if TYPE_CHECKING:
    from pathlib import Path


def original(name: str, work: Path) -> str:
    """What to export for ``name``: a quantized GGUF is dithered into ``work`` once, anything else stays what it is."""
    found = resolve(name)
    if found is None or found.is_dir():
        return name
    return str(dithered_gguf(found, work / f"{name}-dithered.gguf"))
