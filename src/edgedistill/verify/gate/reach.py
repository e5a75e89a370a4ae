"""Whether a run can pass at all: would a bundle that gives exactly the reference's replies pass with so many prompts?

The smaller a margin, the more prompts it takes to rule out harm of that size on prompts that were not sampled. If none
of n prompts shows harm, a rate of up to about 3 / n remains possible (rule of three: Hanley and Lippman-Hand, JAMA
1983).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.gate.endpoints import endpoints
from edgedistill.verify.metrics.paired import AGREES, DISTANCES, SIGNS, Comparison, Observations, PerPrompt

if TYPE_CHECKING:
    from edgedistill.verify.gate.endpoints import Estimand, Margins

MOST = 1 << 20
"""Larger numbers of prompts are not told apart."""


def unchanged(prompts: int, samples: int, *, gold: bool, length: float) -> Comparison:
    """Two models that give the same unanimous answers, right where there is gold; ``length``: share of the limit."""
    ones, zeros = np.ones(prompts), np.zeros(prompts)
    right = ones if gold else None
    model = PerPrompt(right, ones, zeros, ones, ones)
    tokens = np.full((prompts, 1), length)
    same = Observations(SIGNS, np.tile([0.0, 1.0, 0.0], (prompts, 1)), samples)
    return Comparison(
        prompts=tuple(str(index) for index in range(prompts)),
        samples=samples,
        limit=1,
        reference=model,
        quantized=model,
        accuracy=same if gold else None,
        garbage=same,
        agreement=Observations(AGREES[0], np.tile([0.0, 0, 0, 1], (prompts, 1)), samples // 2, AGREES[1]),
        distance=Observations(DISTANCES, np.tile([0.0, 0, 1, 0, 0], (prompts, 1)), samples // 2),
        tokens=Observations(tokens, ones[:, None], samples, tokens),
    )


def fewest_prompts(
    margins: Margins,
    samples: int,
    *,
    estimand: Estimand,
    alpha: float,
    gold: bool,
    sequential: bool = False,
    length: float = 1.0,
) -> tuple[str, int]:
    """The endpoint that takes the most prompts to pass where nothing differs, and how many; MOST + 1 for any more.

    Args:
        samples: Of each prompt, at least 2.
        gold: The suite has gold answers.
        length: Of the usual reply, as a share of the limit: the shorter, the more a few long ones would change.
    """

    def hardest(prompts: int) -> tuple[float, str]:
        same = unchanged(prompts, samples, gold=gold, length=length)
        return max((max(one.within()), one.name) for one in endpoints(same, margins, estimand, ordered=sequential))

    low, high = 1, 2
    while hardest(high)[0] > alpha:
        if high == MOST:
            return hardest(high)[1], MOST + 1
        low, high = high, 2 * high
    name = hardest(low)[1]
    while high - low > 1:
        middle = (low + high) // 2
        p, found = hardest(middle)
        if p > alpha:
            low, name = middle, found
        else:
            high = middle
    return name, high


def out_of_reach(
    prompts: int,
    margins: Margins,
    samples: int,
    *,
    estimand: Estimand,
    alpha: float,
    gold: bool,
    sequential: bool = False,
    length: float = 1.0,
) -> str:
    """A sentence if no bundle could pass on ``prompts`` prompts; else empty.

    An empty result does not mean that passing is likely: answers on which a model disagrees with itself, and replies of
    unequal length, take more prompts than the unanimous ones of equal length that are assumed here.
    """
    name, needed = fewest_prompts(
        margins, samples, estimand=estimand, alpha=alpha, gold=gold, sequential=sequential, length=length
    )
    if needed <= prompts:
        return ""
    wanted = f"more than {MOST:,}" if needed > MOST else str(needed)
    about = "--estimand suite asks about these prompts only" if estimand == "population" else "more samples help"
    condition = ""
    if name == "tokens":
        condition = f", if replies are as long as the pilot's ({100 * length:.2g} % of their limit)"
        about += ", and so does a limit (--max-new-tokens) nearer to the replies"
    return (
        f"Not even a bundle that gives the reference's replies to the letter could pass with {prompts} prompts"
        f"{condition}: the endpoint {name} takes {wanted} at its margin. Use a larger suite or a wider margin; {about}."
    )
