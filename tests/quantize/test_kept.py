"""Rows on a known grid are stored with just the codes that they were made from."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill.quantize import dequantize_rows
from edgedistill.quantize.kept import keep_rows
from edgedistill.quantize.spec import WeightFormat
from edgedistill.quantize.storage import load_codes, load_zero_points


@pytest.mark.parametrize("bits", [2, 4, 5, 6, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_codes_and_values_come_back(bits: int, symmetric: bool) -> None:
    rng = np.random.default_rng(bits)
    fmt = WeightFormat(bits=bits, block_size=32, symmetric=symmetric, method="kept", scale_bits=16)
    scales = (rng.normal(0, 0.01, (7, 5)).astype(np.float16)).astype(np.float32)  # some of them negative
    scales[2, 3] = 0
    zeros = np.full((7, 5), 1 << (bits - 1), np.uint8)
    if not symmetric:
        zeros = rng.integers(0, 1 << bits, (7, 5)).astype(np.uint8)
    codes = rng.integers(0, 1 << bits, (7, 5, 32)).astype(np.uint8)
    codes[2, 3] = zeros[2, 3]  # a scale of 0 says nothing about its codes
    rows = ((codes.astype(np.float32) - zeros[..., None]) * scales[..., None]).reshape(7, 160)
    arrays = keep_rows(rows, fmt, scales, zeros)
    np.testing.assert_array_equal(load_codes(arrays, fmt), codes)
    np.testing.assert_array_equal(load_zero_points(arrays, fmt, 5), zeros)
    np.testing.assert_array_equal(dequantize_rows(arrays, fmt, 160), rows)


@pytest.mark.parametrize(("bits", "share"), [(4, 1 / 15), (5, 1 / 31)])
def test_an_offset_beside_the_scale_is_kept_to_a_fraction_of_a_step(bits: int, share: float) -> None:
    """At most half a step is left beside a whole zero point; these rests are stored in as many bits as the codes."""
    rng = np.random.default_rng(bits)
    fmt = WeightFormat(bits, 32, False, "kept", offsets=True)
    scales = rng.uniform(0.01, 0.011, (7, 50)).astype(np.float16).astype(np.float32)
    points = rng.uniform(0, (1 << bits) - 1, scales.shape).astype(np.float32)
    codes = rng.integers(0, 1 << bits, (7, 50, 32)).astype(np.uint8)
    scales[3, 4], points[3, 4], codes[3, 4] = 0.02, -1, 0  # a block of equal values
    rows = ((codes - points[..., None]) * scales[..., None]).reshape(7, 1600).astype(np.float32)
    arrays = keep_rows(rows, fmt, scales, points)
    np.testing.assert_array_equal(load_codes(arrays, fmt)[:, :50], codes)
    error = np.abs(dequantize_rows(arrays, fmt, 1600) - rows).reshape(7, 50, 32).max(axis=2) / scales
    ordinary = np.ones(scales.shape, bool)
    ordinary[3, 32 * (4 // 32) : 32 * (4 // 32 + 1)] = False  # those whose offsets share a scale with the outlier's
    assert error[ordinary].max() < share
    assert error.max() < 4 * share
