"""AltUp as config.json describes it (Gemma 3n): residual streams, the learned residual, and the MLPs' sparsity.

The sources are transformers ``models/gemma3n`` (``Gemma3nTextConfig``), Baykal et al. 2023 (arXiv:2301.13310) for
AltUp and Menghani et al. 2024 (arXiv:2411.07501) for LAuReL.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from edgedistill.checkpoint.config_values import integer, number, per_layer
from edgedistill.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.architecture.spec import LayerSpec

_SPARSE_LAYERS, _SPARSITY = 10, 0.95
_HINT = "Compare config.json with the original model's."


@dataclass(frozen=True, slots=True)
class AltUpSpec:
    """Residual streams, of which every layer reads and computes one, and corrects all by what it computed.

    Attributes:
        streams: How many there are.
        active: The one that layers compute.
        scaled: What reads the second embedding is multiplied by a vector first.
        laurel_rank: Columns of the low-rank matrices of the learned residual beside attention.
    """

    streams: int
    active: int
    scaled: bool
    laurel_rank: int


def altup_spec(config: Mapping[str, Any]) -> AltUpSpec:
    """The streams of a Gemma 3n; raises CheckpointError for values that contradict each other.

    ``altup_coef_clip`` bounds weights while they are trained, and is not asked for here: transformers 4 clips the
    correcting ones again whenever it runs, version 5 and llama.cpp do not, which is the same for what training left.
    """
    streams, active = integer(config, "altup_num_inputs", 4), number(config, "altup_active_idx", 0)
    if streams < 2 or active not in range(streams):
        raise CheckpointError(
            f"config.json has altup_num_inputs = {streams} and altup_active_idx = {active:g}; at least 2 streams, one "
            "of which is active, are expected.",
            hint=_HINT,
        )
    return AltUpSpec(
        streams=streams,
        active=int(active),
        scaled=bool(config.get("altup_correct_scale", True)),
        laurel_rank=integer(config, "laurel_rank", 64),
    )


def mlp_sizes(config: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """Inner size of the MLP of each layer, which config.json states for all or in a list; raises CheckpointError."""
    count = integer(config, "num_hidden_layers")
    if not isinstance(config.get(key), list | tuple):
        return (integer(config, key),) * count
    return tuple(integer({key: size}, key) for size in per_layer(config, key, count) or ())


def with_mlps(
    config: Mapping[str, Any], layers: tuple[LayerSpec, ...], sizes: tuple[int, ...]
) -> tuple[LayerSpec, ...]:
    """``layers`` with the inner ``sizes`` that are not the largest, and with how far their gates have to stand out.

    A gate is kept as far as it exceeds the mean of its layer's gates by so many standard deviations that, were they
    normally distributed, ``activation_sparsity_pattern`` says which share of them would not. Raises CheckpointError for
    a share that is none.
    """
    pattern = per_layer(config, "activation_sparsity_pattern", len(layers))
    if pattern is None:
        sparse = _SPARSE_LAYERS if len(layers) > _SPARSE_LAYERS else 0
        pattern = (_SPARSITY,) * sparse + (0.0,) * (len(layers) - sparse)
    found = []
    for layer, size, value in zip(layers, sizes, pattern, strict=True):
        share = number({"activation_sparsity_pattern": value}, "activation_sparsity_pattern")
        if not 0 <= share < 1:
            raise CheckpointError(
                f"config.json has activation_sparsity_pattern = {share:g} for layer {layer.index}; at least 0 and less "
                "than 1 is expected.",
                hint=_HINT,
            )
        deviations = NormalDist().inv_cdf(share) if share > 0 else None
        found.append(replace(layer, intermediate_size=size if size != max(sizes) else None, gate_deviations=deviations))
    return tuple(found)
