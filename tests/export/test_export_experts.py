"""Mixtures of experts through the whole export: plans, calibration, prefill's own form, a quantized cache, GGUF."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoint_fixtures import CONFIG, qwen3_tensors, write_directory, write_safetensors
from exporting import export

from edgedistill.bundle.bundle import PREFILL_MODEL, WEIGHTS
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import CheckpointError, UnsupportedModelError
from edgedistill.estimate.speed import ExpertsCase, StepModel, kernel_bytes
from edgedistill.estimate.timings import Machine, Timings
from edgedistill.export.plan import make_plan
from edgedistill.planning import kernels
from edgedistill.planning.measure import measure_missing
from edgedistill.profile.profile import load_profile
from edgedistill.progress import NullProgress
from edgedistill.runtime.session import SessionConfig
from edgedistill.traces.traces import Traces

if TYPE_CHECKING:
    from pathlib import Path

EXPERTS: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
}


def experts_tensors() -> dict[str, np.ndarray]:
    """Those of a tiny Qwen3, with four experts in place of every MLP."""
    rng = np.random.default_rng(1)
    tensors = {name: array for name, array in qwen3_tensors().items() if ".mlp." not in name}
    for layer in range(CONFIG["num_hidden_layers"]):
        mlp = f"model.layers.{layer}.mlp"
        tensors[f"{mlp}.gate.weight"] = rng.normal(0, 0.5, (4, 32)).astype(np.float32)
        for expert in range(4):
            for which in ("gate", "up", "down"):
                matrix = rng.normal(0, 0.2, (32, 32)).astype(np.float32)
                tensors[f"{mlp}.experts.{expert}.{which}_proj.weight"] = matrix
    return tensors


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_directory(tmp_path_factory.mktemp("experts") / "model", **EXPERTS)
    write_safetensors(directory / "model.safetensors", experts_tensors())
    return directory


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"format": "int8"},
        {"format": "int6-b32-sym"},
        {"format": "w8a8"},
        {"format": "fp32"},
        {"kv_cache": "int8"},
        {"format": "int4-b32", "prefill": "w8a8"},
    ],
    ids=str,
)
def test_exports_run(checkpoint: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """The export's own trial compares the graph with what it stands for, step by step."""
    made = export(checkpoint, tmp_path / "b", check=True, **options)
    formats = {entry.name: entry.format for entry in made.manifest.weights}
    assert formats["layers.0.mlp.router"].is_float
    assert not any(fmt.is_w8a8 for name, fmt in formats.items() if ".experts." in name)
    assert len([name for name in formats if ".experts." in name]) == 4
    assert (tmp_path / "b" / PREFILL_MODEL).is_file() == ("prefill" in options)


@pytest.fixture
def traces(checkpoint: Path) -> Traces:
    digest = hashlib.sha256((checkpoint / "tokenizer.json").read_bytes()).hexdigest()
    sequences = tuple(np.random.default_rng(0).integers(3, 250, (12, 40)))
    return Traces(sequences, (0,) * len(sequences), digest, "random tokens")


def test_calibration_solves_for_attention_and_leaves_the_experts(
    checkpoint: Path, traces: Traces, tmp_path: Path
) -> None:
    made = export(checkpoint, tmp_path / "b", format="int4-b16", calibration=traces)
    methods = {entry.name: entry.format.method for entry in made.manifest.weights if ".mlp.router" not in entry.name}
    assert methods["layers.1.attn.qkv"] == "gptq"
    assert methods["layers.1.mlp.experts.gate_up"] == methods["layers.1.mlp.experts.down"] == "search"


