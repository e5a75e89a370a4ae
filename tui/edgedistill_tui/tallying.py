"""Counts the answers of one prompt's samples while they arrive, with the statistics of verification."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedistill.verify.types import Estimate
    from edgedistill_tui.engine import Answer


@dataclass(slots=True)
class Count:
    """How often each answer came.

    Attributes:
        answers: Canonical answer to its number.
        garbage: ``unparsed`` and ``truncated`` to their number.
        example: One text per answer.
    """

    answers: Counter[str] = field(default_factory=Counter)
    garbage: Counter[str] = field(default_factory=Counter)
    example: dict[str, str] = field(default_factory=dict)
    tokens: int = 0

    def add(self, answer: Answer) -> None:
        """Take one sample."""
        self.tokens += answer.tokens
        if answer.kind == "parsed" and answer.answer is not None:
            self.answers[answer.answer] += 1
            self.example.setdefault(answer.answer, answer.text)
        else:
            kind = "truncated" if answer.kind == "truncated" else "unparsed"
            self.garbage[kind] += 1
            self.example.setdefault(kind, answer.text)

    @property
    def total(self) -> int:
        """Samples so far."""
        return self.answers.total() + self.garbage.total()

    def ranked(self) -> list[tuple[str, int, bool]]:
        """(answer or kind of garbage, count, whether it is an answer), the most frequent first, garbage last."""
        good = [(answer, n, True) for answer, n in sorted(self.answers.items(), key=lambda i: (-i[1], i[0]))]
        return good + [(kind, n, False) for kind, n in sorted(self.garbage.items())]

    def estimates(self) -> tuple[Estimate, Estimate, Estimate] | None:
        """Majority share, agreement and answer entropy in bits, each with its 95 % interval; None below two samples."""
        if self.total < 2:
            return None
        import numpy as np

        from edgedistill.verify.metrics.consistency import agreement, answer_entropy, majority_share
        from edgedistill.verify.stats.answer_counts import Tally

        counts = np.array(sorted(self.answers.values()), dtype=np.int64)
        tally = Tally(counts, self.garbage["unparsed"], self.garbage["truncated"])
        return majority_share(tally), agreement(tally), answer_entropy(tally)
