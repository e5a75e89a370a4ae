"""The native exporter: checks a plan against its budget, streams the weights to disk and writes the graphs.

It handles the families in ``architecture.families``, whose graphs ``graph.decoder`` builds directly from the config.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from edgedistill._version import __version__
from edgedistill.bundle import bundle as files
from edgedistill.bundle.bit_planes import WidenedGraph, to_json
from edgedistill.bundle.opening_memory import in_planes
from edgedistill.bundle.staging import free_disk
from edgedistill.estimate import limits
from edgedistill.estimate.speed import StepModel, prediction_points
from edgedistill.estimate.timings import Machine, Timings
from edgedistill.export import distance
from edgedistill.export.calibrate import kv_cache as kv_calibrate
from edgedistill.export.calibrate import smoothquant as smooth_calibrate
from edgedistill.export.calibrate.gptq_layers import Outcome, write_calibrated
from edgedistill.export.manifest import Made, make_manifest
from edgedistill.export.options import ExportOptions
from edgedistill.export.plan import canonical, make_plan, of_second_form
from edgedistill.export.trial_run import WHOLE_LIMIT
from edgedistill.export.writer import Job, WeightsWriter
from edgedistill.graph.decoder import build_graph
from edgedistill.graph.weights import WeightEmitter
from edgedistill.profile.profile import usable_profiles
from edgedistill.quantize import kv as kv_format
from edgedistill.quantize.gptq import THOROUGH
from edgedistill.quantize.plan import PREFILL, parse_format
from edgedistill.system.cgroup import available_memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from edgedistill.bundle.manifest import Manifest
    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.estimate.memory import Budget
    from edgedistill.export.calibrate.smoothing import Fold
    from edgedistill.export.plan import Plan
    from edgedistill.graph.inputs import Signature
    from edgedistill.profile.profile import Profile
    from edgedistill.progress import Progress
    from edgedistill.quantize.kv import KvScales


class OwnExporter:
    """One export by the native graph builder. The constructor plans everything; only ``make`` writes files."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        profile: Profile,
        options: ExportOptions | None = None,
    ) -> None:
        """Plan the export.

        Args:
            checkpoint: The model.
            profile: With the overrides of ``options``.
            options: Of these, context, traces (None: scale search replaces the method ``gptq``), gptq, observed and
                allow_unused are used.

        Raises:
            UnsupportedModelError: Unknown architecture or feature.
            CheckpointError: Tensors missing, of the wrong shape, or not used.
            UsageError: A context longer than the model's.
        """
        options = options or ExportOptions()
        self._checkpoint = checkpoint = canonical(checkpoint, allow_unused=options.allow_unused)
        self.notes = checkpoint.notes
        self._profile = profile
        self._traces = options.traces
        self._gptq = options.gptq or THOROUGH
        self._observed = options.observed
        self.plan = make_plan(checkpoint, profile, options.context, calibrated=self._traces is not None)
        self._predicted: Budget | None = None

    def check_budget(self, out: Path, *, trial: bool) -> None:
        """Check the predicted bundle against the profile's target, this machine's disk and, for the ``trial``, memory.

        A bundle that is tried in slices needs little memory (see ``trial_run``).

        Raises:
            BudgetError: It does not fit.
        """
        profile = self._profile.with_overrides(context_length=self.plan.context_length)
        self._predicted = limits.check(self.plan.spec, self.plan.weights, profile, others=usable_profiles())
        runs = trial or self._profile.kv_cache.is_quantized
        whole = runs and self.plan.layout.size <= WHOLE_LIMIT
        available = available_memory() if whole else None
        limits.check_machine(self._predicted, free_disk=free_disk(out), available_ram=available)

    def fingerprint(self, source_hash: str) -> str:
        """Hash that identifies the weights file: equal for the same source, plan and version."""
        arrays = self.plan.layout.arrays.values()
        content = {
            "version": __version__,
            "source": source_hash,
            "arrays": [(a.spec.name, a.spec.dtype, a.spec.shape, a.offset) for a in arrays],
            "formats": [(weight.weight_name, weight.format.label()) for weight in self.plan.planned.weights],
            "context": self.plan.context_length,
            "smoothing": self._profile.weights.smoothing,
            "calibration": [self._traces.sha256, asdict(self._gptq)] if self._traces else None,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def make(self, directory: Path, *, resume: bool, progress: Progress) -> Made:
        """Write weights.bin and the graphs into ``directory``; with ``resume``, keep weights that an interrupted run
        finished there.

        Raises:
            OutputError: A file cannot be written.
            ExportError: Activations are not finite (smoothing).
        """
        begun = time.perf_counter()
        two_forms = self._profile.weights.prefill is not None
        planned = self.plan.planned.by_name()
        folds = smooth_calibrate.prepare(
            directory,
            self._checkpoint,
            self.plan.spec,
            of_second_form(planned) if two_forms else planned,
            self.plan.weights,
            lambda run: self._write_run(run, progress),
            alpha=self._profile.weights.smoothing,
            sequences=self._observed,
            resume=resume,
            progress=progress,
        )
        if two_forms:
            folds = {f"{PREFILL}{name}": fold for name, fold in folds.items() if name.startswith("layers.")}
        outcome = self._write_weights(directory / files.WEIGHTS, resume, progress, folds)
        seconds = time.perf_counter() - begun
        write_graphs(directory, self.plan)
        return Made(
            geometry=self.plan.spec,
            planned=self.plan.planned,
            context_length=self.plan.context_length,
            signature="edgedistill",
            predicted=self._predictions(),
            weights_seconds=seconds,
            reused_weights=outcome.reused,
            calibration=self._calibration(outcome),
        )

    def _write_run(self, directory: Path, progress: Progress) -> Manifest:
        """Write weights and graph of the same model in ``smoothquant.FORMAT``, for the run that records activations."""
        profile = self._profile.with_overrides(weight_format=parse_format(smooth_calibrate.FORMAT))
        profile = replace(profile, weights=replace(profile.weights, prefill=None))
        plan = make_plan(self._checkpoint, profile, self.plan.context_length)
        _write_weights(directory / files.WEIGHTS, self._checkpoint, plan, False, progress)
        write_graphs(directory, plan)
        made = Made(plan.spec, plan.planned, plan.context_length, "edgedistill", {}, 0.0, 0)
        return make_manifest(self._checkpoint, profile, made, "")

    def _predictions(self) -> dict[str, Any]:
        """The predicted memory and size and, if this machine's kernels were timed before, the predicted speed."""
        if self._predicted is None:
            return {}
        machine = Machine.here(self._profile.session.intra_op_num_threads)
        length = self.plan.context_length
        steps = StepModel(self.plan.spec, self.plan.planned, self._profile.with_overrides(context_length=length))
        prompts, contexts = prediction_points(length)
        timings = Timings.load(machine)
        speed = steps.speed(timings.seconds, contexts=contexts, prompts=prompts)
        found: dict[str, Any] = self._predicted.to_dict()
        if speed is None:
            return found
        over = timings.least_over(case.key for case in steps.cases())
        less_sure = {} if over is None else {"timed_over_bytes": over}
        return found | {"speed": {**speed.to_dict(), "machine": asdict(machine), **less_sure}}

    def _write_weights(
        self, path: Path, resume: bool, progress: Progress, folds: Mapping[str, Fold] | None = None
    ) -> Outcome:
        plan = self.plan
        if self._traces is None or not plan.planned.is_calibrated:
            return Outcome(_write_weights(path, self._checkpoint, plan, resume, progress, folds))
        writer = WeightsWriter(path, plan.layout, resume=resume)
        try:
            progress.begin("calibrating", plan.planned.parameters, "items")
            outcome = write_calibrated(
                writer,
                plan,
                self._checkpoint.tensors,
                self._traces.sequences,
                options=self._gptq,
                folds=folds or {},
                threads=usable_cores(),
                progress=progress,
            )
            progress.end()
        finally:
            writer.close()
        return outcome

    def _calibration(self, outcome: Outcome) -> dict[str, Any]:
        """The manifest's record of the calibration; empty if there was none."""
        if self._traces is None or not self.plan.planned.is_calibrated:
            return {}
        return {
            "origin": self._traces.origin,
            "sha256": self._traces.sha256,
            "sequences": len(self._traces.sequences),
            "tokens": self._traces.tokens,
            "gptq": asdict(self._gptq),
            "failed": outcome.failed,
        }

    def quantize_cache(
        self,
        directory: Path,
        manifest: Manifest,
        sequences: Sequence[npt.NDArray[np.int64]] | None,
        progress: Progress,
    ) -> Manifest:
        """Calibrate the KV cache of the profile's format and write the graphs again with its scales.

        Args:
            directory: Holds everything of the bundle but its manifest.
            manifest: The bundle's, so far.
            sequences: Token ids to calibrate with; None: texts that the model writes.
            progress: Receives tokens.

        Returns:
            The manifest with a record of the calibration; unchanged if the cache stays float32.

        Raises:
            ExportError: The model does not run, or its keys or values are not finite.
        """
        cache = self._profile.kv_cache
        if not cache.is_quantized:
            return manifest
        spec, tensors = self.plan.spec, self._checkpoint.tensors
        norms = None
        if spec.qk_norm == "head_after_rope":
            names = [f"model.layers.{index}.self_attn.k_norm.weight" for index in spec.attention_layers]
            norms = [tensors.read_rows(name, 0, spec.head_dim) for name in names]
        found = kv_calibrate.calibrate(
            directory, manifest, spec, cache, key_norms=norms, sequences=sequences, progress=progress
        )
        write_graphs(directory, self.plan, found.scales)
        info = replace(
            manifest.kv_cache,
            scales=cache.scales,
            margin=kv_format.MARGINS[cache.bits],
            calibration=found.source,
            calibration_tokens=found.tokens,
        )
        return replace(manifest, kv_cache=info)

    def measure_distance(self, directory: Path, manifest: Manifest, progress: Progress) -> Manifest:
        """The manifest with the distance of the bundle in ``directory`` from the original (``distance.measure``)."""
        found = distance.measure(
            directory, manifest, self._checkpoint, self.plan, threads=usable_cores(), progress=progress
        )
        return replace(manifest, distance=found)


def write_graphs(directory: Path, plan: Plan, kv: KvScales | None = None) -> None:
    """Write all graphs that share the weights file.

    These are the runtime's own, with a quantized cache if ``kv`` has scales; the second form for prefill, if the plan
    has one; those for onnxruntime-genai and for other programs (portable), whose caches stay float32; and, where
    matrices are stored as bit planes or scales in fewer than 32 bits, a variant of each runtime graph that takes them
    widened, with widened.json.
    """
    import onnx_ir

    def write(name: str, emitter: WeightEmitter, signature: Signature = "edgedistill") -> None:
        cache = kv if signature == "edgedistill" else None
        graph = build_graph(plan.spec, emitter, signature=signature, context_length=plan.context_length, kv=cache)
        onnx_ir.save(graph, directory / name)

    planned, stored = plan.planned.by_name(), plan.layout.arrays
    if plan.spec.is_uniform:  # other programs cannot run any other model
        write(files.GENAI_MODEL, WeightEmitter(planned, stored), "genai")
        write(files.PORTABLE_MODEL, WeightEmitter(planned, stored), "portable")
    forms = {files.MODEL: (planned, stored)}
    if any(name.startswith(PREFILL) for name in planned):
        forms[files.PREFILL_MODEL] = (of_second_form(planned), of_second_form(stored))
    widened = []
    for name, (formats, places) in forms.items():
        write(name, WeightEmitter(formats, places))
        if any(in_planes(weight.format) or weight.format.widens_scales for weight in formats.values()):
            emitter = WeightEmitter(formats, places, supply=True, supply_scales=True)
            write(files.WIDENED_MODELS[name], emitter)
            graph = WidenedGraph(files.WIDENED_MODELS[name], name, emitter.supplied, emitter.supplied_scales)
            widened.append(graph)
    if widened:
        (directory / files.WIDENED).write_text(to_json(tuple(widened)), encoding="utf-8")


def _write_weights(
    path: Path,
    checkpoint: Checkpoint,
    plan: Plan,
    resume: bool,
    progress: Progress,
    folds: Mapping[str, Fold] | None = None,
) -> int:
    writer = WeightsWriter(path, plan.layout, resume=resume)
    try:
        formats = plan.planned.by_name()
        jobs = [Job(weight, formats[weight.name].format, (folds or {}).get(weight.name)) for weight in plan.weights]
        progress.begin("quantizing weights", plan.planned.parameters, "items")
        reused = writer.write_weights(jobs, checkpoint.tensors, threads=usable_cores(), progress=progress)
        progress.end()
    finally:
        writer.close()
    return reused


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
