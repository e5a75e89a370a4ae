"""From bit planes to the bytes that the kernels multiply: what a graph's constant nodes would be folded to.

ONNX Runtime folds them node by node and keeps what lies between until all matrices are done; NumPy does the same with
temporaries of a few rows. The bytes are the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgedistill.quantize.spec import WeightFormat

    Bytes = npt.NDArray[np.uint8]


def centring(fmt: WeightFormat) -> int:
    """What is added to a symmetric format's codes: their zero point moves to the middle of the kernel's wider range."""
    return (1 << (fmt.kernel_bits - 1)) - (1 << (fmt.bits - 1)) if fmt.symmetric else 0


def widened_shape(shape: tuple[int, int], fmt: WeightFormat) -> tuple[int, int, int]:
    """[N, blocks, block * kernel_bits / 8] of a matrix of ``shape`` [N, K]."""
    rows, columns = shape
    return rows, fmt.blocks(columns), fmt.block_size * fmt.kernel_bits // 8


def widen_rows(planes: Sequence[Bytes], fmt: WeightFormat, out: Bytes) -> None:
    """Put the codes of some rows together.

    Args:
        planes: By ``fmt.planes``, uint8 [rows, blocks, block * width / 8] each, contiguous (``packing.pack_plane``).
        fmt: A format whose codes lie in planes.
        out: uint8 [rows, blocks, block * kernel_bits / 8], contiguous; overwritten.
    """
    codes = out if fmt.kernel_bits == 8 else np.empty((*out.shape[:-1], fmt.block_size), np.uint8)
    shift = 0
    for width, packed in zip(fmt.planes, planes, strict=True):
        _put_plane(codes, packed, width, shift)
        shift += width
    if offset := centring(fmt):
        codes += np.uint8(offset)
    if fmt.kernel_bits == 4:  # two codes a byte, the even one low
        pairs = codes.view("<u2")
        pairs |= pairs >> np.uint16(4)
        np.copyto(out, pairs, casting="unsafe")


def _put_plane(codes: Bytes, packed: Bytes, width: int, shift: int) -> None:
    """Set the bits from ``shift`` on of ``codes``; those of lower planes stay, those above are 0 after the lowest.

    A slice of codes that share their bits' place in a byte is as long as the packed block: several bytes are worked on
    as one number, since no code crosses a byte.
    """
    number = np.dtype(f"<u{math.gcd(packed.shape[-1], 8)}")
    words, target = packed.view(number), codes.view(number)
    size = words.shape[-1]
    mask = number.type(int.from_bytes(bytes([(1 << width) - 1] * number.itemsize), "little"))
    for i in range(8 // width):
        piece = words >> number.type(i * width)
        piece &= mask
        part = target[..., i * size : (i + 1) * size]
        if shift:
            piece <<= number.type(shift)
            part |= piece
        else:
            part[...] = piece
