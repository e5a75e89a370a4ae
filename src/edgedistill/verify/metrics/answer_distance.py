"""Distance between the answer distributions of two models on one prompt, with an interval."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.stats.intervals import LEVEL
from edgedistill.verify.stats.special_functions import chi_square_quantile
from edgedistill.verify.types import Estimate, Interval

if TYPE_CHECKING:
    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

UNSEEN_SAMPLES = 3


def distribution_distance(p: Codes, q: Codes, *, coupled: bool) -> float:
    """D = C_q + C_p - 2 X, an unbiased estimate of sum_a (p_a - q_a)^2; may be below 0 if the two are equal.

    X = sum_a n_a m_a / (N M). Coupled samples share their noise, so a pair of equal index agrees more than two
    independent draws would: these pairs are left out, X = (sum_a n_a m_a - #{i: p_i = q_i}) / (N (N - 1)).
    Garbage agrees with nothing.

    Args:
        p, q: int64 [samples]: answer codes of one codebook, below 0 for garbage; in order of the index if coupled.
        coupled: Whether equal positions share their noise; then both must have the same length.

    Raises:
        VerifyError: fewer than 2 samples, or coupled samples of different number.
    """
    if min(p.size, q.size) < 2 or (coupled and p.size != q.size):
        raise VerifyError(
            f"Found {p.size} and {q.size} samples; the distance needs 2 of each, and pairs of them where coupled."
        )
    kinds = int(max(p.max(), q.max())) + 1
    n, m = _counts(p, kinds), _counts(q, kinds)
    agree_p = float((n * (n - 1)).sum()) / (p.size * (p.size - 1))
    agree_q = float((m * (m - 1)).sum()) / (q.size * (q.size - 1))
    cross = float((n * m).sum())
    if coupled:
        same = int(((p == q) & (p >= 0)).sum())
        return agree_p + agree_q - 2 * (cross - same) / (p.size * (p.size - 1))
    return agree_p + agree_q - 2 * cross / (p.size * q.size)


def distance_estimate(p: Codes, q: Codes, *, coupled: bool, level: float = LEVEL) -> Estimate:
    """``distribution_distance`` with an interval.

    D is the squared length of the difference d of the two distributions; near 0, where it matters, its estimate is not
    normally distributed. The observed length |d_seen| is off by at most |d_seen - d|, whose square is a weighted sum of
    squares of normal variables. Its quantile r (Satterthwaite, Biometrics Bulletin 1946) gives the interval
    (|d_seen| +- r)^2. The variance counts 3 samples of unseen answers in addition, since 0 of N samples are compatible
    with a probability of up to about 3 / N.

    Args:
        p, q, coupled: As in ``distribution_distance``.
    """
    value = distribution_distance(p, q, coupled=coupled)
    kinds = int(max(p.max(), q.max(), 0)) + 1
    rows, columns = _one_hot(p, kinds), _one_hot(q, kinds)
    parts = [rows - columns] if coupled else [rows, columns]
    seen = rows.mean(axis=0) - columns.mean(axis=0)
    covariance = sum(np.cov(part, rowvar=False, ddof=1).reshape(kinds, kinds) / len(part) for part in parts)
    unseen = sum(2.0 * UNSEEN_SAMPLES / len(part) ** 2 for part in parts)
    # The unseen answers are one direction more.
    first = float(np.trace(covariance)) + unseen
    second = float((np.asarray(covariance) ** 2).sum()) + unseen**2
    radius = math.sqrt(second / first * chi_square_quantile(level, first**2 / second))
    length = float(np.sqrt((seen**2).sum()))
    low, high = max(0.0, length - radius) ** 2, min(2.0, (length + radius) ** 2)
    return Estimate(value, Interval(min(low, value), max(high, value), level, "length of the difference"))


def _one_hot(codes: Codes, kinds: int) -> Floats:
    """float64 [samples, kinds]; a row of garbage holds nothing."""
    found = np.zeros((codes.size, kinds))
    known = np.flatnonzero(codes >= 0)
    found[known, codes[known]] = 1.0
    return found


def _counts(codes: Codes, kinds: int) -> npt.NDArray[np.float64]:
    return np.bincount(codes[codes >= 0], minlength=max(kinds, 1)).astype(np.float64)
