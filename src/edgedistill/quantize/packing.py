"""Codes of 2, 4 or 8 bits in bytes, low bits first, as ONNX Runtime's MatMulNBits stores them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

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
