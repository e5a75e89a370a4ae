"""Matrices in planes: what the runtime puts together is what ONNX Runtime folds the graph's own nodes to."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx_ir.passes.common import ShapeInferencePass

from edgedistill.bundle.bit_planes import WidenedGraph, from_json, to_json
from edgedistill.bundle.bundle import MODEL, WIDENED
from edgedistill.bundle.opening_memory import folded_bytes
from edgedistill.export.writer import plan_layout
from edgedistill.graph import bit_planes as emit_planes
from edgedistill.graph.builder import GraphBuilder
from edgedistill.graph.weights import WeightEmitter
from edgedistill.quantize.plan import PlannedWeight
from edgedistill.quantize.spec import BLOCK_SIZES, PLANES, WeightFormat, array_specs
from edgedistill.runtime.bit_planes import Widening

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (24, 300)


def write_random_weights(folder: Path, fmt: WeightFormat) -> dict[str, object]:
    layout = plan_layout(array_specs("w", SHAPE, fmt), "weights.bin")
    (folder / "weights.bin").write_bytes(np.random.default_rng(fmt.bits).bytes(layout.size))
    return dict(layout.arrays)


def save(folder: Path, b: GraphBuilder, output: ir.Value) -> None:
    output.type = ir.TensorType(ir.DataType.UINT8)
    initializers = list(b.initializers.values())
    graph = ir.Graph([], [output], nodes=b.nodes, initializers=initializers, opset_imports={"": 21, "com.microsoft": 1})
    ir.save(ir.Model(graph, ir_version=10), folder / MODEL)


@pytest.mark.parametrize(("bits", "block", "symmetric"), itertools.product(PLANES, BLOCK_SIZES, [True, False]))
def test_supplied_bytes_are_the_folded_ones(tmp_path: Path, bits: int, block: int, symmetric: bool) -> None:
    fmt = WeightFormat(bits, block, symmetric)
    stored = write_random_weights(tmp_path, fmt)
    planes = [stored[f"w.q{width}"] for width in fmt.planes]
    b = GraphBuilder()
    save(tmp_path, b, emit_planes.unpacked(b, "w", SHAPE, fmt, planes))  # type: ignore[arg-type]
    folded = ort.InferenceSession(str(tmp_path / MODEL), providers=["CPUExecutionProvider"]).run(None, {})[0]
    matrix = emit_planes.supplied_matrix("w", SHAPE, fmt, planes)  # type: ignore[arg-type]
    (tmp_path / WIDENED).write_text(to_json((WidenedGraph("other.onnx", MODEL, (matrix,)),)))
    name, values = Widening.in_directory(tmp_path, threads=2).supply(MODEL)
    assert name == "other.onnx"
    assert list(values) == ["w.q.widened"]
    np.testing.assert_array_equal(values["w.q.widened"].numpy(), folded)


@pytest.mark.parametrize(("bits", "symmetric"), itertools.product(PLANES, [True, False]))
def test_the_memory_of_folding_is_that_of_its_nodes_results(bits: int, symmetric: bool) -> None:
    fmt = WeightFormat(bits, 64, symmetric)
    layout = plan_layout(array_specs("w", (64, 64), fmt), "weights.bin")
    b = GraphBuilder()
    emit_planes.unpacked(b, "w", (64, 64), fmt, [layout.arrays[f"w.q{width}"] for width in fmt.planes])
    graph = ir.Graph([], [], nodes=b.nodes, initializers=list(b.initializers.values()), opset_imports={"": 21})
    inferred = ShapeInferencePass()(ir.Model(graph, ir_version=10)).model
    sizes = [math.prod(value.shape.numpy()) for node in inferred.graph for value in node.outputs]
    assert folded_bytes([("w", (64, 64), fmt)]) == pytest.approx(sum(sizes), rel=1e-3)


def test_a_graph_without_what_it_is_to_be_supplied_with_does_not_open(tmp_path: Path) -> None:
    fmt = WeightFormat(3)
    emitter = WeightEmitter(
        {"w": PlannedWeight("w", SHAPE, fmt, array_specs("w", SHAPE, fmt))},
        write_random_weights(tmp_path, fmt),  # type: ignore[arg-type]
        supply=True,
    )
    b = GraphBuilder()
    x = ir.Value(name="x", shape=ir.Shape([1, 2, SHAPE[1]]), type=ir.TensorType(ir.DataType.FLOAT))
    y = emitter.linear(b, x, "w", output="y")
    y.type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [x], [y], nodes=b.nodes, initializers=list(b.initializers.values()), opset_imports={"": 21, "com.microsoft": 1}
    )
    ir.save(ir.Model(graph, ir_version=10), tmp_path / MODEL)
    assert [node.op_type for node in b.nodes if node.op_type.startswith("Bit")] == []
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises(Exception, match=r"w\.q\.widened"):
        ort.InferenceSession(str(tmp_path / MODEL), options, providers=["CPUExecutionProvider"])


def test_the_table_is_read_as_it_was_written() -> None:
    planes = list(plan_layout(array_specs("w", SHAPE, WeightFormat(6)), "weights.bin").arrays.values())[:2]
    graphs = (WidenedGraph("b.onnx", "a.onnx", (emit_planes.supplied_matrix("w", SHAPE, WeightFormat(6), planes),)),)
    assert from_json(to_json(graphs)) == graphs
    assert from_json('{"version": 3, "graphs": 5}') == ()
