from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgedistill.errors import CheckpointError
from edgedistill.quantize import blockwise, dequantize_rows, quantize_rows
from edgedistill.quantize.blockwise import SMALLEST
from edgedistill.quantize.packing import unpack_bits
from edgedistill.quantize.spec import FLOAT32, WeightFormat, array_specs


def wide(bits, block, symmetric=False, method="search"):
    """A format whose scales are stored exactly."""
    return WeightFormat(bits, block, symmetric, method, scale_bits=32)


FORMATS = [
    wide(bits, block, symmetric, method)
    for bits, block, symmetric, method in itertools.product((2, 4, 8), (16, 32), (True, False), ("rtn", "search"))
]
STORED = [
    WeightFormat(bits, 32, symmetric, "search", scale_bits=scale_bits)
    for bits, symmetric, scale_bits in itertools.product((2, 3, 4, 5, 6, 8), (True, False), (8, 16, 32))
]
formats = st.sampled_from(FORMATS)


def matrix(seed, n, k, kind, magnitude):
    rng = np.random.default_rng(seed)
    rows = {
        "normal": lambda: rng.standard_normal((n, k)),
        "heavy": lambda: rng.standard_t(2, (n, k)),
        "positive": lambda: rng.random((n, k)) + 1,
        "negative": lambda: -rng.random((n, k)) - 1,
        "constant": lambda: np.full((n, k), rng.standard_normal()),
        "sparse": lambda: rng.standard_normal((n, k)) * (rng.random((n, k)) < 0.1),
        "zero": lambda: np.zeros((n, k)),
        "outlier": lambda: np.where(rng.random((n, k)) < 0.02, 1000.0, rng.standard_normal((n, k))),
    }[kind]()
    return (rows * magnitude).astype(np.float32)


matrices = st.builds(
    matrix,
    st.integers(0, 2**32),
    st.integers(1, 5),
    st.integers(1, 150),
    st.sampled_from(["normal", "heavy", "positive", "negative", "constant", "sparse", "zero", "outlier"]),
    st.sampled_from([1e-36, 1e-20, 1e-3, 1.0, 1e4, 1e30]),
)


def squared_error(rows, fmt, importance=None, scored=None):
    weight = 1.0 if scored is None else scored.astype(np.float64)
    restored = dequantize_rows(quantize_rows(rows, fmt, importance), fmt, rows.shape[1])
    return float((weight * (restored.astype(np.float64) - rows) ** 2).sum())


@given(matrices, formats)
def test_arrays_are_those_of_the_spec(rows, fmt) -> None:
    arrays = quantize_rows(rows, fmt)
    specs = array_specs("w", rows.shape, fmt)
    assert {f"w.{name}": (str(array.dtype), array.shape) for name, array in arrays.items()} == {
        spec.name: (spec.dtype, spec.shape) for spec in specs
    }
    assert np.isfinite(arrays["scales"]).all()


@given(
    st.builds(
        matrix,
        st.integers(0, 2**32),
        st.integers(1, 5),
        st.integers(1, 150),
        st.sampled_from(["normal", "positive", "negative", "sparse", "zero"]),
        st.sampled_from([1e-3, 1.0, 1e3]),
    ),
    st.sampled_from(STORED),
)
def test_every_way_to_store_scales_and_codes(rows, fmt) -> None:
    arrays = quantize_rows(rows, fmt)
    specs = array_specs("w", rows.shape, fmt)
    assert {f"w.{name}": (str(array.dtype), array.shape) for name, array in arrays.items()} == {
        spec.name: (spec.dtype, spec.shape) for spec in specs
    }
    assert not dequantize_rows(arrays, fmt, rows.shape[1])[rows == 0].any()
    exact = WeightFormat(fmt.bits, fmt.block_size, fmt.symmetric, fmt.method, scale_bits=32)
    energy = float((rows.astype(np.float64) ** 2).sum())
    # Rounded scales cost a share of the error, never more than 1/256 of a block's values.
    assert squared_error(rows, fmt) <= 1.2 * squared_error(rows, exact) + energy * 1e-4


def test_more_bits_are_less_error() -> None:
    rows = np.random.default_rng(3).standard_normal((16, 256)).astype(np.float32)
    for symmetric in (True, False):
        errors = [squared_error(rows, WeightFormat(bits, 32, symmetric, "search")) for bits in (2, 3, 4, 5, 6, 8)]
        assert all(more > 3 * less for more, less in itertools.pairwise(errors[:-1]))


