"""Codes put together from planes: the bytes are those of the kernels' own packing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgedistill.quantize.packing import centring, pack_bits, widen_rows, widened_shape
from edgedistill.quantize.spec import BLOCK_SIZES, PLANES, WeightFormat
from edgedistill.quantize.storage import store_codes


@pytest.mark.parametrize(("bits", "block", "symmetric"), itertools.product(PLANES, BLOCK_SIZES, [True, False]))
def test_widened_rows_are_the_codes_in_the_kernel_s_width(bits: int, block: int, symmetric: bool) -> None:
    fmt = WeightFormat(bits, block, symmetric)
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (5, 3, block), dtype=np.uint8)
    stored = store_codes(codes, fmt)
    out = np.full(widened_shape((5, 3 * block - 1), fmt), 255, np.uint8)
    widen_rows([stored[f"q{width}"] for width in fmt.planes], fmt, out)
    middle = (1 << (fmt.kernel_bits - 1)) - (1 << (bits - 1)) if symmetric else 0
    assert centring(fmt) == middle
    np.testing.assert_array_equal(out, pack_bits(codes + np.uint8(middle), fmt.kernel_bits))
