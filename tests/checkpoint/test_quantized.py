"""Quantized checkpoints are read as the values that they stand for: packed here by the layouts' own definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checkpoint_fixtures import Stored

from edgedistill.checkpoint.quantized import QuantizedTensors, open_quantized
from edgedistill.errors import CheckpointError, UnsupportedModelError

N, K, GROUP = 16, 64, 32
PACKED = {"quant_method": "compressed-tensors", "format": "pack-quantized",
          "config_groups": {"group_0": {"weights": {"num_bits": 4}}}}  # fmt: skip
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


@pytest.mark.parametrize("key", ["checkpoint_format", "format"])
@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
def test_gptq(version: str, key: str) -> None:
    codes, zeros, scales, expected = values()
    stored = zeros if version == "gptq_v2" else zeros - 1
    order = np.random.default_rng(1).permutation(K)
    parts = {"m.qweight": pack(codes[order], 0), "m.qzeros": pack(stored, 1), "m.scales": scales,
             "m.g_idx": (order // GROUP).astype(np.int32)}  # fmt: skip
    config = {"quant_method": "gptq", "bits": 4, key: version}
    np.testing.assert_allclose(read(Stored(parts), config), expected[:, order], rtol=1e-6)


def test_compressed_tensors() -> None:
    codes, zeros, scales, expected = values()
    parts = {"m.weight_packed": pack(codes.T, 1), "m.weight_scale": scales.T, "m.weight_zero_point": pack(zeros.T, 0)}
    np.testing.assert_allclose(read(Stored(parts), PACKED), expected, rtol=1e-6)


def test_compressed_tensors_of_columns_in_another_order() -> None:
    codes, zeros, scales, expected = values()
    order = np.random.default_rng(1).permutation(K)
    parts = {"m.weight_packed": pack(codes[order].T, 1), "m.weight_scale": scales.T,
             "m.weight_zero_point": pack(zeros.T, 0), "m.weight_g_idx": (order // GROUP).astype(np.int32)}  # fmt: skip
    plain, opened = open_quantized({"quantization_config": PACKED}, Stored(parts))  # type: ignore[arg-type]
    np.testing.assert_allclose(opened.read_rows("m.weight", 0, N), expected[:, order], rtol=1e-6)
    assert opened.grid("m.weight") is None
    assert "quantization_config" not in plain


def test_compressed_tensors_whose_groups_differ_in_bits_and_whose_rows_are_filled_up() -> None:
    """The last word of a row of 60 codes of 4 bits has room for four more; 8 bits need twice the words."""
    codes, _, scales, _ = values()
    cut, shape = codes[:60].T, np.array([N, 60], np.int32)
    filled = np.concatenate([cut, np.zeros((N, 4), np.int64)], axis=1)
    wide = (cut.astype(np.uint32) << 4).reshape(N, 15, 4)
    words = sum(wide[..., place] << np.uint32(8 * place) for place in range(4)).astype(np.uint32).view(np.int32)
    scale = np.ascontiguousarray(scales[0][:, None])
    parts = {"a.weight_packed": pack(filled, 1), "a.weight_scale": scale, "a.weight_shape": shape,
             "b.weight_packed": words, "b.weight_scale": scale, "b.weight_shape": shape}  # fmt: skip
    groups = {f"group_{bits}": {"weights": {"num_bits": bits}} for bits in (4, 8)}
    config = PACKED | {"config_groups": groups}
    _, opened = open_quantized({"quantization_config": config}, Stored(parts))  # type: ignore[arg-type]
    np.testing.assert_allclose(opened.read_rows("a.weight", 0, N), (cut - 8) * scale, rtol=1e-6)
    np.testing.assert_allclose(opened.read_rows("b.weight", 0, N), (16 * cut - 128) * scale, rtol=1e-6)
    assert [opened.info(f"{name}.weight").shape for name in "ab"] == [(N, 60), (N, 60)]


@pytest.mark.parametrize("ordered", [False, True])
def test_integers_of_groups_of_columns_in_another_order(ordered: bool) -> None:
    """A weight_g_idx that was never filled in is all -1, and the groups lie in order."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-128, 128, (N, K)).astype(np.int8)
    scale = rng.uniform(0.01, 0.1, (N, K // GROUP)).astype(np.float32)
    group = np.repeat(np.arange(K // GROUP), GROUP) if ordered else rng.permutation(np.arange(K) // GROUP)
    stored = np.full(K, -1, np.int32) if ordered else group.astype(np.int32)
    parts: dict[str, np.ndarray] = {"m.weight": codes, "m.weight_scale": scale, "m.weight_g_idx": stored}
    found = read(Stored(parts), {"quant_method": "compressed-tensors", "format": "int-quantized"})
    np.testing.assert_allclose(found, codes * scale[:, group], rtol=1e-6)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("weight_shape", np.array([N, 4 * K], np.int32)),
        ("weight_shape", np.array([N * K], np.int32)),
        ("weight_scale", np.ones((N - 1, 2), np.float32)),
        ("weight_scale", np.ones((N, 0), np.float32)),
        ("weight_scale", np.ones((N, 3), np.float32)),
        ("weight_zero_point", np.zeros((1, 2), np.int32)),
        ("weight_g_idx", np.full(K, 9, np.int32)),
        ("weight_g_idx", np.zeros(K - 1, np.int32)),
    ],
)
def test_parts_of_compressed_tensors_that_do_not_fit_are_said(part: str, value: np.ndarray) -> None:
    codes, zeros, scales, _ = values()
    parts = {"m.weight_packed": pack(codes.T, 1), "m.weight_scale": scales.T, "m.weight_zero_point": pack(zeros.T, 0),
             "m.weight_shape": np.array([N, K], np.int32), f"m.{part}": value}  # fmt: skip
    with pytest.raises(CheckpointError, match=r"m\b.*(fit|pair of rows)"):
        _, opened = open_quantized({"quantization_config": PACKED}, Stored(parts))  # type: ignore[arg-type]
        opened.read_rows("m.weight", 0, N)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_integers_of_eight_bits_with_a_scale_for_every_row(asymmetric: bool) -> None:
    """compressed-tensors' int-quantized, as in checkpoints of 8-bit weights and activations."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-128, 128, (N, K)).astype(np.int8)
    scale, points = rng.uniform(0.01, 0.1, (N, 1)).astype(np.float32), rng.integers(-9, 9, (N, 1)).astype(np.int8)
    parts: dict[str, np.ndarray] = {"m.weight": codes, "m.weight_scale": scale}
    parts |= {"m.weight_zero_point": points} if asymmetric else {}
    found = read(Stored(parts), {"quant_method": "compressed-tensors", "format": "int-quantized"})
    expected = (codes.astype(np.float32) - (points if asymmetric else 0)) * scale
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(CheckpointError, match=r"no m\.weight_scale for its integers"):
        read(Stored({"m.weight": codes}), {"quant_method": "compressed-tensors", "format": "int-quantized"})


@pytest.mark.parametrize(
    ("config", "scale", "kind", "factor"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, np.array(0.5, np.float32), "F32", 0.5),
        ({"quant_method": "fbgemm_fp8"}, np.full((N, 1), 0.25, np.float32), "F32", 0.25),
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, np.full((1,), 2, np.float32), "F32", 2.0),
        ({"quant_method": "fp8", "weight_block_size": [8, 32]}, np.full((2, 2), 124, np.uint8), "F8_E8M0", 0.125),
    ],
)
def test_fp8_of_other_projects(config: dict[str, Any], scale: np.ndarray, kind: str, factor: float) -> None:
    """With the scales of activations and caches beside them, which say nothing about the weights."""
    import torch

    stored = torch.randn(N, K, generator=torch.Generator().manual_seed(0)).to(torch.float8_e4m3fn)
    parts = {"m.weight": stored.view(torch.uint8).numpy(), "m.weight_scale": scale,
             "m.input_scale": np.array(1, np.float32), "m.k_scale": np.array(1, np.float32)}  # fmt: skip
    found = read(Stored(parts, {"m.weight": "F8_E4M3", "m.weight_scale": kind}), config)
    np.testing.assert_allclose(found, stored.float().numpy() * factor, rtol=1e-6)


def test_a_quantization_that_the_text_part_states() -> None:
    codes, zeros, scales, expected = values()
    parts = {"m.qweight": pack(codes, 1, ORDER), "m.qzeros": pack(zeros, 1, ORDER), "m.scales": scales}
    config = {"text_config": {"quantization_config": {"quant_method": "awq", "bits": 4}, "hidden_size": 4}}
    plain, opened = open_quantized(config, Stored(parts))  # type: ignore[arg-type]
    assert plain == {"text_config": {"hidden_size": 4}}
    np.testing.assert_allclose(opened.read_rows("m.weight", 0, N), expected, rtol=1e-6)


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


@pytest.mark.parametrize("stated", [[8, 32], None, "another"])
def test_a_last_block_that_is_cut(stated: list[int] | str | None) -> None:
    """20 rows in blocks of 8: three blocks that are no thirds of the rows, which only the config can tell."""
    import torch

    weights = torch.randn(20, 80, generator=torch.Generator().manual_seed(0)).to(torch.float8_e4m3fn)
    scales = np.random.default_rng(2).uniform(0.5, 2, (3, 3)).astype(np.float32)
    parts: dict[str, np.ndarray] = {"m.weight": weights.view(torch.uint8).numpy(), "m.weight_scale": scales}
    source = Stored(parts, {"m.weight": "F8_E4M3"})
    groups: dict[str, Any] = {"group_0": {"weights": {"num_bits": 8, "block_structure": stated and [8, 32]}}}
    if stated == "another":
        groups["group_1"] = {"weights": {"num_bits": 8, "strategy": "channel"}}
    config = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": groups}
    _, opened = open_quantized({"quantization_config": config}, source)  # type: ignore[arg-type]
    if stated != [8, 32]:
        with pytest.raises(CheckpointError, match="do not fit"):
            opened.read_rows("m.weight", 0, 20)
        return
    expected = weights.float().numpy() * np.repeat(np.repeat(scales, 8, 0), 32, 1)[:20, :80]
    np.testing.assert_allclose(opened.read_rows("m.weight", 0, 20), expected, rtol=1e-6)


def test_fp8_with_scales_of_activations_beside_it() -> None:
    """As Ministral 3 is published: one scale a matrix, and one of its input that a bundle does not use."""
    parts: dict[str, np.ndarray] = {
        "m.weight": np.full((N, K), 0x38, np.uint8),
        "m.weight_scale_inv": np.array(0.5, np.float32),
        "m.activation_scale": np.array(3, np.float32),
    }
    config = {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}
    np.testing.assert_array_equal(read(Stored(parts, {"m.weight": "F8_E4M3"}), config), np.full((N, K), 0.5))


@pytest.mark.parametrize("layout", ["marlin", "bitblas"])
@pytest.mark.parametrize("key", ["checkpoint_format", "format"])
def test_other_layouts_of_gptq_are_not_read_as_its_own(layout: str, key: str) -> None:
    codes, zeros, scales, _ = values()
    parts = {"m.qweight": pack(codes, 0), "m.qzeros": pack(zeros, 1), "m.scales": scales}
    with pytest.raises(UnsupportedModelError, match=f"gptq, {layout} with 4 bits"):
        read(Stored(parts), {"quant_method": "gptq", "bits": 4, key: layout})


@pytest.mark.parametrize(
    ("locations", "online"), [(["weight_input", "weight_output"], None), (["weight_input", "input"], "input"),
                              (["weight_output", "q_attn"], "q_attn")],
)  # fmt: skip
def test_rotations_of_activations_are_refused(locations: list[str], online: str | None) -> None:
    """Those of weights alone are in the weights that are stored."""
    codes, zeros, scales, expected = values()
    parts = {"m.weight_packed": pack(codes.T, 1), "m.weight_scale": scales.T, "m.weight_zero_point": pack(zeros.T, 0)}
    applied = [{"location": location, "targets": ["Linear"]} for location in locations]
    config = PACKED | {"transform_config": {"config_groups": {"u": {"type": "hadamard", "apply": applied}}}}
    if online is None:
        np.testing.assert_allclose(read(Stored(parts), config), expected, rtol=1e-6)
        return
    with pytest.raises(UnsupportedModelError, match=f"rotates activations.*{online}"):
        read(Stored(parts), config)
