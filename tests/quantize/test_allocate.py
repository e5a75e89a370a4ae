"""Formats under a budget, against trying every combination."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.errors import BudgetError
from edgedistill.quantize.allocate import Candidate, allocate, hull

CANDIDATE = st.builds(Candidate, st.just("f"), st.integers(1, 60), st.floats(0, 10, width=32))
OPTIONS = st.dictionaries(st.sampled_from("abcde"), st.lists(CANDIDATE, min_size=1, max_size=4), min_size=1)


def total(choice: dict[str, Candidate]) -> tuple[int, float]:
    return sum(c.nbytes for c in choice.values()), sum(c.damage for c in choice.values())


@settings(max_examples=150, deadline=None)
@given(OPTIONS, st.integers(1, 300))
def test_within_bytes(options: dict[str, list[Candidate]], budget: int) -> None:
    every = [total(dict(zip(options, c, strict=True))) for c in product(*options.values())]
    fitting = [damage for size, damage in every if size <= budget]
    if not fitting:
        with pytest.raises(BudgetError, match=str(min(size for size, _ in every))):
            allocate(options, max_bytes=budget)
        return
    size, damage = total(allocate(options, max_bytes=budget))
    assert size <= budget
    # The greedy choice loses at most one step of a hull against the optimum.
    largest = max((a.damage - b.damage for g in options.values() for a in hull(g) for b in hull(g)), default=0)
    assert min(fitting) - 1e-6 <= damage <= min(fitting) + largest + 1e-6


@settings(max_examples=150, deadline=None)
@given(OPTIONS, st.floats(0, 50))
def test_within_damage(options: dict[str, list[Candidate]], budget: float) -> None:
    every = [total(dict(zip(options, c, strict=True))) for c in product(*options.values())]
    least = sum(min(c.damage for c in group) for group in options.values())
    if least > budget:
        with pytest.raises(BudgetError):
            allocate(options, max_damage=budget)
        return
    size, damage = total(allocate(options, max_damage=budget))
    assert damage <= budget + 1e-6
    # Sums in another order differ in their last bits: what fits only by these is not asked for.
    fitting = [s for s, d in every if d < budget * (1 - 1e-12)]
    if not fitting:
        return
    largest = max(a.nbytes - b.nbytes for g in options.values() for a in hull(g) for b in hull(g))
    assert size <= min(fitting) + largest


def test_many_weights_are_near_the_optimum() -> None:
    options = {
        f"w{i}": [Candidate("4", 40, 1.0 + i), Candidate("5", 50, 0.3 + i / 4), Candidate("8", 80, 0.01)]
        for i in range(8)
    }
    best = min(
        damage
        for size, damage in (total(dict(zip(options, c, strict=True))) for c in product(*options.values()))
        if size <= 430
    )
    assert total(allocate(options, max_bytes=430))[1] <= best * 1.1
