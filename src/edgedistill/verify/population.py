"""Prompts enough for a verdict about prompts like these.

However well a bundle answers, harm may lie where nobody asked: at the usual margins it takes more than two hundred
prompts to exclude it, and more where replies are much shorter than their limit, since a few that run into it would
change the total. A generated suite has as many as are needed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from edgedistill.verify.gate.reach import fewest_prompts
from edgedistill.verify.suites.registry import enlarged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.verify.gate.endpoints import Margins
    from edgedistill.verify.options import VerifyOptions
    from edgedistill.verify.types import Prompt, Suite


class Enough(NamedTuple):
    """A suite with prompts enough, and a sentence that says so."""

    suite: Suite
    told: str


def wanted_prompts(margins: Margins, options: VerifyOptions, *, gold: bool, length: float = 1.0) -> int:
    """How many prompts let a bundle that did not change pass with a probability of about 80 %, at least.

    The fewest with which it could pass without any noise, and room for the noise of the samples of each, which falls
    with the square root of their number (measured with populations where 5 % of the paired samples part).

    Args:
        length: Of the usual reply, as a share of the limit.
    """
    fewest = fewest_prompts(
        margins,
        options.n_samples,
        estimand="population",
        alpha=options.alpha,
        gold=gold,
        sequential=options.sequential,
        length=length,
    )[1]
    return math.ceil(fewest * (1 + 1.6 / math.sqrt(options.n_samples)))


def with_enough(
    suite: Suite, prompts: Sequence[Prompt], margins: Margins, options: VerifyOptions, *, length: float = 1.0
) -> Enough | None:
    """None where there are enough, the number was asked for, the verdict is about these prompts only, or the suite has
    no more than it has. A larger suite begins with the same prompts.
    """
    if options.about != "population" or options.prompts is not None:
        return None
    wanted = wanted_prompts(margins, options, gold=suite.has_gold, length=length)
    larger = enlarged(suite, wanted)
    if wanted <= len(prompts) or larger is None:
        return None
    return Enough(
        larger,
        f"A verdict about prompts like these takes {wanted} prompts for a bundle that did not change to pass with a "
        f"probability of about 80 %: the suite is `{larger.name}` with {len(larger.prompts)} prompts, where "
        f"`{suite.name}` would have given {len(prompts)} (--prompts asks for fewer).",
    )


def usual_length(lengths: Sequence[int], limit: int) -> float:
    """The usual reply as a share of the limit."""
    return min(1.0, max(1.0, sum(lengths) / max(1, len(lengths))) / limit)
