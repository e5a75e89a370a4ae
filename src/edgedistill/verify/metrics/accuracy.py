"""Metrics of right and wrong answers: flips between two models, majority votes, pass@k, and hallucination variance.

Sources: flips: arXiv 2407.09141; pass@k: Chen et al., arXiv 2107.03374. "Hallucination variance" has no definition in
the literature that we know of; ``HallucinationVariance`` defines it here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.stats.cluster_intervals import cluster_share
from edgedistill.verify.stats.intervals import LEVEL, clopper_pearson, cluster_interval, prompt_mean
from edgedistill.verify.types import Estimate, Interval

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
        raise VerifyError(f"Found {before.size} and {after.size} samples; flips need pairs.")
    return Flips(before.size, int((before & ~after).sum()), int((~before & after).sum()))


def pass_at_k(correct: int, total: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the unbiased probability that one of k samples is right. NaN if k > n."""
    if k > total or k < 1:
        return math.nan
    if total - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(total - correct + 1, total + 1))


def pass_at_k_estimate(correct: int, total: int, k: int, level: float = LEVEL) -> Estimate:
    """``pass_at_k``, with the exact interval of the probability p of a right answer transformed to 1 - (1 - p)^k."""
    value = pass_at_k(correct, total, k)
    if math.isnan(value):
        return Estimate(value)
    found = clopper_pearson(correct, total, level)
    low, high = (1.0 - (1.0 - p) ** k for p in (found.low, found.high))
    return Estimate(value, Interval(min(low, value), max(high, value), level, found.method))


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
    if k == 1:
        return float(counts[gold]) / total
    if k == total:
        drawn = urn[None, :]
    else:
        rng = np.random.default_rng(seed)
        drawn = rng.multivariate_hypergeometric(urn, k, size=draws, method="marginals")
    return float(_won(drawn[:, :-1], gold).mean())


def _won(votes: npt.NDArray[np.int64], gold: int) -> Floats:
    """Share of the vote that ``gold`` wins, float64 [...] of ``votes`` [..., answers]: ties are shared, and nobody wins
    without a vote.
    """
    best = votes.max(axis=-1)
    wins = (votes[..., gold] == best) & (best > 0)
    return np.asarray(wins / (votes == best[..., None]).sum(axis=-1))


@lru_cache(maxsize=4096)
def majority_at_k_estimate(
    counts: tuple[int, ...], garbage: int, gold: int, k: int, level: float = LEVEL, *, draws: int = 400, seed: int = 0
) -> Estimate:
    """``majority_at_k`` with an interval.

    Two proportions decide a vote: that of the gold answer among the samples of it and its strongest rival, and that of
    the gold answer among all samples. Each has an exact interval. The vote of k is evaluated at both ends of both, with
    everything else as observed, and the interval spans the results. If no other answer was seen, the rival is an unseen
    one.

    Args:
        counts: Samples per answer.
        garbage: Samples without an answer.
        gold: Index of the gold answer in ``counts``; -1 if no sample gave it.
        k: Samples in a vote.
        level: Of the interval.
        draws, seed: Of the simulated votes.
    """
    answers = np.array(counts if counts else (0,), np.int64)
    value = majority_at_k(answers, garbage, gold, k, draws=draws, seed=seed)
    if math.isnan(value):
        return Estimate(value)
    total = int(answers.sum()) + garbage
    # Shares of: gold, its rival, the other answers, garbage.
    right = int(answers[gold]) if gold >= 0 else 0
    others = np.sort(np.delete(answers, gold) if gold >= 0 else answers)[::-1] if counts else np.empty(0, np.int64)
    rival = int(others[0]) if others.size else 0
    rest = np.array([*others[1:], garbage], np.float64) / total
    cells = []
    if right + rival:
        ends, both = clopper_pearson(right, right + rival, level), (right + rival) / total
        cells += [np.array([p * both, (1 - p) * both, *rest]) for p in (ends.low, ends.high)]
    ends = clopper_pearson(right, total, level)
    wrong = np.array([rival / total, *rest])
    wrong = wrong / wrong.sum() if wrong.sum() else np.eye(1, wrong.size)[0]
    cells += [np.array([p, *(1 - p) * wrong]) for p in (ends.low, ends.high)]
    shares = np.clip(np.stack(cells), 0.0, 1.0)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(k, shares / shares.sum(axis=1, keepdims=True), size=(draws, len(cells)))
    chances = _won(drawn[..., :-1], 0).mean(axis=0)
    low, high = min(value, float(chances.min())), max(value, float(chances.max()))
    return Estimate(value, Interval(low, high, level, "Clopper-Pearson, gold and rival"))


@dataclass(frozen=True, slots=True)
class HallucinationVariance:
    """Var over samples of "not the gold answer" (garbage included), split by the law of total variance.

    Attributes:
        within: Mean over prompts of p_i (1 - p_i), unbiased. 0: each prompt is either always right or always wrong.
        between: Variance over prompts of p_i, without the noise of sampling; may be slightly below 0.
        total: Their sum: p (1 - p) of the mean share p, apart from the correction of its bias.
        always_right, always_wrong, mixed: Prompts of each sort, as observed.
        garbage: Share of the wrong samples that had no answer at all; NaN if none was wrong.
    """

    within: Estimate
    between: Estimate
    total: Estimate
    always_right: int
    always_wrong: int
    mixed: int
    garbage: Estimate


def hallucination_variance(
    wrong: Sequence[int], totals: Sequence[int], garbage: Sequence[int] = (), *, level: float = LEVEL, seed: int = 0
) -> HallucinationVariance:
    """Split the variance of the indicator "wrong"; prompts weigh the same.

    Args:
        wrong, totals: [prompts]: wrong samples and all samples (at least 2) of each prompt.
        garbage: [prompts]: those of the wrong samples that have no answer; empty: none has.

    Raises:
        VerifyError: fewer than 2 prompts or a prompt with fewer than 2 samples.
    """
    k, n = np.asarray(wrong, np.float64), np.asarray(totals, np.float64)
    if k.size < 2 or n.min() < 2:
        raise VerifyError("The variance of wrong answers needs at least 2 prompts and 2 samples of each.")
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
        total=_total(within.value + between.value, prompt_mean(share, low=0.0, high=1.0, level=level, seed=seed)),
        always_right=int((k == 0).sum()),
        always_wrong=int((k == n).sum()),
        mixed=int(((k > 0) & (k < n)).sum()),
        garbage=cluster_share(garbage if len(garbage) else np.zeros(k.size), k, level),
    )


def _between(weights: Floats, values: Floats) -> Floats:
    """Sample variance over prompts less the mean variance of a prompt's share; columns: share, p(1-p)/n."""
    count = weights.sum(axis=1)
    mean = (weights @ values[:, 0]) / count
    square = (weights @ values[:, 0] ** 2) / count
    return np.asarray((square - mean**2) * count / np.maximum(count - 1, 1) - (weights @ values[:, 1]) / count)


def _total(value: float, mean: Estimate) -> Estimate:
    """``value`` with the interval of the mean share p transformed to p (1 - p), which is largest at one half."""
    if (found := mean.interval) is None:
        return Estimate(value)
    ends = [found.low * (1 - found.low), found.high * (1 - found.high)]
    top = 0.25 if 0.5 in found else max(ends)
    return Estimate(value, Interval(min(value, *ends), max(value, top), found.level, found.method))
