"""Options for reading a suite file: meaning of columns, template of prompts, few-shot examples, tolerance, split."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgedistill.errors import UsageError
from edgedistill.verify.suites.records import SPLITS
from edgedistill.verify.suites.values import near

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MEANINGS = ("prompt", "gold", "choices", "id", "tags", "solution", "tests", "tolerance")
"""What a column can be mapped to; ``solution`` is the reply in few-shot examples."""
_REPEATED = ("tags", "choices", "gold")
MOST_SHOTS = 64


@dataclass(frozen=True, slots=True)
class SuiteOptions:
    """Options of a suite, for the command line and the Python API.

    Attributes:
        columns: Columns by their meaning (``MEANINGS``); empty: the format is recognised. A dot enters objects:
            ``question.stem``.
        template: The user's message, with ``{prompt}``, ``{choices}`` or any column in braces.
        few_shot: Number of examples before each question, as turns of the conversation.
        few_shot_from: File of the examples; None: the first records of the suite, which are not sampled then.
        tolerance: Largest absolute difference from a right number, for records without their own.
        split: Part of a directory or of a data set on the Hub.
        allow_code: Run programs in replies (HumanEval, MBPP).
    """

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    template: str | None = None
    few_shot: int = 0
    few_shot_from: Path | None = None
    tolerance: float | None = None
    split: str | None = None
    allow_code: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.few_shot <= MOST_SHOTS:
            raise UsageError(f"--few-shot is {self.few_shot}; expected 0 to {MOST_SHOTS}.")
        if self.few_shot_from is not None and not self.few_shot:
            raise UsageError("--few-shot-from needs the number of examples.", hint="Add --few-shot 4.")
        if self.tolerance is not None and not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise UsageError(f"--tolerance is {self.tolerance:g}; expected a number from 0.")
        if self.split is not None and self.split not in SPLITS:
            raise UsageError(f"--split is {self.split!r}{near(self.split, SPLITS)}")
        if self.columns and "prompt" not in self.columns:
            raise UsageError("--map does not say which column is the prompt.", hint="Add prompt=COLUMN.")


def parse_map(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``["prompt=question,gold=answer"]`` as ``SuiteOptions.columns``. Raises UsageError."""
    found: dict[str, tuple[str, ...]] = {}
    for pair in ",".join(texts).split(","):
        name, equals, column = (part.strip() for part in pair.partition("="))
        name = "gold" if name == "answer" else name
        if not equals or not column:
            raise UsageError(f"--map has {pair!r}; expected MEANING=COLUMN, for instance prompt=question,gold=answer.")
        if name not in MEANINGS:
            raise UsageError(f"--map: `{name}` is no meaning{near(name, MEANINGS)}")
        if name in found and name not in _REPEATED:
            raise UsageError(f"--map gives `{name}` twice.", hint="Only tags, choices and gold take several columns.")
        found[name] = (*found.get(name, ()), column)
    return found
