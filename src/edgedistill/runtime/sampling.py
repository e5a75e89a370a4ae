"""Chooses next tokens from logits, of one row or of a batch: filters, and noise that depends only on what it is drawn
for.

Order of the filters (that of transformers' ``generate``): repetition penalty, temperature, top-k, top-p, min-p.
llama.cpp filters first and divides by the temperature last; at temperature 1 the two orders agree.

A token is drawn as ``argmax_v(log p_v + g_v)`` with Gumbel noise ``g_v = -log(-log u_v)`` (Gumbel-max: an exact sample
of p). ``u_v`` is a hash of (seed, prompt, sample, position, token), never the next number of a stream. So a seed
reproduces a text whatever ran before it, batches and restarts included, and two models given the same key see the same
noise: they differ only where their distributions do (coupled sampling; Benz et al., arXiv 2502.01754).

Where neither top-k, top-p nor min-p cuts the tail, tokens less likely than ``TAIL_MASS / vocabulary`` times the most
likely token are dropped: together they hold less than ``TAIL_MASS`` = 1e-6 of the probability.

A row's choice is a function of its logits, its key and its position alone: sums run from left to right, so that padding
and neighbours change no bit. The normalising constant of p is left out where tokens are drawn: it moves no argmax.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import GenerationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgedistill.runtime.settings import GenerationSettings
    from edgedistill.runtime.structured.masks import TokenMask

    Ids = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Logits = npt.NDArray[np.float32]
    Keys = npt.NDArray[np.uint64]
    Bools = npt.NDArray[np.bool_]

TAIL_MASS = 1e-6

_WEYL = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: the increment of SplitMix64's counter
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1
_DENSE = 1 << 16  # tokens whose noise is computed at a time
_NUCLEUS = 128  # tokens that a nucleus without top-k is looked for in at first
_BLOCKS = 4  # maxima of blocks per wanted token


def mix64(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's output function, a bijection of uint64 (Steele, Lea, Flood, OOPSLA 2014); vectorised."""
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


def _mix_int(x: int) -> int:
    """``mix64`` on one Python integer, without the cost of a one-element array."""
    x &= _MASK
    x = ((x ^ (x >> 30)) * int(_MIX1)) & _MASK
    x = ((x ^ (x >> 27)) * int(_MIX2)) & _MASK
    return x ^ (x >> 31)


def _absorb(state: int, value: int) -> int:
    """Hash ``value`` into ``state``: two rounds, so that neighbouring values share nothing."""
    return _mix_int(_mix_int((value + 1) * int(_WEYL)) ^ state)


def _of_prompt(seed: int, prompt: str | int) -> int:
    if isinstance(prompt, str):
        prompt = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "little")
    return _absorb(_absorb(0, seed), prompt)


@dataclass(frozen=True, slots=True)
class NoiseKey:
    """What the noise of one generated sequence depends on: ``state`` is a uint64 hash of (seed, prompt, sample)."""

    state: int

    @classmethod
    def of(cls, seed: int, *, prompt: str | int = 0, sample: int = 0) -> NoiseKey:
        """Key for ``sample`` number n of a prompt (an index or an id; a text is hashed by SHA-256) under ``seed``."""
        return cls(_absorb(_of_prompt(seed, prompt), sample))


class NoiseSource:
    """Which noise a sample gets. The one of the product; a test puts a broken one in its place."""

    def keys(self, seed: int, prompt_id: str, indices: Sequence[int]) -> Keys:
        """uint64 [n]: key of every sample ``indices`` of a prompt."""
        # ``NoiseKey.of`` of every sample, all at once.
        counters = (np.asarray(indices, dtype=np.uint64) + np.uint64(1)) * _WEYL
        return mix64(mix64(counters) ^ np.uint64(_of_prompt(seed, prompt_id)))


