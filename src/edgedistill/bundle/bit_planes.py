"""widened.json: the graphs of a bundle that want matrices put together from planes for them, as typed data.

``model.onnx`` unpacks codes of 3, 5 and 6 bits by nodes of its own, which any ONNX Runtime folds on loading, at ten
times the weights' memory. The same graph without those nodes lies beside it, for a runtime that supplies the matrices.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from edgedistill.errors import BundleError
from edgedistill.quantize.spec import WeightFormat

VERSION = 1


@dataclass(frozen=True, slots=True)
class WidenedMatrix:
    """One matrix to supply: the ``initializer``'s name, ``shape`` [N, K], and where its planes lie.

    ``offsets`` are their first bytes in the file ``location`` beside the graph, in the order of ``format.planes``.
    """

    initializer: str
    shape: tuple[int, int]
    format: WeightFormat
    location: str
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WidenedGraph:
    """The graph ``name``, which computes what ``stands_for`` does once its ``matrices`` are supplied."""

    name: str
    stands_for: str
    matrices: tuple[WidenedMatrix, ...]


def to_json(graphs: tuple[WidenedGraph, ...]) -> str:
    """Canonical text."""
    content = {"version": VERSION, "graphs": [dataclasses.asdict(graph) for graph in graphs]}
    return json.dumps(content, ensure_ascii=False) + "\n"


def from_json(text: str) -> tuple[WidenedGraph, ...]:
    """Parse and check; raises BundleError. Nothing in a version that is not known: such graphs are left alone."""
    try:
        raw = json.loads(text)
        if raw["version"] != VERSION:
            return ()
        return tuple(_graph(entry) for entry in raw["graphs"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"widened.json is malformed ({type(error).__name__}: {error}).", hint="Export the bundle again."
        ) from error


def _graph(raw: dict[str, Any]) -> WidenedGraph:
    matrices = tuple(_matrix(entry) for entry in raw["matrices"])
    return WidenedGraph(_file_name(raw["name"]), _file_name(raw["stands_for"]), matrices)


def _matrix(raw: dict[str, Any]) -> WidenedMatrix:
    rows, columns = raw["shape"]
    fmt = WeightFormat(**raw["format"])
    offsets = tuple(int(offset) for offset in raw["offsets"])
    if len(fmt.planes) < 2 or len(offsets) != len(fmt.planes) or min(rows, columns, *offsets) < 0:
        raise ValueError(f"{raw['initializer']} is no matrix in planes")
    return WidenedMatrix(str(raw["initializer"]), (int(rows), int(columns)), fmt, _file_name(raw["location"]), offsets)


def _file_name(name: str) -> str:
    """``name``, if it is one of a file in the same directory."""
    if not isinstance(name, str) or not name or "/" in name or "\\" in name or name in (".", ".."):
        raise ValueError(f"{name!r} is no file of the bundle")
    return name
