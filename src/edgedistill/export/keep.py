"""Lets matrices of a quantized source keep their codes and scales, where a format of the bundle can hold them.

Possible for GGUF's Q4_0, Q5_0, Q8_0, Q3_K, Q6_K, TQ1_0 and TQ2_0, IQ4_NL and IQ4_XS (in 8 bits), MXFP4, AWQ, GPTQ
without reordered columns and packed compressed-tensors, which have blocks of codes with a scale and an integer zero
point, and for GGUF's Q4_1, Q5_1, Q4_K and Q5_K, whose offset is not a multiple of the scale
(``WeightFormat.offsets``). Quantizing such a matrix again would round twice and gain nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from edgedistill.architecture import families as architecture
from edgedistill.checkpoint.grid import grid_of
from edgedistill.errors import UsageError
from edgedistill.export.plan import canonical
from edgedistill.quantize.plan import Rule, plan_weights
from edgedistill.quantize.spec import BLOCK_SIZES, STORED_BITS, WeightFormat

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from edgedistill.architecture.spec import LogicalWeight
    from edgedistill.checkpoint.types import Checkpoint, TensorSource
    from edgedistill.profile.profile import Profile
    from edgedistill.quantize.plan import PlannedWeight

_FLOATS = {"F64", "F32", "F16", "BF16"}


def keep_quantization(
    checkpoint: Checkpoint, profile: Profile, *, asked: bool, allow_unused: bool = False
) -> tuple[Profile, str]:
    """``profile`` with a rule for every matrix that keeps its quantization, and a sentence about them.

    Args:
        checkpoint: The model, of a family that the native exporter knows.
        profile: Unless ``asked``, a matrix keeps its codes only if the profile's format has as many bits or more: a
            source of 8 bits is quantized again where the profile has 4.
        asked: The user requested it: keep every matrix that can be kept, and refuse a source without any.
        allow_unused: See ``canonical``.

    Raises:
        UsageError: ``asked``, and no matrix can be kept.
        UnsupportedModelError, CheckpointError: See ``canonical``.
    """
    checkpoint = canonical(checkpoint, allow_unused=allow_unused)
    weights = architecture.logical_weights(architecture.build_spec(checkpoint.config))
    planned = plan_weights(weights, profile.weights.default, profile.weights.rules).by_name()
    found: dict[str, WeightFormat] = {}
    for weight in weights:
        current = planned[weight.name].format
        kept = kept_format(weight, checkpoint.tensors)
        if kept is None or (not asked and (current.is_float or current.bits < kept.bits)):
            continue
        level = kept.accuracy_level if current.is_float else current.accuracy_level
        found[weight.name] = replace(kept, accuracy_level=level)
    _drop_unequal_experts(found, planned)
    if profile.weights.prefill is not None or any(p.format.is_w8a8 for p in planned.values()):
        found = {}  # W8A8 moves factors between matrices, which changes their values
    if not found:
        if asked:
            raise UsageError(
                "--keep-quantization: the source has no matrix whose quantization can be kept.",
                hint="It works with GGUF's Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q3_K to Q6_K, IQ4 and TQ, MXFP4, AWQ, GPTQ "
                "without act-order, and packed compressed-tensors.",
            )
        return profile, _anew(weights, found, checkpoint.tensors)
    rules = tuple(Rule(name, fmt) for name, fmt in found.items())
    counts = Counter(fmt.label() for fmt in found.values())
    matrices = sum(weight.is_matrix for weight in weights)
    kinds = ", ".join(f"{count} as {label}" for label, count in counts.most_common())
    note = f"{len(found)} of {matrices} matrices keep the quantization of the source ({kinds})."
    note = f"{note} {_anew(weights, found, checkpoint.tensors)}".rstrip()
    return replace(profile, weights=replace(profile.weights, rules=(*rules, *profile.weights.rules))), note


def _anew(weights: Sequence[LogicalWeight], kept: Container[str], tensors: TensorSource) -> str:
    """A sentence on the source's quantized matrices that are rounded a second time; empty if there are none."""
    stored = {
        w.name: w for w in weights if w.is_matrix and not _FLOATS.issuperset(tensors.info(p).dtype for p in w.parts)
    }
    anew = [weight for name, weight in stored.items() if name not in kept]
    if not anew:
        return ""
    unfit = sum(kept_format(weight, tensors) is None for weight in anew)
    why = f", {unfit} of them because their blocks or their order of columns cannot be kept" if unfit else ""
    return f"{len(anew)} quantized matrices of the source are rounded a second time{why}."


def _drop_unequal_experts(found: dict[str, WeightFormat], planned: Mapping[str, PlannedWeight]) -> None:
    """Remove experts from ``found`` whose two matrices differ in bits or block size: one kernel takes both."""
    for name in [name for name in found if ".mlp.experts." in name]:
        base = name.rpartition(".")[0]
        pair = [f"{base}.{role}" for role in ("gate_up", "down")]
        formats = [found.get(one, planned[one].format) for one in pair]
        if len({(fmt.kernel_bits, fmt.block_size) for fmt in formats}) > 1:
            for one in pair:
                found.pop(one, None)


def kept_format(weight: LogicalWeight, tensors: TensorSource) -> WeightFormat | None:
    """The format that stores ``weight`` with the codes of its source; None if no format can."""
    if not weight.is_matrix or weight.offset:
        return None
    grids = {grid_of(tensors, part) for part in weight.parts}
    grid = grids.pop()
    if grids or grid is None or grid.block_size not in BLOCK_SIZES or grid.bits not in STORED_BITS:
        return None
    if grid.offsets and weight.kind == "experts":
        return None  # their kernel takes the input as it is, without the means that offsets are multiplied with
    return WeightFormat(
        bits=grid.bits,
        block_size=grid.block_size,
        symmetric=grid.symmetric,
        method="kept",
        scale_bits=grid.scale_bits,
        offsets=grid.offsets,
    )
