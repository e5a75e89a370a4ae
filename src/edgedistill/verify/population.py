"""Number of prompts needed for a verdict about the population of prompts, and suites that are large enough for it.

However well a bundle answers, it may fail on prompts that were not sampled. At the usual margins it takes more than two
hundred prompts to exclude that, and more if replies are much shorter than their limit, since a few that run into the
limit would change the total. A generated suite can have as many as are needed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from edgedistill.errors import VerifyError
from edgedistill.verify.gate.reach import fewest_prompts
from edgedistill.verify.suites.registry import enlarged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.verify.gate.endpoints import Estimand, Margins
    from edgedistill.verify.options import VerifyOptions
    from edgedistill.verify.types import Prompt, Suite


class Distinct(NamedTuple):
    """The prompts that a verdict takes, and sentences for the user about copies among them."""

    prompts: list[Prompt]
    notes: list[str]


def distinct(prompts: Sequence[Prompt], estimand: Estimand) -> Distinct:
    """Leave out prompts that ask the same as an earlier one under another id, and tell the user.

    Copies are not independent draws from the population of prompts, so a verdict about prompts like these takes only
    the first of each. A verdict about these prompts keeps all of them.

    Raises:
        VerifyError: fewer than 2 different prompts are left.
    """
    first = {(prompt.messages, prompt.choices): prompt for prompt in reversed(prompts)}
    kept = [prompt for prompt in prompts if first[prompt.messages, prompt.choices] is prompt]
    copies = len(prompts) - len(kept)
    if not copies:
        return Distinct(list(prompts), [])
    told = f"{copies} of {len(prompts)} prompts ask what another one asks, under another id"
    if estimand == "suite":
        return Distinct(list(prompts), [f"{told}: such a question counts as often as it occurs."])
    if len(kept) < 2:
        raise VerifyError(
            f"All {len(prompts)} prompts ask the same; a verdict about prompts like these needs at least 2.",
            hint="Use a suite of different questions, or --estimand suite.",
        )
    return Distinct(kept, [f"{told}: the verdict about prompts like these takes each question once."])


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
