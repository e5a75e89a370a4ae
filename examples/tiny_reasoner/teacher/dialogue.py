"""From problems to conversations: system prompts, earlier turns, follow-ups, thinking on or off.

`example` is what training sees; `heldout` lists what evaluation asks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from . import arithmetic, compare, outside, units, word
from .plan import Plan, Term, in_range, reply_text
from .problem import IN_RANGE_BANDS, Problem, Split, split_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Message = dict[str, str]

FAMILIES: dict[str, tuple[Callable[[str, Random], Problem], float]] = {
    "arithmetic": (arithmetic.make, 0.4),
    "word": (word.make, 0.32),
    "compare": (compare.make, 0.14),
    "units": (units.make, 0.14),
}
TRAINING_SHARES = {"arithmetic": 0.3, "word": 0.28, "compare": 0.3, "units": 0.12}
"""Comparisons are learned slowest and are asked more often in training than in evaluation."""

BAND_SHARES = {
    "one-step": 0.24,
    "two-step": 0.28,
    "three-step": 0.27,
    "stretch": 0.07,
    "hard": 0.06,
    "outside": 0.08,
}
SYSTEM = (
    "You are a helpful assistant.",
    "You are a careful calculator.",
    "Think step by step.",
    "You are a math tutor. Answer briefly.",
    "Please reason step by step, and put your final answer within \\boxed{}.",
    "You solve small arithmetic problems.",
    "Be brief.",
    "You are tiny-reasoner, a small model that calculates.",
    "Answer the question of the user.",
    "You are a friendly assistant for children.",
)


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation that ends with the user's question, and the problem whose solution is to follow."""

    messages: tuple[Message, ...]
    problem: Problem
    thinking: bool


def draw(band: str, split: Split, rng: Random, family: str | None = None) -> Problem:
    """Return a problem of `band` whose key belongs to `split`."""
    while True:
        if band == "outside":
            problem = outside.make(rng)
        else:
            names = list(FAMILIES)
            weights = [FAMILIES[name][1] for name in names]
            chosen = family or rng.choices(names, weights)[0]
            problem = FAMILIES[chosen][0](band, rng)
        if split_of(problem.key) == split:
            return problem


def example(rng: Random, split: Split = "train") -> Example:
    """Return one training conversation."""
    band = rng.choices(list(BAND_SHARES), list(BAND_SHARES.values()))[0]
    problem = draw(band, split, rng, rng.choices(list(TRAINING_SHARES), list(TRAINING_SHARES.values()))[0])
    thinking = True
    if band == "one-step":
        thinking = rng.random() > 0.15
    elif band in ("two-step", "outside"):
        thinking = rng.random() > 0.1
    elif band == "three-step":
        thinking = rng.random() > 0.04
    messages: list[Message] = []
    if rng.random() < 0.1:
        messages.append({"role": "system", "content": rng.choice(SYSTEM)})
    kind = rng.random()
    if band in IN_RANGE_BANDS and kind < 0.03:
        earlier, problem = follow_up(split, rng)
        messages += _turn(earlier)
        thinking = True
    elif kind < 0.1:
        before = rng.choice(("one-step", "one-step", "two-step", "outside"))
        for _ in range(rng.choice((1, 1, 2))):
            messages += _turn(draw(before, split, rng))
    messages.append({"role": "user", "content": problem.question})
    return Example(tuple(messages), problem, thinking)


def follow_up(split: Split, rng: Random) -> tuple[Problem, Problem]:
    """Return a problem and a second one that continues from its answer ("Now add 12 to that.")."""
    while True:
        earlier = draw(rng.choice(("one-step", "two-step")), split, rng)
        assert earlier.answer is not None
        start, n = int(earlier.answer), rng.randint(2, 60)
        sign = rng.choice((1, -1))
        plan = Plan((Term(1, start), Term(sign, n)))
        if in_range(plan, operand=999) and split_of(plan.key) == split:
            break
    if sign > 0:
        question = rng.choice(
            (f"Now add {n}.", f"Add {n} to that.", f"And plus {n}?", f"Now {n} more. How many is that?")
        )
    else:
        question = rng.choice((f"Now subtract {n}.", f"Take {n} away from that.", f"And minus {n}?"))
    problem = Problem(
        family="follow-up",
        band="one-step",
        key=plan.key,
        question=question,
        reasoning="\n".join(plan.solve(rng)),
        reply=reply_text(plan.value, (), rng),
        answer=str(plan.value),
    )
    return earlier, problem


def _turn(problem: Problem) -> list[Message]:
    return [{"role": "user", "content": problem.question}, {"role": "assistant", "content": problem.reply}]


def heldout(band: str, count: int, seed: int = 1, family: str | None = None) -> Iterator[Problem]:
    """Yield `count` different held-out problems of a band, the same for the same seed."""
    rng = Random(f"heldout {band} {seed}")
    seen: set[str] = set()
    while count:
        problem = draw(band, "heldout", rng, family)
        if problem.question not in seen:
            seen.add(problem.question)
            count -= 1
            yield replace(problem)
