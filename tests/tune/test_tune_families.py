"""The PyTorch module that is trained computes what the graph computes, for every family that the exporter knows."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from family_cases import CASES as CASES_OF_ALL
from family_cases import NEWER
from parity_support import VOCAB, Decoder, export, save_random_model

from edgedistill.architecture.families import FAMILIES
from edgedistill.architecture.weights import logical_weights
from edgedistill.checkpoint.safetensors import open_safetensors
from edgedistill.errors import UnsupportedModelError
from edgedistill.quantize.plan import parse_format
from edgedistill.tune import kernels
from edgedistill.tune.arrays import StoredArrays
from edgedistill.tune.pipeline import _check_reference
from edgedistill.tune.student import Student
from edgedistill.tune.teacher import Teacher, padded

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = parse_format("int4-b32-asym-search-acc1")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-bias": ("llama", {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "mistral-window": ("mistral", {"sliding_window": 7}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"tie_word_embeddings": False}),
    "smollm3": ("smollm3", {"num_hidden_layers": 5}),
    "gemma": ("gemma", {}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {"num_hidden_layers": 5, "sliding_window": 6}),
    "exaone4": ("exaone4", {"num_hidden_layers": 5, "sliding_window": 6}),
    "seed_oss": ("seed_oss", {}),
    "arcee": ("arcee", {"mlp_bias": True}),
    "ministral": ("ministral", {"sliding_window": 7}),
    "gemma2": ("gemma2", {"sliding_window": 6, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    "gemma3": ("gemma3_text", {"num_hidden_layers": 7, "sliding_window": 6, "query_pre_attn_scalar": 20}),
}


TUNED = {model_type for model_type, _ in CASES.values()}


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - TUNED))
def test_families_whose_layout_tuning_does_not_know_are_refused(family: str, tmp_path: Path) -> None:
    if family in NEWER:
        pytest.skip("in the plain layout; tuned by whoever has a transformers that knows it")
    case = next(name for name in CASES_OF_ALL if CASES_OF_ALL[name][0] == family)
    save_random_model(tmp_path, family, **CASES_OF_ALL[case][1])
    tensors = open_safetensors(tmp_path)
    checkpoint: Any = SimpleNamespace(config=json.loads((tmp_path / "config.json").read_text()), tensors=tensors)
    try:
        with pytest.raises(
            UnsupportedModelError,
            match=f"type {family} store .*, or have layers, that tuning does not know.*--calibrate",
        ):
            _check_reference(SimpleNamespace(), checkpoint)  # type: ignore[arg-type]
    finally:
        tensors.close()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("recompute", [False, True])
def test_module_and_graph_agree_and_every_leaf_gets_a_gradient(name: str, recompute: bool, tmp_path: Path) -> None:
    kind, overrides = CASES[name]
    save_random_model(tmp_path / "model", kind, **overrides)
    exported = export(tmp_path / "model", tmp_path / "out", FORMAT)
    weights = logical_weights(exported.spec)
    tensors = open_safetensors(tmp_path / "model")
    reference: Any = SimpleNamespace(
        config=json.loads((tmp_path / "model" / "config.json").read_text()), tensors=tensors
    )
    try:
        student = Student(
            exported.path, StoredArrays(exported.path / "model.onnx"), {w.name: FORMAT for w in weights},
            exported.spec, weights, reference, train_zero_points=True, recompute=recompute,
        )  # fmt: skip
        teacher = Teacher(reference)
    finally:
        tensors.close()
    assert not student.frozen
    ids = np.random.default_rng(0).integers(0, VOCAB, 24)
    states = student.hidden(padded([ids]))[0]
    expected = Decoder(exported, 1).step([ids.tolist()], np.arange(24)[None])[0]
    head = student.head
    assert isinstance(head, kernels.BlockMatrix)
    logits, _ = kernels._logits(states.detach(), head.dequantize()[:, : head.k], student.cap)
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-3 * np.abs(expected).max())

    assert teacher.cap == student.cap
    (wanted,) = teacher.hidden([ids])
    loss = kernels.divergence(states, head, wanted, teacher.head, cap=student.cap, reverse=False)
    assert float(loss.detach()) > 0
    loss.backward()
    for which in ("scales", "zero_points", "vectors"):
        assert student.parameters(which)
        for leaf in student.parameters(which):
            assert leaf.grad is not None
            assert float(leaf.grad.abs().max()) > 0
