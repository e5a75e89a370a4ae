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
_DENSE = 1 << 16  # tokens whose noise is computed at a time
_NUCLEUS = 128  # tokens that a nucleus without top-k is looked for in at first
_BLOCKS = 4  # maxima of blocks per wanted token


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
            hint="Run `edgedistill inspect --verify` on the bundle and export it again if a hash differs.",
        )
    if settings.greedy:
        return np.asarray(best)
    if settings.top_k == 0 and settings.top_p == 1.0:
        # Any token may come: rows by rows, so that the noise of all of them stays in the processor's caches.
        step = max(1, _DENSE // logits.shape[1])
        cuts = [slice(at, at + step) for at in range(0, len(logits), step)]
        return np.concatenate([_any(logits[cut], top[cut], settings, keys[cut], positions[cut]) for cut in cuts])
    ids, scaled = _filtered(logits, top, settings)
    noisy = scaled + gumbel(keys, positions, ids)
    return np.asarray(ids[np.arange(len(ids)), noisy.argmax(axis=1)])


def gumbel(keys: Keys, positions: Ids, ids: Ids) -> Floats:
    """Standard Gumbel noise float64 [n, m] for the candidates ``ids`` int64 [n, m]: bit for bit ``NoiseKey.gumbel``."""
    with np.errstate(over="ignore"):
        base = mix64(mix64((positions.astype(np.uint64) + np.uint64(1)) * _WEYL) ^ keys)
        bits = mix64(base[:, None] + (ids.astype(np.uint64) + np.uint64(1)) * _WEYL)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return np.asarray(-np.log(-np.log(uniform)))


def _any(logits: Logits, top: npt.NDArray[np.float32], settings: GenerationSettings, keys: Keys, positions: Ids) -> Ids:
    """The choice where neither top-k nor top-p cuts."""
    floor = _floor(logits, top, settings)
    scaled = (logits.astype(np.float64) - top.astype(np.float64)[:, None]) / settings.temperature
    scaled[logits < floor[:, None]] = -np.inf
    if settings.min_p > 0.0:
        scaled[scaled < np.log(settings.min_p)] = -np.inf
    ids = np.broadcast_to(np.arange(logits.shape[1], dtype=np.int64), logits.shape)
    return np.asarray((scaled + gumbel(keys, positions, ids)).argmax(axis=1))


def _floor(logits: Logits, top: npt.NDArray[np.float32], settings: GenerationSettings) -> Floats:
    """float64 [n]: logits below it belong to the tail that is left out, as in runtime.sampling."""
    margin = settings.temperature * np.log(logits.shape[1] / TAIL_MASS)
    return np.asarray(top.astype(np.float64) - margin)


def _filtered(logits: Logits, top: npt.NDArray[np.float32], settings: GenerationSettings) -> tuple[Ids, Floats]:
    """Candidates under top-k or top-p, most likely first, padded: ids int64 [n, m] and (logit - top) / temperature
    float64 [n, m], minus infinity in the padding.
    """
    vocab, k = logits.shape[1], settings.top_k
    ids, scaled = _largest(logits, top, settings, min(k or _NUCLEUS, vocab))
    if k:
        ids, scaled = ids[:, :k], scaled[:, :k]
    if settings.top_p < 1.0:
        probs = np.exp(scaled)
        sums = np.cumsum(probs, axis=1)
        total = sums[:, -1] if k else _mass(logits, top, settings)
        if not k and (sums[:, -1] < settings.top_p * total).any():
            # A nucleus wider than what was looked at: rare, and then all tokens have to be sorted.
            ids, scaled = _largest(logits, top, settings, vocab)
            probs = np.exp(scaled)
            sums = np.cumsum(probs, axis=1)
        scaled = np.where(sums - probs < settings.top_p * total[:, None], scaled, -np.inf)
    if settings.min_p > 0.0:
        scaled = np.where(scaled >= np.log(settings.min_p), scaled, -np.inf)
    return ids, scaled


def _mass(logits: Logits, top: npt.NDArray[np.float32], settings: GenerationSettings) -> Floats:
    """float64 [n]: sum of the unnormalised probabilities of all candidates."""
    floor = _floor(logits, top, settings)
    out = np.empty(len(logits))
    for row in range(len(logits)):
        kept = logits[row][logits[row] >= floor[row]].astype(np.float64)
        out[row] = np.exp((kept - float(top[row])) / settings.temperature).sum()
    return out


def _largest(
    logits: Logits, top: npt.NDArray[np.float32], settings: GenerationSettings, count: int
) -> tuple[Ids, Floats]:
    """At least the ``count`` most likely candidates of a row, in falling order, of equal ones the lower id first."""
    vocab = logits.shape[1]
    border = _floor(logits, top, settings)
    if count < vocab:
        # The count-th largest of the maxima of blocks is no larger than the count-th largest logit: a cheap lower
        # bound that leaves little more than what is wanted.
        width = max(1, vocab // (_BLOCKS * count))
        # (Any division into blocks will do; with these the maxima are taken of whole vectors.)
        blocks = logits[:, : vocab // width * width].reshape(len(logits), width, -1).max(axis=1)
        border = np.maximum(border, np.partition(blocks, -count, axis=1)[:, -count])
    ids, values = _compact(logits >= border[:, None], logits)
    order = np.argsort(-values, axis=1, kind="stable")
    ids, values = np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)
    return ids, (values.astype(np.float64) - top.astype(np.float64)[:, None]) / settings.temperature


def _compact(mask: Bools, values: Logits) -> tuple[Ids, Logits]:
    """The masked entries of every row moved to the left: their columns, and values padded with minus infinity."""
    rows, columns = np.divmod(np.flatnonzero(mask), mask.shape[1])
    counts = np.bincount(rows, minlength=len(mask))
    slots = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    ids = np.zeros((len(mask), int(counts.max())), dtype=np.int64)
    out = np.full(ids.shape, -np.inf, dtype=values.dtype)
    ids[rows, slots] = columns
    out[rows, slots] = values[rows, columns]
    return ids, out
