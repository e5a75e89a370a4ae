"""Co-primary endpoints of the gate: what is compared, by how much it may differ, as one-sided hypotheses.

Every endpoint comes down to one or two *sides*: a bounded number x per prompt whose mean is positive exactly if the
endpoint is within its margin on that side. Non-inferiority has one side, equivalence two (TOST: Schuirmann 1987).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgedistill.errors import VerifyError

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgedistill.profile.profile import VerifyMargins
    from edgedistill.verify.metrics.paired import Comparison, PerPrompt

    Floats = npt.NDArray[np.float64]

Name = Literal["accuracy", "agreement", "entropy", "length", "garbage"]

NAMES: tuple[Name, ...] = ("accuracy", "agreement", "entropy", "length", "garbage")


@dataclass(frozen=True, slots=True)
class Margins:
    """What the gate tolerates; meaning as in ``profile.VerifyMargins`` (``truncation``: truncated or unparsed)."""

    accuracy: float = 0.02
    agreement: float = 0.05
    entropy_bits: float = 0.10
    length_ratio: float = 1.15
    truncation: float = 0.02

    @classmethod
    def of(cls, margins: VerifyMargins) -> Margins:
        """The margins of a profile."""
        return cls(
            margins.accuracy, margins.agreement, margins.entropy_bits, margins.length_ratio, margins.truncation
        ).validated()

    def validated(self) -> Margins:
        """Itself; raises VerifyError for margins that make no sense."""
        for name, value, low, high in (
            ("accuracy", self.accuracy, 0.0, 1.0),
            ("agreement", self.agreement, 0.0, 1.0),
            ("entropy_bits", self.entropy_bits, 0.0, 64.0),
            ("length_ratio", self.length_ratio, 1.0, 100.0),
            ("truncation", self.truncation, 0.0, 1.0),
        ):
            if not (math.isfinite(value) and low < value <= high):
                raise VerifyError(
                    f"margin `{name}` is {value:g}; expected more than {low:g} and at most {high:g}.",
                    hint="A margin of no difference at all cannot be shown with samples." if value == low else None,
                )
        return self


@dataclass(frozen=True, slots=True)
class Side:
    """A hypothesis "mean of x > 0"; x float64 [prompts] in [low, high] with low < 0 < high."""

    x: Floats
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint on all prompts.

    Attributes:
        name: Which.
        differences: float64 [prompts], quantized minus reference; for length the relative change (see ``_relative``).
        margin: On the scale of ``differences``.
        equivalence: Two-sided; otherwise only harm counts.
        harm: +1 where a higher value is worse, -1 where a lower one is; 0 for equivalence.
        bound: |difference| is at most this.
        halves: Differences from even and odd samples, float64 [2, prompts]; None if there are too few samples.
    """

    name: Name
    differences: Floats
    margin: float
    equivalence: bool
    harm: int
    bound: float
    halves: Floats | None

    def sides(self) -> tuple[Side, ...]:
        """The hypotheses that must all be shown."""
        low, high = self.margin - self.bound, self.margin + self.bound
        upper, lower = Side(self.margin - self.differences, low, high), Side(self.margin + self.differences, low, high)
        if self.equivalence:
            return (lower, upper)
        return (upper,) if self.harm > 0 else (lower,)

    def shown(self, value: float) -> float:
        """A mean difference as reports show it: for length the ratio that it corresponds to."""
        if self.name != "length":
            return value
        return 1 / (1 - value) if 0 <= value < 1 else (math.inf if value >= 1 else 1 + value)


def endpoints(comparison: Comparison, margins: Margins) -> tuple[Endpoint, ...]:
    """The endpoints that the data allow: accuracy only with gold.

    Raises:
        VerifyError: margins that make no sense, or that nothing could exceed.
    """
    margins.validated()
    most = math.log2(max(2, comparison.samples))
    table: tuple[tuple[Name, float, bool, int, float], ...] = (
        ("accuracy", margins.accuracy, False, -1, 1.0),
        ("agreement", margins.agreement, True, 0, 1.0),
        ("entropy", margins.entropy_bits, True, 0, most),
        ("length", 1 - 1 / margins.length_ratio, False, 1, 1.0),
        ("garbage", margins.truncation, False, 1, 1.0),
    )
    found = []
    for name, margin, equivalence, harm, bound in table:
        if margin >= bound:
            raise VerifyError(
                f"the margin of {name} is {margin:g}, and no difference can be larger than {bound:g}.",
                hint="Choose a smaller margin.",
            )
        differences = difference(name, comparison.reference, comparison.quantized)
        if differences is None:
            continue
        halves = None
        if comparison.halves is not None:
            pair = [difference(name, reference, quantized) for reference, quantized in comparison.halves]
            halves = np.stack([half for half in pair if half is not None])
        clipped = np.clip(differences, -bound, bound)
        found.append(Endpoint(name, clipped, margin, equivalence, harm, bound, halves))
    return tuple(found)


def difference(name: Name, reference: PerPrompt, quantized: PerPrompt) -> Floats | None:
    """Quantized minus reference per prompt, float64 [prompts]; None for accuracy without gold."""
    if name == "accuracy":
        if reference.accuracy is None or quantized.accuracy is None:
            return None
        return quantized.accuracy - reference.accuracy
    if name == "length":
        return _relative(reference.tokens, quantized.tokens)
    before, after = getattr(reference, name), getattr(quantized, name)
    return np.asarray(after - before, np.float64)


def _relative(before: Floats, after: Floats) -> Floats:
    """(after - before) / max(after, before), in [-1, 1]: a ratio R becomes 1 - 1/R on every prompt.

    Bounded, so that a sequential test can use it, and no long prompt outweighs the others.
    """
    return np.asarray((after - before) / np.maximum(np.maximum(after, before), 1e-9), np.float64)
