"""Measures how many answers are only a copy of the number or word at one place of the prompt.

The mutual information between prompt and answer does not show this: the answers of a model that copies differ from
prompt to prompt as much as right ones do. Only a comparison with the prompt itself shows it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.answers.typed import canonical
from edgedistill.verify.stats.intervals import LEVEL, prompt_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgedistill.verify.types import Estimate, Prompt, Sample

_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*(?!\w)")
_WORD = re.compile(r"[^\W\d_]+")
_VARIED = 5.0  # effective number of different copies; with fewer, a copier is hardly different from a constant answer


def _place(pattern: re.Pattern[str], at: int) -> Callable[[str], str | None]:
    def copy(text: str) -> str | None:
        found = pattern.findall(text)
        return found[at] if -len(found) <= at < len(found) else None

    return copy


PLACES = {
    "first number": _place(_NUMBER, 0),
    "second number": _place(_NUMBER, 1),
    "last number": _place(_NUMBER, -1),
    "first word": _place(_WORD, 0),
    "last word": _place(_WORD, -1),
}


@dataclass(frozen=True, slots=True)
class Copies:
    """The ``place`` of the prompt that answers copy most ("last number" for instance), and the ``share`` of samples
    that are such copies where another answer is right (without gold answers: everywhere), a mean over prompts. Its
    interval allows for having picked the place.
    """

    place: str
    share: Estimate


def copies(
    prompts: Sequence[Prompt], groups: Sequence[Sequence[Sample]], *, level: float = LEVEL, seed: int = 0
) -> Copies | None:
    """Compare the answers with copies from each place of the prompt.

    Args:
        prompts: Of the suite; copies are taken from their last message.
        groups: The samples of each prompt, at least one.
        level, seed: Of the interval.

    Returns:
        The place with most copies; None if no place has at least 5 effectively different values, or the gold answers
        have not.
    """
    gold = [prompt.answer for prompt in prompts]
    if len(prompts) < 2 or (all(answer is not None for answer in gold) and _effective(gold) < _VARIED):
        return None
    found: list[tuple[str, list[float]]] = []
    for place, copy in PLACES.items():
        raw = [copy(prompt.messages[-1].content) for prompt in prompts]
        said = [None if text is None else canonical(text) for text in raw]
        if _effective(said) < _VARIED:
            continue
        shares = [
            0.0 if text is None or text == right else float(np.mean([sample.answer == text for sample in group]))
            for text, right, group in zip(said, gold, groups, strict=True)
        ]
        found.append((place, shares))
    if not found:
        return None
    place, shares = max(found, key=lambda one: sum(one[1]))
    single = 1 - (1 - level) / len(PLACES)
    return Copies(place, prompt_mean(shares, low=0.0, high=1.0, level=single, seed=seed))


def _effective(values: Sequence[str | None]) -> float:
    """Effective number of different values (inverse of the collision probability)."""
    counts = np.unique([value for value in values if value is not None], return_counts=True)[1].astype(np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum()) if counts.size else 0.0
