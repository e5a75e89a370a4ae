"""Co-primary endpoints of the gate: what is compared, and by how much it may differ.

Every endpoint is a parameter (a mean of bounded observations, or a ratio of two such means) with a limit on one side or
on both. Within its limits: non-inferiority, or equivalence with both (TOST: Schuirmann 1987).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.paired import AGREES, Observations
from edgedistill.verify.stats.betting import Bets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.profile.profile import VerifyMargins
    from edgedistill.verify.metrics.paired import Comparison

Name = Literal["accuracy", "distance", "agreement", "entropy", "length", "tokens", "garbage"]
Estimand = Literal["suite", "population"]

NAMES: tuple[Name, ...] = ("accuracy", "distance", "agreement", "entropy", "length", "tokens", "garbage")


@dataclass(frozen=True, slots=True)
class Margins:
    """What the gate tolerates; meaning as in ``profile.VerifyMargins`` (``truncation``: truncated or unparsed)."""

    accuracy: float = 0.02
    agreement: float = 0.05
    entropy_bits: float = 0.10
    length_ratio: float = 1.15
    truncation: float = 0.02
    distance: float = 0.05
    shorter_ratio: float = 0.0

    @classmethod
    def of(cls, margins: VerifyMargins) -> Margins:
        """The margins of a profile."""
        return cls(**{name: getattr(margins, name) for name in cls.__dataclass_fields__}).validated()

    def validated(self) -> Margins:
        """Itself; raises VerifyError for margins that make no sense."""
        for name, low, high in (
            ("accuracy", 0.0, 1.0),
            ("agreement", 0.0, 1.0),
            ("entropy_bits", 0.0, 64.0),
            ("length_ratio", 1.0, 100.0),
            ("truncation", 0.0, 1.0),
            ("distance", 0.0, 2.0),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and low < value < high):
                raise VerifyError(
                    f"Margin `{name}` is {value:g}; expected more than {low:g} and less than {high:g}.",
                    hint="No number of samples can show that there is no difference at all." if value == low else None,
                )
        if not 0 <= self.shorter_ratio < 1:
            raise VerifyError(
                f"Margin `shorter_ratio` is {self.shorter_ratio:g}; expected 0 (no limit) or more, and less than 1."
            )
        return self


WEIGHTS: Mapping[Name, float] = MappingProxyType(
    {"accuracy": 4.0, "distance": 2.0, "agreement": 1.0, "entropy": 1.0, "length": 1.0, "tokens": 1.0, "garbage": 1.0}
)
"""How the endpoints share alpha where any of them fails a bundle. Most goes to what a bundle is made for, right
answers, and then to the same answers: damage by few bits shows there first.
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint on all prompts.

    Attributes:
        name: Which.
        bets: The observations. ``null``: the parameter of a model that did not change.
        low, high: Limits of the parameter; None: that direction does no harm.
    """

    name: Name
    bets: Bets
    null: float
    low: float | None
    high: float | None

    def shown(self, value: float) -> float:
        """A parameter as reports show it: for length the ratio that it corresponds to, for entropy bits."""
        if self.name == "entropy":
            return math.inf if value <= 0 else (-math.inf if math.isinf(value) else -math.log2(value) + 0.0)
        if self.name != "length":
            return value
        return 1 / (1 - value) if 0 <= value < 1 else (math.inf if value >= 1 else 1 + value)

    def within(self) -> list[float]:
        """p-values of "not within this limit", one per limit, the lower one first."""
        low, high = self.low, self.high
        found = [] if low is None else [self.bets.p(low, above=True)]
        return found if high is None else [*found, self.bets.p(high, above=False)]

    def beyond(self) -> list[float]:
        """p-values of "not beyond this limit", in the same order."""
        low, high = self.low, self.high
        found = [] if low is None else [self.bets.p(low, above=False)]
        return found if high is None else [*found, self.bets.p(high, above=True)]

    def shares(self) -> list[float]:
        """The weight of each limit, in the same order."""
        limits = (self.low is not None) + (self.high is not None)
        return [WEIGHTS[self.name] / limits] * limits

    def power(self, truth: float, alpha: float, *, scale: float = 1.0) -> float:
        """P(pass) if the parameter is ``truth``, with the spread that was observed and ``scale`` times as many
        observations.
        """
        bets = self.bets.moved(truth)
        chances = []
        if self.low is not None:
            chances.append(bets.power(self.low, alpha, above=True, scale=scale))
        if self.high is not None:
            chances.append(bets.power(self.high, alpha, above=False, scale=scale))
        return max(0.0, sum(chances) - (len(chances) - 1))

    def power_to_fail(self, alpha: float, *, scale: float = 1.0) -> float:
        """P(fail) if the truth is as observed."""
        chances = [0.0]
        if self.low is not None:
            chances.append(self.bets.power(self.low, alpha, above=False, scale=scale))
        if self.high is not None:
            chances.append(self.bets.power(self.high, alpha, above=True, scale=scale))
        return max(chances)


def endpoints(
    comparison: Comparison, margins: Margins, estimand: Estimand = "suite", *, ordered: bool = False
) -> tuple[Endpoint, ...]:
    """The endpoints that the data allow: accuracy only with gold.

    Args:
        estimand: Of these prompts (every pair of samples is an observation), or of prompts like these (every prompt
            is one).
        ordered: Prompts came in random order and were looked at on the way; of the population only.

    Raises:
        VerifyError: margins that make no sense.
    """
    margins.validated()
    shorter = margins.shorter_ratio

    def bets(observed: Observations, low: float, high: float, most: float = 1.0) -> Bets:
        if estimand == "suite":
            top, bottom, weights = observed.pooled()
        else:
            top, bottom = observed.means()
            weights = np.ones_like(top)
        return Bets(top, weights, low, high, bottom, most, ordered)

    c = comparison
    agree = Observations(AGREES[0] - AGREES[1], c.agreement.weights, c.agreement.count)
    spent, longest = c.tokens, float(c.limit)
    found = [
        Endpoint("distance", bets(c.distance, -2.0, 2.0), 0.0, None, margins.distance),
        Endpoint("agreement", bets(agree, -1.0, 1.0), 0.0, -margins.agreement, margins.agreement),
        Endpoint("entropy", bets(c.agreement, 0.0, 1.0), 1.0, 2.0**-margins.entropy_bits, 2.0**margins.entropy_bits),
        Endpoint(
            "length",
            bets(relative_change(spent), -1.0, 1.0),
            0.0,
            shorter - 1 if shorter else None,
            1 - 1 / margins.length_ratio,
        ),
        Endpoint("tokens", bets(spent, 0.0, longest, longest), 1.0, shorter or None, margins.length_ratio),
        Endpoint("garbage", bets(c.garbage, -1.0, 1.0), 0.0, None, margins.truncation),
    ]
    if c.accuracy is not None:
        found.insert(0, Endpoint("accuracy", bets(c.accuracy, -1.0, 1.0), 0.0, -margins.accuracy, None))
    return tuple(found)


def relative_change(tokens: Observations) -> Observations:
    """(after - before) / max(after, before) of every pair, in [-1, 1]: a ratio R becomes 1 - 1/R on every pair, and no
    long reply outweighs the others.
    """
    before = np.zeros_like(tokens.top) if tokens.bottom is None else tokens.bottom
    change = (tokens.top - before) / np.maximum(np.maximum(tokens.top, before), np.finfo(np.float64).tiny)
    return Observations(np.asarray(change, np.float64), tokens.weights, tokens.count)
