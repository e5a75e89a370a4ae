"""Lists the prompts on which the quantized model lost most, with the most frequent answer of either model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.stats.answer_counts import Codebook, paired
from edgedistill.verify.stats.intervals import LEVEL, wilson
from edgedistill.verify.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgedistill.verify.metrics.suite_summary import PromptSummary
    from edgedistill.verify.types import Sample

MOST = 10
"""Largest number of prompts in the list."""


@dataclass(frozen=True, slots=True)
class AnswerShare:
    """The most frequent answer of a model to a prompt (None: most samples have no answer), and its share of samples."""

    answer: str | None
    share: Estimate


@dataclass(frozen=True, slots=True)
class LostPrompt:
    """A prompt on which the quantized model lost.

    Attributes:
        reference, bundle: The most frequent answer of each.
        before, after: Share of right samples of the reference and of the bundle; without gold, share of the answer that
            is most frequent in the reference.
        gold: The right answer; None if there is none.
        beyond_noise: Sampling alone would show such a loss on any prompt of the suite with probability at most
            1 - level (exact sign test of the pairs that changed, Bonferroni over the prompts).
    """

    prompt_id: str
    gold: str | None
    reference: AnswerShare
    bundle: AnswerShare
    before: Estimate
    after: Estimate
    beyond_noise: bool


def lost_prompts(
    before: Sequence[PromptSummary],
    after: Sequence[PromptSummary],
    reference: Mapping[str, Sequence[Sample]],
    quantized: Mapping[str, Sequence[Sample]],
    gold: Mapping[str, str | None],
    *,
    level: float = LEVEL,
) -> tuple[LostPrompt, ...]:
    """The prompts with a loss, largest first, at most ``MOST``.

    Args:
        before, after: The summaries of the two models.
        reference, quantized: Their samples of each prompt.
        gold: Of each prompt the right answer, where there is one.
    """
    found = []
    for one, other in zip(before, after, strict=True):
        name = one.prompt_id
        left, right = paired(reference[name], quantized[name])
        if not left:
            continue
        kept = _kept(left, right)
        was, now = (Estimate(float(rows.mean()), wilson(int(rows.sum()), rows.size, level)) for rows in kept)
        if now.value >= was.value:
            continue
        sure = chance_of_loss(left, right) * len(before) <= 1 - level
        found.append(LostPrompt(name, gold.get(name), _mostly(one, level), _mostly(other, level), was, now, sure))
    return tuple(sorted(found, key=lambda row: row.after.value - row.before.value)[:MOST])


def sign_test(lost: int, gained: int) -> float:
    """One-sided exact sign test: P(at least ``lost`` of ``lost + gained`` fair coins show heads)."""
    count = lost + gained
    return float(sum(math.comb(count, k) for k in range(lost, count + 1)) / 2**count)


def chance_of_loss(reference: Sequence[Sample], quantized: Sequence[Sample]) -> float:
    """The exact probability of such a loss between equal models. Without gold, one half of the samples chooses the
    answer that is tested in the other half, since an answer can be the most frequent one by chance.

    Args:
        reference, quantized: The paired samples of a prompt, at least one.
    """
    left, right = _kept(reference, quantized)
    if not _scored(reference, quantized):
        half = len(reference) // 2
        left, right = _kept(reference, quantized, half)
        left, right = left[half:], right[half:]
    return sign_test(int((left & ~right).sum()), int((right & ~left).sum()))


def _scored(reference: Sequence[Sample], quantized: Sequence[Sample]) -> bool:
    return all(sample.correct is not None for sample in (*reference, *quantized))


def _kept(
    reference: Sequence[Sample], quantized: Sequence[Sample], chosen_by: int | None = None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which of the paired samples are right, bool [samples] of each model; without gold, which give the answer that is
    most frequent in the reference's first ``chosen_by`` samples (None: in all).
    """
    if _scored(reference, quantized):
        return np.array([s.correct is True for s in reference]), np.array([s.correct is True for s in quantized])
    book = Codebook()
    left, right = book.encode(reference), book.encode(quantized)
    answers = left[:chosen_by]
    answers = answers[answers >= 0]
    if not answers.size:
        return left >= 0, right >= 0
    top = int(np.bincount(answers).argmax())
    return left == top, right == top


def _mostly(row: PromptSummary, level: float) -> AnswerShare:
    """The most frequent answer, or none where more samples have none."""
    without = row.unparsed + row.truncated
    if row.majority_answer is None or without > row.samples * row.majority_share.value:
        return AnswerShare(None, Estimate(without / row.samples, wilson(without, row.samples, level)))
    return AnswerShare(row.majority_answer, row.majority_share)
