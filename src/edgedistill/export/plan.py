"""Plans an export before the first weight is read: formats, places in the weights file, context length.

``canonical`` brings a checkpoint's tensors under the names that the rest of the export uses; ``make_plan`` decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from edgedistill.architecture import families as architecture
from edgedistill.architecture.tensors import ModelTensors, model_tensors
from edgedistill.bundle import bundle as files
from edgedistill.checkpoint.grid import grid_of
from edgedistill.errors import CheckpointError, UsageError
from edgedistill.export.writer import Layout, plan_layout
from edgedistill.quantize.plan import PREFILL, Rule, plan_weights, searched
from edgedistill.quantize.plan import Plan as WeightPlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgedistill.architecture.spec import LogicalWeight, ModelSpec
    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.checkpoint.types import TensorSource
    from edgedistill.profile.profile import Profile
    from edgedistill.quantize.spec import WeightFormat

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """All decisions of an export.

    ``planned`` has the format of every weight, ``layout`` the place of every array in weights.bin, ``context_length``
    is in tokens.
    """

    spec: ModelSpec
    weights: tuple[LogicalWeight, ...]
    planned: WeightPlan
    layout: Layout
    context_length: int


def make_plan(
    checkpoint: Checkpoint, profile: Profile, context_length: int | None = None, *, calibrated: bool = False
) -> Plan:
    """Decide every format, shape and offset; reads only the headers of the checkpoint.

    Args:
        checkpoint: The model.
        profile: Formats and the default context length.
        context_length: In tokens; None: the profile's.
        calibrated: Whether there are calibration data; without, scale search replaces the method ``gptq``.

    Raises:
        UnsupportedModelError, CheckpointError: See ``canonical``.
        UsageError: A context length out of range, or a rule keeps a quantization that the source does not have.
    """
    checkpoint = canonical(checkpoint)
    spec = architecture.build_spec(checkpoint.config)
    weights = architecture.logical_weights(spec)
    if profile.weights.prefill is not None:
        weights += second_form(weights)
    default, rules = profile.weights.default, profile.weights.all_rules
    if calibrated:
        rules = (*_uncalibrated(weights, default, rules), *rules)
    else:
        default, rules = searched(default), tuple(Rule(rule.match, searched(rule.format)) for rule in rules)
    planned = plan_weights(weights, default, rules)
    _check_kept(weights, planned, checkpoint.tensors)
    length = choose_context(spec.max_position_embeddings, profile, context_length)
    arrays = [array for weight in planned.weights for array in weight.arrays]
    return Plan(spec, weights, planned, plan_layout(arrays, files.WEIGHTS), length)


def _check_kept(weights: Iterable[LogicalWeight], planned: WeightPlan, tensors: TensorSource) -> None:
    """Raise UsageError for a weight whose format keeps a quantization that its source does not have."""
    formats = planned.by_name()
    for weight in weights:
        fmt = formats[weight.name].format
        if fmt.method != "kept" or fmt.is_float:
            continue
        for part in weight.parts:
            grid = grid_of(tensors, part)
            wanted = (fmt.bits, fmt.block_size, fmt.symmetric, fmt.offsets)
            if grid is None or (grid.bits, grid.block_size, grid.symmetric, grid.offsets) != wanted:
                raise UsageError(
                    f"{weight.name} cannot keep its quantization as {fmt.label()}: the source stores another format.",
                    hint="Ask for --keep-quantization and let the export choose the formats.",
                )


def canonical(checkpoint: Checkpoint, *, allow_unused: bool = False) -> Checkpoint:
    """``checkpoint`` with its tensors checked, and under the names and in the layout of ``logical_weights``.

    Raises:
        UnsupportedModelError: Unknown architecture or feature.
        CheckpointError: Tensors are missing, of the wrong shape, or (unless ``allow_unused``) not used by the model
            that its config describes: leaving one out would silently export another model.
    """
    if isinstance(checkpoint.tensors, ModelTensors):
        return checkpoint
    spec = architecture.build_spec(checkpoint.config)
    tensors = model_tensors(checkpoint.config, spec, checkpoint.tensors)
    architecture.check_tensors(spec, tensors)
    asked = [part for weight in architecture.logical_weights(spec) for part in weight.parts]
    unused = tensors.unused(asked, architecture.FAMILIES[spec.family].ignored)
    if unused and not allow_unused:
        more = f" and {len(unused) - 4} more" if len(unused) > 4 else ""
        raise CheckpointError(
            f"The checkpoint has {len(unused)} tensors that a {spec.family} model of this config does not use: "
            f"{', '.join(unused[:4])}{more}.",
            hint="It may compute something else than config.json says. To leave them out all the same: --allow-unused",
        )
    note = f"{len(unused)} tensors of the checkpoint are left out: {', '.join(unused[:4])}." if unused else ""
    return replace(checkpoint, tensors=tensors, notes=(*checkpoint.notes, note) if note else checkpoint.notes)


def _uncalibrated(weights: Sequence[LogicalWeight], default: WeightFormat, rules: Sequence[Rule]) -> list[Rule]:
    """Rules for scale search of embedding, head, experts and the form for prefill; all other matrices are calibrated.

    The inputs of an expert are not visible outside its kernel, and few calibration tokens reach any one expert.
    """
    found = []
    for weight in weights:
        if weight.is_matrix and (weight.kind == "experts" or not weight.name.startswith("layers.")):
            fmt = next((rule.format for rule in rules if rule.matches(weight)), default)
            found.append(Rule(weight.name, searched(fmt)))
    return found


def second_form(weights: Iterable[LogicalWeight]) -> tuple[LogicalWeight, ...]:
    """Copies of the layers' weights, without experts, for the graph for prefill; it shares all other weights."""
    layers = (w for w in weights if w.name.startswith("layers.") and ".mlp.experts." not in w.name)
    return tuple(replace(weight, name=f"{PREFILL}{weight.name}") for weight in layers)


def of_second_form(entries: Mapping[str, T]) -> dict[str, T]:
    """``entries`` by the names of the first form, replaced by those of the second form where it has them."""
    second = {name.removeprefix(PREFILL): entry for name, entry in entries.items() if name.startswith(PREFILL)}
    return {name: entry for name, entry in entries.items() if not name.startswith(PREFILL)} | second


def choose_context(longest: int, profile: Profile, asked: int | None) -> int:
    """Context length in tokens: as ``asked``, else the profile's, never more than the model's ``longest``.

    Raises:
        UsageError: ``asked`` is out of range.
    """
    if asked is None:
        return min(profile.context.length, longest)
    if not 16 <= asked <= longest:
        raise UsageError(
            f"A context of {asked} tokens was requested; this model allows 16 to {longest}.",
            hint="Choose --context within that range.",
        )
    return asked
