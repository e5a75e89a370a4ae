"""Would a copier say the same? How many answers are merely the number or word at one place of the prompt.

A model that repeats what it was asked tells its prompts apart as well as one that solves them: information does not
show it, only the comparison with the prompt itself.
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
_VARIED = 5.0  # effective copies; of fewer a copier is no other than a constant, and errors coincide by necessity


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
    """``place``: what of the prompt the answers repeat most, "last number" for instance. ``share``: of the samples that
    do, where another answer is right (without gold answers: of all), a mean over prompts; its interval allows for
    having picked the place.
    """

    place: str
    share: Estimate


def copies(
    prompts: Sequence[Prompt], groups: Sequence[Sequence[Sample]], *, level: float = LEVEL, seed: int = 0
) -> Copies | None:
    """Compare the answers with those of copiers.

    Args:
        prompts: Of the suite; the last message is what would be copied.
        groups: The samples of each, at least one.

    Returns:
        None where no place holds enough different things (5, effectively), prompts or right answers being alike.
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
    """Effective number of different ones (collisions)."""
    counts = np.unique([value for value in values if value is not None], return_counts=True)[1].astype(np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum()) if counts.size else 0.0
