"""SmoothQuant (Xiao et al. 2022): moves outliers of activations into weights, so that 8 bits per value are enough.

In W8A8 every token has one scale, and a few input channels can be a hundred times larger than the others, which then
lose their precision. Each input channel j is divided by s_j = max|x_j|^a / max|w_j|^(1-a), the first maximum over
calibration tokens, and the matching columns of the weights are multiplied by s_j, which changes nothing before
rounding. The division is folded into the weights that make the input: the norm's (before qkv, gate and up, and an
untied lm_head), or the rows of ``up`` (before ``down``, whose input is a product with them). The output projection is
not smoothed: its factors would scale the values in the KV cache, which another graph may share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.architecture.recurrent import GatedDeltaSpec, Mamba2Spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from edgedistill.architecture.spec import ModelSpec
    from edgedistill.quantize.plan import PlannedWeight

    Floats = npt.NDArray[np.float32]

ALPHA = 0.5
"""Exponent of the activations: the larger, the more of the outliers moves into the weights."""
_FLOOR = 1e-5


@dataclass(frozen=True, slots=True)
class Fold:
    """Factors on the rows float32 [N] and columns float32 [K] of a weight; None: all 1."""

    rows: Floats | None = None
    columns: Floats | None = None

    def apply(self, values: Floats, row: int) -> Floats:
        """``values`` float32 [n, K] or [n], which are rows from ``row`` on, times the factors."""
        if self.columns is not None:
            values = values * self.columns
        if self.rows is not None:
            factors = self.rows[row : row + len(values)]
            values = values * (factors[:, None] if values.ndim == 2 else factors)
        return values


@dataclass(frozen=True, slots=True)
class Group:
    """The matrices ``consumers`` that read the value ``value`` of the graph, and the weights whose rows make it."""

    value: str
    consumers: tuple[str, ...]
    producers: tuple[str, ...]


def groups(spec: ModelSpec, planned: Mapping[str, PlannedWeight]) -> tuple[Group, ...]:
    """The groups whose consumers are all W8A8; none for a model that rounds the inputs of its matrices itself."""
    if spec.rounded_inputs:
        return ()
    found = []
    for index in range(spec.num_hidden_layers):
        name = f"layers.{index}"
        up_bias = (f"{name}.mlp.up.bias",) if spec.mlp_bias else ()
        mlp = (f"{name}.mlp.gate", f"{name}.mlp.up") if spec.gated_mlp else (f"{name}.mlp.up",)
        mixture = spec.layers[index].mixture
        recurrent = spec.layers[index].recurrent
        projection = "qkv" if spec.layers[index].keys_of is None else "query"
        attention = (f"{name}.attn.{projection}", *((f"{name}.attn.output_gate",) if spec.output_gate else ()))
        readers = {f"{name}.input_norm": attention if recurrent is None else (f"{name}.conv.in",)}
        if isinstance(recurrent, GatedDeltaSpec | Mamba2Spec):  # its gates read the norm, too, and stay in float32
            readers.clear()
        if spec.altup:  # what stands beside attention reads the norm, too, and adds it to the stream
            readers.clear()
        if not mixture:  # what a router reads is not smoothed, and its experts are never W8A8
            readers[f"{name}.{spec.mlp_input}"] = (*readers.get(f"{name}.{spec.mlp_input}", ()), *mlp)
        if spec.norm_placement != "post":  # else no norm before the matrices could take the factors
            found += [
                Group(f"{norm}.out", consumers, (norm, f"{norm}.bias") if spec.norm_bias else (norm,))
                for norm, consumers in readers.items()
            ]
        if spec.gated_mlp and not mixture and not spec.sub_norms:
            found.append(Group(f"{name}.mlp.gated", (f"{name}.mlp.down",), (f"{name}.mlp.up", *up_bias)))
    if not spec.tie_word_embeddings:
        final = ("final_norm", "final_norm.bias") if spec.norm_bias else ("final_norm",)
        found.append(Group("final_norm.out", ("lm_head",), final))
    return tuple(group for group in found if all(planned[name].format.is_w8a8 for name in group.consumers))


def folds(
    chosen: Iterable[Group], activations: Mapping[str, Floats], weights: Mapping[str, Floats], alpha: float = ALPHA
) -> dict[str, Fold]:
    """Factors by weight name.

    Args:
        chosen: What to smooth.
        activations: Largest magnitudes per channel of each group's value, float32 [K].
        weights: The same per input channel of each consumer, float32 [K].
        alpha: Exponent of the activations.

    Raises:
        ValueError: Maxima that are not finite.
    """
    rows: dict[str, Floats] = {}
    columns: dict[str, Floats] = {}
    for group in chosen:
        x = activations[group.value].astype(np.float64)
        w = np.max([weights[name] for name in group.consumers], axis=0).astype(np.float64)
        if not (np.isfinite(x).all() and np.isfinite(w).all()):
            raise ValueError(f"maxima of {group.value} or its weights are not finite")
        # A channel that is dead on either side keeps a modest factor: nothing is known about it.
        x, w = np.maximum(x, _FLOOR * max(x.max(), 1e-30)), np.maximum(w, _FLOOR * max(w.max(), 1e-30))
        factor = x**alpha / w ** (1 - alpha)
        # Only ratios between channels matter; around 1 they keep the norm's weights readable.
        factor = (factor / np.exp(np.log(factor).mean())).astype(np.float32)
        for name in group.consumers:
            columns[name] = factor
        for name in group.producers:
            rows[name] = np.float32(1) / factor
    return {name: Fold(rows.get(name), columns.get(name)) for name in sorted(rows.keys() | columns.keys())}
