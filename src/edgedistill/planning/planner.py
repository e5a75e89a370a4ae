"""Plans bundles of a model before any is made: size, memory and speed, one row for each format.

Sizes come from the weights' layout by arithmetic and from writing the other files to memory. ``columns``
makes a table of the plan.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgedistill import notebook
from edgedistill.bundle.bundle import WEIGHTS
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import BudgetError
from edgedistill.estimate import limits
from edgedistill.estimate.memory import predict
from edgedistill.estimate.speed import Speed, StepModel, prediction_points
from edgedistill.estimate.timings import Machine, Timings
from edgedistill.export import native as own
from edgedistill.export import text_files as texts
from edgedistill.export.keep import keep_quantization
from edgedistill.export.plan import Plan, make_plan
from edgedistill.json_codec import Record
from edgedistill.planning.measure import measure_missing
from edgedistill.planning.options import PlanOptions, read_formats
from edgedistill.profile.profile import Profile, load_profile, usable_profiles
from edgedistill.progress import NullProgress, Progress
from edgedistill.quantize.kv import kv_scales
from edgedistill.units import format_bytes, format_count, format_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.estimate.memory import Budget
    from edgedistill.export.plan import Plan
    from edgedistill.quantize.kv import Granularity, KvScales
    from edgedistill.quantize.spec import WeightFormat

MEMORY_CONTEXTS = (1024, 4096)


@dataclass(frozen=True, slots=True)
class Row(Record):
    """One bundle that could be made.

    Attributes:
        name: The format as it was asked for, or ``profile`` for the profile's own rules.
        profile: For which profile.
        bits_per_weight: Stored bits over all weights.
        file_bytes: The bundle on disk.
        kv_bytes_per_token: Growth of the KV cache.
        memory: Memory by context length in tokens.
        speed: On this machine; None where kernels were not timed.
        ceiling_tps: Most decode steps per second that the memory bandwidth stated by the profile allows.
        fits: Whether it keeps to the profile's limits at the longest context.
        advice: If not: by how much, and what would fit.
    """

    name: str
    profile: str
    bits_per_weight: float
    file_bytes: int
    kv_bytes_per_token: int
    memory: dict[int, Budget]
    speed: Speed | None
    ceiling_tps: float | None
    fits: bool
    advice: str | None


@dataclass(frozen=True, slots=True)
class PlanReport(Record):
    """All rows, and which machine their speeds are for (None: not timed).

    ``timed_over_bytes``: fewest bytes of weights that a kernel was timed over, where there was no room for as many as
    the model has; None: all had them.
    """

    model: str
    family: str
    parameters: int
    rows: tuple[Row, ...]
    machine: Machine | None
    bandwidth_gbs: float | None
    timed_over_bytes: int | None

    def _repr_html_(self) -> str:
        from edgedistill.planning.planner import columns

        title = f"{self.model}: {self.family}, {format_count(self.parameters)} parameters"
        advice = [f"{row.name} for {row.profile} does not fit. {row.advice}" for row in self.rows if row.advice]
        return "".join([notebook.text(title), notebook.table(*columns(self)), *map(notebook.text, advice)])


def plan(model: str | Path, options: PlanOptions | None = None, *, progress: Progress | None = None) -> PlanReport:
    """Plan bundles of ``model`` without making any: reads its config and the headers of its weights.

    Args:
        model: As for an export.
        options: See there.
        progress: Receives timed kernels.

    Raises:
        EdgedistillError: A model, profile, format or context that cannot be, or no room to time anything; not for what
            merely does not fit.
    """
    options, progress = options or PlanOptions(), progress or NullProgress()
    chosen: Sequence[tuple[str, WeightFormat | None]] = (
        [("profile", None)] if options.format is None else read_formats(options.format)
    )
    loaded = [entry if isinstance(entry, Profile) else load_profile(entry) for entry in options.profiles]
    contexts, prompts = options.contexts, options.prompts
    with open_checkpoint(
        str(model),
        adapter=Path(options.adapter) if options.adapter else None,
        revision=options.revision,
        offline=options.offline,
        progress=progress,
    ) as checkpoint:
        variants: list[tuple[str, Profile, Plan]] = []
        for profile in loaded:
            for name, weight_format in chosen:
                changed = profile.with_overrides(
                    weight_format=weight_format, block_size=options.block_size, kv_cache=options.kv_cache
                )
                if weight_format is None and options.block_size is None:
                    changed, _ = keep_quantization(checkpoint, changed, asked=False)
                made = make_plan(checkpoint, changed, max(contexts, default=None))
                changed = changed.with_overrides(context_length=made.context_length)
                if options.threads is not None:
                    session = replace(changed.session, intra_op_num_threads=options.threads)
                    changed = replace(changed, session=session)
                variants.append((name, changed, made))
        steps = [StepModel(made.spec, made.planned, profile) for _, profile, made in variants]
        timings = _timings(steps, progress, measure=options.measure, remeasure=options.remeasure)
        sizes = [bundle_bytes(checkpoint, made, profile) for _, profile, made in variants]
        tokenizer_bytes = len(checkpoint.tokenizer_json)
        name = checkpoint.source.name
    rows = tuple(
        _row(label, profile, made, step, size, tokenizer_bytes, timings[step.threads], contexts, prompts)
        for (label, profile, made), step, size in zip(variants, steps, sizes, strict=True)
    )
    first = variants[0][2]
    known = next(iter(timings.values()))
    timed = any(row.speed is not None for row in rows)
    over = [timings[step.threads].least_over(case.key for case in step.cases()) for step in steps]
    return PlanReport(
        model=name,
        family=first.spec.family,
        parameters=first.planned.parameters,
        rows=rows,
        machine=known.machine if timed else None,
        bandwidth_gbs=known.bandwidth_gbs,
        timed_over_bytes=min((nbytes for nbytes in over if nbytes is not None), default=None) if timed else None,
    )


def _timings(steps: Sequence[StepModel], progress: Progress, *, measure: bool, remeasure: bool) -> dict[int, Timings]:
    """Timings by the number of threads that profiles ask for, completed if ``measure``."""
    found: dict[int, Timings] = {}
    for threads in {step.threads for step in steps}:
        found[threads] = Timings.load(Machine.here(threads))
        if measure:
            mine = [step for step in steps if step.threads == threads]
            measure_missing(mine, found[threads], progress, remeasure=remeasure)
    return found


def _row(
    name: str,
    profile: Profile,
    made: Plan,
    step: StepModel,
    size: int,
    tokenizer_bytes: int,
    timings: Timings,
    contexts: Sequence[int],
    prompts: Sequence[int],
) -> Row:
    length = made.context_length
    default_prompts, default_contexts = prediction_points(length)
    lengths = sorted(set(contexts) or {*(n for n in MEMORY_CONTEXTS if n < length), length})
    budgets = {
        at: replace(
            predict(
                made.spec, made.planned, context_length=at, prefill_chunk=profile.context.prefill_chunk,
                kv_itemsize=profile.kv_cache.itemsize, tokenizer_bytes=tokenizer_bytes,
            ),
            file_bytes=size,
        )
        for at in lengths
    }  # fmt: skip
    advice = None
    fits = limits.fits(budgets[lengths[-1]], profile)
    if not fits:
        advice = _advice(made, profile)
    bandwidth = profile.target.memory_bandwidth_gbs
    return Row(
        name=name,
        profile=profile.name,
        bits_per_weight=made.planned.bits_per_weight,
        file_bytes=size,
        kv_bytes_per_token=made.spec.kv_bytes_per_token(profile.kv_cache.itemsize),
        memory=budgets,
        speed=step.speed(
            timings.seconds,
            contexts=sorted({*default_contexts[:1], *(contexts or default_contexts)}),
            prompts=prompts or default_prompts,
        ),
        ceiling_tps=None if bandwidth is None else bandwidth * limits.GB / step.matrix_bytes,
        fits=fits,
        advice=advice,
    )


def _advice(made: Plan, profile: Profile) -> str:
    try:
        limits.check(made.spec, made.weights, profile, others=usable_profiles())
    except BudgetError as error:
        return str(error)
    # The check before an export estimates a little less; what it lets pass is too close to call.
    return f"It is within a few per cent of what the profile {profile.name} allows."


_CARD_BYTES = 1500
"""The bundle's own README.md, which is written once everything else is known."""