def uniform(keys: Keys, positions: Ids, ids: Ids) -> Floats:
    """Uniform numbers float64 [n, m] in the open interval (0, 1) for the tokens ``ids`` int64 [n, m].

    SplitMix64 with the hash of key and position as its start and the token id as its counter; 53 bits, centred in their
    cell, so that neither 0 nor 1 occurs and the logarithms are finite.
    """
    with np.errstate(over="ignore"):
        base = mix64(mix64((positions.astype(np.uint64) + np.uint64(1)) * _WEYL) ^ keys)
        bits = mix64(base[:, None] + (ids.astype(np.uint64) + np.uint64(1)) * _WEYL)
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def gumbel(keys: Keys, positions: Ids, ids: Ids) -> Floats:
    """Standard Gumbel noise float64 [n, m] for the tokens ``ids`` int64 [n, m] of each row."""
    return np.asarray(-np.log(-np.log(uniform(keys, positions, ids))))


def greedy(logits: Logits) -> int:
    """Most likely token of ``logits`` [V], the lowest id among equals. Raises GenerationError on NaN."""
    best = int(logits.argmax())  # NumPy's argmax stops at the first NaN, so that one look finds any
    if not np.isfinite(logits[best]):
        raise _not_finite()
    return best


def choose(logits: Logits, settings: GenerationSettings, keys: Keys, positions: Ids, seen: Bools | None = None) -> Ids:
    """One token per row, by Gumbel-max over the tokens that the settings leave.

    Args:
        logits: float32 [n, V]; not changed.
        settings: Filters and temperature; 0 takes the most likely token.
        keys: uint64 [n], from ``NoiseSource.keys``.
        positions: int64 [n], 0 for the first generated token, so that noise does not depend on the prompt's length.
        seen: bool [n, V], tokens that the repetition penalty applies to; None where it is 1.

    Returns:
        int64 [n].

    Raises:
        GenerationError: A row has a NaN or no finite largest logit.
    """
    logits, best, top = _penalized(logits, settings, seen)
    if settings.greedy:
        return best
    if settings.top_k or settings.top_p < 1.0:
        ids, scaled = _filtered(logits, top, settings)
    elif len(logits) == 1 or 2 * logits.shape[1] > _DENSE:
        chosen = []
        for row in range(len(logits)):
            tokens, odds = _tail(logits[row], top[row], settings)
            chosen.append(
                tokens[(odds + gumbel(keys[row : row + 1], positions[row : row + 1], tokens[None])[0]).argmax()]
            )
        return np.array(chosen, dtype=np.int64)
    else:
        # Rows by rows, so that the noise of all tokens stays in the processor's caches.
        step = _DENSE // logits.shape[1]
        cuts = [slice(at, at + step) for at in range(0, len(logits), step)]
        return np.concatenate([_any(logits[cut], top[cut], settings, keys[cut], positions[cut]) for cut in cuts])
    if ids.shape[1] == 1:
        return ids[:, 0]
    noisy = scaled + gumbel(keys, positions, ids)
    return np.asarray(ids[np.arange(len(ids)), noisy.argmax(axis=1)])


class Sampler:
    """``choose`` for one sequence under fixed settings."""

    def __init__(
        self, settings: GenerationSettings, key: NoiseKey, *, vocab_size: int, mask: TokenMask | None = None
    ) -> None:
        """``mask``: takes tokens away before the filters; it sees every token that is chosen."""
        self._settings = settings
        self._mask = mask
        self._keys = np.array([key.state], dtype=np.uint64)
        self._plain = settings.greedy and settings.repetition_penalty == 1.0
        self._seen = np.zeros((1, vocab_size), dtype=bool) if settings.repetition_penalty != 1.0 else None

    @property
    def finished(self) -> bool:
        """Whether the mask says that the reply is complete."""
        return self._mask is not None and self._mask.finished

    def observe(self, tokens: Ids | list[int]) -> None:
        """Tell the repetition penalty which tokens occurred (prompt or output)."""
        if self._seen is not None:
            self._seen[0, np.asarray(tokens, dtype=np.int64)] = True

    def choose(self, logits: Logits, position: int) -> int:
        """Token id for ``logits`` float32 [V] at ``position``. Raises GenerationError on NaN."""
        if self._mask is not None:
            logits = self._mask.apply(logits)
        if self._plain:
            token = greedy(logits)
        else:
            token = int(choose(logits[None], self._settings, self._keys, np.array([position]), self._seen)[0])
        if self._mask is not None:
            self._mask.observe(token)
        return token


