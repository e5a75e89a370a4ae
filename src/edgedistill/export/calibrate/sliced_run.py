"""Runs a large bundle's own graph in slices of a few layers, so that trying it needs the memory of one slice.

The written model.onnx is cut between layers. Each piece becomes a session over the same weights file, runs, and is
closed before the next one opens. Memory does not grow with the number of layers, but ``decode`` opens every slice again
for every token: it is meant for a trial of a few tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.bundle.bundle import MODEL
from edgedistill.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import onnx_ir as ir
    import onnxruntime

    from edgedistill.bundle.manifest import Manifest

SLICE_BYTES = 192 << 20
_CUT = ".slice.onnx"
_LENGTHS = ("seqlens_k", "query_seqlens", "total_sequence_length")
_COUNTS = "state_seqlens"


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of the graph: names of its inputs and outputs, and the layers whose caches and states it updates."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: range


def pieces(manifest: Manifest, limit: int = SLICE_BYTES) -> Iterator[Piece]:
    """Cut the decoder into runs of layers of about ``limit`` bytes of weights, and the head by itself."""
    count = manifest.model.num_hidden_layers
    sizes = [0] * count
    for weight in manifest.weights:
        if weight.name.startswith("layers."):
            sizes[int(weight.name.split(".")[1])] += weight.nbytes
    begin = 0
    while begin < count:
        end = begin + 1
        while end < count and sum(sizes[begin : end + 1]) <= limit:
            end += 1
        attention = [i for i in manifest.model.attention_layers if begin <= i < end]
        kept = [f"past_key_values.{i}.{kind}" for i in attention for kind in ("key", "value")]
        borrowed = sorted({maker for layer, maker in manifest.model.readers if begin <= layer < end and maker < begin})
        states = [s.name for s in manifest.model.states if begin <= int(s.name.partition(".")[0]) < end]
        kept += [f"past_state.{name}" for name in states]
        entry = ("input_ids",) if begin == 0 else (*_boundary(begin), *_flowing(manifest, begin))
        made = (name for name in _flowing(manifest, end) if name not in entry)
        leave = ("final_norm.out",) if end == count else (*_boundary(end), *made)
        # The past of another piece's layer, and not its present: that is written again, with the same keys.
        read = [f"past_key_values.{i}.{kind}" for i in borrowed for kind in ("key", "value")]
        yield Piece(
            inputs=(*entry, *_LENGTHS, *((_COUNTS,) if states else ()), *kept, *read),
            outputs=(*leave, *map(_present, kept)),
            layers=range(begin, end),
        )
        begin = end
    yield Piece(("final_norm.out", "logit_index"), ("logits",), range(0))


def _present(past: str) -> str:
    return past.replace("past_key_values", "present").replace("past_state", "present_state")


def _flowing(manifest: Manifest, boundary: int) -> tuple[str, ...]:
    """Values that layers from ``boundary`` on read besides the output of the layer before them."""
    model = manifest.model
    makers = sorted({maker for layer, maker in model.readers if layer >= boundary > maker})
    keys = tuple(f"layers.{maker}.attn.{which}" for maker in makers for which in ("k", "v"))
    second = any(weight.name == "per_layer.embed" for weight in manifest.weights)
    return ("per_layer.inputs", *keys) if second else keys


def _flows(name: str) -> bool:
    return not name.startswith(("present", "logits"))


def _boundary(layer: int) -> tuple[str, str]:
    """The two values that enter ``layer``: its normalised input and the residual."""
    return f"layers.{layer}.input_norm.out", f"layers.{layer}.input_norm.sum"


def decode(directory: Path, manifest: Manifest, prompt: list[int], steps: int, limit: int = SLICE_BYTES) -> list[int]:
    """Greedy continuation of ``prompt`` by ``steps`` tokens, in slices of about ``limit`` bytes of weights.

    Raises:
        ExportError: Logits that are not finite.
    """
    model, cuts = _load(directory, manifest, limit)
    capacity = len(prompt) + steps
    caches = _empty_caches(model, 1, capacity)
    tokens: list[int] = []
    new, past = list(prompt), 0
    try:
        for _ in range(steps):
            feeds = _feeds(new, past, capacity)
            for cut in cuts:
                session = _open(directory, model, cut)
                feeds.update(_run(session, cut, {**feeds, **caches}))
                del session
                for name in cut.inputs:
                    if name.startswith("past_") and _present(name) in cut.outputs:
                        caches[name] = feeds.pop(_present(name))
            logits = feeds["logits"][0, -1]
            if not np.isfinite(logits).all():
                raise ExportError("The trial decode gave logits that are not finite.")
            past += len(new)
            new = [int(np.argmax(logits))]
            tokens += new
    finally:
        (directory / _CUT).unlink(missing_ok=True)
    return tokens


def sweep(
    directory: Path, manifest: Manifest, sequences: Sequence[Sequence[int]], limit: int = SLICE_BYTES
) -> Iterator[tuple[int, npt.NDArray[Any], npt.NDArray[Any]]]:
    """Prefill every sequence; yields an attention layer's index, keys and values [kv_heads, tokens, head_dim].

    Every slice is opened once for all sequences. Slices come in order; within a slice, sequence by sequence.
    """
    model, cuts = _load(directory, manifest, limit)
    feeds = [_feeds(list(sequence), 0, len(sequence)) for sequence in sequences if sequence]
    empty = [_empty_caches(model, 1, len(feed["input_ids"][0])) for feed in feeds]
    try:
        for cut in cuts[:-1]:
            session = _open(directory, model, cut)
            for feed, caches in zip(feeds, empty, strict=True):
                out = _run(session, cut, {**feed, **caches})
                for layer in (i for i in cut.layers if i in manifest.model.attention_layers):
                    yield layer, out.pop(f"present.{layer}.key")[0], out.pop(f"present.{layer}.value")[0]
                feed.update(out)
            del session
    finally:
        (directory / _CUT).unlink(missing_ok=True)


HEAD_TOKENS = 128
"""Positions whose logits are in memory at the same time."""


def chunks(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """``values`` [n, ...] in pieces of ``HEAD_TOKENS`` along the first axis."""
    for start in range(0, len(values), HEAD_TOKENS):
        yield values[start : start + HEAD_TOKENS]


def logits(
    directory: Path, manifest: Manifest, sequences: Sequence[npt.NDArray[Any]], limit: int = SLICE_BYTES
) -> Iterator[npt.NDArray[np.float32]]:
    """Prefill every sequence; yields logits float32 [n, V] of all its positions, in ``chunks``."""
    model, cuts = _load(directory, manifest, limit)
    feeds = [_feeds([int(token) for token in ids], 0, len(ids)) for ids in sequences]
    try:
        for cut in cuts[:-1]:
            session = _open(directory, model, cut)
            for feed in feeds:
                out = _run(session, cut, {**feed, **_empty_caches(model, 1, feed["input_ids"].shape[1])})
                feed.update((name, value) for name, value in out.items() if _flows(name))
            del session
        session = _open(directory, model, cuts[-1])
        for feed, ids in zip(feeds, sequences, strict=True):
            for index in chunks(np.arange(len(ids))):
                yield _run(session, cuts[-1], {**feed, "logit_index": index[None]})["logits"][0]
        del session
    finally:
        (directory / _CUT).unlink(missing_ok=True)


def observe(
    directory: Path,
    manifest: Manifest,
    sequences: Sequence[Sequence[int]],
    names: Sequence[str],
    limit: int = SLICE_BYTES,
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Prefill every sequence; yields the name and the value, float32 [tokens, width], of each of ``names`` per
    sequence.

    Names are those of values within or at the end of layers (``layers.3.mlp.gated``, ``final_norm.out``).
    """
    import onnx_ir as ir

    model, cuts = _load(directory, manifest, limit)
    wanted = set(names)
    for value in ir.convenience.create_value_mapping(model.graph).values():
        if value.name in wanted and value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            value.shape = ir.Shape(["batch", "sequence", None])
    feeds = [_feeds(list(sequence), 0, len(sequence)) for sequence in sequences if sequence]
    try:
        for cut in cuts[:-1]:
            inside = [n for n in names if _layer(n) in cut.layers and n not in cut.inputs and n not in cut.outputs]
            tapped = Piece(cut.inputs, (*cut.outputs, *inside), cut.layers)
            session = _open(directory, model, tapped)
            for feed in feeds:
                out = _run(session, tapped, {**feed, **_empty_caches(model, 1, feed["input_ids"].shape[1])})
                yield from ((name, out[name][0]) for name in out if name in wanted)
                feed.update((name, value) for name, value in out.items() if name in cut.outputs and _flows(name))
            del session
    finally:
        (directory / _CUT).unlink(missing_ok=True)


