"""The export, top to bottom: open, plan, check the budget, stream the weights, write the graphs, try it, rename.

Everything that decides something lives in its own module; this file only puts them in order.

Must not know: how tensors are quantized, how nodes are built, how progress is drawn.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgedistill import budget
from edgedistill import bundle as files
from edgedistill._version import __version__
from edgedistill.bundle import Bundle
from edgedistill.errors import UnsupportedModelError, UsageError
from edgedistill.export import architecture, probe, record, texts
from edgedistill.export.checkpoint import Checkpoint, open_checkpoint
from edgedistill.export.emit import WeightEmitter
from edgedistill.export.graph import Signature, build_graph
from edgedistill.export.layout import Layout, plan_layout
from edgedistill.export.staging import Staging, check_target, disk_errors, free_disk
from edgedistill.export.writer import Job, WeightsWriter
from edgedistill.profile import Profile, list_profiles, load_profile
from edgedistill.progress import NullProgress, Progress
from edgedistill.quantize.plan import Plan as WeightPlan
from edgedistill.quantize.plan import parse_format, plan_weights
from edgedistill.quantize.spec import ArraySpec, WeightFormat

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgedistill.export.spec import LogicalWeight, ModelSpec
    from edgedistill.manifest import Manifest

Exporter = Literal["auto", "own", "optimum"]


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export made and what it cost.

    ``seconds`` is the whole wall time, ``reused_weights`` counts weights taken over from an interrupted run,
    ``unused_rules`` lists profile rules that matched no weight.
    """

    path: Path
    manifest: Manifest
    seconds: float
    weights_seconds: float
    peak_rss_bytes: int
    reused_weights: int
    unused_rules: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able summary (the manifest itself stays in the bundle)."""
        return {
            "path": str(self.path),
            "bundle_bytes": sum(f.size for f in self.manifest.files),
            "parameters": self.manifest.parameters,
            "bits_per_weight": self.manifest.bits_per_weight,
            "context_length": self.manifest.model.context_length,
            "seconds": self.seconds,
            "weights_seconds": self.weights_seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "reused_weights": self.reused_weights,
            "unused_rules": list(self.unused_rules),
            "check": self.manifest.check,
            "predicted": self.manifest.predicted,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """All decisions, taken before the first weight is read.

    ``planned`` holds the format of every weight, ``tables`` the RoPE tables (float32 [context, head_dim/2]), ``layout``
    the place of every array in weights.bin.
    """

    spec: ModelSpec
    weights: tuple[LogicalWeight, ...]
    planned: WeightPlan
    tables: dict[str, npt.NDArray[np.float32]]
    layout: Layout
    context_length: int

    @property
    def unused_rules(self) -> tuple[str, ...]:
        """Patterns of the profile's rules that matched no weight."""
        return tuple(rule.match for rule in self.planned.unused_rules)


def export(
    model: str | Path,
    out: str | Path,
    *,
    profile: str | Path | Profile = "laptop-cpu",
    adapter: str | Path | None = None,
    revision: str | None = None,
    offline: bool = False,
    exporter: Exporter = "auto",
    weight_format: WeightFormat | str | None = None,
    block_size: int | None = None,
    context_length: int | None = None,
    force: bool = False,
    check: bool = True,
    progress: Progress | None = None,
) -> ExportResult:
    """Export ``model`` to a quantized ONNX bundle at ``out``.

    Args:
        model: Built-in name, local directory, GGUF file or Hub id.
        out: Bundle directory to make; must not exist, be empty, or hold a bundle and ``force`` be given.
        profile: Hardware profile: name, TOML path or Profile.
        adapter: PEFT LoRA directory to merge.
        revision: Hub revision (branch, tag or commit).
        offline: Never touch the network.
        exporter: ``own`` graph builder, ``optimum`` fallback, or ``auto``: own where the architecture is known.
        weight_format: Replaces the profile's weight rules by one format (``int8``, ``fp32``, ``int4-b128-sym``).
        block_size: Replaces the block size of every quantized format.
        context_length: Longest prompt plus output, in tokens; default: the profile's, capped by the model's.
        force: Replace an existing bundle.
        check: Open the finished bundle and decode a few tokens before it gets its name.
        progress: Receiver of progress.

    Raises:
        EdgedistillError: Any problem with the input, the target or the budget; nothing half-written is left.
    """
    started = time.perf_counter()
    progress = progress or NullProgress()
    out = Path(out)
    if not isinstance(profile, Profile):
        profile = load_profile(profile)
    if isinstance(weight_format, str):
        weight_format = parse_format(weight_format)
    profile = profile.with_overrides(weight_format=weight_format, block_size=block_size)
    check_target(out, force=force)
    with open_checkpoint(
        str(model), adapter=Path(adapter) if adapter else None, revision=revision, offline=offline, progress=progress
    ) as checkpoint:
        try:
            if exporter == "optimum":
                raise UnsupportedModelError("The optimum exporter was asked for.")
            plan = make_plan(checkpoint, profile, context_length)
        except UnsupportedModelError:
            if exporter == "own" or (exporter == "auto" and importlib.util.find_spec("optimum") is None):
                raise
            raise
        return _export_planned(checkpoint, plan, out, profile, force, check, progress, started)


