"""Formats chosen under a budget, on tiny-reasoner: measured, scaled, allocated, exported."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exporting import export

from edgedistill.architecture.spec import LogicalWeight
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.checkpoint.types import TensorInfo
from edgedistill.errors import BudgetError, UsageError
from edgedistill.estimate.memory import predict
from edgedistill.export.mixed_precision import choose, sensitivity
from edgedistill.export.mixed_precision.choose import SizeBudget, choose_formats
from edgedistill.export.options import ExportOptions
from edgedistill.export.plan import make_plan
from edgedistill.profile.profile import load_profile
from edgedistill.quantize import dequantize_rows, quantize_rows
from edgedistill.quantize.plan import Plan, parse_format
from edgedistill.traces.traces import Traces
from edgedistill.units import parse_bytes
from edgedistill.workflow.calibration_traces import traces_for


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(sensitivity, "TOKENS", 256)  # a measurement of every matrix runs over them for every format
        yield


@pytest.fixture(scope="module")
def traces(cache: None) -> Traces:
    return traces_for("tiny-reasoner", ExportOptions(calibration_tokens=1024))


def measured(traces: Traces, *labels: str, hashed: str = "h") -> dict[str, dict[str, float]]:
    with open_checkpoint("tiny-reasoner") as checkpoint:
        plan = make_plan(checkpoint, load_profile("reference-fp32"))
        formats = [parse_format(label) for label in labels]
        return sensitivity.measure(plan, checkpoint.tensors, traces, formats, source_hash=hashed, threads=1)


def test_scaled_damage_is_near_the_measured_one(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy: one measurement a matrix, other formats by the error of its output."""
    labels = ["int4-b32-asym-search", "int4-b128-asym-search"]
    scaled = measured(traces, *labels)
    monkeypatch.setattr(sensitivity, "REFERENCE", parse_format(labels[1]))
    direct = measured(traces, *labels, hashed="other")
    layers = [name for name in scaled if name.startswith("layers.")]
    a = np.array([scaled[name][labels[1]] for name in layers])
    b = np.array([direct[name][labels[1]] for name in layers])
    ranks = np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1]
    assert ranks > 0.9
    assert 0.7 < np.median(a / b) < 1.4


