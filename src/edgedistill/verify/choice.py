"""Next tokens for many rows at once: the rules and the noise of ``runtime.sampling``, vectorised over a batch.

A row's choice is a function of its logits, its key and its position alone: sums run from left to right, so that padding
and neighbours change no bit. It is the choice that ``runtime.sampling.Sampler`` makes, except where two candidates tie
within the rounding of a normalising constant (1e-15), which is left out here because it moves no argmax.

Must not know: sessions, prompts, texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import GenerationError
from edgedistill.runtime.sampling import TAIL_MASS, NoiseKey, mix64

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgedistill.runtime.settings import GenerationSettings

    Ids = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Logits = npt.NDArray[np.float32]
    Keys = npt.NDArray[np.uint64]
    Bools = npt.NDArray[np.bool_]

_WEYL = np.uint64(0x9E3779B97F4A7C15)  # of SplitMix64, as in runtime.sampling
_PARTITION_FROM = 64  # candidates per row above which cutting to the top k first is cheaper than sorting all


class NoiseSource:
    """Which noise a sample gets. The one of the product; a test puts a broken one in its place."""

    def keys(self, seed: int, prompt_id: str, indices: Sequence[int]) -> Keys:
        """uint64 [n]: key of every sample ``indices`` of a prompt."""
        return np.array([NoiseKey.of(seed, prompt=prompt_id, sample=i).state for i in indices], dtype=np.uint64)


def choose(logits: Logits, settings: GenerationSettings, keys: Keys, positions: Ids, seen: Bools | None = None) -> Ids:
    """One token per row, by Gumbel-max over the tokens that the settings leave.

    Args:
        logits: float32 [n, V]; not changed.
        settings: Filters and temperature; 0 takes the most likely token.
        keys: uint64 [n], from ``NoiseSource.keys``.
        positions: int64 [n], 0 for the first generated token.
        seen: bool [n, V], tokens that the repetition penalty applies to; None where it is 1.

    Returns:
        int64 [n].

    Raises:
        GenerationError: A row has a NaN or no finite largest logit.
    """
    if seen is not None and settings.repetition_penalty != 1.0:
        penalty = np.float32(settings.repetition_penalty)
        logits = np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)
    best = logits.argmax(axis=1)  # stops at the first NaN
    top = logits[np.arange(len(logits)), best]
    if not np.isfinite(top).all():
        raise GenerationError(
            "The model returned logits that are not finite, so that no token can be chosen.",
            hint="Run `edgedistill inspect` on the bundle and export it again if a hash differs.",
        )
    if settings.greedy:
        return best
    ids, scaled = _filtered(logits, top, settings)
    if ids.shape[1] == 1:
        return ids[:, 0]
    noisy = scaled + gumbel(keys, positions, ids)
    return np.asarray(ids[np.arange(len(ids)), noisy.argmax(axis=1)])


def gumbel(keys: Keys, positions: Ids, ids: Ids) -> Floats:
    """Standard Gumbel noise float64 [n, m] for the candidates ``ids`` int64 [n, m]: bit for bit ``NoiseKey.gumbel``."""
    with np.errstate(over="ignore"):
        base = mix64(mix64((positions.astype(np.uint64) + np.uint64(1)) * _WEYL) ^ keys)
        bits = mix64(base[:, None] + (ids.astype(np.uint64) + np.uint64(1)) * _WEYL)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return np.asarray(-np.log(-np.log(uniform)))


def _filtered(logits: Logits, top: npt.NDArray[np.float32], settings: GenerationSettings) -> tuple[Ids, Floats]:
    """Candidates of every row, padded: ids int64 [n, m] and (logit - top) / temperature, -inf in the padding."""
    margin = settings.temperature * np.log(logits.shape[1] / TAIL_MASS)
    # As in runtime.sampling: the border in double precision, the comparison in that of the logits.
    mask = logits >= (top.astype(np.float64) - margin)[:, None]
    ids, values = _compact(mask, logits)
    scaled = (values.astype(np.float64) - top.astype(np.float64)[:, None]) / settings.temperature
    k = settings.top_k
    if 0 < k < scaled.shape[1] and scaled.shape[1] > _PARTITION_FROM:
        border = np.partition(scaled, -k, axis=1)[:, -k]
        mask = (scaled >= border[:, None]) & (scaled > -np.inf)
        ids, scaled = _compact(mask, scaled, ids)
    if settings.top_p < 1.0 or 0 < k < scaled.shape[1]:
        # Stable: among equals the lower id comes first, as everywhere.
        order = np.argsort(-scaled, axis=1, kind="stable")
        if 0 < k < scaled.shape[1]:
            order = order[:, :k]
        ids, scaled = np.take_along_axis(ids, order, axis=1), np.take_along_axis(scaled, order, axis=1)
    if settings.top_p < 1.0:
        probs = np.exp(scaled)
        sums = np.cumsum(probs, axis=1)
        scaled = np.where(sums - probs < settings.top_p * sums[:, -1:], scaled, -np.inf)
    if settings.min_p > 0.0:
        scaled = np.where(scaled >= np.log(settings.min_p), scaled, -np.inf)
    return ids, scaled


def _compact(
    mask: Bools, values: npt.NDArray[np.floating], ids: Ids | None = None
) -> tuple[Ids, npt.NDArray[np.floating]]:
    """The masked entries of every row moved to the left: their ids (columns, or entries of ``ids``) and values."""
    rows, columns = np.nonzero(mask)
    counts = mask.sum(axis=1)
    starts = np.cumsum(counts) - counts
    slots = np.arange(len(rows)) - starts[rows]
    width = int(counts.max())
    out_ids = np.zeros((len(mask), width), dtype=np.int64)
    out_values = np.full((len(mask), width), -np.inf, dtype=values.dtype)
    out_ids[rows, slots] = columns if ids is None else ids[rows, columns]
    out_values[rows, slots] = values[rows, columns]
    return out_ids, out_values
