"""Betting e-processes: evidence that may be looked at after every prompt, and acted on at any time.

A bettor starts with 1 and stakes a fraction on "mean x > 0" before each prompt. If the mean is not positive the wealth
is a supermartingale, so that it ever reaches 1/alpha with probability at most alpha (Ville, 1939). The stake is the
wealth-weighted mean over a fixed grid of constant stakes (Cover's universal portfolio; Waudby-Smith and Ramdas, JRSSB
2024): prod(1 + lambda_i x_i) with lambda_i depending on the past only. Nothing is assumed of x but its bounds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

GRID = 0.98 * 0.5 ** np.arange(10)
"""Stakes as shares of the largest that cannot ruin the bettor. 0.98: one worst case must not end the game."""

WEIGHTS = 1 / np.arange(1, 11) / (1 / np.arange(1, 11)).sum()
"""What the bettor starts with on each stake: most on the largest, which is best where harm is rare."""


class Bettor:
    """Wealth of a bet on "mean x > 0" and of its mirror image "mean x < 0", for x in [low, high], low < 0 < high."""

    def __init__(self, low: float, high: float) -> None:
        if not low < 0 < high:
            raise ValueError(f"a bet needs bounds on both sides of 0, found [{low}, {high}]")
        self._bounds = (low, high)
        self._up, self._down = GRID / -low, GRID / high
        self._log_up, self._log_down = np.zeros_like(GRID), np.zeros_like(GRID)
        self.best_up = self.best_down = 0.0  # log of the largest wealth so far
        self.count = 0

    def update(self, x: float) -> None:
        """Settle one bet. Raises VerifyError for an x outside the bounds, which would void the guarantee."""
        low, high = self._bounds
        if not low - 1e-9 <= x <= high + 1e-9:
            raise VerifyError(f"found a difference of {x:g} outside [{low:g}, {high:g}]; the test would not be valid.")
        self._log_up += np.log1p(self._up * x)
        self._log_down += np.log1p(-self._down * x)
        self.count += 1
        self.best_up = max(self.best_up, self.log_up)
        self.best_down = max(self.best_down, self.log_down)

    @property
    def log_up(self) -> float:
        """Natural log of the wealth staked on mean x > 0."""
        return _log_mean(self._log_up)

    @property
    def log_down(self) -> float:
        """Natural log of the wealth staked on mean x < 0."""
        return _log_mean(self._log_down)

    def p_up(self) -> float:
        """Anytime-valid p-value of "mean x <= 0": one over the largest wealth so far."""
        return math.exp(-self.best_up)

    def p_down(self) -> float:
        """Anytime-valid p-value of "mean x >= 0"."""
        return math.exp(-self.best_down)


def _log_mean(logs: Floats) -> float:
    top = float(logs.max())
    return top + math.log(float(WEIGHTS @ np.exp(logs - top)))


def bet_on(x: Sequence[float] | Floats, low: float, high: float) -> Bettor:
    """A bettor after all of ``x``, in the order given (which must not depend on x)."""
    bettor = Bettor(low, high)
    for value in x:
        bettor.update(float(value))
    return bettor


def chance_of_wealth(sides: Sequence[tuple[Floats, float]], target: float, *, seed: int, runs: int = 200) -> float:
    """Share of runs, over prompts drawn again with replacement, in which the wealth on every side reaches ``target``.

    Args:
        sides: x float64 [prompts] of each, and the lowest that x can be.
        target: Natural log; it may be reached at any prompt.
    """
    if all(np.ptp(x) == 0 for x, _ in sides):
        runs = 1  # all runs are the same
    rng = np.random.default_rng(seed)
    reached = 0
    steps = [np.log1p(np.outer(GRID / -low, x)) for x, low in sides]
    for _ in range(runs):
        picks = rng.integers(steps[0].shape[1], size=steps[0].shape[1])
        reached += all(_best(np.cumsum(step[:, picks], axis=1)) >= target for step in steps)
    return reached / runs


def _best(logs: Floats) -> float:
    """Log of the largest wealth on the way; ``logs`` float64 [stakes, prompts], of each stake after every prompt."""
    top = logs.max(axis=0)
    return float((top + np.log(WEIGHTS @ np.exp(logs - top))).max())


def further_bets(log_wealth: float, target: float, count: int) -> float:
    """Bets until ``target`` (log) at the mean growth so far; infinite if there was none."""
    return math.inf if log_wealth <= 0 or count == 0 else max(0.0, target - log_wealth) / (log_wealth / count)


def prompt_order(prompts: Sequence[str], seed: int) -> list[str]:
    """A random order of the prompts, a function of the ids and the seed alone: fixed before anything is sampled."""
    order = np.random.default_rng(seed).permutation(len(prompts))
    sorted_ids = sorted(prompts)
    return [sorted_ids[int(index)] for index in order]
