"""Times the kernels that a model's steps consist of, each in a small graph of its own on random numbers.

The graphs come from the exporter's own code, so that whatever format or layer it can write can be timed, and sessions
have the options of the runtime.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgedistill.bundle.bit_planes import WidenedGraph, to_json
from edgedistill.bundle.bundle import MODEL, WIDENED
from edgedistill.estimate.speed import ExpertsCase
from edgedistill.export.writer import plan_layout
from edgedistill.graph.builder import GraphBuilder
from edgedistill.graph.decoder import IR_VERSION, OPSET
from edgedistill.graph.weights import WeightEmitter
from edgedistill.planning.room import wanted_copies
from edgedistill.runtime.bit_planes import Widening
from edgedistill.runtime.session import SessionConfig, open_session, usable_threads
from edgedistill.system.huge_pages import use_huge_pages
from edgedistill.system.temporary import scratch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgedistill.estimate.speed import MatrixCase
    from edgedistill.export.writer import StoredArray
    from edgedistill.quantize.spec import ArraySpec

SECONDS = 0.25
"""Least time that a case is repeated for."""
REPEATS = 5
QUANTILE = 0.5
"""Of the repeats: what a step takes is a median too."""
SCRATCH = "edgedistill-timing-"
"""Beginning of the names of temporary directories."""
_WEIGHTS = "weights.bin"


def time_matrix(case: MatrixCase, config: SessionConfig, copies: int | None = None) -> float:
    """Seconds of one product of ``case``.

    A graph of as many such products as fill the working set, each with weights of its own, so that weights come from
    where they would in the model.

    Args:
        case: What to time.
        config: Options of the session.
        copies: Products in the graph instead; fewer where there is no room for all.
    """
    copies = copies or wanted_copies(case)
    rng = np.random.default_rng(0)
    with scratch(Path(tempfile.gettempdir()), SCRATCH) as folder:
        names = [f"w{i}" for i in range(copies)]
        planned = {weight.weight_name: weight for name in names for weight in case.weights(name)}
        layout = plan_layout([spec for weight in planned.values() for spec in weight.arrays], _WEIGHTS)
        _write_random(folder / _WEIGHTS, layout.arrays, layout.size, rng)
        emitter, b = WeightEmitter(planned, layout.arrays, supply=True), GraphBuilder()
        x = ir.Value(
            name="x", shape=ir.Shape(["batch", "sequence", case.columns]), type=ir.TensorType(ir.DataType.FLOAT)
        )
        inputs = {"x": rng.standard_normal((1, case.tokens, case.columns), dtype=np.float32)}
        if isinstance(case, ExpertsCase):
            width, mixed = case.columns, case.experts
            inputs["logits"] = rng.standard_normal((case.tokens, mixed.count), dtype=np.float32)
            logits = ir.Value(
                name="logits", shape=ir.Shape(["tokens", mixed.count]), type=ir.TensorType(ir.DataType.FLOAT)
            )
            products = [emitter.experts(b, x, logits, name, mixed, output=f"{name}.out") for name in names]
            save_inputs = [x, logits]
        else:
            width, save_inputs = case.rows, [x]
            products = [emitter.linear(b, x, name, output=f"{name}.out") for name in names]
        for product in products:
            product.shape = ir.Shape(["batch", "sequence", width])
            product.type = ir.TensorType(ir.DataType.FLOAT)
        save_graph(folder / MODEL, b, save_inputs, products)
        if emitter.supplied:
            (folder / WIDENED).write_text(to_json((WidenedGraph(MODEL, MODEL, emitter.supplied),)), encoding="utf-8")
        name, supplied = Widening.in_directory(folder, threads=usable_threads(config)).supply(MODEL)
        session, _ = open_session(folder / name, config, supplied=supplied)
        use_huge_pages()
    out = np.zeros((1, case.tokens, width), dtype=np.float32)
    return time_runs(session, inputs, dict.fromkeys((p.name or "" for p in products), out)) / copies


def save_graph(path: Path, b: GraphBuilder, inputs: list[ir.Value], outputs: list[ir.Value]) -> None:
    """Write a graph of the nodes collected in ``b``."""
    graph = ir.Graph(
        inputs, outputs, nodes=b.nodes, initializers=list(b.initializers.values()),
        opset_imports={"": OPSET, "com.microsoft": 1}, name="timing",
    )  # fmt: skip
    ir.save(ir.Model(graph, ir_version=IR_VERSION, producer_name="edgedistill"), path)


def time_runs(session: Any, inputs: Mapping[str, npt.NDArray[Any]], outputs: Mapping[str, npt.NDArray[Any]]) -> float:
    """Seconds of a run (median) with all inputs and outputs bound to these arrays (an array may serve several)."""
    import onnxruntime as ort

    values = {id(array): ort.OrtValue.ortvalue_from_numpy(array) for array in (*inputs.values(), *outputs.values())}
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, values[id(array)])
    for name, array in outputs.items():
        binding.bind_ortvalue_output(name, values[id(array)])
    session.run_with_iobinding(binding)  # warms caches and threads up
    laps: list[float] = []
    begun = time.perf_counter()
    while len(laps) < REPEATS or time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        laps.append(time.perf_counter() - start)
    return float(np.quantile(laps, QUANTILE))


def _write_random(path: Path, arrays: Mapping[str, StoredArray], size: int, rng: np.random.Generator) -> None:
    """Codes of all values, and scales small enough for sums to stay finite.

    No two arrays are equal: ONNX Runtime keeps equal packed weights once, and a step would then read them from the
    processor's cache.
    """
    made: dict[tuple[str, tuple[int, ...]], npt.NDArray[Any]] = {}
    with path.open("wb") as file:
        file.truncate(size)
        for turn, array in enumerate(arrays.values()):
            kind = (array.spec.dtype, tuple(array.spec.shape))
            if kind not in made:
                made[kind] = _random(array.spec, rng).reshape(-1)
            file.seek(array.offset)
            file.write(np.roll(made[kind], turn).tobytes())


def _random(spec: ArraySpec, rng: np.random.Generator) -> npt.NDArray[Any]:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return (rng.random(spec.shape, dtype=np.float32) * np.float32(0.01)).astype(dtype)
    return np.frombuffer(rng.bytes(spec.nbytes), dtype=dtype).reshape(spec.shape)