def bundle_bytes(checkpoint: Checkpoint, plan: Plan, profile: Profile) -> int:
    """Bytes of all files that the manifest of the bundle will list."""
    with tempfile.TemporaryDirectory(prefix="edgedistill-plan-") as folder:
        path = Path(folder)
        own.write_graphs(path, plan, _scales(plan, profile))
        texts.write_texts(path, checkpoint, profile, plan.context_length)
        texts.write_genai(path, checkpoint, profile, plan.spec, plan.context_length)
        small = sum(file.stat().st_size for file in path.iterdir() if file.name != WEIGHTS)
    return plan.layout.size + small + sum(map(len, checkpoint.extra_files.values())) + _CARD_BYTES


def _scales(plan: Plan, profile: Profile) -> KvScales | None:
    """Scales of the right shape; their values take the same room."""
    cache, spec = profile.kv_cache, plan.spec
    if not cache.is_quantized:
        return None
    maxima = [np.ones((spec.num_key_value_heads, spec.of_layer(i).head_dim), np.float32) for i in spec.attention_layers]
    granularity: Granularity = "per-channel" if cache.scales == "per-channel" else "per-tensor"
    return kv_scales(maxima, maxima, bits=cache.bits, granularity=granularity)


def several_profiles(report: PlanReport) -> bool:
    """Whether the rows are for more than one profile."""
    return len({row.profile for row in report.rows}) > 1


def columns(report: PlanReport) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of text: a row each bundle, a column each context and prompt length that is predicted."""
    several = several_profiles(report)
    memory = sorted({at for row in report.rows for at in row.memory})
    decode = sorted({at for row in report.rows if row.speed for at in row.speed.decode_tps})
    prefill = sorted({at for row in report.rows if row.speed for at in row.speed.prefill_tps})
    ceilings = any(row.ceiling_tps is not None for row in report.rows)
    headers = ["format", *(["profile"] if several else []), "bits/weight", "file"]
    headers += ["weights in memory", *(f"memory at {at}" for at in memory), "KV/token"]
    headers += [f"decode at {at}" for at in decode] + [f"prefill of {at}" for at in prefill]
    headers += [*(["target's bound"] if ceilings else []), "fits"]
    cells = []
    for row in report.rows:
        cell = [row.name, *([row.profile] if several else []), f"{row.bits_per_weight:.2f}"]
        cell += [format_bytes(row.file_bytes), format_bytes(next(iter(row.memory.values())).weights_private)]
        cell += [format_bytes(row.memory[at].ram_bytes) if at in row.memory else "" for at in memory]
        cell.append(format_bytes(row.kv_bytes_per_token))
        rates = (row.speed.decode_tps, row.speed.prefill_tps) if row.speed else ({}, {})
        for lengths, known in ((decode, rates[0]), (prefill, rates[1])):
            cell += [format_rate(known[at]) if at in known else "" for at in lengths]
        if ceilings:
            cell.append("" if row.ceiling_tps is None else f"<= {format_rate(row.ceiling_tps)}")
        cells.append([*cell, "yes" if row.fits else "no"])
    return headers, cells
