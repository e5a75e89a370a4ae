"""W8A8: weights in 8 bits with a scale per output channel, activations rounded to 8 bits per token as they come.

Stored is uint8 with a zero point of 128 in the middle, not int8: where a CPU has AVX2 without VNNI, the kernel for
unsigned times signed bytes adds pairs of products in 16 bits, which saturate (a third of all results are wrong for
weights that use their range). Unsigned times unsigned is right everywhere and no slower with VNNI.

With zero points of their own per token (``asym``), an activation is (q - z) * s, and
sum_k (q - z) s w = s (sum_k q w - z sum_k w): the second sum is known beforehand and stored as ``sums``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.quantize.blockwise import quantize_blockwise
from edgedistill.quantize.search import rtn_tile, search_tile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgedistill.quantize.spec import WeightFormat

    Floats = npt.NDArray[np.float32]

ZERO_POINT = 128
TINY = 1e-30
"""Smallest scale of a token: that of one whose activations are all 0."""


def quantize_channels(
    rows: Floats, fmt: WeightFormat, importance: Floats | None = None, *, threads: int = 1
) -> dict[str, npt.NDArray[np.generic]]:
    """Quantize float32 ``rows`` [n, K], each with one scale.

    Returns:
        ``q`` uint8 [n, K], ``scales`` float32 [n] and, for activations with zero points, ``sums`` float32 [n]: the sum
        of the row's dequantized weights. A weight is (q - 128) * scale.

    Raises:
        CheckpointError: NaN or infinite values.
    """
    n, k = rows.shape
    whole = replace(fmt, block_size=max(k, 1), symmetric=True, scale_bits=32, activation_bits=32)
    found = quantize_blockwise(
        rows, whole, rtn_tile if fmt.method == "rtn" else search_tile, importance=importance, threads=threads
    )
    q = np.asarray(found["q"], dtype=np.uint8).reshape(n, k)
    scales = np.asarray(found["scales"], dtype=np.float32).reshape(n)
    arrays: dict[str, npt.NDArray[np.generic]] = {"q": q, "scales": scales}
    if not fmt.symmetric:
        total = q.sum(axis=1, dtype=np.int64) - ZERO_POINT * k
        arrays["sums"] = (total * scales.astype(np.float64)).astype(np.float32)
    return arrays


def dequantize_channels(arrays: Mapping[str, npt.NDArray[np.generic]]) -> Floats:
    """float32 [n, K] of what ``quantize_channels`` returned."""
    scales = np.asarray(arrays["scales"], dtype=np.float32)
    values = np.asarray(arrays["q"]).astype(np.float32) - np.float32(ZERO_POINT)
    return values * scales[:, None]
