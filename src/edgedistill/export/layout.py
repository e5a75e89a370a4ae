"""Where every stored array lies in weights.bin: sizes are known before any weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgedistill.quantize.spec import ArraySpec

# ONNX recommends page alignment for memory mapping; for small arrays that would be mostly padding.
_LARGE = 1 << 20
_PAGE = 4096
_CACHE_LINE = 64


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array and its place: ``offset`` in bytes inside the file ``location`` (relative to the graph's directory)."""

    spec: ArraySpec
    location: str
    offset: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of all arrays by name, and the size of the file in bytes."""

    arrays: dict[str, StoredArray]
    size: int


def plan_layout(specs: Iterable[ArraySpec], location: str) -> Layout:
    """Lay arrays out one after another in the given order, aligned for memory mapping.

    Raises ValueError if two arrays share a name.
    """
    arrays: dict[str, StoredArray] = {}
    offset = 0
    for spec in specs:
        if spec.name in arrays:
            raise ValueError(f"two arrays named {spec.name}")
        alignment = _PAGE if spec.nbytes >= _LARGE else _CACHE_LINE
        offset = -(-offset // alignment) * alignment
        arrays[spec.name] = StoredArray(spec, location, offset)
        offset += spec.nbytes
    return Layout(arrays, offset)
