"""Codes of a few bits out of the words that they are packed into, and the values of eight-bit floats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Codes = npt.NDArray[np.int32]


def unpack(values: Codes, bits: int, *, axis: int, order: tuple[int, ...] | None = None) -> Codes:
    """Codes int32 of ``bits`` bits out of int32 words, lowest first, along ``axis``; AWQ stores them in ``order``."""
    shifts = np.arange(0, 32, bits, dtype=np.int32)
    if order is not None:
        # Word position j holds column order[j]; columns in order are read from position argsort(order).
        shifts = shifts[np.argsort(order)]
    spread = (np.expand_dims(values, axis + 1) >> shifts.reshape((-1,) + (1,) * (values.ndim - axis - 1))) & (
        (1 << bits) - 1
    )
    shape = list(values.shape)
    shape[axis] *= shifts.size
    return spread.reshape(shape)


def e4m3() -> Floats:
    """float32 of every byte of float8e4m3fn: no infinities, NaN at 0x7f and 0xff (OCP OFP8)."""
    code = np.arange(256)
    sign, exponent, mantissa = np.where(code & 128, -1.0, 1.0), (code >> 3) & 15, code & 7
    value = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    value[(code & 127) == 127] = np.nan
    return (sign * value).astype(np.float32)


def e5m2() -> Floats:
    """float32 of every byte of float8e5m2, which is the upper half of a float16."""
    return (np.arange(256, dtype=np.uint16) << 8).view(np.float16).astype(np.float32)
