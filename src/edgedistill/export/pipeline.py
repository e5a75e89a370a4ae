"""The export, top to bottom: open, plan, check the budget, stream the weights, write the graphs, try it, rename.

Everything that decides something lives in its own module; this file only puts them in order.

Must not know: how tensors are quantized, how nodes are built, how progress is drawn.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgedistill import bundle as files
from edgedistill._version import __version__
from edgedistill.bundle import Bundle
from edgedistill.errors import UsageError
from edgedistill.export import architecture, describe, probe
from edgedistill.export.checkpoint import Checkpoint, open_checkpoint
from edgedistill.export.layout import Layout, plan_layout
from edgedistill.export.staging import Staging, check_target, os_error
from edgedistill.export.writer import Job, WeightsWriter
from edgedistill.profile import Profile, load_profile
from edgedistill.progress import NullProgress, Progress
from edgedistill.quantize.spec import ArraySpec, WeightFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from edgedistill.export.spec import LogicalWeight, ModelSpec
    from edgedistill.manifest import Manifest
    from edgedistill.quantize.plan import PlannedWeight

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
    """All decisions, taken before the first weight is read."""

    spec: ModelSpec
    weights: tuple[LogicalWeight, ...]
    planned: dict[str, PlannedWeight]
    tables: dict[str, npt.NDArray[np.float32]]
    layout: Layout
    context_length: int
    unused_rules: tuple[str, ...]

    @property
    def parameters(self) -> int:
        return sum(_elements(w.shape) for w in self.weights)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per parameter over all weights (position tables not counted)."""
        return 8 * sum(a.nbytes for p in self.planned.values() for a in p.arrays) / self.parameters


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
    check_target(out, force=force)
    with open_checkpoint(
        str(model), adapter=Path(adapter) if adapter else None, revision=revision, offline=offline, progress=progress
    ) as checkpoint:
        if exporter == "optimum" or (exporter == "auto" and not architecture.is_known(checkpoint.config)):
            from edgedistill.export import optimum

            return optimum.export_fallback(
                checkpoint, out, profile=profile, weight_format=weight_format, force=force, check=check,
                progress=progress, started=started,
            )  # fmt: skip
        plan = make_plan(checkpoint, profile, weight_format, block_size, context_length)
        predicted = describe.check_budget(plan, profile, out)
        with Staging(out, force=force) as staging:
            checkpoint.hash_source(progress)
            resume = staging.resume_or_clear(_fingerprint(checkpoint, plan))
            begun = time.perf_counter()
            reused = _write_weights(staging.path / files.WEIGHTS, checkpoint, plan, resume=resume, progress=progress)
            weights_seconds = time.perf_counter() - begun
            with _disk_errors(staging.path):
                describe.write_graphs(staging.path, plan, checkpoint, profile)
                describe.write_texts(staging.path, plan, checkpoint, profile)
                manifest = describe.make_manifest(staging.path, plan, checkpoint, profile, predicted, progress)
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


def make_plan(
    checkpoint: Checkpoint,
    profile: Profile,
    weight_format: WeightFormat | str | None = None,
    block_size: int | None = None,
    context_length: int | None = None,
) -> Plan:
    """Decide every format, shape and offset; reads headers only.

    Raises:
        UnsupportedModelError: Unknown architecture or feature.
        CheckpointError: Tensors missing or of the wrong shape.
        UsageError: A context longer than the model's.
    """
    from edgedistill.quantize.plan import plan_weights

    spec = architecture.build_spec(checkpoint.config)
    weights = architecture.logical_weights(spec)
    architecture.check_tensors(spec, checkpoint.tensors)
    default, rules = describe.weight_rules(profile, weight_format, block_size)
    result = plan_weights(weights, rules, default=default)
    length = _context(spec, profile, context_length)
    tables = architecture.rope_tables(spec, length)
    arrays = [a for p in result.weights for a in p.arrays]
    arrays += [ArraySpec(name, "float32", tuple(t.shape)) for name, t in tables.items()]
    return Plan(
        spec=spec,
        weights=weights,
        planned={p.name: p for p in result.weights},
        tables=tables,
        layout=plan_layout(arrays, files.WEIGHTS),
        context_length=length,
        unused_rules=tuple(result.unused_rules),
    )


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
        jobs = [Job(w, plan.planned[w.name].format) for w in plan.weights]
        progress.begin("quantizing weights", plan.parameters, "items")
        reused = writer.write_weights(jobs, checkpoint.tensors, threads=_threads(), progress=progress)
        progress.end()
    finally:
        writer.close()
    return reused


def _fingerprint(checkpoint: Checkpoint, plan: Plan) -> str:
    """Identity of the result: same source, same plan, same version."""
    content = {
        "version": __version__,
        "source": checkpoint.source.sha256,
        "adapter": checkpoint.source.adapter,
        "arrays": [(a.spec.name, a.spec.dtype, a.spec.shape, a.offset) for a in plan.layout.arrays.values()],
        "formats": [(p.name, p.format.label()) for p in plan.planned.values()],
        "context": plan.context_length,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise os_error(error, path) from error


def _threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _elements(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def free_disk(out: Path) -> int:
    """Free bytes on the filesystem that will hold ``out``."""
    target = out.absolute()
    while not target.exists():
        target = target.parent
    return shutil.disk_usage(target).free
