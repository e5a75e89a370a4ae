"""The KV cache by itself: growing, its bytes, and what is left when memory runs out."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill.errors import ContextLengthError, GenerationError
from edgedistill.runtime.kv_cache import CacheGeometry, KVCache
from edgedistill.runtime.stats import private_bytes


def test_cache_grows_in_steps_and_reports_its_bytes() -> None:
    cache = KVCache(CacheGeometry(layers=(0, 1), heads=3, head_dim=4, limit=100), 2, step=32)
    assert (cache.capacity, cache.nbytes) == (0, 0)
    cache.reserve(33)
    assert cache.capacity == 64
    assert cache.nbytes == 64 * 2 * cache.geometry.bytes_per_token
    generation = cache.generation
    cache.reserve(64)
    assert cache.generation == generation
    cache.reserve(99)
    assert cache.capacity == 100
    with pytest.raises(ContextLengthError, match="101 tokens"):
        cache.reserve(101)


@pytest.mark.skipif(private_bytes() is None, reason="this system does not say what is private")
def test_a_large_cache_counts_as_private_memory() -> None:
    before = private_bytes()
    cache = KVCache(CacheGeometry(layers=(0, 1), heads=8, head_dim=64, limit=8192), 1, step=8192)
    cache.reserve(8192)
    after = private_bytes()
    assert before is not None
    assert after is not None
    assert after - before >= 0.9 * cache.nbytes  # other threads may give memory back meanwhile


def test_cache_keeps_its_content_while_growing_and_after_running_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KVCache(CacheGeometry(layers=(0, 1), heads=1, head_dim=2, limit=64), 1, step=8)
    cache.reserve(8)
    cache.lengths[0] = 5
    rng = np.random.default_rng(0)
    for buffer in cache.buffers:
        buffer[:, :, :5] = rng.random((1, 1, 5, 2))
    before = [buffer[:, :, :5].copy() for buffer in cache.buffers]
    allocate, calls = cache._allocate, []

    def fail_third(batch: int, capacity: int, width: int) -> np.ndarray:
        calls.append(capacity)
        if len(calls) == 3:
            raise MemoryError
        return allocate(batch, capacity, width)

    monkeypatch.setattr(cache, "_allocate", fail_third)
    with pytest.raises(GenerationError, match="out of memory"):
        cache.reserve(9)
    assert cache.capacity == 8
    assert all(np.array_equal(a, b[:, :, :5]) for a, b in zip(before, cache.buffers, strict=True))
    cache.reserve(9)
    assert all(np.array_equal(a, b[:, :, :5]) for a, b in zip(before, cache.buffers, strict=True))
    with pytest.raises(ValueError, match="cannot be cut"):
        cache.truncate(0, 6)
    assert cache.truncate(0, 0) == 0
    assert cache.lengths.tolist() == [0]
