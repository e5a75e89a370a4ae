"""Times what a model's layers do beside multiplying matrices: the exporter's own graph with the matrices left out.

Where the graph has a matrix, what goes in becomes an output and what comes out an input, so that nothing is optimized
away and nothing is computed.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgedistill.architecture.weights import logical_weights
from edgedistill.graph.decoder import build_graph
from edgedistill.graph.weights import WeightEmitter
from edgedistill.planning.kernels import SCRATCH, time_runs
from edgedistill.quantize.kv import kv_scales
from edgedistill.runtime.session import SessionConfig, open_session
from edgedistill.system.huge_pages import use_huge_pages
from edgedistill.system.temporary import scratch

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgedistill.architecture.spec import ExpertsSpec, ModelSpec
    from edgedistill.estimate.speed import LayerCase
    from edgedistill.graph.builder import GraphBuilder
    from edgedistill.profile.profile import Profile
    from edgedistill.quantize.kv import Granularity, KvScales

_CACHE_BYTES = 48 << 20
"""Keys and values of the layers timed together: more than stays in most processors' caches."""
_FEWEST_LAYERS = 2
_DTYPES = {
    "tensor(float)": np.float32, "tensor(int8)": np.int8, "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32, "tensor(int64)": np.int64,
}  # fmt: skip


def time_layer(case: LayerCase, spec: ModelSpec, profile: Profile, config: SessionConfig) -> float:
    """Seconds of one layer like the case's, its matrices left out."""
    total = case.past + case.tokens
    cached = spec.kv_bytes_per_token(profile.kv_cache.itemsize)
    per_layer = total * cached / max(1, len(spec.attention_layers))
    count = int(min(spec.num_hidden_layers, max(_FEWEST_LAYERS, _CACHE_BYTES // max(1, per_layer))))
    layer = spec.layers[case.layer]
    some = replace(
        spec, num_hidden_layers=count, layers=tuple(replace(layer, index=i, keys_of=None) for i in range(count))
    )
    with scratch(Path(tempfile.gettempdir()), SCRATCH) as folder:
        path = folder / "model.onnx"
        emitter = _NoMatrices(some)
        model = build_graph(some, emitter, signature="edgedistill", context_length=total, kv=_scales(some, profile))
        model.graph.inputs.extend(emitter.results.values())
        model.graph.outputs.extend(emitter.operands.values())
        model.graph.outputs[0].shape = None  # there is no head: what would enter it comes out
        ir.save(model, path)
        session, _ = open_session(path, config)
        use_huge_pages()
    return _timed(session, case, total) / count


def _timed(session: Any, case: LayerCase, total: int) -> float:
    sizes = {"batch": 1, "sequence": case.tokens, "capacity": total, "logits": 1}
    known: dict[str, npt.NDArray[Any]] = {
        "seqlens_k": np.array([total - 1], np.int32),
        "query_seqlens": np.array([case.tokens], np.int32),
        "total_sequence_length": np.array(total, np.int32),
        "state_seqlens": np.array([case.tokens], np.int32),
    }
    rng = np.random.default_rng(0)
    inputs: dict[str, npt.NDArray[Any]] = {}
    for value in session.get_inputs():
        shape = [sizes.get(size, size) for size in value.shape]
        if value.name in known:
            inputs[value.name] = known[value.name]
        elif value.type == "tensor(float)":
            inputs[value.name] = rng.standard_normal(shape, dtype=np.float32)
        else:
            inputs[value.name] = np.zeros(shape, _DTYPES[value.type])
    outputs: dict[str, npt.NDArray[Any]] = {}
    for value in session.get_outputs():
        past = value.name.replace("present_state", "past_state").replace("present", "past_key_values")
        if past in inputs:
            outputs[value.name] = inputs[past]
    names = [value.name for value in session.get_outputs() if value.name not in outputs]
    for name, array in zip(names, session.run(names, inputs), strict=True):
        outputs[name] = np.ascontiguousarray(array)
    return time_runs(session, inputs, outputs)


class _NoMatrices(WeightEmitter):
    """Vectors as the graph wants them; a product is an input of the graph.

    ``results``: those inputs, one for each number of features. ``operands``: what the products would have read.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__({}, {})
        self._shapes = {weight.name: weight.shape for weight in logical_weights(spec)}
        self._hidden_size = spec.hidden_size
        self._head = "embed" if spec.tie_word_embeddings else "lm_head"
        self.results: dict[int, ir.Value] = {}
        self.operands: dict[str, ir.Value] = {}

    def vector(self, b: GraphBuilder, name: str) -> ir.Value:
        return b.constant(name, np.ones(self._shapes[name], dtype=np.float32))

    def linear(
        self,
        b: GraphBuilder,
        x: ir.Value,
        name: str,
        *,
        output: str,
        bias: str | None = None,  # noqa: ARG002
    ) -> ir.Value:
        if name == self._head:
            return b.call("Identity", [x], output)
        if x.name is not None:
            x.type = ir.TensorType(ir.DataType.FLOAT)
            self.operands[x.name] = x
        return self._result(self._shapes[name][0])

    def experts(
        self,
        b: GraphBuilder,  # noqa: ARG002
        x: ir.Value,
        logits: ir.Value,
        name: str,  # noqa: ARG002
        experts: ExpertsSpec,  # noqa: ARG002
        *,
        output: str,  # noqa: ARG002
    ) -> ir.Value:
        for value in (x, logits):
            if value.name is not None:
                value.type = ir.TensorType(ir.DataType.FLOAT)
                self.operands[value.name] = value
        return self._result(self._hidden_size)

    def embedding(
        self,
        b: GraphBuilder,  # noqa: ARG002
        ids: ir.Value,  # noqa: ARG002
        name: str,
        *,
        output: str,  # noqa: ARG002
    ) -> ir.Value:
        return self._result(self._shapes[name][1])

    def _result(self, features: int) -> ir.Value:
        if features not in self.results:
            self.results[features] = ir.Value(
                name=f"result.{features}",
                shape=ir.Shape(["batch", "sequence", features]),
                type=ir.TensorType(ir.DataType.FLOAT),
            )
        return self.results[features]


def _scales(spec: ModelSpec, profile: Profile) -> KvScales | None:
    cache = profile.kv_cache
    if not cache.is_quantized:
        return None
    maxima = [
        np.full((spec.num_key_value_heads, spec.of_layer(i).head_dim), 4.0, dtype=np.float32)
        for i in spec.attention_layers
    ]
    granularity: Granularity = "per-channel" if cache.scales == "per-channel" else "per-tensor"
    return kv_scales(maxima, maxima, bits=cache.bits, granularity=granularity)
