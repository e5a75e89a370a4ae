"""Calibrated quantization in the memory of one layer: activations flow through the model layer by layer.

Two streams of hidden states run side by side: one through the original weights, one through those quantized so far, in
the kernels that will be deployed. Before a matrix is quantized, the second moments of its inputs in both streams are
collected. Matrices of a layer are quantized in the order in which they act, so that the inputs of each come from the
quantized ones before it. Both streams are kept in files; float32 weights are held for one layer at a time.

With ``sequential=False`` (the quick calibration) only the original stream runs, and one pass gives the moments of all
matrices of a layer.

A resumed run sends the streams through finished layers again and quantizes the rest. The kernels give the same bits
each time, so the result is that of an uninterrupted run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.export.calibrate.duration import STAGES, estimate_seconds, measure_rates
from edgedistill.export.calibrate.hidden_states import Part, Stream, batches, embedding_rows
from edgedistill.export.calibrate.shared_inputs import SharedInputs, second_embedding
from edgedistill.export.writer import Job, StoredArray, WeightsWriter, write_scratch
from edgedistill.graph.parts import OUTPUT, build_embedding, build_layer, build_second_embedding, inputs_of
from edgedistill.graph.weights import WeightEmitter
from edgedistill.progress import say
from edgedistill.quantize.gptq import GptqOptions, Moments, Solver
from edgedistill.quantize.spec import FLOAT32, array_specs
from edgedistill.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    import onnx_ir as ir

    from edgedistill.architecture.spec import LogicalWeight
    from edgedistill.checkpoint.types import TensorSource
    from edgedistill.export.calibrate.hidden_states import Batch
    from edgedistill.export.calibrate.smoothing import Fold
    from edgedistill.export.plan import Plan
    from edgedistill.progress import Progress
    from edgedistill.quantize.spec import WeightFormat

    Floats = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]

REPORTED_FROM = 30.0
"""Seconds: a calibration that takes less does not announce how long it will take."""
_CORRECTED_FROM = 0.25
"""An announced time is corrected when it is off by more than this share of the time left."""
_GRAPH = ".part.onnx"
_SCRATCH = ".layer.bin"


@dataclass(slots=True)
class Outcome:
    """``reused`` counts weights of an interrupted run; ``failed`` has, by weight, why scale search replaced GPTQ."""

    reused: int = 0
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlannedFormat:
    """Shape and format of a matrix in a part of the model, as ``WeightEmitter`` expects them."""

    shape: tuple[int, ...]
    format: WeightFormat


def write_calibrated(
    writer: WeightsWriter,
    plan: Plan,
    source: TensorSource,
    sequences: Sequence[Ids],
    *,
    options: GptqOptions,
    threads: int,
    progress: Progress,
    folds: Mapping[str, Fold] | None = None,
) -> Outcome:
    """Quantize and write all weights of ``plan``, those of method ``gptq`` with moments from ``sequences``.

    Args:
        writer: Receives the arrays; scratch files are made in its directory and removed.
        plan: Formats, and places in the weights file.
        source: The original tensors.
        sequences: Token ids, int64 [n] each.
        options: Of the solver.
        threads: Slices worked on at a time.
        progress: Receives elements of weights.
        folds: Factors that smoothing moves between weights, by name.

    Raises:
        OutputError: The weights file cannot be written.
    """
    run = _Run(writer, plan, source, sequences, options, threads, progress, folds or {})
    try:
        run.all_layers()
    finally:
        run.close()
    return run.outcome


class _Run:
    def __init__(
        self,
        writer: WeightsWriter,
        plan: Plan,
        source: TensorSource,
        sequences: Sequence[Ids],
        options: GptqOptions,
        threads: int,
        progress: Progress,
        folds: Mapping[str, Fold],
    ) -> None:
        self.outcome = Outcome()
        self._writer, self._plan, self._source = writer, plan, source
        self._options, self._threads, self._progress, self._folds = options, threads, progress, folds
        self._directory = writer.path.parent
        self._planned = plan.planned.by_name()
        longest = plan.context_length
        # Sequences of like length share a batch: little padding.
        self._sequences = sorted((ids[:longest] for ids in sequences), key=len, reverse=True)
        tokens = sum(len(ids) for ids in self._sequences)
        self._longest = max(map(len, self._sequences), default=1)
        self._tokens, self._end = tokens, 0.0
        self._original = Stream(self._directory / ".hidden.original", tokens, plan.spec.hidden_size)
        self._quantized = Stream(self._directory / ".hidden.quantized", tokens, plan.spec.hidden_size)
        self._shared = {
            stream: SharedInputs(self._directory, plan.spec, tokens, name)
            for stream, name in ((self._original, "original"), (self._quantized, "quantized"))
        }

    def all_layers(self) -> None:
        by_layer: dict[int, list[LogicalWeight]] = {}
        before: list[LogicalWeight] = []
        after: list[LogicalWeight] = []
        for weight in self._plan.weights:
            if weight.name.startswith("layers."):
                by_layer.setdefault(int(weight.name.split(".")[1]), []).append(weight)
            else:
                (after if by_layer else before).append(weight)
        self._write(before)
        self._embed()
        self._announce(len(by_layer))
        solved: list[float] = []
        for index in sorted(by_layer):
            reused, begun = self.outcome.reused, time.perf_counter()
            self._layer(index, by_layer[index], last=index == self._plan.spec.num_hidden_layers - 1)
            if self.outcome.reused == reused:
                solved.append(time.perf_counter() - begun)
                self._correct(sum(solved) / len(solved), len(by_layer) - 1 - index)
        self._write(after)

    def _announce(self, layers: int) -> None:
        """Report how long the layers will take, estimated from their shapes and short timings."""
        formats = [w.format for w in self._planned.values() if w.format.method == "gptq" and not w.format.is_float]
        if not formats:
            return
        rates = measure_rates(self._options, formats[0], self._plan.spec.hidden_size)
        rest = estimate_seconds(self._plan, self._tokens, self._options, self._threads, rates)
        self._end = time.perf_counter() + rest
        if rest > REPORTED_FROM:
            text = f"calibrating {layers} layers on {self._tokens} tokens takes about {format_seconds(rest)} here"
            say(self._progress, f"{text}; finished layers are kept: after an interruption, run the same command again")

    def _correct(self, seconds: float, left: int) -> None:
        """Report how long the ``left`` layers will take at ``seconds`` each, where the last report was far off."""
        rest, now = seconds * left, time.perf_counter()
        if rest > REPORTED_FROM and abs(now + rest - self._end) > _CORRECTED_FROM * rest:
            self._end = now + rest
            each = format_seconds(seconds)
            say(self._progress, f"calibrating: {each} a layer, about {format_seconds(rest)} for the remaining {left}")

    def close(self) -> None:
        if (second := self._shared[self._original].per_layer) is not None:
            second.remove()
        for stream, shared in self._shared.items():
            stream.remove()
            shared.remove()
        for name in (_GRAPH, _SCRATCH):
            (self._directory / name).unlink(missing_ok=True)

    # ---- one layer --------------------------------------------------------------------------------------------

    def _layer(self, index: int, weights: list[LogicalWeight], *, last: bool) -> None:
        """Quantize a layer stage by stage, and send both streams through it."""
        scratch = self._decoded(weights)
        wanted = [w for w in weights if w.is_matrix and self._planned[w.name].format.method == "gptq"]
        wanted = [w for w in wanted if not self._planned[w.name].format.is_float]
        todo = {w.name for w in wanted if not self._writer.is_finished(self._job(w), self._source)}
        for weight in wanted:
            if weight.name not in todo and (reason := self._writer.failure(weight.name)):
                self.outcome.failed[weight.name] = reason
        matrices = {w.name for w in weights if w.is_matrix}
        self._write([w for w in weights if w.name not in todo])
        if not self._options.sequential:
            self._together(index, [w for w in weights if w.name in todo], scratch, last=last)
            return
        written = matrices - todo
        for stage in STAGES:
            names = [f"layers.{index}.{part}" for part in stage if f"layers.{index}.{part}" in todo]
            if not names:
                continue
            solver = Solver(self._moments(index, inputs_of(self._plan.spec, names[0]), scratch, written), self._options)
            if solver.failed:
                self.outcome.failed |= dict.fromkeys(names, solver.failed)
            self._write([w for w in weights if w.name in names], dict.fromkeys(names, solver))
            written |= set(names)
        assert todo <= written, "a matrix that is in no stage would be left unwritten"
        if last:
            return
        for stream, emitter in (
            (self._original, self._emitter(scratch, frozenset())),
            (self._quantized, self._emitter(scratch, matrices)),
        ):
            shared = self._shared[stream]
            outputs = [OUTPUT, *shared.outputs(index)]
            session = self._session(self._part(emitter, index, tuple(outputs) if outputs[1:] else ()))
            for part in batches(self._sequences):
                hidden, *made = session.run(outputs, self._feeds(stream, index, part))
                shared.keep(index, part, made)
                stream.put(part, hidden)

    def _together(
        self, index: int, weights: Sequence[LogicalWeight], scratch: Mapping[str, StoredArray], *, last: bool
    ) -> None:
        """Quantize ``weights`` of a layer with the moments of their original inputs, collected in one pass."""
        spec = self._plan.spec
        taps = {w.name: inputs_of(spec, w.name) for w in weights}
        wanted = list(dict.fromkeys(taps.values()))
        shared = self._shared[self._original]
        outputs = wanted if last else [*wanted, *shared.outputs(index), OUTPUT]
        if not outputs:
            return
        session = self._session(self._part(self._emitter(scratch, frozenset()), index, tuple(outputs)))
        second: dict[str, Floats] = {}
        tokens = 0
        for part in batches(self._sequences):
            found = session.run(outputs, self._feeds(self._original, index, part))
            for tap, values in zip(wanted, found, strict=False):
                x = part.valid(values)
                moments = second.setdefault(tap, np.zeros((x.shape[1], x.shape[1]), np.float32))
                for cut in self._options.groups(x.shape[1]):
                    moments[cut, cut] += x[:, cut].T @ x[:, cut]
            if not last:
                shared.keep(index, part, found[len(wanted) : -1])
                self._original.put(part, found[-1])
            tokens += int(part.lengths.sum())
        del session
        for tap in wanted:
            solver = Solver(Moments(second.pop(tap) / tokens, None, tokens), self._options)
            names = [w.name for w in weights if taps[w.name] == tap]
            if solver.failed:
                self.outcome.failed |= dict.fromkeys(names, solver.failed)
            self._write([w for w in weights if w.name in names], dict.fromkeys(names, solver))

    def _moments(self, index: int, tap: str, scratch: Mapping[str, StoredArray], written: set[str]) -> Moments:
        """Second moments of the values named ``tap``, with the layer's ``written`` matrices already quantized."""
        original = self._session(self._part(self._emitter(scratch, frozenset()), index, (tap,)))
        quantized = self._session(self._part(self._emitter(scratch, written), index, (tap,)))
        second = cross = np.zeros(0, np.float32)
        tokens = 0
        for part in batches(self._sequences):
            x = part.valid(original.run([tap], self._feeds(self._original, index, part))[0])
            y = part.valid(quantized.run([tap], self._feeds(self._quantized, index, part))[0])
            if not tokens:
                second = np.zeros((y.shape[1], y.shape[1]), np.float32)
                cross = np.zeros_like(second)
            second += y.T @ y
            x -= y
            cross += x.T @ y
            tokens += len(y)
        second /= tokens
        cross /= tokens
        return Moments(second, cross, tokens)

    def _feeds(self, stream: Stream, index: int, part: Batch) -> dict[str, npt.NDArray[Any]]:
        own = self._plan.spec.of_layer(index)
        return part.feeds(own, stream.get(part)) | self._shared[stream].feeds(index, part)

    def _part(self, emitter: WeightEmitter, index: int, taps: tuple[str, ...] = ()) -> ir.Model:
        plan = self._plan
        return build_layer(plan.spec, emitter, index, taps, positions=self._longest, context=plan.context_length)

    # ---- weights ----------------------------------------------------------------------------------------------

    def _job(self, weight: LogicalWeight) -> Job:
        return Job(weight, self._planned[weight.name].format, self._folds.get(weight.name))

    def _write(self, weights: Sequence[LogicalWeight], solvers: Mapping[str, Solver] | None = None) -> None:
        self.outcome.reused += self._writer.write_weights(
            [self._job(w) for w in weights],
            self._source,
            threads=self._threads,
            progress=self._progress,
            solvers=solvers,
        )

    def _decoded(self, weights: Sequence[LogicalWeight]) -> dict[str, StoredArray]:
        """Write a layer's matrices as float32 to the scratch file; their places, by name."""
        matrices = [w for w in weights if w.is_matrix]
        specs = [a for w in matrices for a in array_specs(w.name, (w.shape[0], w.shape[1]), FLOAT32)]
        jobs = [Job(w, FLOAT32, self._folds.get(w.name)) for w in matrices]
        return write_scratch(self._directory / _SCRATCH, specs, jobs, self._source, self._threads)

    def _emitter(self, scratch: Mapping[str, StoredArray], quantized: set[str] | frozenset[str]) -> WeightEmitter:
        """Weights named in ``quantized`` as deployed, other matrices as float32 from the scratch file."""
        planned = {
            name: PlannedFormat(weight.shape, weight.format if name in quantized or name not in scratch else FLOAT32)
            for name, weight in self._planned.items()
        }
        stored = dict(self._plan.layout.arrays)
        for name, place in scratch.items():
            if name not in quantized:
                stored[name] = place
        return WeightEmitter(planned, stored, supply=True)

    # ---- streams ----------------------------------------------------------------------------------------------

    def _embed(self) -> None:
        """Start both streams: one with rows of the original embedding, one with the output of the quantized one.

        Both read the second embedding as quantized.
        """
        if self._plan.spec.per_layer_size:
            session = self._session(build_second_embedding(self._plan.spec, self._emitter({}, frozenset())))
            second = second_embedding(self._directory, self._plan.spec, session, self._sequences)
            for shared in self._shared.values():
                shared.per_layer = second
        embed = next(w for w in self._plan.weights if w.name == "embed")
        ids = np.unique(np.concatenate(self._sequences))
        table = embedding_rows(embed, self._source, ids) * np.float32(self._plan.spec.embedding_scale or 1.0)
        for part in batches(self._sequences):
            self._original.put(part, table[np.searchsorted(ids, part.ids)])
        if not self._options.sequential:
            return
        session = self._session(build_embedding(self._plan.spec, self._emitter({}, frozenset())))
        for part in batches(self._sequences):
            self._quantized.put(part, session.run([OUTPUT], {"input_ids": part.ids})[0])

    def _session(self, model: ir.Model) -> Part:
        return Part(model, self._directory / _GRAPH, threads=self._threads)
