"""Chooses a format for every weight within a budget of size or of KL divergence: measure, allocate, turn into rules.

The damage of a matrix in a format is the KL divergence of the model's output when that matrix alone is quantized. It is
measured (``sensitivity.py``) or, for large models, estimated (``sensitivity_estimate.py``) with searched scales;
calibration then leaves a share of it (``CALIBRATED``). Damages are added up: KL is quadratic in small errors, and the
errors of different matrices are nearly independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from edgedistill.errors import BudgetError, UsageError
from edgedistill.estimate.memory import matrix_memory, predict
from edgedistill.export.mixed_precision.sensitivity import as_planned, measure, units
from edgedistill.export.mixed_precision.sensitivity_estimate import estimate
from edgedistill.export.plan import canonical, make_plan
from edgedistill.profile.profile import load_profile
from edgedistill.quantize.allocate import Candidate, allocate
from edgedistill.quantize.plan import Plan as WeightPlan
from edgedistill.quantize.plan import Rule, parse_format, searched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.export.mixed_precision.sensitivity import Unit
    from edgedistill.export.plan import Plan
    from edgedistill.profile.profile import Profile
    from edgedistill.progress import Progress
    from edgedistill.quantize.plan import PlannedWeight
    from edgedistill.quantize.spec import WeightFormat
    from edgedistill.traces.traces import Traces

Sensitivity = Literal["auto", "measured", "estimated"]
MEASURED_PARAMETERS = 1_000_000_000
"""Above this many parameters ``auto`` estimates: measuring runs the rest of the model once for every matrix."""
CANDIDATES = tuple(
    parse_format(label)
    for label in (
        "int4-b64-asym-gptq-s8",
        "int4-b32-asym-gptq-s8",
        "int4-b16-asym-gptq-s8",
        "int5-b32-asym-gptq-s8",
        "int6-b32-sym-gptq-s8",
        "int8-b32-sym-gptq-s8",
    )
)
"""Used where a profile names none (``[weights] candidates``)."""
MEMORY_CANDIDATES = tuple(
    parse_format(f"int{bits}-b{block}-{symmetry}-gptq-s8")
    for bits, symmetry in ((4, "asym"), (8, "sym"))
    for block in (128, 64, 32)
)
"""The same for a budget of memory. There codes of 5 and 6 bits count as 8, and a block has 8 bytes of scale and sum
however its scale is stored: blocks of 128 in 8 bits take less than blocks of 16 in 4 and 32 in 8."""
FEWER_BITS = tuple(parse_format(label) for label in ("int2-b32-asym-gptq-s8", "int3-b32-asym-gptq-s8"))
"""Added where the smallest of ``CANDIDATES`` is too large; at so few bits damages no longer simply add up."""
CALIBRATED = 0.35
"""Share of a layer's damage with searched scales that is left after calibration: .30 to .35 of the squared output error
on random layers with correlated inputs (``tests/quantize/test_gptq.py`` has such layers). Of the KL of all layers in
int4-b32, .35 was left on tiny-reasoner with 3,072 tokens (as in ``tests/export/calibrate/test_gptq_layers.py``), .23
with 4,096, and .16 on SmolLM2-135M with 16,384. ``make bench-sensitivity ARGS="--bits 5 6"`` compares predictions made
with it: KLs of .0029 and .0006 were predicted for tiny-reasoner with 4,096 tokens, and .0025 and .0008 measured."""


@dataclass(frozen=True, slots=True)
class SizeBudget:
    """Exactly one of: ``bits_per_weight`` over all parameters, ``max_bytes`` of all weights, ``max_kl`` in nats, or
    ``max_memory``, the bytes of memory that the bundle may use with a full context (``estimate.memory``)."""

    bits_per_weight: float | None = None
    max_bytes: int | None = None
    max_kl: float | None = None
    max_memory: int | None = None

    def __post_init__(self) -> None:
        values = (self.bits_per_weight, self.max_bytes, self.max_kl, self.max_memory)
        given = [value for value in values if value is not None]
        if len(given) != 1:
            raise UsageError("A budget is bits per weight, a size, a memory or a KL; expected exactly one of them.")
        if not 0 < given[0] < math.inf:
            raise UsageError(f"A budget of {given[0]:g} was given; expected more than 0, and finite.")


def choose_formats(
    checkpoint: Checkpoint,
    profile: Profile,
    traces: Traces,
    budget: SizeBudget,
    *,
    source_hash: str,
    threads: int,
    context_length: int | None = None,
    sensitivity: Sensitivity = "auto",
    progress: Progress | None = None,
) -> tuple[Profile, dict[str, Any]]:
    """The profile with a rule for every matrix, and what was measured and chosen, for the manifest.

    Args:
        checkpoint: Of an architecture that the native exporter knows.
        profile: Its candidates are used, or else ``CANDIDATES`` or, for memory, ``MEMORY_CANDIDATES``; its own rules
            are replaced.
        traces: Calibration data; sensitivities are measured on some of its tokens.
        budget: The limit.
        source_hash: Identity of the checkpoint, for the cache of measurements.
        threads, context_length, progress: As for the export.
        sensitivity: ``measured`` for every matrix, ``estimated`` from some, or ``auto``: by the number of parameters.

    Raises:
        BudgetError: The budget cannot be met; the message names the nearest that can.
        UnsupportedModelError, CheckpointError: See ``make_plan``.
    """
    checkpoint = canonical(checkpoint)
    plan = make_plan(checkpoint, load_profile("reference-fp32"), context_length)
    matrices = {unit[0].name: unit for unit in units(plan.weights)}
    names = {weight.name for unit in matrices.values() for weight in unit}
    vectors = [w for w in plan.planned.weights if w.weight_name not in names]
    costs = _Costs(plan, profile, vectors, resident=budget.max_memory is not None)
    most = costs.affordable(budget)
    candidates = profile.weights.candidates or (CANDIDATES if budget.max_memory is None else MEMORY_CANDIDATES)
    if most is not None and not profile.weights.candidates and costs.smallest(matrices, candidates) > most:
        candidates = (*FEWER_BITS, *candidates)
    twins = {fmt.label(): searched(fmt) for fmt in candidates}
    if sensitivity == "auto":
        sensitivity = "estimated" if plan.planned.parameters > MEASURED_PARAMETERS else "measured"
    measured = (estimate if sensitivity == "estimated" else measure)(
        plan,
        checkpoint.tensors,
        traces,
        list(dict.fromkeys(twins.values())),
        source_hash=source_hash,
        threads=threads,
        progress=progress,
    )

    def damage(name: str, fmt: WeightFormat) -> float:
        found = measured[name][searched(fmt).label()]
        calibrated = name.startswith("layers.") and ".mlp.experts." not in name and fmt.method == "gptq"
        return found * (CALIBRATED if calibrated else 1.0)

    options = {
        name: [Candidate(fmt.label(), costs.of(matrices[name], fmt), damage(name, fmt)) for fmt in candidates]
        for name in matrices
    }
    if most is None:
        assert budget.max_kl is not None
        chosen = allocate(options, max_damage=_reachable(budget.max_kl, options))
    else:
        costs.check(costs.smallest(matrices, candidates), most, budget)
        chosen = allocate(options, max_bytes=most)
    by_label = {fmt.label(): fmt for fmt in candidates}
    rules = tuple(Rule(w.name, by_label[one.label]) for name, one in chosen.items() for w in matrices[name])
    record = {
        "budget": {
            key: value
            for key in ("bits_per_weight", "max_bytes", "max_kl", "max_memory")
            if (value := getattr(budget, key)) is not None
        },
        "sensitivity": sensitivity,
        "candidates": list(by_label),
        "predicted_kl": sum(one.damage for one in chosen.values()),
        "predicted_kl_without_calibration": sum(
            measured[name][searched(by_label[one.label]).label()] for name, one in chosen.items()
        ),
        "weights_bytes": sum(stored(matrices[name], by_label[one.label]) for name, one in chosen.items())
        + sum(w.nbytes for w in vectors),
        "weights": {
            name: {"format": one.label, "bytes": stored(matrices[name], by_label[one.label]), "kl": one.damage}
            for name, one in chosen.items()
        },
    }
    return replace(profile, weights=replace(profile.weights, rules=rules)), record


def stored(unit: Unit, fmt: WeightFormat) -> int:
    """Bytes of the matrices of a unit in the file."""
    return sum(planned.nbytes for planned in as_planned(unit, fmt).values())


class _Costs:
    """Costs of formats in bytes, of the file or, if ``resident``, of memory, and of everything else in the bundle."""

    def __init__(self, plan: Plan, profile: Profile, vectors: Sequence[PlannedWeight], *, resident: bool) -> None:
        self._spec, self._resident = plan.spec, resident
        self._context, self._parameters = plan.context_length, plan.planned.parameters
        self._rest = sum(weight.nbytes for weight in vectors)
        if resident:
            everything_else = predict(
                plan.spec,
                WeightPlan(tuple(vectors)),
                context_length=plan.context_length,
                prefill_chunk=profile.context.prefill_chunk,
                kv_itemsize=profile.kv_cache.itemsize,
            )
            self._rest = everything_else.needed_bytes

    def of(self, unit: Unit, fmt: WeightFormat) -> int:
        """Bytes of the matrices of one unit in ``fmt``."""
        if not self._resident:
            return stored(unit, fmt)
        tied, context = self._spec.tie_word_embeddings, self._context
        found = [matrix_memory(w, tied=tied, context_length=context) for w in as_planned(unit, fmt).values()]
        return sum(private + mapped for private, mapped, _ in found)

    def smallest(self, matrices: Mapping[str, Unit], candidates: Sequence[WeightFormat]) -> int:
        """Bytes of all matrices, each in its smallest format."""
        return sum(min(self.of(unit, fmt) for fmt in candidates) for unit in matrices.values())

    def affordable(self, budget: SizeBudget) -> int | None:
        """Bytes that all matrices may have together; None if the budget is a KL divergence."""
        if budget.max_kl is not None:
            return None
        if budget.bits_per_weight is not None:
            return int(budget.bits_per_weight * self._parameters / 8) - self._rest
        return (budget.max_memory or budget.max_bytes or 0) - self._rest

    def check(self, smallest: int, most: int, budget: SizeBudget) -> None:
        """Raises BudgetError, in the units of the budget, if even the smallest choice is too large."""
        if smallest <= most:
            return
        total = smallest + self._rest
        bits, megabytes = math.ceil(800 * total / self._parameters) / 100, math.ceil(total / 1e4) / 100
        if budget.max_memory is not None:
            raise BudgetError(
                f"{budget.max_memory / 1e6:.2f} MB of memory cannot be met: in the smallest formats allowed the bundle "
                f"takes {megabytes:.2f} MB at {self._context} tokens.",
                hint=f"Allow --max-memory {megabytes:.2f}MB, or a shorter --context.",
            )
        asked = f"{(budget.max_bytes or 0) / 1e6:.2f} MB"
        if budget.bits_per_weight is not None:
            asked = f"{budget.bits_per_weight:g} bits per weight"
        raise BudgetError(
            f"{asked} cannot be met: the smallest formats allowed take {bits:.2f} bits per weight "
            f"({megabytes:.2f} MB).",
            hint=f"Allow --bits-per-weight {bits:.2f} or --max-size {megabytes:.2f}MB, or smaller formats among the "
            "profile's candidates.",
        )


def _reachable(max_kl: float, options: Mapping[str, Sequence[Candidate]]) -> float:
    """``max_kl``; raises BudgetError if even the best formats are predicted to exceed it."""
    least = sum(min(one.damage for one in group) for group in options.values())
    if least > max_kl:
        raise BudgetError(
            f"A KL of {max_kl:g} cannot be reached: the best formats allowed are predicted to leave {least:.3g}.",
            hint=f"Allow --max-kl {least * 1.01:.3g}, or better formats among the profile's candidates.",
        )
    return max_kl
