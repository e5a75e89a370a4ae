"""The PyTorch module that is trained computes what the graph computes, for every family that the exporter knows."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from family_cases import CASES
from parity_support import CONTEXT, Decoder, export, random_tokens, reference_logits, save_random_model

from edgedistill.architecture.families import FAMILIES
from edgedistill.architecture.tensors import model_tensors
from edgedistill.architecture.weights import logical_weights
from edgedistill.checkpoint.normalize import normalize
from edgedistill.checkpoint.quantized import open_quantized
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

FORMAT = parse_format("int4-b16-asym-search-acc1")
REFUSED = {"bitnet", "gemma3n_text", "gemma4_text"}
TWICE = ("gemma2", "granite4-h", "lfm2", "qwen3", "qwen3_moe")
"""Cases whose layers are computed a second time for the gradient, too."""


@pytest.mark.parametrize("case", ["bitnet", "gemma3n"])
def test_layers_that_tuning_does_not_know_are_refused(case: str, tmp_path: Path) -> None:
    """The other one of ``REFUSED`` needs a newer transformers, and has a test of its own."""
    save_random_model(tmp_path, CASES[case][0], **CASES[case][1])
    tensors = open_safetensors(tmp_path)
    checkpoint: Any = SimpleNamespace(config=json.loads((tmp_path / "config.json").read_text()), tensors=tensors)
    try:
        with pytest.raises(UnsupportedModelError, match=r"(bitnet|gemma3n_text) have layers that tuning does not know"):
            _check_reference(SimpleNamespace(), checkpoint)  # type: ignore[arg-type]
    finally:
        tensors.close()


def cases() -> list[tuple[str, bool]]:
    known = [name for name, (model_type, _) in CASES.items() if model_type not in REFUSED]
    return [(name, False) for name in known] + [(name, True) for name in TWICE]


def test_no_family_is_left_out() -> None:
    assert FAMILIES.keys() - REFUSED == {CASES[name][0] for name, _ in cases()}


@pytest.mark.next
@pytest.mark.parametrize(("name", "recompute"), cases())
def test_reference_module_and_graph_agree_and_every_leaf_gets_a_gradient(
    name: str, recompute: bool, tmp_path: Path
) -> None:
    kind, overrides = CASES[name]
    model = save_random_model(tmp_path / "model", kind, **overrides)
    exported = export(tmp_path / "model", tmp_path / "out", FORMAT)
    spec, weights = exported.spec, logical_weights(exported.spec)
    source = open_safetensors(tmp_path / "model")
    found = normalize(*open_quantized(json.loads((tmp_path / "model" / "config.json").read_text()), source))
    tensors = model_tensors(found.config, spec, found.tensors)
    try:
        student = Student(
            exported.path, StoredArrays(exported.path / "model.onnx"), {w.name: FORMAT for w in weights},
            spec, weights, tensors, context=CONTEXT, train_zero_points=True, recompute=recompute,
        )  # fmt: skip
        teacher = Teacher(spec, weights, tensors, context=CONTEXT)
    finally:
        source.close()
    assert not student.frozen
    # More than one chunk of the layers with states.
    ids = np.array(random_tokens(80))
    (wanted,) = teacher.hidden([ids])
    expected = reference_logits(model, ids.tolist())
    np.testing.assert_allclose(teacher.logits(wanted), expected, atol=1e-3 * np.abs(expected).max())

    states = student.hidden(padded([ids]))[0]
    expected = Decoder(exported, 1).step([ids.tolist()], np.arange(len(ids))[None])[0]
    head = student.head
    assert isinstance(head, kernels.BlockMatrix)
    logits, _ = kernels._logits(states.detach(), head.dequantize()[:, : head.k], student.cap)
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-3 * np.abs(expected).max())

    assert teacher.cap == student.cap
    loss = kernels.divergence(states, head, wanted, teacher.head, cap=student.cap, reverse=False)
    assert float(loss.detach()) > 0
    loss.backward()
    for which in ("scales", "zero_points", "vectors"):
        assert student.parameters(which)
        for leaf in student.parameters(which):
            assert leaf.grad is not None
            assert float(leaf.grad.abs().max()) > 0
