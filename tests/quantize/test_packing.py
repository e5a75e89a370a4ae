from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgedistill.quantize.packing import pack_bits, packed_size, unpack_bits


@given(st.data(), st.sampled_from([2, 4, 8]), st.integers(1, 4), st.integers(0, 67))
def test_roundtrip_and_size(data, bits, rows, count) -> None:
    codes = data.draw(hnp.arrays(np.uint8, (rows, count), elements=st.integers(0, 2**bits - 1)))
    packed = pack_bits(codes, bits)
    assert packed.shape == (rows, packed_size(count, bits)) == (rows, -(-count * bits // 8))
    np.testing.assert_array_equal(unpack_bits(packed, bits, count), codes)


def test_low_bits_come_first() -> None:
    np.testing.assert_array_equal(pack_bits(np.array([1, 2, 15], np.uint8), 4), [0x21, 0x0F])
    np.testing.assert_array_equal(pack_bits(np.array([3, 0, 2, 1, 1], np.uint8), 2), [0b01_10_00_11, 0b01])


def test_views_in_another_memory_order_pack_alike() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (32, 7), dtype=np.uint8)
    np.testing.assert_array_equal(pack_bits(codes.T, 4), pack_bits(np.ascontiguousarray(codes.T), 4))


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="3 bits"):
        pack_bits(np.zeros(4, np.uint8), 3)
    with pytest.raises(ValueError, match="fewer than 9"):
        unpack_bits(np.zeros(4, np.uint8), 4, 9)