@dataclass(frozen=True, slots=True)
class Candidates:
    """The tokens that may come next: ``ids`` int64 [n], ascending, and their normalised ``logprobs`` float64 [n]."""

    ids: Ids
    logprobs: Floats


def candidates(logits: Logits, settings: GenerationSettings, seen: Ids | None = None) -> Candidates:
    """What the filters leave of one row of logits.

    Args:
        logits: float32 [V]; not changed.
        settings: With ``temperature`` above 0.
        seen: Ids that the repetition penalty applies to (prompt and output).

    Raises:
        GenerationError: If a logit is NaN or +Inf.
    """
    occurred = None
    if seen is not None:
        occurred = np.zeros((1, len(logits)), dtype=bool)
        occurred[0, seen] = True
    rows, _, top = _penalized(logits[None], settings, occurred)
    if settings.top_k or settings.top_p < 1.0:
        ids, scaled = (part[0] for part in _filtered(rows, top, settings))
        order = np.argsort(ids[kept := np.flatnonzero(scaled > -np.inf)])
        ids, scaled = ids[kept][order], scaled[kept][order]
    else:
        ids, scaled = _tail(rows[0], top[0], settings)
    return Candidates(ids, scaled - np.log(np.exp(scaled).sum()))


def _penalized(
    logits: Logits, settings: GenerationSettings, seen: Bools | None
) -> tuple[Logits, Ids, npt.NDArray[np.float32]]:
    """The logits after the repetition penalty, and of each row the most likely token and its logit."""
    if seen is not None and settings.repetition_penalty != 1.0:
        penalty, at = np.float32(settings.repetition_penalty), np.flatnonzero(seen)
        logits = np.array(logits, order="C")
        values = logits.reshape(-1)[at]
        logits.reshape(-1)[at] = np.where(values > 0, values / penalty, values * penalty)
    best = logits.argmax(axis=1)  # stops at the first NaN
    top = logits[np.arange(len(logits)), best]
    if not np.isfinite(top).all():
        raise _not_finite()
    return logits, np.asarray(best), top


def _tail(row: Logits, top: np.float32, settings: GenerationSettings) -> tuple[Ids, Floats]:
    """Candidates of one row [V] where neither top-k nor top-p cuts: ids, (logit - top) / temperature."""
    margin = settings.temperature * np.log(len(row) / TAIL_MASS)
    if settings.min_p > 0.0:
        margin = min(margin, 1e-3 - settings.temperature * np.log(settings.min_p))  # a little wide: cut exactly below
    ids = np.flatnonzero(row >= float(top) - margin)
    scaled = (row[ids].astype(np.float64) - float(top)) / settings.temperature
    if settings.min_p > 0.0:
        kept = scaled >= np.log(settings.min_p)
        ids, scaled = ids[kept], scaled[kept]
    return ids, scaled


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
    """float64 [n]: logits below it belong to the tail that is left out."""
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
    if len(ids) == 1:
        ids, values = ids[:, order[0]], values[:, order[0]]
    else:
        ids, values = np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)
    return ids, (values.astype(np.float64) - top.astype(np.float64)[:, None]) / settings.temperature


def _compact(mask: Bools, values: Logits) -> tuple[Ids, Logits]:
    """The masked entries of every row moved to the left: their columns, and values padded with minus infinity."""
    if len(mask) == 1:
        ids = np.flatnonzero(mask)[None]
        return ids, values[:, ids[0]]
    rows, columns = np.divmod(np.flatnonzero(mask), mask.shape[1])
    counts = np.bincount(rows, minlength=len(mask))
    slots = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    ids = np.zeros((len(mask), int(counts.max())), dtype=np.int64)
    out = np.full(ids.shape, -np.inf, dtype=values.dtype)
    ids[rows, slots] = columns
    out[rows, slots] = values[rows, columns]
    return ids, out


def _not_finite() -> GenerationError:
    return GenerationError(
        "The model returned logits that are not finite, so that no token can be chosen.",
        hint="Run `edgedistill inspect --verify` on the bundle and export it again if a hash differs.",
    )