@pytest.mark.parametrize("sensitivity", ["measured", "estimated"])
def test_a_budget_chooses_one_format_for_the_experts_of_a_layer(
    checkpoint: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sensitivity: str
) -> None:
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path / "cache"))
    options: dict[str, Any] = {"calibration": traces, "sensitivity": sensitivity, "check": False}
    small, large = (
        export(checkpoint, tmp_path / f"{bits}", bits_per_weight=bits, **options).manifest for bits in (6.6, 8.0)
    )
    for made, most in ((small, 6.6), (large, 8.0)):
        assert most - 1.0 < made.bits_per_weight <= most
        formats = {entry.name: entry.format for entry in made.weights}
        for layer in range(2):
            pair = [formats[f"layers.{layer}.mlp.experts.{role}"] for role in ("gate_up", "down")]
            assert len({(fmt.bits, fmt.block_size) for fmt in pair}) == 1
            assert made.choice["weights"][f"layers.{layer}.mlp.experts.gate_up"]["kl"] > 0
    assert large.choice["predicted_kl"] < small.choice["predicted_kl"]


def test_a_step_is_predicted_from_the_active_experts(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "SECONDS", 0.0)
    profile = load_profile("laptop-cpu").with_overrides(context_length=128)
    with open_checkpoint(str(checkpoint)) as opened:
        made = make_plan(opened, profile)
    model = StepModel(made.spec, made.planned, profile)
    cases = [case for case in model.cases() if isinstance(case, ExpertsCase)]
    assert {(case.experts.count, case.tokens) for case in cases} == {(2, 1), (4, model.chunk)}
    assert all(0 < kernels.time_matrix(case, SessionConfig.from_profile(profile.to_dict()), 2) < 1 for case in cases)
    whole = sum(kernel_bytes(w) for pair in model.mixtures for w in pair)
    dense = sum(kernel_bytes(w) for w in model.matrices)
    assert model.matrix_bytes == dense + whole // 2
    timings = Timings(Machine.here())
    measure_missing([model], timings, NullProgress())
    assert model.speed(timings.seconds, contexts=(10,), prompts=(20,)) is not None


def test_stacked_experts_are_those_of_the_separate_ones(checkpoint: Path, tmp_path: Path) -> None:
    """transformers 5 keeps the experts of a layer in one tensor, gate before up."""
    tensors = experts_tensors()
    for layer in range(CONFIG["num_hidden_layers"]):
        name = f"model.layers.{layer}.mlp.experts"
        matrices = [[tensors.pop(f"{name}.{e}.{w}_proj.weight") for w in ("gate", "up", "down")] for e in range(4)]
        tensors[f"{name}.gate_up_proj"] = np.stack([np.concatenate(m[:2]) for m in matrices])
        tensors[f"{name}.down_proj"] = np.stack([m[2] for m in matrices])
    stacked = write_directory(tmp_path / "stacked", **EXPERTS)
    write_safetensors(stacked / "model.safetensors", tensors)
    for name, source in (("a", checkpoint), ("b", stacked)):
        export(source, tmp_path / name, format="int4-b32", check=False)
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_experts_per_tok": 5}, "num_experts_per_tok = 5 of 4 experts"),
        ({"moe_intermediate_size": 40}, "experts have matrices of 40 by 32; ONNX Runtime needs multiples of 16"),
        ({"moe_intermediate_size": 16}, "'model.layers.0.mlp.experts.0.gate_up_proj.weight' has shape [64, 32]"),
        ({"num_experts": 5}, "'model.layers.0.mlp.router.weight' has shape [4, 32]; config.json asks for [5, 32]"),
        ({"mlp_only_layers": [0]}, "no tensor 'model.layers.0.mlp.gate_proj.weight'"),
        ({"decoder_sparse_step": "2"}, "decoder_sparse_step = '2'"),
    ],
)
def test_what_does_not_fit_is_said(checkpoint: Path, tmp_path: Path, values: dict[str, Any], message: str) -> None:
    other = write_directory(tmp_path / "model", **EXPERTS | values)
    write_safetensors(other / "model.safetensors", experts_tensors())
    with pytest.raises((CheckpointError, UnsupportedModelError), match=re.escape(message)):
        export(other, tmp_path / "b", exporter="own", check=False)
