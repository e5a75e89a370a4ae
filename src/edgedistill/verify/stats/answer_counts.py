"""Codes the answers of samples as integers (0, 1, 2, ..., below zero for samples without an answer) and counts them.

Samples without an answer ("garbage": unparsed or truncated) must not look consistent: such a sample agrees with no
other sample, not even with one of the same kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from edgedistill.verify.types import Sample

    Codes = npt.NDArray[np.int64]

UNPARSED = -1
TRUNCATED = -2


class Codebook:
    """Answers to codes, in order of first appearance; shared by two models that are compared."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def encode(self, samples: Iterable[Sample]) -> Codes:
        """int64 [samples]: the code of each answer, UNPARSED or TRUNCATED."""
        return np.array([self.code(sample) for sample in samples], np.int64)

    def code(self, sample: Sample) -> int:
        """The code of one sample."""
        if sample.kind == "truncated":
            return TRUNCATED
        if sample.kind == "unparsed" or sample.answer is None:
            return UNPARSED
        return self.answer_code(sample.answer)

    def answer_code(self, answer: str) -> int:
        """The code of an answer, for instance the gold one."""
        return self._codes.setdefault(answer, len(self._codes))

    def answers(self) -> list[str]:
        """Answers in order of their codes."""
        return list(self._codes)


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of one prompt's samples: ``answers`` int64 [different answers], all positive; garbage; the sum of all."""

    answers: Codes
    unparsed: int
    truncated: int

    @property
    def total(self) -> int:
        """Samples, garbage included."""
        return int(self.answers.sum()) + self.garbage

    @property
    def garbage(self) -> int:
        """Samples without an answer."""
        return self.unparsed + self.truncated

    @property
    def largest(self) -> int:
        """Samples of the most frequent answer."""
        return int(self.answers.max()) if self.answers.size else 0


def tally(codes: Codes) -> Tally:
    """Count the codes of one prompt's samples."""
    answers = np.bincount(codes[codes >= 0]).astype(np.int64) if np.any(codes >= 0) else np.empty(0, np.int64)
    return Tally(
        answers[answers > 0], int(np.count_nonzero(codes == UNPARSED)), int(np.count_nonzero(codes == TRUNCATED))
    )


def coverage(counts: Tally) -> float:
    """Good and Turing's estimate of the probability of all answers seen (Good, Biometrika 1953): 1 less the share of
    samples whose answer occurred once. Garbage counts as answers that occurred once.
    """
    once = int(np.count_nonzero(counts.answers == 1)) + counts.garbage
    return 1.0 - once / counts.total if counts.total else 0.0


def by_prompt(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Samples of each prompt in order of their index; prompts in order of first appearance.

    Raises:
        VerifyError: the same sample twice.
    """
    groups: dict[str, dict[int, Sample]] = {}
    for sample in samples:
        group = groups.setdefault(sample.prompt_id, {})
        if sample.index in group:
            raise VerifyError(f"Sample {sample.index} of prompt `{sample.prompt_id}` occurs twice; expected it once.")
        group[sample.index] = sample
    return {prompt: [group[index] for index in sorted(group)] for prompt, group in groups.items()}


def paired(reference: Sequence[Sample], other: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The samples of one prompt whose index both models have, in order of the index."""
    left, right = {s.index: s for s in reference}, {s.index: s for s in other}
    common = sorted(left.keys() & right.keys())
    return [left[index] for index in common], [right[index] for index in common]
