"""The time of a calibration before it begins: arithmetic on shapes times rates that were measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.export.calibrate.duration import _OVERHEAD, Rates, estimate_seconds, measure_rates
from edgedistill.export.plan import Plan, canonical, make_plan
from edgedistill.profile.profile import load_profile
from edgedistill.quantize.gptq import QUICK, GptqOptions
from edgedistill.quantize.plan import parse_format

GPTQ = "int4-b32-asym-gptq-s8"


@pytest.fixture
def plan(tiny_checkpoint_dir: Path) -> Plan:
    checkpoint = canonical(open_checkpoint(str(tiny_checkpoint_dir)))
    profile = load_profile("laptop-cpu").with_overrides(weight_format=parse_format(GPTQ))
    return make_plan(checkpoint, profile, None, calibrated=True)


def _sizes(plan: Plan) -> tuple[int, int, int]:
    spec = plan.spec
    return spec.hidden_size, spec.num_attention_heads * spec.head_dim, spec.intermediate_size


@pytest.mark.parametrize("tokens", [1, 1000])
def test_products_of_a_quick_calibration_are_one_pass_and_the_moments(plan: Plan, tokens: int) -> None:
    hidden, heads, inner = _sizes(plan)
    matrices = sum(w.shape[0] * w.shape[1] for w in plan.weights if w.name.startswith("layers.") and w.is_matrix)
    layers = plan.spec.num_hidden_layers
    wanted = matrices + layers * (2 * hidden**2 + heads**2 + inner**2)
    assert estimate_seconds(plan, tokens, QUICK, 1, Rates(1.0, 0.0, 0.0)) == pytest.approx(_OVERHEAD * tokens * wanted)


def test_solving_grows_with_the_cube_of_columns_and_with_rows_by_threads(plan: Plan) -> None:
    hidden, heads, inner = _sizes(plan)
    layers = plan.spec.num_hidden_layers
    cubes = layers * (2 * hidden**3 + heads**3 + inner**3)
    assert estimate_seconds(plan, 10, GptqOptions(), 4, Rates(0.0, 1.0, 0.0)) == pytest.approx(_OVERHEAD * cubes)
    rows = estimate_seconds(plan, 10, GptqOptions(), 1, Rates(0.0, 0.0, 1.0))
    assert rows > 0
    assert estimate_seconds(plan, 10, GptqOptions(), 4, Rates(0.0, 0.0, 1.0)) == pytest.approx(rows / 4)
    halves = layers * sum(2 * (columns / 2) ** 3 for columns in (hidden, hidden, heads, inner) if columns > 128)
    cut = estimate_seconds(plan, 10, GptqOptions(group=128), 1, Rates(0.0, 1.0, 0.0))
    assert _OVERHEAD * halves <= cut <= _OVERHEAD * cubes


def test_a_thorough_calibration_passes_the_tokens_several_times(plan: Plan) -> None:
    product = Rates(1.0, 0.0, 0.0)
    assert estimate_seconds(plan, 10, GptqOptions(), 1, product) > 4 * estimate_seconds(plan, 10, QUICK, 1, product)


def test_rates_are_measured() -> None:
    rates = measure_rates(QUICK, parse_format(GPTQ), 64)
    assert 0 < rates.product < rates.factor < 1e-3
    assert 0 < rates.row < 1e-3
