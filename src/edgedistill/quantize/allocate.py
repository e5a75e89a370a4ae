"""One format per weight under a budget: least damage within so many bytes, or fewest bytes within so much damage.

Damages of weights are taken to add up. Each weight's candidates are reduced to the lower convex hull of damage over
bytes; from the smallest of each, steps along the hulls are taken in order of damage saved per byte (the Lagrangian
relaxation of the multiple-choice knapsack problem: optimal at every budget that it hits exactly). What is left of the
budget is then filled with single exchanges, candidates off the hull included.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from edgedistill.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to store a weight: its ``label``, ``nbytes`` stored and ``damage`` done (nats of KL, say)."""

    label: str
    nbytes: int
    damage: float


def allocate(
    options: Mapping[str, Sequence[Candidate]], *, max_bytes: int | None = None, max_damage: float | None = None
) -> dict[str, Candidate]:
    """Choose a candidate for every weight.

    Args:
        options: Candidates by weight, at least one each.
        max_bytes: Largest sum of bytes; the damage is minimised.
        max_damage: Largest sum of damages; the bytes are minimised. Exactly one of the two is given.

    Raises:
        BudgetError: The smallest candidates together are too large, or the best together do too much damage.
        ValueError: Not exactly one budget.
    """
    if (max_bytes is None) == (max_damage is None):
        raise ValueError("exactly one of max_bytes and max_damage")
    chosen = {name: min(group, key=lambda c: (c.nbytes, c.damage)) for name, group in options.items()}
    steps = sorted(
        (-(a.damage - b.damage) / (b.nbytes - a.nbytes), name, index, b)
        for name, group in options.items()
        for index, (a, b) in enumerate(pairwise(hull(group)))
    )
    if max_bytes is not None:
        return _within_bytes(options, chosen, [(name, step) for _, name, _, step in steps], max_bytes)
    assert max_damage is not None
    return _within_damage(options, chosen, [(name, step) for _, name, _, step in steps], max_damage)


def hull(group: Sequence[Candidate]) -> list[Candidate]:
    """Lower convex hull of damage over bytes, from the smallest to the least damaging."""
    found: list[Candidate] = []
    for new in sorted(group, key=lambda c: (c.nbytes, c.damage)):
        if found and (new.damage >= found[-1].damage or new.nbytes == found[-1].nbytes):
            continue
        while len(found) > 1 and _slope(found[-2], found[-1]) <= _slope(found[-2], new):
            found.pop()
        found.append(new)
    return found


def _slope(a: Candidate, b: Candidate) -> float:
    """Damage saved per byte from ``a`` to ``b``."""
    return (a.damage - b.damage) / (b.nbytes - a.nbytes)


def _within_bytes(
    options: Mapping[str, Sequence[Candidate]],
    chosen: dict[str, Candidate],
    steps: list[tuple[str, Candidate]],
    budget: int,
) -> dict[str, Candidate]:
    left = budget - sum(c.nbytes for c in chosen.values())
    if left < 0:
        raise BudgetError(
            f"The smallest choice of formats takes {budget - left} bytes; the budget is {budget}.",
            hint=f"Allow at least {budget - left} bytes, or add smaller candidates to the profile.",
        )
    for name, step in steps:
        cost = step.nbytes - chosen[name].nbytes
        if cost > left:
            break
        chosen[name] = step
        left -= cost
    while True:
        exchanges = [
            (chosen[name].damage - c.damage, name, c)
            for name, group in options.items()
            for c in group
            if c.nbytes - chosen[name].nbytes <= left and c.damage < chosen[name].damage
        ]
        if not exchanges:
            return chosen
        _, name, best = max(exchanges, key=lambda e: (e[0], e[1]))
        left -= best.nbytes - chosen[name].nbytes
        chosen[name] = best


def _within_damage(
    options: Mapping[str, Sequence[Candidate]],
    chosen: dict[str, Candidate],
    steps: list[tuple[str, Candidate]],
    budget: float,
) -> dict[str, Candidate]:
    least = sum(min(c.damage for c in group) for group in options.values())
    if least > budget:
        raise BudgetError(
            f"The best choice of formats is predicted to cause a damage of {least:.4g}; the budget is {budget:.4g}.",
            hint=f"Allow at least {least:.4g}, or add larger candidates to the profile.",
        )
    for name, step in steps:
        if sum(c.damage for c in chosen.values()) <= budget:
            break
        chosen[name] = step
    while True:
        spare = budget - sum(c.damage for c in chosen.values())
        exchanges = [
            (chosen[name].nbytes - c.nbytes, name, c)
            for name, group in options.items()
            for c in group
            if c.damage - chosen[name].damage <= spare and c.nbytes < chosen[name].nbytes
        ]
        if not exchanges:
            return chosen
        _, name, best = max(exchanges, key=lambda e: (e[0], e[1]))
        chosen[name] = best
