"""The gate for runs that stop early: prompts arrive in random order, and a verdict may be read after any of them.

It uses the same bets as for a fixed number of prompts, with the largest capital so far: that reaches 1 / alpha at any
time with probability at most alpha (Ville 1939). Its verdict is about the population of prompts, not only these.

The collapse verdict is not part of it; the caller checks that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.gate.decide import ALPHA, overall, require_alpha
from edgedistill.verify.gate.endpoints import endpoints
from edgedistill.verify.metrics.paired import Comparison, Observations, PerPrompt
from edgedistill.verify.stats.betting import holm

if TYPE_CHECKING:
    from edgedistill.verify.gate.decide import Outcome
    from edgedistill.verify.gate.endpoints import Margins, Name


@dataclass(frozen=True, slots=True)
class SequentialState:
    """After ``prompts`` prompts: the outcome so far, per endpoint its own, and e-values (capital) for and against.

    ``further_prompts``: how many more would decide at the rate at which evidence has grown; None if it has not grown.
    """

    prompts: int
    outcome: Outcome
    endpoints: dict[Name, Outcome]
    evidence_for: dict[Name, float]
    evidence_against: dict[Name, float]
    further_prompts: int | None


class SequentialGate:
    """Feed it comparisons of further prompts; once it has decided, later prompts change nothing."""

    def __init__(self, margins: Margins, *, alpha: float = ALPHA) -> None:
        """Raises VerifyError for margins or an alpha that make no sense."""
        require_alpha(alpha)
        self._margins, self._alpha = margins.validated(), alpha
        self._seen: Comparison | None = None
        self._state = SequentialState(0, "inconclusive", {}, {}, {}, None)

    def update(self, comparison: Comparison) -> SequentialState:
        """The state after further prompts, in their order.

        Raises:
            VerifyError: another number of samples than before, or gold answers that come and go.
        """
        if self._state.outcome == "inconclusive":
            self._seen = comparison if self._seen is None else joined(self._seen, comparison)
            self._state = self._look(self._seen)
        return self._state

    def state(self) -> SequentialState:
        """The state now."""
        return self._state

    def _look(self, seen: Comparison) -> SequentialState:
        found = endpoints(seen, self._margins, "population", ordered=True)
        count, alpha = len(seen.prompts), self._alpha
        within = {endpoint.name: max(endpoint.within()) for endpoint in found}
        beyond = [(endpoint.name, p) for endpoint in found for p in endpoint.beyond()]
        weights = [weight for endpoint in found for weight in endpoint.shares()]
        rejected, levels = holm([p for _, p in beyond], alpha, weights)
        level = {name: each for (name, _), each in zip(beyond, levels, strict=True)}
        failed = {name for (name, _), fails in zip(beyond, rejected, strict=True) if fails}
        against = {endpoint.name: min(p for name, p in beyond if name == endpoint.name) for endpoint in found}
        outcomes: dict[Name, Outcome] = {
            name: "fail" if name in failed else "pass" if p <= alpha else "inconclusive" for name, p in within.items()
        }
        missing = [
            min(_further(within[name], alpha, count), _further(against[name], level[name], count))
            for name, outcome in outcomes.items()
            if outcome == "inconclusive"
        ]
        further = max(missing, default=0.0)
        return SequentialState(
            prompts=count,
            outcome=overall(list(outcomes.values())),
            endpoints=outcomes,
            evidence_for={name: 1 / max(p, 1e-300) for name, p in within.items()},
            evidence_against={name: 1 / max(p, 1e-300) for name, p in against.items()},
            further_prompts=math.ceil(further) if 0 < further < math.inf else None,
        )


def _further(p: float, level: float, count: int) -> float:
    """Prompts until 1 / p reaches 1 / level at the mean growth so far; infinite if there was none."""
    return math.inf if p >= 1 else max(1.0, count * (math.log(level) / math.log(max(p, 1e-300)) - 1))


def joined(first: Comparison, second: Comparison) -> Comparison:
    """One comparison after the other. Raises VerifyError for another number of samples, or gold on one part only."""
    if first.samples != second.samples:
        raise VerifyError(f"Found {second.samples} samples a prompt after {first.samples}; expected the same.")
    scored = [one.accuracy for one in (first, second) if one.accuracy is not None]
    if len(scored) == 1:
        raise VerifyError("Found gold answers on some prompts only; expected them on all or none.")
    return Comparison(
        prompts=first.prompts + second.prompts,
        samples=first.samples,
        limit=max(first.limit, second.limit),
        reference=_both(first.reference, second.reference),
        quantized=_both(first.quantized, second.quantized),
        accuracy=_appended(*scored) if scored else None,
        garbage=_appended(first.garbage, second.garbage),
        agreement=_appended(first.agreement, second.agreement),
        distance=_appended(first.distance, second.distance),
        tokens=_appended(first.tokens, second.tokens),
    )


def _both(first: PerPrompt, second: PerPrompt) -> PerPrompt:
    right = [one.accuracy for one in (first, second) if one.accuracy is not None]
    return PerPrompt(
        np.concatenate(right) if right else None,
        np.concatenate([first.agreement, second.agreement]),
        np.concatenate([first.garbage, second.garbage]),
        np.concatenate([first.tokens, second.tokens]),
        np.concatenate([first.coverage, second.coverage]),
    )


def _appended(first: Observations, second: Observations) -> Observations:
    if first.top.ndim == 1:
        return replace(first, weights=np.concatenate([first.weights, second.weights]))
    most = max(first.top.shape[1], second.top.shape[1])
    first, second = (_widened(part, most) for part in (first, second))
    weights = np.concatenate([first.weights, second.weights])
    bottoms = [part.bottom for part in (first, second) if part.bottom is not None]
    bottom = np.concatenate(bottoms) if bottoms else None
    return replace(first, top=np.concatenate([first.top, second.top]), weights=weights, bottom=bottom)


def _widened(part: Observations, most: int) -> Observations:
    """With entries of weight 0 up to ``most`` a prompt."""
    room = ((0, 0), (0, most - part.top.shape[1]))
    bottom = None if part.bottom is None else np.pad(part.bottom, room)
    return replace(part, top=np.pad(part.top, room), weights=np.pad(part.weights, room), bottom=bottom)
