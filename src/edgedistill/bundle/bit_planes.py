"""widened.json as typed data: the graphs of a bundle that need matrices reassembled from bit planes, and scales widened
to float32.

``model.onnx`` unpacks codes of 3, 5 and 6 bits by nodes of its own, which any ONNX Runtime folds on loading, at ten
times the weights' memory, and widens scales in the same way. The same graph without those nodes lies beside it, for a
runtime that supplies the matrices and the scales.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated

from edgedistill.bundle.bundle import WIDENED
from edgedistill.bundle.manifest import FORM, Count, FileName
from edgedistill.quantize.packing import widened_shape
from edgedistill.quantize.spec import WeightFormat  # noqa: TC001 # read at run time
from edgedistill.schema import limits

VERSION = 2
"""Version 1 has no scales."""
Dimension = Annotated[int, limits(low=1, high=1 << 31)]


@dataclass(frozen=True, slots=True)
class WidenedMatrix:
    """One matrix to supply: the ``initializer``'s name, ``shape`` [N, K], and where its planes lie.

    ``offsets`` are their first bytes in the file ``location`` beside the graph, in the order of ``format.planes``.
    ``experts``: how many the rows belong to, 0 where the matrix is one of its own.
    """

    initializer: str
    shape: tuple[Dimension, Dimension]
    format: WeightFormat
    location: FileName
    offsets: tuple[Count, ...]
    experts: Count = 0

    def __post_init__(self) -> None:
        if len(self.format.planes) < 2 or len(self.offsets) != len(self.format.planes):
            raise ValueError(f"{self.initializer} is not a matrix in planes")
        if self.experts and (self.shape[0] % self.experts or self.shape[1] % self.format.block_size):
            raise ValueError(f"{self.initializer} is not a matrix of {self.experts} experts")

    @property
    def initializer_shape(self) -> tuple[int, int, int]:
        """[N, blocks, block * kernel_bits / 8]; of experts [E, N / E, K * kernel_bits / 8], the same bytes."""
        if not self.experts:
            return widened_shape(self.shape, self.format)
        return self.experts, self.shape[0] // self.experts, self.shape[1] * self.format.kernel_bits // 8


@dataclass(frozen=True, slots=True)
class WidenedScales:
    """Scales of one matrix to supply as float32: the ``initializer``'s name, ``shape`` [N, K] and ``format`` of the
    matrix, and the ``offsets`` in the file ``location`` of ``scales`` and, with ``scale_bits`` 8, ``scale_unit``.
    """

    initializer: str
    shape: tuple[Dimension, Dimension]
    format: WeightFormat
    location: FileName
    offsets: tuple[Count, ...]

    def __post_init__(self) -> None:
        if len(self.offsets) != {8: 2, 16: 1}.get(self.format.scale_bits, 0):
            raise ValueError(f"{self.initializer} are not scales to be widened")

    @property
    def initializer_shape(self) -> tuple[int, int]:
        """[N, blocks]."""
        return self.shape[0], self.format.blocks(self.shape[1])


@dataclass(frozen=True, slots=True)
class WidenedGraph:
    """The graph ``name``, which computes what ``stands_for`` does once its ``matrices`` and ``scales`` are supplied."""

    name: FileName
    stands_for: FileName
    matrices: tuple[WidenedMatrix, ...]
    scales: tuple[WidenedScales, ...] = ()


@dataclass(frozen=True, slots=True)
class _Document:
    graphs: tuple[WidenedGraph, ...] = field(metadata=limits(most=16))


def to_json(graphs: tuple[WidenedGraph, ...]) -> str:
    """Canonical text."""
    content = {"version": VERSION, "graphs": [dataclasses.asdict(graph) for graph in graphs]}
    return json.dumps(content, ensure_ascii=False) + "\n"


def from_json(text: str | bytes) -> tuple[WidenedGraph, ...]:
    """Parse and check; raises BundleError. Nothing in a version that is not known: such graphs are left alone."""
    raw = FORM.parse_object(text, WIDENED)
    if raw.get("version") not in (1, VERSION):
        return ()
    return FORM.decode(_Document, raw, WIDENED).graphs
