"""Experts in MXFP4: transformers' own unpacking, and the grid that they lie on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checkpoint_fixtures import Stored

from edgedistill.checkpoint.mxfp4 import GRID, Mxfp4Tensors
from edgedistill.checkpoint.quantized import open_quantized
from edgedistill.errors import CheckpointError
from edgedistill.quantize import dequantize_rows
from edgedistill.quantize.kept import keep_rows
from edgedistill.quantize.spec import WeightFormat

NAME = "model.layers.0.mlp.experts.gate_up_proj"
CONFIG = {"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}


def stored(exponent: int | None = None) -> Any:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (3, 8, 2, 16)).astype(np.uint8)
    scales = rng.integers(110, 130, (3, 8, 2)).astype(np.uint8)
    if exponent is not None:
        scales[1, 2, 0] = exponent
    norm = np.ones(4, np.float32)
    return Stored({f"{NAME}_blocks": blocks, f"{NAME}_scales": scales, "model.norm.weight": norm})


def test_values_are_those_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    source = stored()
    config, tensors = open_quantized(CONFIG, source)
    assert isinstance(tensors, Mxfp4Tensors)
    assert config == {"model_type": "gpt_oss"}
    assert set(tensors.names()) == {f"{NAME}.rows", "model.norm.weight"}
    parts = [torch.from_numpy(source.tensors[f"{NAME}_{part}"]) for part in ("blocks", "scales")]
    expected = mxfp4.convert_moe_packed_tensors(*parts, dtype=torch.float32).numpy().transpose(0, 2, 1)
    np.testing.assert_array_equal(tensors.read_rows(f"{NAME}.rows", 0, 3), expected)
    np.testing.assert_array_equal(tensors.read_rows(f"{NAME}.rows", 1, 2), expected[1:2])
    assert tensors.info(f"{NAME}.rows").shape == expected.shape


def test_codes_of_five_bits_hold_them_exactly() -> None:
    tensors = Mxfp4Tensors(stored())
    rows = tensors.read_rows(f"{NAME}.rows", 2, 3)[0]
    fmt = WeightFormat(bits=GRID.bits, block_size=GRID.block_size, symmetric=GRID.symmetric, method="kept")
    scales, zero_points = tensors.read_grid(f"{NAME}.rows", 2, 3)
    kept = keep_rows(rows, fmt, scales[0], zero_points[0])
    np.testing.assert_array_equal(dequantize_rows(kept, fmt, rows.shape[1]), rows)


def test_what_does_not_fit_is_refused() -> None:
    source = stored()
    source.tensors[f"{NAME}_scales"] = source.tensors[f"{NAME}_scales"][:, :, :1]
    with pytest.raises(CheckpointError, match="blocks of 16 bytes with a scale each"):
        open_quantized(CONFIG, source)
    with pytest.raises(CheckpointError, match="holds -inf"):
        open_quantized(CONFIG, stored(255))[1].read_rows(f"{NAME}.rows", 0, 3)
