"""Checks how answers react to changes of the prompt and of the temperature.

A paraphrase should keep the answer, a changed number should change it, an empty prompt should not give it, and a higher
temperature should raise the entropy.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.consistency import entropy_value
from edgedistill.verify.metrics.suite_entropy import suite_entropies
from edgedistill.verify.stats.betting import holm
from edgedistill.verify.stats.intervals import LEVEL, wilson
from edgedistill.verify.stats.special_functions import beta_cdf
from edgedistill.verify.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgedistill.verify.stats.answer_counts import Tally

    Codes = npt.NDArray[np.int64]

SWEEP = (0.0, 0.3, 0.7, 1.0, 1.5)


@dataclass(frozen=True, slots=True)
class PerturbationCheck:
    """Shares of prompts, by the most frequent answer of the prompt and of its variant.

    Attributes:
        paraphrase_keeps: The paraphrase has the same answer as the prompt. Should be near 1.
        changed_number_changes: The changed number has another answer. Should be near 1.
        changed_number_correct: ... and it is the right one; NaN without gold.
        empty_gives: The empty prompt's most frequent answer is the prompt's. Should be near 0.
        undecided: Prompts left out of a share because they or their variant had no answer at all.

    A share over no prompts at all is NaN.
    """

    paraphrase_keeps: Estimate
    changed_number_changes: Estimate
    changed_number_correct: Estimate
    empty_gives: Estimate
    undecided: int


def majority_answer(codes: Codes) -> int | None:
    """Code of the most frequent answer, the smallest of ties; None if there is only garbage."""
    answers = codes[codes >= 0]
    return int(np.bincount(answers).argmax()) if answers.size else None


def perturbation_check(
    prompts: Sequence[Codes],
    paraphrases: Sequence[Codes | None],
    changed: Sequence[Codes | None],
    empty: Codes | None,
    changed_gold: Sequence[int | None] | None = None,
    *,
    level: float = LEVEL,
) -> PerturbationCheck:
    """Compare prompts with their variants; None where a prompt has no such variant.

    Args:
        prompts, paraphrases, changed: Per prompt int64 [samples], codes of one codebook.
        empty: Codes of the empty prompt's samples.
        changed_gold: Gold codes of the changed-number variants.
    """
    own = [majority_answer(codes) for codes in prompts]
    undecided = 0

    def share(outcomes: list[bool | None]) -> Estimate:
        nonlocal undecided
        undecided += sum(outcome is None for outcome in outcomes)
        known = [outcome for outcome in outcomes if outcome is not None]
        if not known:
            return Estimate(math.nan)
        return Estimate(sum(known) / len(known), wilson(sum(known), len(known), level))

    def against(variants: Sequence[Codes | None]) -> list[tuple[int | None, int | None]]:
        return [
            (answer, majority_answer(codes)) for answer, codes in zip(own, variants, strict=True) if codes is not None
        ]

    nothing = None if empty is None else majority_answer(empty)
    gold = changed_gold or [None] * len(changed)
    right = [
        None if (found := majority_answer(codes)) is None else found == code
        for codes, code in zip(changed, gold, strict=True)
        if codes is not None and code is not None
    ]
    return PerturbationCheck(
        paraphrase_keeps=share([None if None in pair else pair[0] == pair[1] for pair in against(paraphrases)]),
        changed_number_changes=share([None if None in pair else pair[0] != pair[1] for pair in against(changed)]),
        changed_number_correct=share(right),
        empty_gives=share([] if empty is None else [answer is not None and answer == nothing for answer in own]),
        undecided=undecided,
    )


@dataclass(frozen=True, slots=True)
class TemperatureSweep:
    """Mean answer entropy in bits at each temperature, ascending.

    Attributes:
        temperatures, entropies: In order.
        rises: From the lowest to the highest temperature the entropy rises significantly (one-sided sign test).
        falls: Neighbouring temperatures between which it falls significantly (Holm-corrected). Should be empty.
    """

    temperatures: tuple[float, ...]
    entropies: tuple[Estimate, ...]
    rises: bool
    falls: tuple[tuple[float, float], ...]

    @property
    def sound(self) -> bool:
        """Whether the entropy behaves as sampling from a distribution would make it."""
        return self.rises and not self.falls

    @property
    def sentence(self) -> str:
        """What the sweep shows, and no more than that."""
        if self.falls:
            steps = ", ".join(f"{low:g} and {high:g}" for low, high in self.falls)
            return f"The entropy falls between the temperatures {steps}; sampling makes it rise."
        if self.rises:
            return "The entropy rises with the temperature, as sampling makes it."
        return (
            "No rise of the entropy with the temperature was shown: the model is certain on these prompts, they are "
            "too few, or the answers do not come from a sampled distribution."
        )


def temperature_sweep(
    counts: Mapping[float, Sequence[Tally]], *, alpha: float = 0.05, level: float = LEVEL
) -> TemperatureSweep:
    """Judge a sweep from the answers to each prompt (same prompts, same order) at each temperature.

    Raises:
        VerifyError: fewer than 2 temperatures.
    """
    temperatures = tuple(sorted(counts))
    if len(temperatures) < 2:
        raise VerifyError(f"Found {len(temperatures)} temperature(s); a sweep needs at least 2.")
    rows = [np.array([entropy_value(count) for count in counts[temperature]]) for temperature in temperatures]
    rise = _sign_test(rows[-1] - rows[0])
    drops = [_sign_test(before - after) for before, after in itertools.pairwise(rows)]
    pairs = itertools.pairwise(temperatures)
    falls = [pair for pair, shown in zip(pairs, holm(drops, alpha)[0], strict=True) if shown]
    return TemperatureSweep(
        temperatures,
        tuple(suite_entropies(counts[temperature], level).answers for temperature in temperatures),
        rise <= alpha,
        tuple(sorted(falls)),
    )


def _sign_test(changes: npt.NDArray[np.float64]) -> float:
    """p-value of "a prompt falls as often as it rises" against more rises; prompts that stay are left out."""
    rises, moved = int(np.count_nonzero(changes > 0)), int(np.count_nonzero(changes))
    return 1.0 if rises == 0 else beta_cdf(0.5, rises, moved - rises + 1)
