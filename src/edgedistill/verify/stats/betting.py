"""Tests of bounded means by betting, with the confidence interval that is the test's own inversion.

A bettor with capital 1 stakes a share s on "the mean is above theta": each observation x in [low, high] multiplies the
capital by 1 + s (x - theta) / (theta - low). If the mean is theta or less the expected capital is at most 1, so that it
reaches 1 / alpha with probability alpha at most (Markov; at any time: Ville 1939). The capital is divided over constant
stakes, down to what suits the number of observations (hedged capital: Waudby-Smith and Ramdas, JRSSB 2024, arXiv
2010.09686). Nothing is assumed of the observations but their bounds.

Two facts make one test serve everything that the gate asks:

- **Fixed prompts.** Independent observations x_ij, as many of each prompt i, of means theta_i: for a constant stake
  E prod (1 + c (x_ij - theta)) = prod_i (1 + c (theta_i - theta))^n <= (1 + c (mean theta_i - theta))^(P n) by the
  inequality of means. So all observations may be pooled, and the test is about the mean over these prompts.
- **Pairs of samples** (agreement, distance). Of N samples a perfect matching gives N / 2 independent pairs. The
  geometric mean of the capital over all matchings is at most the arithmetic one, hence a valid capital, too: every pair
  counts with the weight 1 / (N - 1), and no matching has to be chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.stats.special_functions import normal_cdf

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

LARGEST = 0.98
"""The largest stake; below 1, so that one worst case does not end the game."""

SEQUENTIAL_COUNT = 1024
"""Observations that the stakes of a sequential test are meant for."""

_STEPS = 34  # of a bisection
_LEAST = -1 + 1e-12  # what is left of a stake that an observation beyond its bounds would lose
_MOST_RATIO = 1e6


def stakes(count: float) -> Floats:
    """The stakes for so many observations, float64 [stakes]: halved down to 1.2 / sqrt(count).

    Where the variance is as large as the bounds allow, the best stake at level 0.05 is 2.4 / sqrt(count).
    """
    halvings = math.floor(math.log2(max(1.0, LARGEST * math.sqrt(count) / 1.2)))
    return np.asarray(LARGEST * 0.5 ** np.arange(halvings + 1), np.float64)


def log_capital(x: Floats, bound: float, shares: Floats, weights: Floats | None = None) -> Floats:
    """Natural log of the final capital that was staked on "mean x > 0".

    Args:
        x: float64 [..., observations], each at least -bound.
        bound: Positive.
        shares: Of ``stakes``.
        weights: float64 [observations]: how much each counts.

    Returns:
        float64 [...].
    """
    grown = _growth(x, bound, shares)
    return _mixture(grown.sum(axis=-1) if weights is None else grown @ weights)


def log_capital_path(x: Floats, bound: float, shares: Floats) -> Floats:
    """The same after every observation, float64 [..., observations]."""
    return _mixture(np.cumsum(_growth(x, bound, shares), axis=-1).swapaxes(-1, -2))


def _growth(x: Floats, bound: float, shares: Floats) -> Floats:
    """Natural log of what each observation makes of each stake, float64 [..., stakes, observations]."""
    return np.asarray(np.log1p(np.maximum((shares / bound)[:, None] * x[..., None, :], _LEAST)))


def _mixture(logs: Floats) -> Floats:
    top = logs.max(axis=-1)
    return np.asarray(top + np.log(np.exp(logs - top[..., None]).mean(axis=-1)))


@dataclass(frozen=True, slots=True)
class Bets:
    """Observations of a bounded mean, or of a ratio of two, on which bets are placed.

    Attributes:
        top: float64 [observations], in [low, high].
        weights: float64 [observations]: how many independent observations each stands for.
        low, high: Bounds of ``top``; for a ratio ``low`` is 0.
        bottom: For a ratio float64 [observations] in [0, most]: the parameter is mean top / mean bottom.
        ordered: They came one after the other and were looked at on the way: the largest capital so far counts.
    """

    top: Floats
    weights: Floats
    low: float
    high: float
    bottom: Floats | None = None
    most: float = 1.0
    ordered: bool = False

    @property
    def count(self) -> float:
        """Independent observations."""
        return float(self.weights.sum())

    @property
    def shares(self) -> Floats:
        """The stakes."""
        return stakes(SEQUENTIAL_COUNT if self.ordered else self.count)

    @property
    def estimate(self) -> float:
        """The mean, or the ratio (infinite or NaN where the bottom is 0)."""
        total = float(self.weights @ self.top)
        if self.bottom is None:
            return total / self.count
        below = float(self.weights @ self.bottom)
        return total / below if below > 0 else (math.nan if total == 0 else math.inf)

    def _staked(self, theta: float, *, above: bool) -> tuple[Floats, float]:
        """x whose mean is positive if the parameter is above (below) theta, and -min x."""
        if self.bottom is None:
            x, bound = self.top - theta, (theta - self.low if above else self.high - theta)
        else:
            x, bound = self.top - theta * self.bottom, (theta * self.most if above else self.high)
        return (x if above else -x), bound

    def log_e(self, theta: float, *, above: bool) -> float:
        """Natural log of the evidence (e-value) that the parameter lies above theta, or below it."""
        x, bound = self._staked(theta, above=above)
        if bound <= 0:
            return 0.0  # theta is at or beyond the bound: nothing is to be shown
        if self.ordered:
            return max(0.0, float(log_capital_path(x, bound, self.shares).max()))
        return float(log_capital(x, bound, self.shares, self.weights))

    def p(self, theta: float, *, above: bool) -> float:
        """p-value of the hypothesis that it does not."""
        return math.exp(-max(0.0, self.log_e(theta, above=above)))

    def lower(self, alpha: float) -> float:
        """The largest theta that the test at ``alpha`` shows the parameter to lie above; ``low`` if none."""
        return self._end(alpha, above=True)

    def upper(self, alpha: float) -> float:
        """The smallest theta that it is shown to lie below; ``high`` (for a ratio infinity) if none."""
        return self._end(alpha, above=False)

    def _end(self, alpha: float, *, above: bool) -> float:
        """Bisection: evidence falls with theta for "above" and rises for "below"."""
        target, inner = math.log(1 / alpha), self.estimate
        if math.isnan(inner):
            return self.low if above else (self.high if self.bottom is None else math.inf)
        outer = self.low if above else self.high
        if self.bottom is not None and not above:
            outer = 2 * max(inner, 1e-6)
            while outer < _MOST_RATIO and self.log_e(outer, above=False) < target:
                outer *= 2
            if outer >= _MOST_RATIO:
                return math.inf
        if math.isinf(inner):
            inner = _MOST_RATIO
        for _ in range(_STEPS):
            middle = 0.5 * (inner + outer)
            if self.log_e(middle, above=above) >= target:
                outer = middle
            else:
                inner = middle
        return outer

    def moved(self, theta: float) -> Bets:
        """The same spread around another value of the parameter."""
        found = self.estimate
        if not math.isfinite(found):
            return self
        if self.bottom is None:
            return replace(self, top=np.clip(self.top + (theta - found), self.low, self.high))
        if found == 0:
            return self
        factor = theta / found
        if factor > 1:  # a larger top could leave its bounds
            return replace(self, bottom=self.bottom / factor)
        return replace(self, top=self.top * factor)

    def power(self, theta: float, alpha: float, *, above: bool, scale: float = 1.0) -> float:
        """Probability that as many observations times ``scale`` of this distribution show it: a lower bound by normal
        approximation of the best stake's capital.
        """
        x, bound = self._staked(theta, above=above)
        if bound <= 0:
            return 0.0
        shares = self.shares if self.ordered else stakes(self.count * scale)
        target, best = math.log(len(shares) / alpha), 0.0
        p = self.weights / self.count
        for grown in _growth(x, bound, shares):
            mean = float(p @ grown)
            error = math.sqrt(max(0.0, float(p @ grown**2) - mean**2) * self.count * scale)
            gap = mean * self.count * scale - target
            best = max(best, normal_cdf(gap / error) if error > 1e-9 else float(gap >= 0))
        return best


def mean_bets(values: npt.ArrayLike, low: float, high: float) -> Bets:
    """Bets on the mean of independent numbers in [low, high]."""
    top = np.asarray(values, np.float64)
    return Bets(top, np.ones_like(top), low, high)


def holm(
    p_values: Sequence[float], alpha: float, weights: Sequence[float] | None = None
) -> tuple[list[bool], list[float]]:
    """Which hypotheses Holm's procedure rejects (Scandinavian Journal of Statistics 1979, with weights: its section 5),
    and the level at which each was tested: its share of alpha among the hypotheses left. The first one that stands sets
    the levels of all the rest.

    Args:
        weights: Positive, fixed before the data; equal by default.
    """
    shares = [1.0] * len(p_values) if weights is None else list(weights)
    rejected, levels = [False] * len(p_values), [alpha] * len(p_values)
    going = True
    left = sum(shares)
    for index in sorted(range(len(p_values)), key=lambda at: p_values[at] / shares[at]):
        levels[index] = min(alpha, alpha * shares[index] / left)
        going = going and p_values[index] <= levels[index]
        rejected[index] = going
        left -= shares[index] if going else 0.0
    return rejected, levels


def prompt_order(prompts: Sequence[str], seed: int) -> list[str]:
    """A random order of the prompts, a function of the ids and the seed alone: fixed before anything is sampled."""
    order = np.random.default_rng(seed).permutation(len(prompts))
    sorted_ids = sorted(prompts)
    return [sorted_ids[int(index)] for index in order]
