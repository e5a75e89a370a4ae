"""Number of prompts needed for a verdict about the population of prompts, and suites that are large enough for it.

However well a bundle answers, it may fail on prompts that were not sampled. At the usual margins it takes more than two
hundred prompts to exclude that, and more if replies are much shorter than their limit, since a few that run into the
limit would change the total. A generated suite can have as many as are needed.
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
    """A suite with enough prompts, and a sentence for the user about it."""

    suite: Suite
    sentence: str


def wanted_prompts(margins: Margins, options: VerifyOptions, *, gold: bool, length: float = 1.0) -> int:
    """Number of prompts with which an unchanged bundle passes with a probability of at least about 80 %.

    It is the smallest number with which the bundle could pass without noise, increased for the noise of the samples of
    each prompt, which falls with the square root of their number (measured with populations where 5 % of the paired
    samples differ).

    Args:
        margins, options: Of the run.
        gold: Whether the suite has gold answers.
        length: Length of the usual reply as a share of the limit.
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
    """A larger suite that begins with the same prompts; None if there are enough already, the user chose the number,
    the verdict is about these prompts only, or the suite cannot be enlarged.
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
    """Mean of ``lengths`` as a share of the limit, at most 1."""
    return min(1.0, max(1.0, sum(lengths) / max(1, len(lengths))) / limit)
