"""The gate that stops early: prompts arrive in random order, and after each one it may be asked for a verdict.

Pass as soon as every side of every endpoint has wealth 1/alpha; fail as soon as one side's mirror image has m/alpha, m
the number of sides. Both hold at any stopping time (``sequential``).

The collapse verdict is no part of it: whoever feeds the gate looks at that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedistill.errors import VerifyError
from edgedistill.verify.gate.decide import ALPHA, overall
from edgedistill.verify.gate.endpoints import endpoints
from edgedistill.verify.stats.e_process import Bettor, further_bets

if TYPE_CHECKING:
    from edgedistill.verify.gate.decide import Outcome
    from edgedistill.verify.gate.endpoints import Margins, Name
    from edgedistill.verify.metrics.paired import Comparison


@dataclass(frozen=True, slots=True)
class SequentialState:
    """After ``prompts`` prompts: the outcome so far, per endpoint its own, and e-values (wealth) for and against.

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
        if not 0 < alpha < 0.5:
            raise VerifyError(f"alpha is {alpha:g}; expected more than 0 and less than 0.5, usually 0.05.")
        self._margins = margins.validated()
        self._alpha = alpha
        self._bettors: dict[Name, tuple[Bettor, ...]] = {}
        self._samples = 0
        self._prompts = 0
        self._decided: SequentialState | None = None

    def update(self, comparison: Comparison) -> SequentialState:
        """Settle the bets on further prompts (one or more, in their order); the state after the last, or the deciding
        one.

        Raises:
            VerifyError: another number of samples than before, or gold answers that come and go.
        """
        if self._decided is not None:
            return self._decided
        if self._samples not in (0, comparison.samples):
            raise VerifyError(f"found {comparison.samples} samples a prompt after {self._samples}; expected the same.")
        self._samples = comparison.samples
        found = endpoints(comparison, self._margins)
        sides = {endpoint.name: endpoint.sides() for endpoint in found}
        if not self._bettors:
            self._bettors = {name: tuple(Bettor(s.low, s.high) for s in both) for name, both in sides.items()}
        if set(self._bettors) != set(sides):
            raise VerifyError("found gold answers on some prompts only; expected them on all or none.")
        for index in range(len(comparison.prompts)):
            for name, both in sides.items():
                for side, bettor in zip(both, self._bettors[name], strict=True):
                    bettor.update(float(side.x[index]))
            self._prompts += 1
            state = self.state()
            if state.outcome != "inconclusive":
                self._decided = state
                return state
        return self.state()

    def state(self) -> SequentialState:
        """The state now."""
        if self._decided is not None:
            return self._decided
        hypotheses = sum(len(both) for both in self._bettors.values())
        to_pass, to_fail = math.log(1 / self._alpha), math.log(max(1, hypotheses) / self._alpha)
        outcomes: dict[Name, Outcome] = {}
        evidence_for: dict[Name, float] = {}
        evidence_against: dict[Name, float] = {}
        missing: list[float] = []
        for name, both in self._bettors.items():
            up = min(bettor.best_up for bettor in both)
            down = max(bettor.best_down for bettor in both)
            outcomes[name] = "fail" if down >= to_fail else "pass" if up >= to_pass else "inconclusive"
            evidence_for[name], evidence_against[name] = math.exp(min(up, 700)), math.exp(min(down, 700))
            if outcomes[name] == "inconclusive":
                missing.append(
                    min(further_bets(up, to_pass, self._prompts), further_bets(down, to_fail, self._prompts))
                )
        further = max(missing, default=0.0)
        return SequentialState(
            prompts=self._prompts,
            outcome=overall(list(outcomes.values())),
            endpoints=outcomes,
            evidence_for=evidence_for,
            evidence_against=evidence_against,
            further_prompts=math.ceil(further) if 0 < further < math.inf else None,
        )