def test_a_scale_beyond_float16_is_refused() -> None:
    with pytest.raises(CheckpointError, match="beyond float16"):
        quantize_rows(np.full((1, 32), 1e9, np.float32), WeightFormat(4, 32))


@given(matrices, formats)
def test_error_is_bounded_and_zero_is_exact(rows, fmt) -> None:
    rows[0, 0] = 0
    arrays = quantize_rows(rows, fmt)
    restored = dequantize_rows(arrays, fmt, rows.shape[1])
    assert restored.shape == rows.shape
    assert np.isfinite(restored).all()
    assert not restored[rows == 0].any()
    n, k = rows.shape
    padded = np.zeros((n, fmt.blocks(k) * fmt.block_size))
    padded[:, :k] = rows
    by_block = padded.reshape(n, -1, fmt.block_size)
    error = np.zeros_like(padded)
    error[:, :k] = restored - rows.astype(np.float64)
    error = error.reshape(by_block.shape)
    if fmt.method == "rtn":
        half_step = np.abs(arrays["scales"].astype(np.float64))[..., None] / 2
        # A block whose scale would be below SMALLEST is stored as zeros: its values are at most that times the codes.
        assert (np.abs(error) <= half_step * (1 + 1e-4) + 2.0**fmt.bits * SMALLEST).all()
    else:  # the least squares error of a block is at most that of storing zeros
        assert ((error**2).sum(-1) <= (by_block**2).sum(-1) * (1 + 1e-5) + 1e-66).all()


@given(matrices, st.sampled_from([fmt for fmt in FORMATS if fmt.method == "search"]))
@settings(max_examples=200)
def test_search_is_never_worse_than_rounding_to_nearest(rows, fmt) -> None:
    assume(rows.any())
    searched = squared_error(rows, fmt)
    rounded = squared_error(rows, wide(fmt.bits, fmt.block_size, fmt.symmetric, "rtn"))
    # Candidates are compared in float32: differences of 1e-6 of a block's energy are below their resolution.
    assert searched <= rounded + 1e-6 * float((rows.astype(np.float64) ** 2).sum())


@pytest.mark.parametrize(
    ("bits", "block", "symmetric", "gain"),
    [
        (4, 32, False, 0.07),
        (4, 128, False, 0.08),
        (4, 32, True, 0.25),
        (4, 128, True, 0.25),
        (8, 32, True, 0.03),
        (2, 32, False, 0.25),
    ],
)
@pytest.mark.parametrize("degrees", [5, 1000], ids=["heavy-tailed", "gaussian"])
def test_search_beats_rounding_to_nearest_by_so_much(bits, block, symmetric, gain, degrees) -> None:
    rows = np.random.default_rng(3).standard_t(degrees, (64, 1024)).astype(np.float32)
    rounded = squared_error(rows, wide(bits, block, symmetric, "rtn"))
    searched = squared_error(rows, wide(bits, block, symmetric, "search"))
    assert searched < (1 - gain) * rounded


def test_search_comes_near_an_exhaustive_one() -> None:
    rows = np.random.default_rng(5).standard_normal((32, 256)).astype(np.float32)
    blocks = rows.reshape(-1, 32).astype(np.float64)
    span = np.maximum(blocks.max(1), 0) - np.minimum(blocks.min(1), 0)
    best = np.full(len(blocks), np.inf)
    for zero in range(16):
        for factor in np.linspace(0.5, 1.2, 50):
            codes = np.clip(np.rint(blocks / (span * factor / 15)[:, None]), -zero, 15 - zero)
            scale = (blocks * codes).sum(1) / np.maximum((codes**2).sum(1), 1e-12)
            best = np.minimum(best, ((blocks - codes * scale[:, None]) ** 2).sum(1))
    assert squared_error(rows, wide(4, 32, False, "search")) < 1.03 * best.sum()


@pytest.mark.parametrize("symmetric", [True, False])
def test_importance_lowers_the_error_that_it_weights(symmetric) -> None:
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((64, 512)).astype(np.float32)
    importance = np.exp(rng.normal(0, 2, 512)).astype(np.float32)
    fmt = wide(4, 32, symmetric, "search")
    guided = squared_error(rows, fmt, importance, scored=importance)
    blind = squared_error(rows, fmt, None, scored=importance)
    assert guided < 0.9 * blind
    scaled = quantize_rows(rows, fmt, importance * np.float32(2.0**40))
    np.testing.assert_array_equal(scaled["q"], quantize_rows(rows, fmt, importance)["q"])


