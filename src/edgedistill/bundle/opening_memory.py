"""Memory that matrices in bit planes take while a bundle opens, on top of what they keep.

Supplied by the runtime (``runtime/bit_planes.py``), every matrix exists as the kernels' codes until all are packed. Put
together by the graph, everything that its nodes make exists until the last one is done (``graph/bit_planes.py``);
measured with onnxruntime 1.32, a model in Qwen3-0.6B's shape: 11.2 bytes a weight in int3, 7.4 in int5, 8.4 in
symmetric int6, and the formula gives 11.1, 7.4 and 8.25.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.bundle.bundle import WIDENED
from edgedistill.quantize.plan import PREFILL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgedistill.bundle.manifest import Manifest
    from edgedistill.quantize.spec import WeightFormat

    Weight = tuple[str, tuple[int, ...], WeightFormat]
    """Logical name, shape [N, K] and format."""


def in_planes(fmt: WeightFormat) -> bool:
    """Whether codes of ``fmt`` have to be put together when a bundle opens."""
    return len(fmt.planes) > 1


def is_supplied(manifest: Manifest) -> bool:
    """Whether the runtime supplies the bundle's matrices, which graphs of earlier versions put together themselves."""
    return any(entry.name == WIDENED for entry in manifest.files)


def opening_bytes(manifest: Manifest) -> int:
    """Memory that a bundle's weights take at most while it opens; 0: not more than afterwards."""
    weights = [(weight.name, weight.shape, weight.format) for weight in manifest.weights]
    if manifest.model.signature != "edgedistill" or not any(in_planes(fmt) for _, _, fmt in weights):
        return 0
    if is_supplied(manifest):
        return int(manifest.predicted.get("weights_private", 0)) + supplied_bytes(weights)
    return folded_bytes(weights)


def supplied_bytes(weights: Iterable[Weight]) -> int:
    """Codes that are freed once they are packed, of the larger form of the layers.

    The embedding's stay, since rows are read from them.
    """
    return _larger_form(weights, lambda name, fmt: 0 if name == "embed" else fmt.kernel_bits / 8)


def folded_bytes(weights: Iterable[Weight]) -> int:
    """All that folding holds at its end, of the larger form of the layers."""
    return _larger_form(weights, lambda _, fmt: _folded_per_weight(fmt))


def _larger_form(weights: Iterable[Weight], per_weight: Callable[[str, WeightFormat], float]) -> int:
    first = second = 0
    for name, shape, fmt in weights:
        if in_planes(fmt):
            size = int(shape[0] * fmt.blocks(shape[1]) * fmt.block_size * per_weight(name, fmt))
            first += 0 if name.startswith(PREFILL) else size
            second += 0 if name.startswith("layers.") else size
    return max(first, second)


def _folded_per_weight(fmt: WeightFormat) -> float:
    """Bytes of all results of the nodes that put one code together."""
    total = 0.0
    for i, width in enumerate(fmt.planes):
        shifted = 1 - width / 8  # every slice but the first
        total += shifted + 1 + 1 + (2 if i else 0)  # masked, concatenated; moved up and joined with lower planes
    if fmt.symmetric:
        total += 1  # centred
    if fmt.kernel_bits == 4:
        total += 1 + 1 + 0.5 + 0.5 + 0.5  # by pairs, split, high ones moved, joined, without the axis of pairs
    return total
