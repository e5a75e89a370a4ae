"""Codes of 2, 4 or 8 bits in bytes, low bits first, as MatMulNBits stores them, and in the width of its kernels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgedistill.quantize.spec import WeightFormat

    Bytes = npt.NDArray[np.uint8]

PACKABLE_BITS = (2, 4, 8)


def packed_size(count: int, bits: int) -> int:
    """Bytes that hold ``count`` codes of ``bits`` bits."""
    return -(-count * bits // 8)


def pack_bits(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Pack along the last axis: uint8 [..., n], each value < 2^bits, to uint8 [..., ceil(n*bits/8)].

    Code j of a byte occupies bits ``j*bits`` to ``(j+1)*bits - 1``; missing codes of the last byte are 0.
    """
    per_byte = _per_byte(bits)
    if per_byte == 1:
        return codes
    n = codes.shape[-1]
    full = n // per_byte
    packed = np.zeros((*codes.shape[:-1], packed_size(n, bits)), np.uint8)
    head = packed[..., :full]
    for j in range(per_byte):
        part = codes[..., j::per_byte]
        head |= part[..., :full] << np.uint8(j * bits)
        if part.shape[-1] > full:
            packed[..., full] |= part[..., full] << np.uint8(j * bits)
    return packed


def unpack_bits(packed: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.uint8]:
    """Inverse of ``pack_bits``: uint8 [..., bytes] to uint8 [..., count].

    Raises:
        ValueError: ``packed`` holds fewer than ``count`` codes.
    """
    per_byte = _per_byte(bits)
    if packed.shape[-1] < packed_size(count, bits):
        raise ValueError(f"{packed.shape[-1]} bytes hold fewer than {count} codes of {bits} bits")
    if per_byte == 1:
        return packed[..., :count]
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    codes = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1)[..., :count]


def pack_plane(codes: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    """Pack a plane of codes so that whole slices of a block share their bits: uint8 [..., n], each value < 2^width, n a
    multiple of 8 / width, to uint8 [..., n*width/8].

    Bits ``i*width`` to ``(i+1)*width - 1`` of byte j hold code ``i * n*width/8 + j``: a graph unpacks that by a few
    shifts and one concatenation, without interleaving.
    """
    pieces = 8 // width
    size = codes.shape[-1] // pieces
    if size * pieces != codes.shape[-1]:
        raise ValueError(f"{codes.shape[-1]} codes of {width} bits do not fill bytes")
    packed = np.zeros((*codes.shape[:-1], size), np.uint8)
    for i in range(pieces):
        packed |= codes[..., i * size : (i + 1) * size] << np.uint8(i * width)
    return packed


def unpack_plane(packed: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    """Inverse of ``pack_plane``."""
    mask = np.uint8((1 << width) - 1)
    return np.concatenate([(packed >> np.uint8(i * width)) & mask for i in range(8 // width)], axis=-1)


def _per_byte(bits: int) -> int:
    if bits not in PACKABLE_BITS:
        raise ValueError(f"codes of {bits} bits cannot be packed; expected one of {PACKABLE_BITS}")
    return 8 // bits


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
