"""Every way to store a matrix, through the emitter and ONNX Runtime: what the nodes widen is what was quantized."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgedistill.export.writer import plan_layout
from edgedistill.graph.builder import GraphBuilder
from edgedistill.graph.weights import WeightEmitter
from edgedistill.quantize import dequantize_rows, quantize_rows
from edgedistill.quantize.kept import keep_rows
from edgedistill.quantize.spec import WeightFormat, array_specs

N, K = 24, 96


@dataclass
class Planned:
    shape: tuple[int, ...]
    format: WeightFormat


def session(
    directory: Path, rows: np.ndarray, fmt: WeightFormat, arrays: dict[str, np.ndarray] | None = None
) -> ort.InferenceSession:
    arrays = arrays or quantize_rows(rows, fmt)
    layout = plan_layout(array_specs("w", rows.shape, fmt), "weights.bin")
    content = bytearray(layout.size)
    for name, array in arrays.items():
        stored = layout.arrays[f"w.{name}"]
        content[stored.offset : stored.offset + array.nbytes] = np.ascontiguousarray(array).tobytes()
    (directory / "weights.bin").write_bytes(content)
    b = GraphBuilder()
    emitter = WeightEmitter({"w": Planned(rows.shape, fmt)}, layout.arrays)
    x = ir.Value(name="x", shape=ir.Shape(["b", "s", rows.shape[1]]), type=ir.TensorType(ir.DataType.FLOAT))
    ids = ir.Value(name="ids", shape=ir.Shape(["b", "s"]), type=ir.TensorType(ir.DataType.INT64))
    y = emitter.linear(b, x, "w", output="y")
    y.type = ir.TensorType(ir.DataType.FLOAT)
    found = emitter.embedding(b, ids, "w", output="rows")
    found.type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [x, ids],
        [y, found],
        nodes=b.nodes,
        initializers=list(b.initializers.values()),
        opset_imports={"": 21, "com.microsoft": 1},
    )
    ir.save(ir.Model(graph, ir_version=10), directory / "m.onnx")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(directory / "folded.onnx")
    options.log_severity_level = 3
    return ort.InferenceSession(str(directory / "m.onnx"), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(("symmetric", "scale_bits"), itertools.product([True, False], [8, 16, 32]))
@pytest.mark.parametrize("k", [K, 100])
def test_a_product_is_that_of_the_dequantized_matrix(
    tmp_path: Path, bits: int, symmetric: bool, scale_bits: int, k: int
) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((N, k)).astype(np.float32)
    fmt = WeightFormat(bits, 32, symmetric, "search", accuracy_level=1, scale_bits=scale_bits)
    run = session(tmp_path, rows, fmt)
    x = rng.standard_normal((2, 3, k)).astype(np.float32)
    ids = np.array([[0, 5, 23], [7, 7, 1]], dtype=np.int64)
    restored = dequantize_rows(quantize_rows(rows, fmt), fmt, k)
    got = run.run(None, {"x": x, "ids": ids})
    np.testing.assert_allclose(got[0], x @ restored.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got[1], restored[ids], rtol=1e-6, atol=1e-7)
    # All that widens weights was folded when the session opened: nothing of it is left to do at run time.
    left = {node.op_type for node in ir.load(tmp_path / "folded.onnx").graph}
    assert not left & {"BitShift", "BitwiseAnd", "BitwiseOr", "Concat", "Cast", "Mul"}


@pytest.mark.parametrize(("bits", "level", "atol"), [(4, 1, 1e-4), (5, 1, 1e-4), (4, 4, 1.0)])
@pytest.mark.parametrize("k", [K, 1024 + 64])
def test_blocks_with_offsets(tmp_path: Path, bits: int, level: int, atol: float, k: int) -> None:
    """The kernel that rounds activations is near: the means are rounded among themselves."""
    rng = np.random.default_rng(2)
    fmt = WeightFormat(bits, 32, False, "kept", accuracy_level=level, offsets=True)
    scales = rng.uniform(0.01, 0.02, (N, k // 32)).astype(np.float16).astype(np.float32)
    points = rng.uniform(0, 1 << bits, scales.shape).astype(np.float32)
    codes = rng.integers(0, 1 << bits, (N, k // 32, 32))
    rows = ((codes - points[..., None]) * scales[..., None]).astype(np.float32).reshape(N, k)
    arrays = keep_rows(rows, fmt, scales, points)
    restored = dequantize_rows(arrays, fmt, k)
    run = session(tmp_path, rows, fmt, arrays)
    x = rng.standard_normal((2, 3, k)).astype(np.float32)
    ids = np.array([[0, 5, 23], [7, 7, 1]], dtype=np.int64)
    got = run.run(None, {"x": x, "ids": ids})
    np.testing.assert_allclose(got[0], x @ restored.T, rtol=1e-4, atol=atol)
    np.testing.assert_allclose(got[1], restored[ids], rtol=1e-6, atol=1e-6)
    assert run.run(["y"], {"x": x[:, :0], "ids": ids})[0].shape == (2, 0, N)  # a step that wants no logits