def _export_planned(
    checkpoint: Checkpoint,
    plan: Plan,
    out: Path,
    profile: Profile,
    force: bool,
    check: bool,
    progress: Progress,
    started: float,
) -> ExportResult:
    predicted = _check_budget(plan, profile, out)
    source_hash = checkpoint.hash_source(progress)
    with Staging(out, force=force) as staging:
        resume = staging.resume_or_clear(_fingerprint(source_hash, plan))
        begun = time.perf_counter()
        reused = _write_weights(staging.path / files.WEIGHTS, checkpoint, plan, resume=resume, progress=progress)
        weights_seconds = time.perf_counter() - begun
        with disk_errors(staging.path):
            write_graphs(staging.path, plan)
            texts.write_texts(staging.path, checkpoint, profile, plan.spec, plan.context_length)
            manifest = record.make_manifest(checkpoint, profile, plan, source_hash, predicted)
            texts.write_card(staging.path, manifest, checkpoint.extra_files)
            manifest = record.with_files(staging.path, manifest, progress)
        if check:
            manifest = probe.checked(staging.path, manifest, progress=progress)
        staging.commit(manifest)
    return ExportResult(
        path=out,
        manifest=Bundle.open(out).manifest,
        seconds=time.perf_counter() - started,
        weights_seconds=weights_seconds,
        peak_rss_bytes=probe.own_peak_rss(),
        reused_weights=reused,
        unused_rules=plan.unused_rules,
    )


def make_plan(checkpoint: Checkpoint, profile: Profile, context_length: int | None = None) -> Plan:
    """Decide every format, shape and offset; reads headers only.

    Raises:
        UnsupportedModelError: Unknown architecture or feature.
        CheckpointError: Tensors missing or of the wrong shape.
        UsageError: A context longer than the model's.
    """
    spec = architecture.build_spec(checkpoint.config)
    architecture.check_tensors(spec, checkpoint.tensors)
    weights = architecture.logical_weights(spec)
    planned = plan_weights(weights, profile.weights.default, profile.weights.rules)
    length = _context(spec, profile, context_length)
    tables = architecture.rope_tables(spec, length)
    arrays = [array for weight in planned.weights for array in weight.arrays]
    arrays += [ArraySpec(name, "float32", tuple(table.shape)) for name, table in tables.items()]
    return Plan(spec, weights, planned, tables, plan_layout(arrays, files.WEIGHTS), length)


def _check_budget(plan: Plan, profile: Profile, out: Path) -> budget.Budget:
    """Refuse what would not fit the profile's target or this machine's disk."""
    others = [load_profile(entry.path) for entry in list_profiles() if entry.error is None]
    profile = profile.with_overrides(context_length=plan.context_length)
    predicted = budget.check(plan.spec, plan.weights, profile, others=others)
    budget.check_machine(predicted, free_disk=free_disk(out))
    return predicted


def write_graphs(directory: Path, plan: Plan) -> None:
    """Write both graphs over the weights file: the runtime's own and onnxruntime-genai's."""
    import onnx_ir

    emitter = WeightEmitter(plan.planned.by_name(), plan.layout.arrays)
    graphs: tuple[tuple[str, Signature], ...] = ((files.MODEL, "edgedistill"), (files.GENAI_MODEL, "genai"))
    for name, signature in graphs:
        graph = build_graph(plan.spec, emitter, signature=signature, context_length=plan.context_length)
        onnx_ir.save(graph, directory / name)


def _context(spec: ModelSpec, profile: Profile, asked: int | None) -> int:
    if asked is None:
        return min(profile.context.length, spec.max_position_embeddings)
    if not 16 <= asked <= spec.max_position_embeddings:
        raise UsageError(
            f"A context of {asked} tokens was asked for; this model allows 16 to {spec.max_position_embeddings}.",
            hint="Choose --context within that range.",
        )
    return asked


def _write_weights(path: Path, checkpoint: Checkpoint, plan: Plan, *, resume: bool, progress: Progress) -> int:
    writer = WeightsWriter(path, plan.layout, resume=resume)
    try:
        for name, table in plan.tables.items():
            writer.write_array(name, table)
        formats = plan.planned.by_name()
        jobs = [Job(weight, formats[weight.name].format) for weight in plan.weights]
        progress.begin("quantizing weights", plan.planned.parameters, "items")
        reused = writer.write_weights(jobs, checkpoint.tensors, threads=_threads(), progress=progress)
        progress.end()
    finally:
        writer.close()
    return reused


def _fingerprint(source_hash: str, plan: Plan) -> str:
    """Identity of the weights file: same source, same plan, same version."""
    content = {
        "version": __version__,
        "source": source_hash,
        "arrays": [(a.spec.name, a.spec.dtype, a.spec.shape, a.offset) for a in plan.layout.arrays.values()],
        "formats": [(weight.weight_name, weight.format.label()) for weight in plan.planned.weights],
        "context": plan.context_length,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