def _layer(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("layers.") else -1


def _load(directory: Path, manifest: Manifest, limit: int) -> tuple[ir.Model, list[Piece]]:
    """The graph, with types added to the values between the pieces, and the pieces."""
    import onnx_ir as ir

    from edgedistill.runtime.bit_planes import Widening

    model = ir.load(directory / Widening.in_directory(directory).graph(MODEL))
    cuts = list(pieces(manifest, limit))
    # Where there are several residual streams, what flows between layers has one axis more.
    shaped = ".out" if any(weight.name == "altup.in" for weight in manifest.weights) else ""
    for value in ir.convenience.create_value_mapping(model.graph).values():
        if value.name in {name for cut in cuts for name in cut.outputs if _flows(name)}:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            if "norm" in value.name and value.name.endswith(shaped):
                value.shape = ir.Shape(["batch", "sequence", manifest.model.hidden_size])
    return model, cuts


def _feeds(new: list[int], past: int, capacity: int) -> dict[str, npt.NDArray[Any]]:
    return {
        "input_ids": np.array([new], dtype=np.int64),
        "seqlens_k": np.array([past + len(new) - 1], dtype=np.int32),
        "query_seqlens": np.array([len(new)], dtype=np.int32),
        _COUNTS: np.array([len(new)], dtype=np.int32),
        "total_sequence_length": np.array(capacity, dtype=np.int32),
        "logit_index": np.array([[len(new) - 1]], dtype=np.int64),
    }


def _empty_caches(model: ir.Model, batch: int, capacity: int) -> dict[str, npt.NDArray[Any]]:
    """Zeros for every cache and state among the inputs, of the graph's types."""
    caches: dict[str, npt.NDArray[Any]] = {}
    for value in model.graph.inputs:
        if value.name is not None and value.name.startswith("past_key_values.") and value.shape is not None:
            _, heads, _, width = value.shape
            dtype = value.dtype.numpy() if value.dtype is not None else np.float32
            caches[value.name] = np.zeros((batch, int(str(heads)), capacity, int(str(width))), dtype=dtype)
        elif value.name is not None and value.name.startswith("past_state.") and value.shape is not None:
            shape = (int(str(size)) for size in value.shape[1:])
            caches[value.name] = np.zeros((batch, *shape), dtype=np.float32)
    return caches


def _open(directory: Path, model: ir.Model, cut: Piece) -> onnxruntime.InferenceSession:
    import onnx_ir as ir
    import onnxruntime

    from edgedistill.runtime.bit_planes import Widening

    graph = ir.convenience.extract(model.graph, cut.inputs, cut.outputs)
    # External data is found relative to the graph's file, so the piece has to be beside the weights.
    ir.save(ir.Model(graph, ir_version=model.ir_version), directory / _CUT)
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    supplied = Widening.in_directory(directory, threads=2).part(MODEL, graph.initializers)
    for name in supplied:
        options.add_initializer(name, supplied[name])
    return onnxruntime.InferenceSession(str(directory / _CUT), options, providers=["CPUExecutionProvider"])


def _run(
    session: onnxruntime.InferenceSession, cut: Piece, feeds: dict[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    outputs = session.run(list(cut.outputs), {name: feeds[name] for name in cut.inputs})
    return dict(zip(cut.outputs, outputs, strict=True))