class Matrix:
    """A source of one matrix."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def info(self, name: str) -> TensorInfo:
        return TensorInfo(name, self.values.shape, "F32")

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self.values[start:stop].copy()


@pytest.mark.parametrize("labels", [("int2-b32-asym-search", "int8-b32-sym-search"), ("int8-b32-sym-search",)])
def test_a_matrix_on_the_grid_of_the_reference_is_measured_in_another_format(labels: tuple[str, ...]) -> None:
    """One that was quantized in four bits before: nothing could be scaled by an error of nearly 0."""
    values = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)
    reference, formats = sensitivity.REFERENCE, [parse_format(label) for label in labels]
    stored = dequantize_rows(quantize_rows(values, reference), reference, 96)
    unit = (LogicalWeight("layers.0.attn.o", "linear", (64, 96), ("w",)),)
    assert sensitivity.reference_of(unit, Matrix(values), formats, 1) == reference  # type: ignore[arg-type]
    assert sensitivity.reference_of(unit, Matrix(stored), formats, 1) == formats[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(("kl", "damage"), [(0.25, 0.25), (-1e-9, 0.0), (math.nan, 1e6), (math.inf, 1e6)])
def test_a_kl_that_is_no_number_is_no_damage_of_zero(kl: float, damage: float) -> None:
    assert sensitivity.nats(kl) == damage


def test_measurements_are_kept_and_go_on(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measured(traces, "int8-b32-sym-search", hashed="kept")

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(sensitivity._Run, "damages", refuse)
    assert measured(traces, "int8-b32-sym-search", hashed="kept") == first


def chosen(traces: Traces, **budget: Any) -> tuple[Plan, dict[str, Any]]:
    """The formats under a budget, as an export plans them, without the calibration that takes most of its time."""
    with open_checkpoint("tiny-reasoner") as checkpoint:
        profile, record = choose_formats(
            checkpoint, load_profile("laptop-cpu"), traces, SizeBudget(**budget),
            source_hash=checkpoint.hash_source(), threads=2,
        )  # fmt: skip
        return make_plan(checkpoint, profile).planned, record


def test_a_budget_is_kept_and_more_is_better(traces: Traces) -> None:
    predicted = []
    for bits in (5.0, 6.5):
        planned, record = chosen(traces, bits_per_weight=bits)
        assert bits - 0.4 < planned.bits_per_weight <= bits
        predicted.append(record["predicted_kl"])
    assert predicted[1] < predicted[0]
    assert len({one["format"] for one in record["weights"].values()}) > 1
    planned, _ = chosen(traces, max_bytes=1_700_000)
    assert planned.nbytes <= 1_700_000
    _, record = chosen(traces, max_kl=0.05)
    assert record["predicted_kl"] <= 0.05


def test_fewer_than_four_bits_only_where_nothing_else_fits(traces: Traces) -> None:
    planned, record = chosen(traces, bits_per_weight=3.2)
    assert planned.bits_per_weight <= 3.2
    assert {w.format.bits for w in planned.weights if not w.format.is_float} & {2, 3}
    _, record = chosen(traces, bits_per_weight=5.0)
    assert not any(label.startswith(("int2", "int3")) for label in record["candidates"])


def test_a_memory_budget_is_of_the_bundle_in_use(traces: Traces) -> None:
    with open_checkpoint("tiny-reasoner") as checkpoint:
        plan = make_plan(checkpoint, load_profile("laptop-cpu"))
    whole = predict(plan.spec, plan.planned, context_length=plan.context_length)
    damages = []
    for memory in (whole.needed_bytes - 300_000, whole.needed_bytes + 600_000):
        planned, record = chosen(traces, max_memory=memory)
        needed = predict(plan.spec, planned, context_length=plan.context_length).needed_bytes
        assert memory - 200_000 < needed <= memory
        # Codes of 5 and 6 bits take as much memory as those of 8, and are further from the original.
        assert {w.format.bits for w in planned.weights if not w.format.is_float} <= {4, 8}
        assert record["budget"] == {"max_memory": memory}
        assert record["weights_bytes"] == planned.nbytes
        damages.append(record["predicted_kl"])
    assert damages[1] < damages[0]
    with pytest.raises(BudgetError, match=r"10.00 MB of memory cannot be met.*smallest") as caught:
        chosen(traces, max_memory=10_000_000)
    named = parse_bytes(str(caught.value).split("--max-memory ")[1].split(",")[0])
    planned, _ = chosen(traces, max_memory=named)
    assert predict(plan.spec, planned, context_length=plan.context_length).needed_bytes <= named


def test_memory_goes_further_in_larger_blocks(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scales and sums of small blocks are memory that does less than as much of it spent on codes."""
    with open_checkpoint("tiny-reasoner") as checkpoint:
        plan = make_plan(checkpoint, load_profile("laptop-cpu"))
    memory = predict(plan.spec, plan.planned, context_length=plan.context_length).needed_bytes
    _, ours = chosen(traces, max_memory=memory)
    monkeypatch.setattr(choose, "MEMORY_CANDIDATES", choose.CANDIDATES)
    _, files = chosen(traces, max_memory=memory)
    assert ours["predicted_kl"] < 0.8 * files["predicted_kl"]


def test_budgets_that_cannot_be(traces: Traces, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"2 bits per weight cannot be met.*smallest") as caught:
        export("tiny-reasoner", tmp_path / "a", calibration=traces, bits_per_weight=2.0)
    # What it names can be met.
    named = float(str(caught.value).split("--bits-per-weight ")[1].split()[0])
    made = export("tiny-reasoner", tmp_path / "b", calibration=traces, bits_per_weight=named, check=False)
    assert made.manifest.bits_per_weight <= named
    choice = made.manifest.choice
    formats = {w.name: w.format.label() for w in made.manifest.weights}
    for name, one in choice["weights"].items():
        assert formats[name].replace("search", "gptq") == one["format"]
    assert choice["weights_bytes"] == sum(w.nbytes for w in made.manifest.weights)
    with pytest.raises(BudgetError, match=r"0.10 MB cannot be met.*smallest") as caught:
        export("tiny-reasoner", tmp_path / "a", calibration=traces, max_size=100_000)
    size = parse_bytes(str(caught.value).split("--max-size ")[1].split(",")[0])
    planned, _ = chosen(traces, max_bytes=size)
    assert planned.nbytes <= size
    with pytest.raises(BudgetError, match="cannot be reached") as caught:
        export("tiny-reasoner", tmp_path / "a", calibration=traces, max_kl=1e-9)
    kl = float(str(caught.value).split("--max-kl ")[1].split(",")[0])
    _, record = chosen(traces, max_kl=kl)
    assert record["predicted_kl"] <= kl
    with pytest.raises(UsageError, match="quantizes without"):
        export("tiny-reasoner", tmp_path / "a", calibration=traces, exporter="optimum")
    with pytest.raises(UsageError, match="one of them"):
        export("tiny-reasoner", tmp_path / "a", bits_per_weight=5.0, max_kl=0.1)
    assert not (tmp_path / "a").exists()