def test_importance_of_zero_everywhere_is_no_importance() -> None:
    rows = np.random.default_rng(7).standard_normal((4, 70)).astype(np.float32)
    fmt = wide(4, 32, False, "search")
    arrays = quantize_rows(rows, fmt, np.zeros(70, np.float32))
    error = np.abs(dequantize_rows(arrays, fmt, 70) - rows).max()
    assert error < 1


@pytest.mark.parametrize("importance", [np.ones(5, np.float32), -np.ones(64, np.float32), np.full(64, np.nan, "f4")])
def test_bad_importance_is_refused(importance) -> None:
    with pytest.raises(ValueError, match="importance"):
        quantize_rows(np.ones((2, 64), np.float32), wide(4, 32), importance)


@pytest.mark.parametrize("fmt", FORMATS, ids=WeightFormat.label)
def test_neither_threads_nor_slices_nor_tiles_change_the_result(fmt, monkeypatch) -> None:
    rows = np.random.default_rng(2).standard_normal((37, 200)).astype(np.float32)
    importance = np.random.default_rng(3).random(200).astype(np.float32)
    whole = quantize_rows(rows, fmt, importance)
    monkeypatch.setattr(blockwise, "TILE_ELEMENTS", 1000)
    threaded = quantize_rows(rows, fmt, importance, threads=3)
    parts = [quantize_rows(rows[i : i + 10], fmt, importance) for i in range(0, 37, 10)]
    for name, array in whole.items():
        np.testing.assert_array_equal(threaded[name], array)
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)


@given(matrices, st.sampled_from([fmt for fmt in FORMATS if fmt.symmetric]))
def test_powers_of_two_scale_through(rows, fmt) -> None:
    """Nothing depends on absolute size: overflow and underflow would show here."""
    assume(1e-3 <= np.abs(rows).max(initial=0) <= 1e6)
    plain, scaled = quantize_rows(rows, fmt), quantize_rows(rows * np.float32(2.0**-60), fmt)
    np.testing.assert_array_equal(plain["q"], scaled["q"])
    np.testing.assert_array_equal(plain["scales"].astype(np.float32) * np.float32(2.0**-60), scaled["scales"])


def test_four_bit_zero_points_are_codes_and_follow_the_range() -> None:
    rows = np.stack([np.linspace(0, 1, 96), np.linspace(-1, 0, 96), np.linspace(-1, 2, 96)]).astype(np.float32)
    for method in ("rtn", "search"):
        arrays = quantize_rows(rows, wide(4, 32, False, method))
        assert arrays["zero_points"].shape == (3, 2)
        zero_points = unpack_bits(arrays["zero_points"].astype(np.uint8), 4, 3)
        np.testing.assert_array_equal(zero_points[0], 0)
        np.testing.assert_array_equal(zero_points[1], 15)
        np.testing.assert_array_equal(zero_points[2], [15, 0, 0])


def test_symmetric_search_uses_the_lowest_code_for_the_extreme() -> None:
    rows = np.random.default_rng(1).standard_normal((8, 320)).astype(np.float32)
    arrays = quantize_rows(rows, wide(4, 32, True, "search"))
    extreme = np.take_along_axis(
        rows.reshape(8, 10, 32), np.abs(rows.reshape(8, 10, 32)).argmax(-1)[..., None], -1
    ).squeeze(-1)
    np.testing.assert_array_equal(np.sign(arrays["scales"]), -np.sign(extreme))
    assert (unpack_bits(arrays["q"].astype(np.uint8), 4, 32) == 0).any(-1).mean() > 0.9


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["rtn", "search"])
def test_values_that_are_not_finite_are_refused(bad, method) -> None:
    rows = np.ones((3, 64), np.float32)
    rows[1, 40] = bad
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        quantize_rows(rows, wide(4, 32, False, method))


def test_float_formats_are_not_quantized() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        quantize_rows(np.ones((1, 32), np.float32), FLOAT32)


def test_inputs_are_left_alone_and_no_rows_are_fine() -> None:
    rows = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    before = rows.copy()
    quantize_rows(rows, wide(4, 32))
    np.testing.assert_array_equal(rows, before)
    assert quantize_rows(rows[:0], wide(4, 32))["q"].shape == (0, 2, 16)
