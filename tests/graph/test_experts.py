"""Mixtures of experts in every stored format: the kernels of experts against the same values in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from family_cases import CASES
from parity_support import Decoder, Exported, export, random_tokens, save_random_model

from edgedistill.architecture.spec import LogicalWeight
from edgedistill.errors import UsageError
from edgedistill.quantize.plan import Rule, parse_format, plan_weights

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("transformers")

TOKENS = random_tokens(40)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Biases, clamps and a router with a bias: gpt-oss has all that there is."""
    directory = tmp_path_factory.mktemp("experts") / "hf"
    model_type, values = CASES["gpt_oss"]
    save_random_model(directory, model_type, **values)
    return directory


def logits(exported: Exported) -> np.ndarray:
    return Decoder(exported, 1).step([TOKENS])[0]


@pytest.mark.parametrize(
    ("label", "tolerance"),
    [
        ("int4-b16-asym-rtn-acc1", 1e-4),
        ("int4-b16-sym-rtn-acc1-s32", 1e-4),
        ("int4-b32-asym-search-acc1-s8", 1e-4),
        ("int3-b16-asym-rtn-acc1", 1e-4),
        # The kernels of 2 and 8 bits round activations to 8 bits, whatever they are asked for.
        ("int2-b16-asym-rtn", 0.1),
        ("int8-b16-sym-rtn", 0.05),
        ("int6-b16-sym-rtn", 0.05),
        ("int5-b16-asym-rtn", 0.05),
        ("int4-b16-asym-rtn", 0.1),
    ],
)
def test_experts_in_every_format(checkpoint: Path, tmp_path: Path, label: str, tolerance: float) -> None:
    rules = (Rule("layers.*.experts.*", parse_format(label)),)
    found = logits(export(checkpoint, tmp_path / "quantized", rules=rules))
    expected = logits(export(checkpoint, tmp_path / "float", rules=rules, dequantize=True))
    assert expected.std() > 0.3
    # A token near a tie may go to another expert: with rounded activations only the mean is small.
    difference = np.abs(found - expected)
    assert (difference.max() if tolerance < 1e-3 else difference.mean()) < tolerance


def test_matrices_may_differ_in_what_the_kernel_does_not_see(checkpoint: Path, tmp_path: Path) -> None:
    rules = (
        Rule("*.experts.gate_up", parse_format("int3-b16-asym-acc1")),
        Rule("*.experts.down", parse_format("int4-b16-sym-acc1")),
    )
    found = logits(export(checkpoint, tmp_path / "quantized", rules=rules))
    expected = logits(export(checkpoint, tmp_path / "float", rules=rules, dequantize=True))
    assert np.abs(found - expected).max() < 1e-4


def pair(inner: int, hidden: int) -> tuple[LogicalWeight, LogicalWeight]:
    name = "layers.0.mlp.experts"
    return (
        LogicalWeight(f"{name}.gate_up", "experts", (4 * 2 * inner, hidden), ()),
        LogicalWeight(f"{name}.down", "experts", (4 * hidden, inner), ()),
    )


@pytest.mark.parametrize(
    ("inner", "hidden", "asked", "planned"),
    [
        (768, 2048, "int4-b128-asym-search", "int4-b128-asym-search"),
        (2880, 2880, "int4-b128-asym-search", "int4-b64-asym-search"),
        (80, 48, "int4-b32-asym-search", "int4-b16-asym-search"),
        (768, 2048, "w8a8", "int8-b64-sym-search"),
        (768, 2048, "fp32", "fp32"),
    ],
)
def test_formats_that_the_kernel_takes(inner: int, hidden: int, asked: str, planned: str) -> None:
    plan = plan_weights(pair(inner, hidden), parse_format(asked))
    assert [weight.format.label() for weight in plan.weights] == [planned, planned]
    assert all(array.nbytes for weight in plan.weights for array in weight.arrays)


def test_both_matrices_share_a_block_size() -> None:
    rules = (Rule("*.down", parse_format("int8-b32-sym-search")),)
    plan = plan_weights(pair(768, 2048), parse_format("int6-b64-sym-search"), rules)
    assert [weight.format.label() for weight in plan.weights] == ["int6-b32-sym-search", "int8-b32-sym-search"]


@pytest.mark.parametrize("other", ["fp32", "int8"])
def test_both_matrices_have_codes_of_one_width(other: str) -> None:
    with pytest.raises(UsageError, match=r"layers\.0\.mlp\.experts: gate_up is to be .* and down int4"):
        plan_weights(pair(768, 2048), parse_format(other), (Rule("*.down", parse_format("int4")),))
