"""The jackknife over groups of clusters: for statistics that a bootstrap would distort.

Resampling with replacement repeats observations, which lowers entropies and the number of different things. Leaving
some out does not (Tukey 1958; Efron and Stein, Annals of Statistics 9, 1981: its variance is not too small in the
mean).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.stats.intervals import LEVEL
from edgedistill.verify.stats.special_functions import student_quantile
from edgedistill.verify.types import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

GROUPS = 20
METHOD = "jackknife over prompts"
ROUNDING = 1e-12
"""Relative to the statistic: a smaller error is none."""


def leave_out(clusters: npt.ArrayLike, groups: int = GROUPS) -> Iterator[npt.NDArray[np.bool_]]:
    """What to keep, bool [observations], with each of at most ``groups`` groups of clusters left out in turn.

    Args:
        clusters: [observations]: labels; equal ones stay together.
    """
    member = np.unique(np.asarray(clusters), return_inverse=True)[1]
    count = int(member.max()) + 1 if member.size else 0
    if count < 2:
        return
    # Neighbours in a suite are alike (bands of difficulty): every group takes some of each.
    for group in range(min(groups, count)):
        yield member % min(groups, count) != group


def jackknife_error(left_out: Sequence[float]) -> float:
    """Standard error from the statistic with each group left out; NaN for fewer than 2 that are finite."""
    values = np.array([value for value in left_out if math.isfinite(value)])
    if values.size < 2:
        return math.nan
    return math.sqrt((values.size - 1) / values.size * float(((values - values.mean()) ** 2).sum()))


def jackknife_interval(
    value: float,
    left_out: Sequence[float],
    *,
    low: float = -math.inf,
    high: float = math.inf,
    level: float = LEVEL,
    method: str = METHOD,
) -> Interval | None:
    """``value`` and Student's t times its error, within [low, high]; None where the error is undefined or 0."""
    error = jackknife_error(left_out)
    if not (math.isfinite(value) and error > ROUNDING * max(1.0, abs(value))):
        return None
    degrees = sum(map(math.isfinite, left_out)) - 1
    half = student_quantile(0.5 + level / 2, degrees) * error
    return Interval(max(low, value - half), min(high, value + half), level, method)


def ratio_left_out(tops: npt.ArrayLike, bottoms: npt.ArrayLike) -> list[float]:
    """Sum of ``tops`` over sum of ``bottoms`` with each entry left out in turn; NaN where nothing remains."""
    top, bottom = np.asarray(tops, np.float64), np.asarray(bottoms, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return [float(value) for value in (top.sum() - top) / (bottom.sum() - bottom)]


def each_left_out(statistic: Callable[[npt.NDArray[np.bool_]], float], clusters: npt.ArrayLike) -> list[float]:
    """``statistic`` of what is kept, for every group of ``leave_out``."""
    return [statistic(kept) for kept in leave_out(clusters)]
