"""How much a model agrees with itself on one prompt: majority share, agreement, answer entropy, each with an interval.

Sources: Wilson (1927) and Clopper and Pearson (1934) for the share; Hoeffding (1948) for the variance of the
U-statistic C; Miller (1955) and Grassberger (arXiv physics/0307138) for the entropy, Zhang (Neural Computation 24,
2012) and Good (Biometrika 1953) for what samples do not show of it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.stats.answer_counts import Tally
from edgedistill.verify.stats.intervals import LEVEL, clopper_pearson_lower, clopper_pearson_upper
from edgedistill.verify.stats.special_functions import EULER_GAMMA, normal_quantile
from edgedistill.verify.types import Estimate, Interval

if TYPE_CHECKING:
    import numpy.typing as npt

RAREST = 1e-3
"""Probability of the rarest answer that the upper ends of entropies allow for. Without any such number nothing bounds
an entropy from above: a mass that was not seen, however small, may be spread over any number of answers.
"""

UNDERSAMPLED = 0.15
"""Share of samples whose answer came once, beyond which there is no upper end: answers may well be rarer than that."""

_ROUNDS = 12  # of a bound that depends on itself; it falls and settles fast
_FEW = 15  # samples beside the majority, below which the normal approximation of an error fails


def require_samples(tally: Tally, least: int) -> None:
    """Raises VerifyError if there are fewer than ``least`` samples."""
    if tally.total < least:
        raise VerifyError(
            f"Found {tally.total} sample(s) of a prompt; agreement and entropy need at least {least}.",
            hint="Use --samples 16 or more.",
        )


def majority_share(tally: Tally, level: float = LEVEL) -> Estimate:
    """max_a n_a / N, an estimate of max_a p(a), with an interval that allows for having picked the largest; if all
    samples agree, the exact one-sided bound (1 - level)^(1/N).

    The largest count is at least that of the most likely answer, so Clopper and Pearson's upper end holds unchanged.
    For the lower end, any of the answers may have been the most frequent by chance. At most 1 / p answers have a
    probability of at least p, and the lower end is corrected for that many (Bonferroni; the tail of a binomial falls
    faster than its p where the count is beyond the mean).
    """
    require_samples(tally, 1)
    total, largest = tally.total, tally.largest
    if largest == total:
        bound = clopper_pearson_lower(total, total, level)
        return Estimate(1.0, Interval(bound, 1.0, level, "Clopper-Pearson, one-sided"))
    tail, low = 0.5 - level / 2, largest / total
    for _ in range(_ROUNDS if largest else 0):
        low = clopper_pearson_lower(largest, total, 1 - tail * low)
    high = clopper_pearson_upper(largest, total, 1 - tail)
    return Estimate(largest / total, Interval(low, high, level, "Clopper-Pearson, of all answers"))


def agreement(tally: Tally, level: float = LEVEL) -> Estimate:
    """C = sum_a n_a (n_a - 1) / (N (N - 1)): the unbiased probability that two samples give the same answer.

    Interval: with fewer than 15 samples beside the majority, from the exact interval [l, u] of the largest share p,
    since p^2 <= C <= p^2 + (1 - p)^2 (and C <= p); all samples equal is the one-sided case of it. With more, normal on
    the logit scale with the unbiased variance of the U-statistic. Where no two samples agree, up to the exact upper
    bound of a share that was seen at most once.
    """
    value = agreement_value(tally)
    n, total = tally.answers.astype(np.float64), float(tally.total)
    rest = tally.total - tally.largest
    if value == 0.0:
        high = clopper_pearson_upper(1, tally.total, level)
        return Estimate(0.0, Interval(0.0, high, level, "Clopper-Pearson, one-sided"))
    if rest < _FEW:
        confidence = level if rest == 0 else 0.5 + level / 2
        low = clopper_pearson_lower(tally.largest, tally.total, confidence)
        high = clopper_pearson_upper(tally.largest, tally.total, confidence)
        top = high**2 + (1 - high) ** 2 if high > 0.5 else high
        method = "Clopper-Pearson, one-sided" if rest == 0 else "mass beside the majority"
        return Estimate(value, Interval(min(value, low**2), max(value, top), level, method))
    # A floor of what one other sample would change keeps a share that was hit exactly from looking certain.
    error = max(math.sqrt(_agreement_variance(n, total)), 1.0 / total)
    half = normal_quantile(0.5 + level / 2) * error / (value * (1 - value))
    logit = math.log(value / (1 - value))
    ends = [1.0 / (1.0 + math.exp(-(logit + shift))) for shift in (-half, half)]
    return Estimate(value, Interval(ends[0], ends[1], level, "logit-normal, U-statistic"))


def agreement_value(tally: Tally) -> float:
    """C alone."""
    require_samples(tally, 2)
    return _pairs(tally.answers.astype(np.float64), float(tally.total))


def _pairs(n: npt.NDArray[np.float64], total: float) -> float:
    return float((n * (n - 1)).sum() / (total * (total - 1)))


def _agreement_variance(n: npt.NDArray[np.float64], total: float) -> float:
    """Variance of C, exact in its form (Hoeffding): 2 / (N (N-1)) [2 (N-2) (S3 - S2^2) + S2 - S2^2], S_k = sum p^k."""
    second = _pairs(n, total)
    third = float((n * (n - 1) * (n - 2)).sum() / (total * (total - 1) * (total - 2))) if total > 2 else second**2
    projection = max(0.0, third - second**2)
    return 2 / (total * (total - 1)) * (2 * (total - 2) * projection + second - second**2)


def plug_in_bits(tally: Tally) -> float:
    """-sum p log2 p over the classes of answers, unparsed and truncated being one class each; biased low."""
    p = class_counts(tally) / tally.total
    return float(-(p * np.log2(p)).sum()) + 0.0  # no negative zero


def miller_madow_bits(tally: Tally) -> float:
    """Plug-in plus (K - 1) / (2 N ln 2), K the classes seen."""
    return plug_in_bits(tally) + (len(class_counts(tally)) - 1) / (2 * tally.total * math.log(2))


def grassberger_bits(tally: Tally) -> float:
    """(ln N - (1/N) sum n_a G(n_a)) / ln 2, G(n) = psi(n) + 0.5 (-1)^n [psi((n+1)/2) - psi(n/2)]."""
    n = class_counts(tally)
    g = grassberger_g(int(n.max()))
    return float((math.log(tally.total) - (n * g[n.astype(np.int64)]).sum() / tally.total) / math.log(2))


def grassberger_g(largest: int) -> npt.NDArray[np.float64]:
    """G(0..largest), float64; index 0 is unused. By the recurrence G(2m+1) = G(2m), G(2m+2) = G(2m) + 2/(2m+1)."""
    g = np.zeros(largest + 2)
    g[1] = -EULER_GAMMA - math.log(2)
    g[2::2] = g[1] + np.cumsum(2.0 / (2.0 * np.arange(len(g[2::2])) + 1.0))
    g[3::2] = g[2 : len(g) - 1 : 2]
    return g[: largest + 1]


def class_entropies(tally: Tally, level: float = LEVEL) -> tuple[Estimate, Estimate]:
    """``plug_in_bits`` and ``miller_madow_bits`` with the interval of ``answer_entropy`` for the same classes: both
    estimate one entropy, and the interval is of that.
    """
    known = answer_entropy(Tally(class_counts(tally).astype(np.int64), 0, 0), level).interval
    values = plug_in_bits(tally), miller_madow_bits(tally)
    if known is None:
        return Estimate(values[0]), Estimate(values[1])
    first, second = (
        Estimate(value, Interval(min(known.low, value), max(known.high, value), level, known.method))
        for value in values
    )
    return first, second


def garbage_bits(tally: Tally) -> float:
    """Bits that garbage adds to the entropy, as if its samples were all different: u log2(u N) per kind with share u.

    By the chain rule this is the most that the missing answers can add, so a prompt that yields only garbage has log2 N
    bits instead of 0.
    """
    return sum(k / tally.total * math.log2(k) for k in (tally.unparsed, tally.truncated) if k)


def answer_entropy(tally: Tally, level: float = LEVEL) -> Estimate:
    """Grassberger's entropy of the answers plus ``garbage_bits``, in bits, kept within [0, log2 N].

    The upper end allows for answers that were not seen, none of them rarer than ``RAREST``. It is infinite where more
    than 15 % of the samples (30 % with fewer than 15 samples beside the majority) are answers that came once.

    - Fewer than 15 samples beside the majority: with the exact interval [l, u] of their mass, h(l) <= H, h the binary
      entropy; above, the lesser of ``spread_bits(u)`` and h(u) + u log2 K + ``spread_bits(s)`` - h(s), K being the
      other classes seen and one for all unseen ones, whose mass is at most s, exact for the answers that came once
      (Good: the unseen mass is no larger in the mean). All samples equal is the one-sided case of it: not 0.00.
    - More: normal with the delta-method variance (sum p log2^2 p - H^2) / N; below around the estimate, with Miller's
      bias as slack; above, on a scale of logarithms since few samples beside the majority are skewed, around the terms
      of Zhang's series below N, which have an unbiased estimate, plus the most that the rest of it holds,
      ``rest_bits(N)`` s.
    """
    value, extra = entropy_value(tally), garbage_bits(tally)
    n = class_counts(tally)
    rest = tally.total - int(n.max())
    singletons = int(np.count_nonzero(tally.answers == 1))
    rare = singletons / tally.total
    tail = 0.5 - level / 2
    once = clopper_pearson_upper(singletons, tally.total, 1 - tail / 2)
    if rest < _FEW:
        confidence = level if rest == 0 else 1 - tail
        low = clopper_pearson_lower(rest, tally.total, confidence)
        high = clopper_pearson_upper(rest, tally.total, confidence)
        seen = clopper_pearson_upper(rest, tally.total, 1 - tail / 2)
        apart = _coin(seen) + seen * math.log2(len(n)) + spread_bits(once) - _coin(once)
        top = min(spread_bits(high), apart) if rest else spread_bits(high)
        if rare > 2 * UNDERSAMPLED:
            top = math.inf
        method = "mass beside the majority" if rest else "unseen mass, one-sided"
        bottom = binary_bits(min(low, 0.5))
        return Estimate(value, Interval(min(bottom, value), max(value, top + extra), level, method))
    p = n / tally.total
    entropy = float(-(p * np.log2(p)).sum())
    variance = max(0.0, float((p * np.log2(p) ** 2).sum()) - entropy**2) / tally.total
    # Near a uniform distribution the first-order term vanishes; the second-order one is (K - 1) / (2 N^2 ln^2 2).
    variance += (len(n) - 1) / (2 * tally.total**2 * math.log(2) ** 2)
    half = normal_quantile(1 - tail) * math.sqrt(variance)
    shown = shown_bits(tally)
    # The correction of the bias may be off by its own first-order size (G of odd counts is too low, of even ones too
    # high).
    slack = len(n) / (2 * tally.total * math.log(2))
    top = math.inf if rare > UNDERSAMPLED else shown * math.exp(half / shown) + extra + once * rest_bits(tally.total)
    return Estimate(value, Interval(max(0.0, value - half - slack), max(value, top), level, "delta method"))


def spread_bits(mass: float) -> float:
    """The most bits of a distribution with so much mass beside its largest class, in classes of ``RAREST``."""
    return _coin(mass) + (mass * math.log2(mass / RAREST) if mass > RAREST else 0.0)


def _coin(mass: float) -> float:
    """The most bits that a coin of at most this probability has."""
    return binary_bits(mass) if mass < 0.5 else 1.0


def shown_bits(tally: Tally) -> float:
    """Zhang's series H = sum_v z_v / v, z_v = sum_a p_a (1 - p_a)^v, up to v = N - 1: bits, unbiased; garbage of a kind
    is one class.
    """
    n = class_counts(tally).astype(np.int64)
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, tally.total + 1))])
    nats = float((n / tally.total * (harmonic[tally.total - 1] - harmonic[n - 1])).sum())
    return nats / math.log(2)


@lru_cache
def rest_bits(samples: int) -> float:
    """Zhang's terms from N on, over z_(N-1), in bits, for an answer as rare as ``RAREST``; less for any other one."""
    terms = np.arange(samples, samples + int(20 / RAREST))
    return float(((1 - RAREST) ** (terms - samples + 1) / terms).sum()) / math.log(2)


def entropy_value(tally: Tally) -> float:
    """The value of ``answer_entropy`` alone."""
    require_samples(tally, 2)
    return min(math.log2(tally.total), max(0.0, grassberger_bits(tally)) + garbage_bits(tally))


def binary_bits(p: float) -> float:
    """Entropy in bits of a coin with probability ``p``."""
    return 0.0 if p <= 0 or p >= 1 else -(p * math.log2(p) + (1 - p) * math.log2(1 - p))


def class_counts(tally: Tally) -> npt.NDArray[np.float64]:
    """Number of samples of every answer and of every kind of garbage that occurs: float64 [classes], all positive."""
    require_samples(tally, 1)
    extra = [count for count in (tally.unparsed, tally.truncated) if count]
    return np.concatenate([tally.answers, extra]).astype(np.float64)
