"""Measures how much the model's output changes when one matrix alone is quantized.

Reference sequences run once through the float32 model layer by layer; every layer's input and the final log
probabilities are kept in files. For each matrix its layer runs again with that matrix in a reference format, in the
kernels that will be deployed, then the following layers and the head in float32. The damage is the mean KL divergence
of the model's output. For other formats it is multiplied by the ratio of tr(dW H dW^T), with H the second moments of
the matrix's input: to lowest order KL is quadratic in dW. Embedding and head are measured in every format. A matrix
that the reference format hardly changes is measured in the coarsest candidate. Float32
weights are in one scratch file that sessions map (``session.disable_prepacking``), so memory does not grow with the
model.

The two matrices of a layer's experts go into one kernel, which needs the same width for both. They are measured
together, and other formats are scaled by |dW|^2 / |W|^2, since few tokens reach any one expert.

Results are kept in the user's cache, one line per unit of matrices, so that an interrupted run continues where it
stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill._version import __version__
from edgedistill.catalog.builtin import cache_dir
from edgedistill.export.calibrate.gptq_layers import PlannedFormat
from edgedistill.export.calibrate.hidden_states import Part
from edgedistill.export.writer import Job, write_scratch
from edgedistill.graph.parts import OUTPUT, build_embedding, build_head, build_layer, inputs_of
from edgedistill.graph.weights import WeightEmitter
from edgedistill.progress import NullProgress
from edgedistill.quantize import dequantize_rows, quantize_rows
from edgedistill.quantize.plan import parse_format, plan_weights
from edgedistill.system.temporary import scratch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import onnx_ir as ir

    from edgedistill.architecture.spec import LogicalWeight
    from edgedistill.checkpoint.types import TensorSource
    from edgedistill.export.plan import Plan
    from edgedistill.progress import Progress
    from edgedistill.quantize.plan import PlannedWeight
    from edgedistill.quantize.spec import ArraySpec, WeightFormat
    from edgedistill.traces.traces import Traces

    Floats = npt.NDArray[np.float32]
    Unit = tuple[LogicalWeight, ...]

REFERENCE = parse_format("int4-b32-asym-search")
_TELLING = 1e-3
"""Where the error of ``REFERENCE`` is a smaller share of a coarser format's, it says nothing about that one: a matrix
that was quantized in four bits before lies on its grid."""
_FEW_ROWS = 64
_NOT_FINITE = 1e6
"""Nats: the damage of a matrix whose quantization gives logits that are no numbers."""
TOKENS = 1024
LENGTH = 512
HEAD_TOKENS = 128
SAMPLED_ROWS = 1024
"""Number of rows by which formats are compared: of the matrices of experts here, of every matrix in the estimate."""


def measure(
    plan: Plan,
    source: TensorSource,
    traces: Traces,
    formats: Sequence[WeightFormat],
    *,
    source_hash: str,
    threads: int,
    progress: Progress | None = None,
) -> dict[str, dict[str, float]]:
    """Mean KL in nats per token, by the first matrix of each of ``units`` and by label of ``formats`` (searched, not
    calibrated).

    Args:
        plan: Of the model with every matrix in float32 and no second form for prefill.
        source: The original tensors.
        traces: About ``TOKENS`` tokens of them are used.
        formats: Candidates, of methods that need no calibration.
        source_hash: Identity of the checkpoint, for the cache.
        threads: For kernels and quantization.
        progress: Receives matrices.
    """
    progress = progress or NullProgress()
    together = units(plan.weights)
    cache = cache_file([source_hash, traces.sha256, [f.label() for f in formats]])
    found = read_cache(cache)
    todo = [unit for unit in together if unit[0].name not in found]
    if todo:
        progress.begin("measuring sensitivity", len(together), "items")
        progress.advance(len(found))
        with scratch(cache.parent, "scratch-") as folder:
            run = _Run(folder, plan, source, sequences_of(traces), threads)
            for unit in todo:
                name = unit[0].name
                found[name] = run.damages(unit, formats)
                with cache.open("a", encoding="utf-8") as file:
                    file.write("\n" + json.dumps([name, found[name]]))
                progress.advance(1)
        progress.end()
    return found


def units(weights: Iterable[LogicalWeight]) -> list[Unit]:
    """Groups of matrices that share a format: the two of a layer's experts together, every other one alone."""
    found: dict[str, list[LogicalWeight]] = {}
    for weight in weights:
        if weight.is_matrix:
            name = weight.name.rpartition(".")[0] if weight.kind == "experts" else weight.name
            found.setdefault(name, []).append(weight)
    return [tuple(unit) for unit in found.values()]


def as_planned(unit: Unit, fmt: WeightFormat) -> dict[str, PlannedWeight]:
    """The matrices of a unit in ``fmt``, by name; for experts as their kernel allows (``plan_weights``)."""
    return plan_weights(unit, fmt).by_name()


