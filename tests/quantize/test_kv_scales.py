"""Scales of a quantized KV cache, and the bound on keys that rotation brings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.quantize.kv import kv_scales, rotated_maxima


def maxima(*values: list[float]) -> list[np.ndarray]:
    return [np.array([row], dtype=np.float32) for row in values]


def test_per_channel_scales_put_the_margin_above_the_maxima() -> None:
    got = kv_scales(maxima([2, 4]), maxima([1, 8]), bits=8, granularity="per-channel", margin=1.5)
    assert got.key[0].shape == got.value[0].shape == (1, 1, 1, 2)
    np.testing.assert_allclose(got.key[0].ravel() * 127, [3, 6], rtol=1e-6)
    np.testing.assert_allclose(got.value[0].ravel() * 127, [1.5, 12], rtol=1e-6)


def test_per_tensor_scale_is_that_of_the_largest_channel_of_the_layer() -> None:
    got = kv_scales(maxima([2, 4], [6, 1]), maxima([1, 1], [1, 1]), bits=4, granularity="per-tensor", margin=1.0)
    assert [scale.shape for scale in got.key] == [(1,), (1,)]
    np.testing.assert_allclose([scale[0] * 7 for scale in got.key], [4, 6], rtol=1e-6)


def test_a_channel_that_never_moved_keeps_a_usable_scale() -> None:
    got = kv_scales(maxima([0, 4]), maxima([0, 0]), bits=8, granularity="per-channel")
    assert (got.key[0] > 0).all()
    assert (got.value[0] > 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_maxima_that_make_no_sense_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="negative or not finite"):
        kv_scales(maxima([1, bad]), maxima([1, 1]), bits=8, granularity="per-channel")
    with pytest.raises(ValueError, match="5 bits"):
        kv_scales(maxima([1]), maxima([1]), bits=5, granularity="per-channel")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 16),
    context=st.integers(1, 300),
    tokens=st.integers(1, 4),
    slow=st.floats(1e-4, 1.5),
)
def test_the_bound_on_rotated_keys_holds_everywhere_in_the_context_and_is_reached(
    seed: int, context: int, tokens: int, slow: float
) -> None:
    """Against all positions of a finer grid, for a vector that was rotated to some position."""
    rng = np.random.default_rng(seed)
    inv_freq = np.array([1.0, slow], dtype=np.float32)
    plain = rng.normal(size=(2, tokens, 4))
    positions = rng.integers(0, context, tokens)

    def rotate(vectors: np.ndarray, where: np.ndarray) -> np.ndarray:
        angle = where[:, None] * inv_freq[None, :].astype(np.float64)
        x, y = vectors[..., :2], vectors[..., 2:]
        return np.concatenate([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=-1)

    bound = rotated_maxima(rotate(plain, positions).astype(np.float32), inv_freq, positions, context)
    grid = np.linspace(0, context - 1, 16 * context + 1)
    everywhere = np.stack([np.abs(rotate(plain, np.full(tokens, at))).max(axis=1) for at in grid]).max(axis=0)
    assert (bound >= everywhere - 1e-4).all()
    np.testing.assert_allclose(bound, everywhere, rtol=2e-3, atol=1e-4)


def test_channels_beyond_the_rotated_ones_count_as_they_are() -> None:
    keys = np.array([[[1.0, 5.0, 0.0, 7.0]]], dtype=np.float32)
    got = rotated_maxima(keys, np.array([1.0], dtype=np.float32), np.array([0]), 100)
    np.testing.assert_allclose(got, [[np.hypot(1, 5), np.hypot(1, 5), 0, 7]], rtol=1e-3)
