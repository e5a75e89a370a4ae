"""W8A8: integers that are right on this CPU, per-token rounding as documented, whole models against transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity_support import Decoder, export, random_tokens, reference_logits, save_random_model

from edgedistill.errors import UsageError
from edgedistill.export.writer import plan_layout
from edgedistill.graph.builder import MICROSOFT, GraphBuilder
from edgedistill.graph.weights import WeightEmitter
from edgedistill.quantize import dequantize_rows, quantize_rows
from edgedistill.quantize.plan import PlannedWeight, override, parse_format
from edgedistill.quantize.spec import ArraySpec, WeightFormat, array_specs
from edgedistill.quantize.w8a8 import TINY, ZERO_POINT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORMATS = ["w8a8-asym-search", "w8a8-sym-rtn"]


def round_activations(x: np.ndarray[Any, Any], *, symmetric: bool) -> np.ndarray[Any, Any]:
    """What the graph makes of activations float32 [..., K]: rounded per token and back, for reference.

    Symmetric: codes 1 .. 255 around 128, scale max|x| / 127. Asymmetric: codes 0 .. 255, scale (max - min) / 255 with
    the range widened to hold 0, zero point round(-min / scale). Rounding is to the nearest, ties to even.
    """
    tiny = np.float32(TINY)
    if symmetric:
        scale = np.maximum(np.abs(x).max(axis=-1, keepdims=True) / np.float32(127), tiny)
        zero = np.float32(ZERO_POINT)
    else:
        low, high = np.minimum(x.min(axis=-1, keepdims=True), 0), np.maximum(x.max(axis=-1, keepdims=True), 0)
        scale = np.maximum((high - low) / np.float32(255), tiny)
        zero = np.rint(-low / scale)
    codes = np.clip(np.rint(x / scale) + zero, 0, 255)
    back: np.ndarray[Any, Any] = ((codes - zero) * scale).astype(np.float32)
    return back


def graph_of(
    directory: Path, rows: np.ndarray[Any, Any], fmt: WeightFormat, bias: np.ndarray[Any, Any] | None = None
) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """One linear layer as the exporter emits it."""
    shape = (rows.shape[0], rows.shape[1])
    specs = [*array_specs("w", shape, fmt), ArraySpec("b", "float32", (shape[0],))]
    layout = plan_layout(specs, "weights.bin")
    blob = bytearray(layout.size)
    arrays = {f"w.{suffix}": array for suffix, array in quantize_rows(rows, fmt).items()}
    arrays["b"] = np.zeros(shape[0], np.float32) if bias is None else bias
    for name, array in arrays.items():
        place = layout.arrays[name]
        assert (array.dtype, array.shape) == (np.dtype(place.spec.dtype), place.spec.shape)
        blob[place.offset : place.offset + place.spec.nbytes] = array.tobytes()
    (directory / "weights.bin").write_bytes(bytes(blob))
    emitter = WeightEmitter({"w": PlannedWeight("w", shape, fmt, tuple(specs))}, layout.arrays)
    b = GraphBuilder()
    x = ir.Value(name="x", shape=ir.Shape(["batch", "sequence", shape[1]]), type=ir.TensorType(ir.DataType.FLOAT))
    y = emitter.linear(b, x, "w", output="y", bias=None if bias is None else "b")
    y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", "sequence", shape[0]])
    opsets = {"": 21, MICROSOFT: 1}
    graph = ir.Graph([x], [y], nodes=b.nodes, initializers=list(b.initializers.values()), opset_imports=opsets)
    ir.save(ir.Model(graph, ir_version=10), directory / "model.onnx")
    session = ort.InferenceSession(str(directory / "model.onnx"), providers=["CPUExecutionProvider"])
    return lambda value: session.run(["y"], {"x": value})[0]


@pytest.mark.parametrize("text", FORMATS)
def test_a_product_is_that_of_rounded_activations_and_weights(text: str, tmp_path: Path) -> None:
    """Full-range weights and activations: a kernel that saturates in between shows here."""
    rng = np.random.default_rng(0)
    rows = rng.choice([-1.0, 1.0, 0.5], (70, 96)).astype(np.float32) * rng.uniform(0.1, 3, (70, 1)).astype(np.float32)
    rows[3] = 0
    bias = rng.normal(size=70).astype(np.float32)
    fmt = parse_format(text)
    run = graph_of(tmp_path, rows, fmt, bias)
    x = np.concatenate([rng.choice([-1.0, 1.0], (2, 9, 96)), rng.uniform(-0.1, 5, (2, 4, 96))], axis=1)
    x = x.astype(np.float32)
    x[0, 0] = 0
    x[1, 2, 5] = 400.0
    weights = dequantize_rows(quantize_rows(rows, fmt), fmt, 96)
    rounded = round_activations(x, symmetric=fmt.symmetric)
    expected = rounded.astype(np.float64) @ weights.T.astype(np.float64) + bias
    np.testing.assert_allclose(run(x), expected, rtol=2e-5, atol=2e-4)
    assert run(x[:, :0]).shape == (2, 0, 70)  # the head, where no logits are wanted


@pytest.mark.parametrize("text", FORMATS)
def test_a_token_does_not_depend_on_its_neighbours(text: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    run = graph_of(tmp_path, rng.normal(size=(64, 96)).astype(np.float32), parse_format(text))
    x = rng.normal(size=(3, 8, 96)).astype(np.float32)
    x[2] *= 1000
    together = run(x)
    for row in range(3):
        for token in range(8):
            np.testing.assert_array_equal(together[row, token], run(x[row : row + 1, token : token + 1])[0, 0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 16), k=st.integers(1, 70), text=st.sampled_from(FORMATS), spread=st.floats(1e-3, 1e3))
def test_stored_channels_come_back_within_half_a_step(seed: int, k: int, text: str, spread: float) -> None:
    rows = (np.random.default_rng(seed).normal(size=(5, k)) * spread).astype(np.float32)
    rows[2] = 0
    fmt = parse_format(text)
    arrays = quantize_rows(rows, fmt)
    specs = array_specs("w", (5, k), fmt)
    assert {f"w.{s}": (str(a.dtype), a.shape) for s, a in arrays.items()} == {a.name: (a.dtype, a.shape) for a in specs}
    back = dequantize_rows(arrays, fmt, k)
    steps = np.abs(rows).max(axis=1, keepdims=True) / 127
    # The search may clip an extreme for the sake of the rest.
    assert (np.abs(back - rows) <= steps * (0.51 if fmt.method == "rtn" else 8)).all()
    if not fmt.symmetric:
        np.testing.assert_allclose(
            arrays["sums"].astype(np.float32), back.sum(axis=1), rtol=1e-3, atol=1e-4 * spread * k
        )


@pytest.mark.parametrize("symmetric", [True, False])
def test_rounded_activations_are_within_half_a_step_and_zero_stays_zero(symmetric: bool) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 64)).astype(np.float32) * rng.uniform(1e-3, 1e3, (40, 1)).astype(np.float32)
    x[0] = 0
    x[1] = np.abs(x[1]) + 1
    x[:, 7] = 0
    back = round_activations(x, symmetric=symmetric)
    span = 2 * np.abs(x).max(axis=1) / 254 if symmetric else (np.maximum(x.max(1), 0) - np.minimum(x.min(1), 0)) / 255
    # Rounding the zero point may cost an extreme value another half step.
    assert (np.abs(back - x) <= (0.501 if symmetric else 1.01) * span[:, None] + 1e-12).all()
    assert (back[:, 7] == 0).all()


def rounded_reference(model: Any, fmt: WeightFormat) -> None:
    """Make a transformers model compute as W8A8 does: weights as stored, inputs of every linear layer rounded."""
    import torch

    def rounding(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (torch.from_numpy(round_activations(inputs[0].numpy(), symmetric=fmt.symmetric)),)

    done: set[int] = set()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(rounding)
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding) and id(module.weight) not in done:  # tied
            done.add(id(module.weight))
            rows = module.weight.detach().numpy()
            module.weight.data = torch.from_numpy(dequantize_rows(quantize_rows(rows, fmt), fmt, rows.shape[1]))


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "smollm3", "qwen2"])
@pytest.mark.parametrize("text", FORMATS)
def test_models_compute_what_transformers_does_with_the_same_rounding(family: str, text: str, tmp_path: Path) -> None:
    """Rounding makes float noise jump by whole steps now and then, so that most logits, not all, have to agree."""
    fmt = parse_format(text)
    model = save_random_model(tmp_path / "hf", family, tie_word_embeddings=family in ("gemma3_text", "smollm3"))
    tokens = random_tokens(24)
    plain = reference_logits(model, tokens)
    exported = export(tmp_path / "hf", tmp_path / "out", fmt)
    found = Decoder(exported, 1).step([tokens])[0]
    rounded_reference(model, fmt)
    expected = reference_logits(model, tokens)
    error, effect = np.abs(found - expected), np.abs(plain - expected)
    assert np.median(error) < 0.1 * np.median(effect)
    assert error.mean() < 0.5 * effect.mean()


def test_a_tied_embedding_is_the_stored_matrix(tmp_path: Path) -> None:
    save_random_model(tmp_path / "hf", "qwen3", tie_word_embeddings=True)
    exported = export(tmp_path / "hf", tmp_path / "out", parse_format("w8a8"))
    again = export(tmp_path / "hf", tmp_path / "deq", parse_format("w8a8"), dequantize=True)
    tokens = random_tokens(10)
    names = ["embedding"]

    def first_layer(path: Path) -> np.ndarray[Any, Any]:
        model = ir.load(path / "model.onnx")
        graph = ir.convenience.extract(model.graph, ["input_ids"], names)
        graph.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        ir.save(ir.Model(graph, ir_version=10), path / "part.onnx")
        found = ort.InferenceSession(str(path / "part.onnx")).run(names, {"input_ids": np.array([tokens])})[0]
        return np.asarray(found)

    np.testing.assert_allclose(first_layer(exported.path), first_layer(again.path), rtol=1e-6, atol=1e-7)


def test_texts_of_formats_and_block_sizes() -> None:
    assert parse_format("w8a8").label() == "w8a8-asym-search"
    for text in FORMATS:
        assert parse_format(text).label() == text
    with pytest.raises(UsageError, match="found `b32`, expected w8a8 followed by"):
        parse_format("w8a8-b32")
    with pytest.raises(UsageError, match="found `asym`"):
        parse_format("w8a8-sym-asym")
    with pytest.raises(UsageError, match="every weight is w8a8-asym-search"):
        override(parse_format("w8a8"), (), block_size=32)
