"""Memory that matrices in bit planes, and widened scales, take while a bundle opens, on top of what they keep.

Supplied by the runtime (``runtime/bit_planes.py``, ``scales.py``), every matrix exists as the kernels' codes, and its
scales in float32, until all are packed. Put
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


LOOKED_UP = ("embed", "per_layer.embed")
"""Matrices whose rows are looked up by token; only the first may be multiplied too, where it is tied."""


def in_planes(fmt: WeightFormat) -> bool:
    """Whether codes of ``fmt`` have to be put together when a bundle opens."""
    return len(fmt.planes) > 1


def drops_scales(name: str, fmt: WeightFormat) -> bool:
    """Whether float32 scales of the matrix ``name`` are memory until they are packed only.

    Rows that are looked up and experts read them ever after; so do products, but for those that kernels of x86-64
    multiply with accuracy_level 4 (``runtime/scale_use.py`` finds out; 2 bits with some blocks alone).
    """
    unread = fmt.accuracy_level == 4 and (fmt.kernel_bits != 2 or fmt.block_size in (32, 64, 128))
    return fmt.widens_scales and unread and ".experts." not in name and name not in LOOKED_UP


def is_supplied(manifest: Manifest) -> bool:
    """Whether the runtime supplies the bundle's matrices, which graphs of earlier versions put together themselves."""
    return any(entry.name == WIDENED for entry in manifest.files)


def opening_bytes(manifest: Manifest) -> int:
    """Memory that a bundle's weights take at most while it opens; 0: not more than afterwards."""
    weights = [(weight.name, weight.shape, weight.format) for weight in manifest.weights]
    if manifest.model.signature != "edgedistill":
        return 0
    if is_supplied(manifest):
        # As this version or the one that made the bundle counts what is private and what is not.
        supplied = int(manifest.predicted.get("weights_opening", 0)) or supplied_bytes(weights)
        return int(manifest.predicted.get("weights_private", 0)) + supplied
    return folded_bytes(weights)


def supplied_bytes(weights: Iterable[Weight]) -> int:
    """Codes and scales that are freed once they are packed, of the larger form of the layers.

    The embedding's stay, since rows are read from them.
    """

    def freed(name: str, fmt: WeightFormat) -> float:
        codes = fmt.kernel_bits / 8 if in_planes(fmt) and name != "embed" else 0
        return codes + (4 / fmt.block_size if drops_scales(name, fmt) else 0)

    return _larger_form(weights, freed)


def folded_bytes(weights: Iterable[Weight]) -> int:
    """All that folding holds at its end, of the larger form of the layers."""
    return _larger_form(weights, lambda _, fmt: _folded_per_weight(fmt) if in_planes(fmt) else 0)


def _larger_form(weights: Iterable[Weight], per_weight: Callable[[str, WeightFormat], float]) -> int:
    first = second = 0
    for name, shape, fmt in weights:
        if not fmt.is_float and not fmt.is_w8a8:
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
