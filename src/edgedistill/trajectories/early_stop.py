"""When the remaining trajectories may be stopped: once they cannot change the vote, or at a chosen error rate.

``exact``: the leader's votes exceed the runner-up's by more than the trajectories that are still open. Nothing can
change the majority then, not even into a tie.

``sequential``: the leader leads by so much that all K trajectories would hardly ever give another verdict. For two
answers the vote is a random walk; after n of K votes the run stops at a lead of at least d_n. The d_n are those at
which a fair walk would still lose the lead with probability at most c, and c is the largest value for which the
probability of stopping with a leader that the full vote would not confirm (a tie included) is at most ``error_rate``,
whatever the true shares of the two answers: computed exactly, by dynamic programming over the walk, and maximised over
a grid of shares. (The idea is that of a stochastically curtailed test: Lan, Simon and Halperin 1982; the calibration is
this module's.) More than two answers, and trajectories without one, make the walk lazier; simulation finds the rate
kept there too.

Short trajectories end first, and short may go with one answer. The sequential rule therefore looks at trajectories in
the order of their numbers, never past one that is still open; the exact rule needs no such care.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from edgedistill.trajectories.options import StopRule

_SHARES = np.linspace(0.5, 1.0, 101)


def decided(rule: StopRule, finished: Mapping[int, str | None], count: int, error_rate: float) -> bool:
    """Whether the trajectories that are still open may be cut off.

    Args:
        rule: ``exact``, ``sequential`` (which includes the exact rule) or ``off``.
        finished: Number of a trajectory that ended to its answer; None where it has none.
        count: All trajectories.
        error_rate: Of the sequential rule.
    """
    if rule == "off" or len(finished) >= count:
        return False
    if majority_is_certain(finished.values(), count - len(finished)):
        return True
    if rule == "exact":
        return False
    first = 0
    while first in finished:
        first += 1
    if not first:
        return False
    needed = required_leads(count, error_rate)[first - 1]
    return needed is not None and _lead(finished[index] for index in range(first)) >= needed


def majority_is_certain(answers: Iterable[str | None], remaining: int) -> bool:
    """Whether ``remaining`` further votes can no longer change the answer that leads, nor make it a tie."""
    return _lead(answers) > remaining


def _lead(answers: Iterable[str | None]) -> int:
    """Votes of the first answer beyond those of the second; 0 without votes."""
    counts = [votes for _, votes in Counter(answer for answer in answers if answer is not None).most_common(2)]
    return counts[0] - (counts[1] if len(counts) > 1 else 0) if counts else 0


def saved_tokens(ended: Sequence[int], cut: Sequence[int]) -> int:
    """Tokens that trajectories that were cut off would still have taken, estimated; at least one of each.

    The short ones end first, so that their mean says too little about the others. Lengths are taken to lie around their
    median as far above it as below: what ended below it is mirrored. A trajectory cut off after n tokens is then
    expected to be as long as the mean of those lengths beyond n. Lengths are skewed to the long side, so that this is
    rather too little than too much.

    Args:
        ended: Tokens of those that ended by themselves or at a limit.
        cut: Tokens of those that were cut off; 0 for one that had not begun.
    """
    if not cut or not ended:
        return len(cut)
    median = float(np.median([*ended, *(max([*ended, n]) for n in cut)]))
    lengths = [*ended, *(2 * median - n for n in ended if n < median)]

    def rest(taken: int) -> float:
        beyond = [length - taken for length in lengths if length > taken]
        return max(1.0, sum(beyond) / len(beyond)) if beyond else 1.0

    return round(sum(rest(n) for n in cut))


@lru_cache(maxsize=64)
def required_leads(count: int, error_rate: float) -> tuple[int | None, ...]:
    """d_1 ... d_K: the lead at which to stop after n of ``count`` votes; None where no lead is enough."""
    chances = sorted(
        {_flip_chance(count - n, d) for n in range(1, count) for d in range(1, n + 1)}  # none left: nothing to stop
    )
    best = -1
    low, high = 0, len(chances) - 1
    while low <= high:
        middle = (low + high) // 2
        if worst_error(_leads(count, chances[middle])) <= error_rate:
            best, low = middle, middle + 1
        else:
            high = middle - 1
    return _leads(count, chances[best]) if best >= 0 else (None,) * count


def worst_error(leads: tuple[int | None, ...]) -> float:
    """Probability that a run stopped at these leads differs from the full vote of two answers, at the worst share."""
    count = len(leads)
    size = 2 * count + 1
    positions = np.arange(size) - count
    running = np.zeros((len(_SHARES), size))
    running[:, count] = 1.0
    ahead, behind = np.zeros_like(running), np.zeros_like(running)
    for needed in leads:
        running, ahead, behind = (_walk(mass) for mass in (running, ahead, behind))
        if needed is not None:
            over, under = positions >= needed, positions <= -needed
            ahead[:, over] += running[:, over]
            behind[:, under] += running[:, under]
            running[:, over | under] = 0.0
    wrong = ahead[:, positions <= 0].sum(axis=1) + behind[:, positions >= 0].sum(axis=1)
    return float(wrong.max())


def _walk(mass: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """One vote more: up with the share, down otherwise; float64 [shares, positions]."""
    moved = np.zeros_like(mass)
    moved[:, 1:] = mass[:, :-1] * _SHARES[:, None]
    moved[:, :-1] += mass[:, 1:] * (1 - _SHARES)[:, None]
    return moved


def _leads(count: int, chance: float) -> tuple[int | None, ...]:
    return tuple(
        next((d for d in range(1, n + 1) if n < count and _flip_chance(count - n, d) <= chance), None)
        for n in range(1, count + 1)
    )


@lru_cache(maxsize=8192)
def _flip_chance(remaining: int, lead: int) -> float:
    """Probability that ``remaining`` fair votes take a lead of ``lead`` down to a tie or below."""
    most = (remaining - lead) // 2
    return sum(comb(remaining, k) for k in range(most + 1)) / 2**remaining if most >= 0 else 0.0
