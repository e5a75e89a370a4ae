"""Consistency after another program has merged answers that are spelt differently but mean the same.

Answers are compared by their keys (canonical spellings). Keys that are too fine make a model look inconsistent. Another
program may judge which keys of a prompt mean the same; these are merged for both models. Comparing the numbers with and
without merging shows whether a difference between two models is one of spelling or of meaning. The gate uses the
unmerged keys only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgedistill.verify.metrics.consistency import agreement, majority_share
from edgedistill.verify.metrics.suite_entropy import suite_entropies
from edgedistill.verify.stats.answer_counts import Codebook, tally
from edgedistill.verify.stats.intervals import prompt_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgedistill.verify.types import Estimate, Sample


@dataclass(frozen=True, slots=True)
class Opinion:
    """The program's judgement on the keys of each prompt.

    Attributes:
        judge: The program, with its version.
        same: By prompt: each key that was merged, and the key that replaces it (the gold answer's if it is one of
        them).
        asked: Prompts with several keys to compare.
        pairs, equal, undecided: Pairs of keys; those that mean the same; those that took too long or that the program
            could not read.
    """

    judge: str
    same: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    asked: int = 0
    pairs: int = 0
    equal: int = 0
    undecided: int = 0


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """A model's consistency with keys merged that mean the same to ``judge``; see ``Opinion`` for the counts.

    Attributes:
        moved: Samples whose key changed.
        accuracy: With answers counted as right that mean the same as a right one; None without gold answers.
    """

    judge: str
    asked: int
    pairs: int
    equal: int
    undecided: int
    moved: int
    majority_share: Estimate
    agreement: Estimate
    entropy: Estimate
    accuracy: Estimate | None


def second_opinion(
    groups: Mapping[str, Sequence[Sample]],
    golds: Mapping[str, str | None],
    opinion: Opinion,
    *,
    level: float,
    seed: int = 0,
) -> SecondOpinion:
    """Summarise the samples of a model by prompt, at least 2 each, with the merged keys.

    Args:
        golds: By prompt, the key of the right answer, None where there is none.
    """
    merged = {
        prompt_id: [_moved(sample, opinion.same.get(prompt_id, {})) for sample in group]
        for prompt_id, group in groups.items()
    }
    book = Codebook()
    counts = [tally(book.encode(group)) for group in merged.values()]

    def mean(values: Sequence[float], high: float) -> Estimate:
        return prompt_mean(values, low=0.0, high=high, level=level, seed=seed)

    shares = [
        sum(sample.answer == golds[prompt_id] for sample in group) / len(group)
        for prompt_id, group in merged.items()
        if golds.get(prompt_id) is not None
    ]
    return SecondOpinion(
        judge=opinion.judge,
        asked=opinion.asked,
        pairs=opinion.pairs,
        equal=opinion.equal,
        undecided=opinion.undecided,
        moved=sum(
            before.answer != after.answer
            for prompt_id, group in groups.items()
            for before, after in zip(group, merged[prompt_id], strict=True)
        ),
        majority_share=mean([majority_share(count, level).value for count in counts], 1.0),
        agreement=mean([agreement(count, level).value for count in counts], 1.0),
        entropy=suite_entropies(counts, level).answers,
        accuracy=mean(shares, 1.0) if len(shares) == len(groups) else None,
    )


def _moved(sample: Sample, same: Mapping[str, str]) -> Sample:
    if sample.answer is None or sample.answer not in same:
        return sample
    return replace(sample, answer=same[sample.answer])
