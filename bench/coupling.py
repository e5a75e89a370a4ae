"""Measures how many samples coupling saves, that is, sampling both models with the same random numbers.

The gate compares means over prompts of paired differences. Their sampling variance falls as 1/N with the number N of
samples per prompt, so two designs have equal power if N is proportional to their variances per sample. A pool of
coupled samples gives both variances: pairs with the same number are coupled, pairs with different numbers are not. For
a mean such as accuracy the variances are Var(q - r) and Var(q) + Var(r). For agreement and entropy, which are not means
over samples, sides of 16 samples are repeatedly drawn from the pool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.metrics.consistency import agreement_value, entropy_value
from edgedistill.verify.stats.answer_counts import Codebook, by_prompt, tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgedistill.verify.types import Sample

    Floats = npt.NDArray[np.float64]

SIDE = 16
REPETITIONS = 200
NAMES = ("accuracy", "agreement", "entropy", "garbage", "tokens")


@dataclass(frozen=True, slots=True)
class Saving:
    """``ratio``: number of uncoupled samples that replace one coupled sample, at equal power; ``low``, ``high``: its 5
    and 95 % quantiles over resampled prompts. NaN if the number does not vary.
    """

    name: str
    ratio: float
    low: float
    high: float

    @property
    def saved(self) -> float:
        """Share of samples that coupling saves."""
        return 1 - 1 / self.ratio if self.ratio > 0 else math.nan


def savings(reference: Sequence[Sample], other: Sequence[Sample], *, seed: int = 0) -> list[Saving]:
    """For every endpoint of the gate; both models have the same samples of every prompt."""
    theirs, ours = by_prompt(reference), by_prompt(other)
    rng = np.random.default_rng(seed)
    changes: dict[bool, dict[str, list[Floats]]] = {True: {}, False: {}}
    for _ in range(REPETITIONS):
        for coupled, found in changes.items():
            left = {name: rng.integers(len(group), size=SIDE) for name, group in theirs.items()}
            right = left if coupled else {n: rng.integers(len(group), size=SIDE) for n, group in theirs.items()}
            before = _per_prompt({name: [theirs[name][i] for i in left[name]] for name in theirs})
            after = _per_prompt({name: [ours[name][i] for i in right[name]] for name in theirs})
            for name in NAMES:
                change = after[name] - before[name]
                if not np.isnan(change).any():
                    found.setdefault(name, []).append(change)
    return [
        _saving(name, np.array(changes[False][name]).var(axis=0), np.array(changes[True][name]).var(axis=0), rng)
        for name in NAMES
        if name in changes[True]
    ]


def _per_prompt(groups: Mapping[str, Sequence[Sample]]) -> dict[str, Floats]:
    """By name, a number for each prompt, float64 [prompts]; accuracy is NaN for prompts without gold answers."""
    rows: dict[str, list[float]] = {name: [] for name in NAMES}
    for samples in groups.values():
        counts = tally(Codebook().encode(samples))
        right = [sample.correct for sample in samples]
        rows["accuracy"].append(math.nan if None in right else float(np.mean(np.array(right, np.float64))))
        rows["agreement"].append(agreement_value(counts))
        rows["entropy"].append(entropy_value(counts))
        rows["garbage"].append(counts.garbage / counts.total)
        rows["tokens"].append(float(np.mean([sample.tokens for sample in samples])))
    return {name: np.array(values, np.float64) for name, values in rows.items()}


def _saving(name: str, apart: Floats, together: Floats, rng: np.random.Generator) -> Saving:
    """From the variances per prompt: that of the mean over prompts is their sum."""
    draws = []
    for _ in range(500):
        chosen = rng.integers(len(apart), size=len(apart))
        draws.append(_ratio(apart[chosen], together[chosen]))
    known = [ratio for ratio in draws if math.isfinite(ratio)]
    low, high = np.quantile(known, [0.05, 0.95]) if known else (math.nan, math.nan)
    return Saving(name, _ratio(apart, together), float(low), float(high))


def _ratio(apart: Floats, together: Floats) -> float:
    if apart.sum() == 0:
        return math.nan
    return math.inf if together.sum() == 0 else float(apart.sum() / together.sum())