def arrays_of(planned: Iterable[PlannedWeight]) -> list[ArraySpec]:
    """The arrays in which weights are stored."""
    return [array for weight in planned for array in weight.arrays]


def weight_errors(
    rows: Sequence[Floats], unit: Unit, formats: Sequence[WeightFormat], threads: int
) -> dict[str, float]:
    """|dW|^2 / |W|^2 summed over the matrices of a unit, by label of ``formats``; ``rows`` are samples float32 [n, K]
    of each matrix."""

    def error(fmt: WeightFormat) -> float:
        if fmt.is_float:
            return 0.0
        total = 0.0
        for weight, values in zip(unit, rows, strict=True):
            own = as_planned(unit, fmt)[weight.name].format
            change = values - dequantize_rows(quantize_rows(values, own, threads=threads), own, values.shape[1])
            total += float(
                np.square(change).sum(dtype=np.float64) / max(np.square(values).sum(dtype=np.float64), 1e-30)
            )
        return total

    return {fmt.label(): error(fmt) for fmt in formats}


def cache_file(key: list[Any]) -> Path:
    """File of the measurements that ``key`` identifies, of this version."""
    text = json.dumps([__version__, *key])
    return cache_dir() / "sensitivity" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.jsonl"


def read_cache(path: Path) -> dict[str, dict[str, float]]:
    """Numbers by matrix that an earlier run kept: the last line of a matrix counts, incomplete lines are skipped."""
    found: dict[str, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            name, damages = json.loads(line)
        except (ValueError, TypeError):
            continue  # empty, or torn by an interruption
        found[name] = damages
    return found


def sequences_of(traces: Traces) -> list[npt.NDArray[np.int64]]:
    """About ``TOKENS`` tokens from the front of the traces, in sequences of at most ``LENGTH``."""
    found: list[npt.NDArray[np.int64]] = []
    left = TOKENS
    for ids in traces.sequences:
        if left < 2:
            break
        found.append(ids[: min(LENGTH, left)])
        left -= len(found[-1])
    return found


class _Run:
    def __init__(
        self,
        folder: Path,
        plan: Plan,
        source: TensorSource,
        sequences: list[npt.NDArray[np.int64]],
        threads: int,
    ) -> None:
        self._folder, self._plan, self._source, self._threads = folder, plan, source, threads
        self._sequences = [ids[: plan.context_length] for ids in sequences]
        self._tokens = sum(map(len, self._sequences))
        self._planned = {n: PlannedFormat(w.shape, w.format) for n, w in plan.planned.by_name().items()}
        jobs = [Job(w, self._planned[w.name].format) for w in plan.weights]
        self._stored = write_scratch(folder / "weights.bin", arrays_of(plan.planned.weights), jobs, source, threads)
        self._float = WeightEmitter(self._planned, self._stored)
        count = plan.spec.num_hidden_layers
        self._layers = [self._session(self._part(self._float, i)) for i in range(count)]
        self._head = self._session(build_head(plan.spec, self._float))
        self._inputs = self._file("inputs", (count + 1, self._tokens, plan.spec.hidden_size))
        self._inputs[0] = self._embed(self._float)
        for index in range(count):
            self._inputs[index + 1] = self._through(self._layers[index], self._inputs[index])
        self._reference = self._file("logits", (self._tokens, plan.spec.vocab_size))
        for part in self._slices():
            self._reference[part] = log_softmax(self._logits(self._head, self._inputs[count][part]))

    def damages(self, unit: Unit, formats: Sequence[WeightFormat]) -> dict[str, float]:
        """KL by label of ``formats``."""
        weight = unit[0]
        if not weight.name.startswith("layers."):
            return {fmt.label(): self._direct(unit, fmt) for fmt in formats}
        reference = reference_of(unit, self._source, formats, self._threads)
        direct = self._direct(unit, reference)
        if weight.kind == "experts":
            some = [sampled_rows(one, self._source) for one in unit]
            errors = weight_errors(some, unit, [reference, *formats], self._threads)
            base = errors[reference.label()]
            return {fmt.label(): direct * errors[fmt.label()] / base if base else 0.0 for fmt in formats}
        index = int(weight.name.split(".")[1])
        tap = inputs_of(self._plan.spec, weight.name)
        session = self._session(self._part(self._float, index, (tap,)))
        x = self._through(session, self._inputs[index], tap)
        second = x.T @ x / np.float32(len(x))
        rows = np.concatenate(
            [self._source.read_rows(p, 0, self._source.info(p).shape[0]) for p in weight.parts]
        ) + np.float32(weight.offset)

        def error(fmt: WeightFormat) -> float:
            if fmt.is_float:
                return 0.0
            change = rows - dequantize_rows(quantize_rows(rows, fmt, threads=self._threads), fmt, rows.shape[1])
            return float(np.einsum("ij,ij->", change @ second, change, dtype=np.float64))

        base = error(reference)
        return {fmt.label(): direct * error(fmt) / base if base else 0.0 for fmt in formats}

    def _direct(self, unit: Unit, fmt: WeightFormat) -> float:
        """Measured KL with ``unit`` alone in ``fmt``."""
        if fmt.is_float:
            return 0.0
        weight, planned = unit[0], as_planned(unit, fmt)
        jobs = [Job(one, planned[one.name].format) for one in unit]
        arrays = arrays_of(planned.values())
        places = write_scratch(self._folder / "candidate.bin", arrays, jobs, self._source, self._threads)
        emitter = WeightEmitter({**self._planned, **planned}, {**self._stored, **places}, supply=True)
        spec, head, first = self._plan.spec, self._head, len(self._layers)
        hidden: Floats = self._inputs[first]
        if weight.name.startswith("layers."):
            first = int(weight.name.split(".")[1])
            hidden = self._through(self._session(self._part(emitter, first)), self._inputs[first])
            first += 1
        else:
            head = self._session(build_head(spec, emitter))
            if weight.name == "embed":
                hidden, first = self._embed(emitter), 0
        for session in self._layers[first:]:
            hidden = self._through(session, hidden)
        total = 0.0
        for part in self._slices():
            total += kl_sum(self._reference[part], log_softmax(self._logits(head, hidden[part])))
        return nats(total / self._tokens)

    def _embed(self, emitter: WeightEmitter) -> Floats:
        session = self._session(build_embedding(self._plan.spec, emitter))
        return np.concatenate([session.run([OUTPUT], {"input_ids": ids[None]})[0][0] for ids in self._sequences])

    def _through(self, layer: Part, hidden: Floats, output: str = OUTPUT) -> Floats:
        return layer.through(self._plan.spec, self._sequences, hidden, output)

    def _logits(self, session: Part, hidden: Floats) -> Floats:
        found: Floats = session.run(["logits"], {"hidden": np.asarray(hidden)[None]})[0][0]
        return found

    def _slices(self) -> list[slice]:
        return [slice(i, min(i + HEAD_TOKENS, self._tokens)) for i in range(0, self._tokens, HEAD_TOKENS)]

    def _file(self, name: str, shape: tuple[int, ...]) -> Any:
        return np.memmap(self._folder / name, np.float32, "w+", shape=shape)

    def _part(self, emitter: WeightEmitter, index: int, taps: tuple[str, ...] = ()) -> ir.Model:
        longest = max(map(len, self._sequences))
        return build_layer(self._plan.spec, emitter, index, taps, positions=longest, context=self._plan.context_length)

    def _session(self, model: ir.Model) -> Part:
        return Part(model, self._folder / "part.onnx", threads=self._threads, prepack=False)


def reference_of(unit: Unit, source: TensorSource, formats: Sequence[WeightFormat], threads: int) -> WeightFormat:
    """The format in which a unit is measured: ``REFERENCE``, or the coarsest of ``formats`` where that one's error says
    nothing about theirs."""
    coarsest = min(formats, key=lambda fmt: (fmt.bits, -fmt.block_size))
    if coarsest.is_float:
        return REFERENCE
    rows = [sampled_rows(weight, source, _FEW_ROWS) for weight in unit]
    errors = weight_errors(rows, unit, [REFERENCE, coarsest], threads)
    return coarsest if errors[REFERENCE.label()] <= _TELLING * errors[coarsest.label()] else REFERENCE


def sampled_rows(weight: LogicalWeight, source: TensorSource, count: int = SAMPLED_ROWS) -> Floats:
    """About ``count`` rows of a matrix, evenly spaced over the parts that it consists of."""
    parts = weight.parts[:: max(1, len(weight.parts) // 16)]
    each = max(1, count // len(parts))
    return np.concatenate([source.read_rows(p, 0, min(each, source.info(p).shape[0])) for p in parts])


def nats(kl: float) -> float:
    """A mean KL as a damage: rounding errors below 0 are 0, and what is no number is worse than anything measured."""
    return max(0.0, kl) if math.isfinite(kl) else _NOT_FINITE


def kl_sum(reference: Floats, other: Floats) -> float:
    """KL(reference || other) summed over rows of log probabilities float32 [tokens, V], in nats."""
    return float(np.einsum("ij,ij->", np.exp(reference), reference - other, dtype=np.float64))


def log_softmax(logits: Floats) -> Floats:
    """Log probabilities of logits float32 [tokens, V]."""
    logits = logits - logits.max(axis=1, keepdims=True)
    found: Floats = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return found
