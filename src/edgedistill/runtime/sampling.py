"""Choosing the next token from logits: filters, and noise that is a pure function of what it is for.

Order of the filters (that of transformers' ``generate``): repetition penalty, temperature, top-k, top-p, min-p.
llama.cpp filters first and divides by the temperature last; at temperature 1 the two orders agree.

A token is drawn as ``argmax_v(log p_v + g_v)`` with Gumbel noise ``g_v = -log(-log u_v)`` (Gumbel-max: an exact sample
of p). ``u_v`` is a hash of (seed, prompt, sample, position, token), never the next number of a stream. So a seed
reproduces a text whatever ran before it, batches and restarts included, and two models given the same key see the same
noise: they differ only where their distributions do (coupled sampling; Benz et al., arXiv 2502.01754).

Where neither top-k, top-p nor min-p cuts the tail, tokens less likely than ``TAIL_MASS / vocabulary`` times the most
likely token are dropped: together they hold less than ``TAIL_MASS`` = 1e-6 of the probability.

Must not know: sessions, tokenizers, text.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import GenerationError

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgedistill.runtime.settings import GenerationSettings

    Floats = npt.NDArray[np.floating]
    Ids = npt.NDArray[np.int64]

TAIL_MASS = 1e-6

_WEYL = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: the increment of SplitMix64's counter
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1


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


@dataclass(frozen=True, slots=True)
class NoiseKey:
    """What the noise of one generated sequence depends on: ``state`` is a uint64 hash of (seed, prompt, sample)."""

    state: int

    @classmethod
    def of(cls, seed: int, *, prompt: str | int = 0, sample: int = 0) -> NoiseKey:
        """Key for ``sample`` number n of a prompt (an index or an id; a text is hashed by SHA-256) under ``seed``."""
        if isinstance(prompt, str):
            prompt = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "little")
        return cls(_absorb(_absorb(_absorb(0, seed), prompt), sample))

    def uniform(self, position: int, tokens: Ids) -> npt.NDArray[np.float64]:
        """Uniform numbers in the open interval (0, 1), one per token id, for a position: float64 like ``tokens``.

        SplitMix64 with the position's hash as its start and the token id as its counter; 53 bits, centred in their
        cell, so that neither 0 nor 1 occurs and the logarithms are finite.
        """
        base = np.uint64(_absorb(self.state, position))
        with np.errstate(over="ignore"):
            bits = mix64(base + (tokens.astype(np.uint64) + np.uint64(1)) * _WEYL)
        return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def gumbel(self, position: int, tokens: Ids) -> npt.NDArray[np.float64]:
        """Standard Gumbel noise for the tokens at a position: float64, shape of ``tokens``."""
        return np.asarray(-np.log(-np.log(self.uniform(position, tokens))))


@dataclass(frozen=True, slots=True)
class Candidates:
    """The tokens that may come next: ``ids`` int64 [n] and their normalised ``logprobs`` float64 [n]."""

    ids: Ids
    logprobs: npt.NDArray[np.float64]


def greedy(logits: Floats) -> int:
    """Most likely token of ``logits`` [V], the lowest id among equals. Raises GenerationError on NaN."""
    best = int(logits.argmax())  # NumPy's argmax stops at the first NaN, so that one look finds any
    if not np.isfinite(logits[best]):
        raise _not_finite()
    return best


def penalize(logits: Floats, seen: Ids, penalty: float) -> Floats:
    """A copy of ``logits`` [V] with the ``seen`` tokens' made less likely (more, for a penalty below 1)."""
    out = logits.copy()
    values = out[seen]
    out[seen] = np.where(values > 0, values / penalty, values * penalty)
    return out


def candidates(logits: Floats, settings: GenerationSettings, seen: Ids | None = None) -> Candidates:
    """Apply the filters to one row of logits.

    Args:
        logits: float32 [V]; not changed.
        settings: With ``temperature`` above 0.
        seen: Distinct ids that the repetition penalty applies to (prompt and output).

    Raises:
        GenerationError: If a logit is NaN or +Inf.
    """
    if seen is not None and settings.repetition_penalty != 1.0:
        logits = penalize(logits, seen, settings.repetition_penalty)
    top = float(logits.max())
    if not np.isfinite(top):
        raise _not_finite()
    margin = settings.temperature * np.log(len(logits) / TAIL_MASS)
    ids = np.flatnonzero(logits >= top - margin)
    scaled = (logits[ids].astype(np.float64) - top) / settings.temperature
    if 0 < settings.top_k < len(ids):
        kept = _largest(scaled, settings.top_k)
        ids, scaled = ids[kept], scaled[kept]
    if settings.top_p < 1.0:
        kept = _nucleus(scaled, settings.top_p)
        ids, scaled = ids[kept], scaled[kept]
    if settings.min_p > 0.0:
        kept = scaled >= np.log(settings.min_p)  # scaled is relative to the most likely token
        ids, scaled = ids[kept], scaled[kept]
    return Candidates(ids.astype(np.int64, copy=False), scaled - np.log(np.exp(scaled).sum()))


def draw(options: Candidates, key: NoiseKey, position: int) -> int:
    """One token of ``options``, by Gumbel-max with the key's noise at ``position``."""
    if len(options.ids) == 1:
        return int(options.ids[0])
    return int(options.ids[(options.logprobs + key.gumbel(position, options.ids)).argmax()])


class Sampler:
    """Next-token choice for one sequence under fixed settings.

    ``position`` counts from the first generated token (0), so that the noise does not depend on the prompt's length.
    """

    def __init__(self, settings: GenerationSettings, key: NoiseKey, *, vocab_size: int) -> None:
        self._settings = settings
        self._key = key
        self._plain = settings.greedy and settings.repetition_penalty == 1.0
        self._seen = np.zeros(vocab_size, dtype=bool) if settings.repetition_penalty != 1.0 else None

    def observe(self, tokens: Ids | list[int]) -> None:
        """Tell the repetition penalty which tokens occurred (prompt or output)."""
        if self._seen is not None:
            self._seen[np.asarray(tokens, dtype=np.int64)] = True

    def choose(self, logits: Floats, position: int) -> int:
        """Token id for ``logits`` float32 [V] at ``position``. Raises GenerationError on NaN."""
        if self._plain:
            return greedy(logits)
        seen = None if self._seen is None else np.flatnonzero(self._seen)
        if self._settings.greedy:
            return greedy(logits if seen is None else penalize(logits, seen, self._settings.repetition_penalty))
        return draw(candidates(logits, self._settings, seen), self._key, position)


def _largest(scaled: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.intp]:
    """Indices of the k largest, ascending; among equals at the border the first ones."""
    border = np.partition(scaled, -k)[-k]
    above = np.flatnonzero(scaled > border)
    equal = np.flatnonzero(scaled == border)[: k - len(above)]
    return np.sort(np.concatenate([above, equal]))


def _nucleus(scaled: npt.NDArray[np.float64], top_p: float) -> npt.NDArray[np.intp]:
    """Indices of the smallest set of most likely tokens whose probability reaches ``top_p``, ascending."""
    order = np.argsort(-scaled, kind="stable")
    probs = np.exp(scaled[order])
    before = np.cumsum(probs) - probs
    return np.sort(order[before < top_p * probs.sum()])


def _not_finite() -> GenerationError:
    return GenerationError(
        "The model returned logits that are not finite, so that no token can be chosen.",
        hint="Run `edgedistill inspect --verify` on the bundle and export it again if a hash differs.",
    )
