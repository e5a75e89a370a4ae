"""Right and wrong: accuracy, flips between two models, majority votes, pass@k, and the variance of being wrong.

Sources: flips: arXiv 2407.09141; pass@k: Chen et al., arXiv 2107.03374. "Hallucination variance" is used without a
definition elsewhere; ours is in ``HallucinationVariance``.

Must not know: how an answer is judged, tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.intervals import LEVEL, cluster_interval, prompt_mean
from edgedistill.verify.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Flips:
    """Pairs of samples (same prompt, same index) whose correctness differs between reference and quantized model.

    ``lost``: right before, wrong after; ``gained``: the reverse. The accuracy can stay while many answers flip.
    """

    pairs: int
    lost: int
    gained: int

    @property
    def rate(self) -> float:
        """Share of pairs that flipped either way; NaN without pairs."""
        return (self.lost + self.gained) / self.pairs if self.pairs else math.nan


def flips(reference: Sequence[bool], quantized: Sequence[bool]) -> Flips:
    """Count the flips of paired samples of one prompt (or of any number of prompts, concatenated)."""
    before, after = np.asarray(reference, bool), np.asarray(quantized, bool)
    if before.shape != after.shape:
        raise VerifyError(f"found {before.size} and {after.size} samples; flips need pairs.")
    return Flips(before.size, int((before & ~after).sum()), int((~before & after).sum()))


def pass_at_k(correct: int, total: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the unbiased probability that one of k samples is right. NaN if k > n."""
    if k > total or k < 1:
        return math.nan
    if total - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(total - correct + 1, total + 1))


def majority_at_k(
    counts: npt.NDArray[np.int64], garbage: int, gold: int, k: int, *, draws: int = 400, seed: int = 0
) -> float:
    """maj@k: the probability that the most frequent answer of k samples is the gold one, ties shared evenly.

    Estimated from ``draws`` subsets of k of the samples, drawn without replacement. Garbage has no vote; a subset of
    nothing but garbage is wrong. Exact (one count) where k is the number of samples.

    Args:
        counts: int64 [answers]: samples per answer.
        garbage: Samples without an answer.
        gold: Index of the gold answer in ``counts``; -1 if no sample gave it.

    Returns:
        The probability; NaN if k exceeds the number of samples.
    """
    total = int(counts.sum()) + garbage
    if k > total or k < 1:
        return math.nan
    if gold < 0 or counts[gold] == 0:
        return 0.0
    urn = np.append(counts, garbage)
    if k == total:
        drawn = urn[None, :]
    else:
        rng = np.random.default_rng(seed)
        drawn = rng.multivariate_hypergeometric(urn, k, size=draws, method="marginals")
    votes = drawn[:, :-1]
    best = votes.max(axis=1)
    winners = (votes == best[:, None]).sum(axis=1)
    wins = (votes[:, gold] == best) & (best > 0)
    return float((wins / winners).mean())


@dataclass(frozen=True, slots=True)
class HallucinationVariance:
    """Var over samples of "not the gold answer" (garbage included), split by the law of total variance.

    Attributes:
        within: Mean over prompts of p_i (1 - p_i), unbiased. 0: each prompt is either always right or always wrong.
        between: Variance over prompts of p_i, unbiased for the noise of sampling; may come out slightly below 0.
        total: Their sum.
        always_right, always_wrong, mixed: Prompts of each sort, as observed.
        garbage: Share of the wrong samples that had no answer at all; NaN if none was wrong.
    """

    within: Estimate
    between: Estimate
    total: float
    always_right: int
    always_wrong: int
    mixed: int
    garbage: float


def hallucination_variance(
    wrong: Sequence[int], totals: Sequence[int], garbage: int = 0, *, level: float = LEVEL, seed: int = 0
) -> HallucinationVariance:
    """Split the variance of the indicator "wrong"; prompts weigh the same.

    Args:
        wrong, totals: [prompts]: wrong samples and all samples (at least 2) of each prompt.
        garbage: Of all wrong samples, those without an answer.

    Raises:
        VerifyError: fewer than 2 prompts or a prompt with fewer than 2 samples.
    """
    k, n = np.asarray(wrong, np.float64), np.asarray(totals, np.float64)
    if k.size < 2 or n.min() < 2:
        raise VerifyError("the variance of wrong answers needs at least 2 prompts and 2 samples of each.")
    share = k / n
    inside = k * (n - k) / (n * (n - 1))
    values = np.stack([share, inside / n], axis=1)
    within = prompt_mean(inside, low=0.0, high=0.5, level=level, seed=seed)
    between = Estimate(
        float(_between(np.ones((1, k.size)), values)[0]), cluster_interval(values, _between, level=level, seed=seed)
    )
    return HallucinationVariance(
        within=within,
        between=between,
        total=within.value + between.value,
        always_right=int((k == 0).sum()),
        always_wrong=int((k == n).sum()),
        mixed=int(((k > 0) & (k < n)).sum()),
        garbage=garbage / float(k.sum()) if k.sum() else math.nan,
    )


def _between(weights: Floats, values: Floats) -> Floats:
    """Sample variance over prompts less the mean variance of a prompt's share; columns: share, p(1-p)/n."""
    count = weights.sum(axis=1)
    mean = (weights @ values[:, 0]) / count
    square = (weights @ values[:, 0] ** 2) / count
    return np.asarray((square - mean**2) * count / np.maximum(count - 1, 1) - (weights @ values[:, 1]) / count)
