"""Quantized checkpoints are read as the values that they stand for: packed here by the layouts' own definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checkpoint_fixtures import Stored

from edgedistill.checkpoint.quantized import QuantizedTensors, open_quantized
from edgedistill.errors import CheckpointError, UnsupportedModelError

N, K, GROUP = 16, 64, 32
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def pack(codes: np.ndarray, axis: int, order: tuple[int, ...] = tuple(range(8))) -> np.ndarray:
    moved = np.moveaxis(codes.astype(np.uint32), axis, -1)
    words = moved.reshape(*moved.shape[:-1], -1, 8)
    packed = np.zeros(words.shape[:-1], np.uint32)
    for position, column in enumerate(order):
        packed |= words[..., column] << np.uint32(4 * position)
    return np.moveaxis(packed, -1, axis).view(np.int32)


def values() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    codes, zeros = generator.integers(0, 16, (K, N)), generator.integers(1, 15, (K // GROUP, N))
    scales = generator.uniform(0.01, 0.1, (K // GROUP, N)).astype(np.float32)
    weights = (codes - np.repeat(zeros, GROUP, 0)) * np.repeat(scales, GROUP, 0)
    return codes, zeros, scales, weights.T.astype(np.float32)


def read(source: Stored, config: dict[str, Any]) -> np.ndarray:
    plain, opened = open_quantized({"quantization_config": config}, source)  # type: ignore[arg-type]
    assert "quantization_config" not in plain
    assert isinstance(opened, QuantizedTensors)
    assert list(opened.names()) == ["m.weight"]
    assert opened.info("m.weight").shape == (N, K)
    whole = opened.read_rows("m.weight", 0, N)
    np.testing.assert_array_equal(opened.read_rows("m.weight", 3, 9), whole[3:9])
    return whole


def test_awq() -> None:
    codes, zeros, scales, expected = values()
    parts = {"m.qweight": pack(codes, 1, ORDER), "m.qzeros": pack(zeros, 1, ORDER), "m.scales": scales}
    np.testing.assert_allclose(read(Stored(parts), {"quant_method": "awq", "bits": 4}), expected, rtol=1e-6)


@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
def test_gptq(version: str) -> None:
    codes, zeros, scales, expected = values()
    stored = zeros if version == "gptq_v2" else zeros - 1
    order = np.random.default_rng(1).permutation(K)
    parts = {"m.qweight": pack(codes[order], 0), "m.qzeros": pack(stored, 1), "m.scales": scales,
             "m.g_idx": (order // GROUP).astype(np.int32)}  # fmt: skip
    config = {"quant_method": "gptq", "bits": 4, "checkpoint_format": version}
    np.testing.assert_allclose(read(Stored(parts), config), expected[:, order], rtol=1e-6)


def test_compressed_tensors() -> None:
    codes, zeros, scales, expected = values()
    parts = {"m.weight_packed": pack(codes.T, 1), "m.weight_scale": scales.T, "m.weight_zero_point": pack(zeros.T, 0)}
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized",
              "config_groups": {"group_0": {"weights": {"num_bits": 4}}}}  # fmt: skip
    np.testing.assert_allclose(read(Stored(parts), config), expected, rtol=1e-6)


def test_fp8_with_a_scale_for_every_block() -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(N, K, generator=generator)
    stored = weights.to(torch.float8_e4m3fn)
    scales = np.random.default_rng(2).uniform(0.5, 2, (2, 2)).astype(np.float32)
    source = Stored(
        {"m.weight": stored.view(torch.uint8).numpy(), "m.weight_scale_inv": scales}, {"m.weight": "F8_E4M3"}
    )
    expected = stored.float().numpy() * np.repeat(np.repeat(scales, 8, 0), 32, 1)
    found = read(source, {"quant_method": "fp8", "weight_block_size": [8, 32]})
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_is_not_read_is_refused() -> None:
    codes, zeros, scales, _ = values()
    source = Stored({"m.qweight": pack(codes, 0), "m.qzeros": pack(zeros, 1), "m.scales": scales})
    with pytest.raises(UnsupportedModelError, match="bitsandbytes"):
        read(source, {"quant_method": "bitsandbytes"})
    source.tensors["m.scales"] = scales[:, :-1]
    with pytest.raises(CheckpointError, match="do not fit"):
        read(source, {"quant_method": "gptq", "bits": 4})
