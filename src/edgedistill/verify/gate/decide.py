"""The verdict on a quantized model: pass, fail, or inconclusive with what would decide it.

Passing takes every endpoint shown within its margin, each at alpha: an intersection-union test, so alpha is not split.
Failing takes one endpoint shown beyond its margin; since any one would do, the hypotheses share alpha (Holm 1979). A
difference that is merely not significant decides nothing.

Methods for a fixed number of prompts, on x = the distance to the margin per prompt:

- ``permutation``: sign flips; assumes that x is symmetric about its mean.
- ``bootstrap``: BCa over prompts; right in the limit of many prompts.
- ``betting``: an e-process over a random order; valid for any bounded x, needs more prompts.

The first two cannot see a harm that strikes so rarely that no prompt of the suite shows it; ``blind_spot`` says how
rare that is. They do not let a model pass on fewer than ``SAFE_PROMPTS`` prompts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgedistill.errors import EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_OK, VerifyError
from edgedistill.verify.gate.endpoints import endpoints
from edgedistill.verify.stats.e_process import bet_on, chance_of_wealth, further_bets
from edgedistill.verify.stats.intervals import bca_at, prompt_mean, weighted_mean
from edgedistill.verify.stats.permutation import sign_flip
from edgedistill.verify.stats.power import MOST, Decider, components, decider, power_curve
from edgedistill.verify.types import Estimate, Interval

if TYPE_CHECKING:
    from edgedistill.verify.gate.endpoints import Endpoint, Margins, Side
    from edgedistill.verify.metrics.collapse_verdict import Verdict
    from edgedistill.verify.metrics.paired import Comparison

Outcome = Literal["pass", "fail", "inconclusive"]
Method = Literal["permutation", "bootstrap", "betting"]

ALPHA = 0.05
SAFE_PROMPTS = 30
EXIT_CODES: dict[Outcome, int] = {"pass": EXIT_OK, "fail": EXIT_FAIL, "inconclusive": EXIT_INCONCLUSIVE}


@dataclass(frozen=True, slots=True)
class EndpointResult:
    """One endpoint.

    Attributes:
        name: Which.
        outcome: Its own outcome.
        reference, quantized: Means over prompts; for length in tokens.
        change: Mean paired difference (for length: ratio), with the 1 - alpha interval over prompts.
        margin: The limit of ``change`` (for equivalence: of its size; for length: the ratio).
        p_pass: The largest p-value of "not within the margin" of its sides; p_fail: the smallest of "within it". For
            bootstrap the smallest of a few levels whose interval excludes the margin, 1 if none does.
        decide: What would decide it, if inconclusive.
        power: P(pass) if the truth is no difference: by normal approximation (0 on too few prompts), for betting by
            drawing prompts again.
    """

    name: str
    outcome: Outcome
    reference: float
    quantized: float
    change: Estimate
    margin: float
    p_pass: float
    p_fail: float
    decide: Decider | None
    power: float


@dataclass(frozen=True, slots=True)
class CollapseResult:
    """The endpoint "verdict of the collapse audit unchanged"."""

    outcome: Outcome
    reference: Verdict
    quantized: Verdict


@dataclass(frozen=True, slots=True)
class GateResult:
    """The whole verdict. ``blind_spot``: harm on fewer than this share of prompts may have gone unseen."""

    outcome: Outcome
    endpoints: tuple[EndpointResult, ...]
    collapse: CollapseResult | None
    prompts: int
    samples: int
    alpha: float
    method: Method
    blind_spot: float
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive."""
        return EXIT_CODES[self.outcome]

    @property
    def further_prompts(self) -> int | None:
        """Further prompts that would decide every undecided endpoint at 80 % power; None: not in practice, or none
        needed.
        """
        open_ones = [result.decide for result in self.endpoints if result.decide is not None]
        wanted = [one.further_prompts for one in open_ones]
        short = max(0, SAFE_PROMPTS - self.prompts) if self.method != "betting" else 0
        known = [count for count in wanted if count is not None]
        if self.outcome != "inconclusive" or len(known) < len(wanted):
            return None
        return max([*known, short]) or None


def decide(
    comparison: Comparison,
    margins: Margins,
    *,
    verdicts: tuple[Verdict, Verdict] | None = None,
    alpha: float = ALPHA,
    method: Method = "permutation",
    seed: int = 0,
) -> GateResult:
    """Decide on a fixed number of prompts.

    Args:
        comparison: Both models on the same prompts (``compare.compare``).
        margins: Validated here.
        verdicts: Of the collapse audit, (reference, quantized); None where the suite allows none.
        alpha: Of each one-sided test; in (0, 0.5).
        method: See the module.
        seed: Of flips, resampling or the order.

    Raises:
        VerifyError: margins or alpha that make no sense, no endpoint at all.
    """
    if not 0 < alpha < 0.5:
        raise VerifyError(f"alpha is {alpha:g}; expected more than 0 and less than 0.5, usually 0.05.")
    found = endpoints(comparison, margins)
    prompts = len(comparison.prompts)
    tests = [[_test(side, method, seed, alpha) for side in endpoint.sides()] for endpoint in found]
    hypotheses = sum(len(sides) for sides in tests)
    failed = _holm([p for sides in tests for _, p in sides], alpha)
    unsafe = method != "betting" and prompts < SAFE_PROMPTS
    results = []
    for endpoint, sides in zip(found, tests, strict=True):
        fails = [failed.pop(0) for _ in sides]
        shown = max(p for p, _ in sides) <= alpha
        outcome: Outcome = "fail" if any(fails) else "pass" if shown and not unsafe else "inconclusive"
        results.append(
            _result(endpoint, outcome, sides, comparison, method=method, alpha=alpha, seed=seed, hypotheses=hypotheses)
        )
    collapse = None if verdicts is None else collapse_endpoint(*verdicts)
    notes = []
    if unsafe:
        notes.append(f"{prompts} prompts are too few to pass on; at least {SAFE_PROMPTS} are needed.")
    outcomes = [result.outcome for result in results] + ([] if collapse is None else [collapse.outcome])
    return GateResult(
        outcome=overall(outcomes),
        endpoints=tuple(results),
        collapse=collapse,
        prompts=prompts,
        samples=comparison.samples,
        alpha=alpha,
        method=method,
        blind_spot=1 - alpha ** (1 / prompts),
        notes=tuple(notes),
    )


def overall(outcomes: list[Outcome]) -> Outcome:
    """Any fail fails; all must pass to pass."""
    if "fail" in outcomes:
        return "fail"
    return "pass" if outcomes and all(outcome == "pass" for outcome in outcomes) else "inconclusive"


def collapse_endpoint(reference: Verdict, quantized: Verdict) -> CollapseResult:
    """Pass if unchanged; fail if it changed and both verdicts are certain, or if only the quantized model collapsed."""
    if reference.name == quantized.name:
        return CollapseResult("pass", reference, quantized)
    certain = quantized.certain and (reference.certain or quantized.name == "collapsed")
    return CollapseResult("fail" if certain else "inconclusive", reference, quantized)


def _test(side: Side, method: Method, seed: int, alpha: float) -> tuple[float, float]:
    """p-values of "mean x <= 0" (small: within the margin) and "mean x >= 0" (small: beyond it)."""
    if method == "permutation":
        test = sign_flip(side.x, seed=seed)
        return test.greater, test.less
    if method == "betting":
        order = np.random.default_rng(seed).permutation(side.x.size)
        bettor = bet_on(side.x[order], side.low, side.high)
        return bettor.p_up(), bettor.p_down()
    return _bootstrap_p(side, seed, alpha)


def _bootstrap_p(side: Side, seed: int, alpha: float) -> tuple[float, float]:
    """The smallest one-sided level of a short ladder at which the BCa interval excludes 0; 1 if none does."""
    ladder = [alpha / 2**step for step in range(5)]
    greater = less = 1.0
    if np.ptp(side.x) == 0:  # nothing to resample: every replicate is this value
        value = float(side.x[0])
        return (ladder[-1] if value > 0 else 1.0), (ladder[-1] if value < 0 else 1.0)
    ends = bca_at(side.x[:, None], weighted_mean, [1 - 2 * level for level in ladder], seed=seed)
    for level, (low, high) in zip(ladder, ends, strict=True):
        greater, less = (level if low > 0 else greater), (level if high < 0 else less)
    return greater, less


def _holm(p_values: list[float], alpha: float) -> list[bool]:
    """Which hypotheses Holm's procedure rejects."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def _decider_of_bets(prompts: int, sides: list[tuple[float, float]], alpha: float, hypotheses: int) -> Decider:
    """Prompts by the rate at which the bets have grown; samples are not known to help."""
    to_pass = max(further_bets(-math.log(p), math.log(1 / alpha), prompts) for p, _ in sides)
    to_fail = min(further_bets(-math.log(p), math.log(hypotheses / alpha), prompts) for _, p in sides)
    further = min(to_pass, to_fail)
    count = max(1, math.ceil(further)) if further <= MOST else None
    return Decider(None if count is None else prompts + count, count, None, None)


def _result(
    endpoint: Endpoint,
    outcome: Outcome,
    sides: list[tuple[float, float]],
    comparison: Comparison,
    *,
    method: Method,
    alpha: float,
    seed: int,
    hypotheses: int,
) -> EndpointResult:
    d, prompts = endpoint.differences, len(comparison.prompts)
    change = prompt_mean(d, low=-endpoint.bound, high=endpoint.bound, level=1 - alpha, seed=seed)
    parts = components(d, endpoint.halves, comparison.samples)
    error = math.sqrt(parts.variance(prompts, comparison.samples))
    decide_it = None
    if outcome == "inconclusive":
        # The side nearest to its margin is the one that is open.
        distance = min(float(side.x.mean()) for side in endpoint.sides())
        level = alpha if distance > 0 else alpha / hypotheses
        decide_it = decider(parts, abs(distance), prompts, alpha=level)
        if distance > 0 and prompts < SAFE_PROMPTS:
            decide_it = _at_least_safe(decide_it, prompts)
        if method == "betting":
            decide_it = _decider_of_bets(prompts, sides, alpha, hypotheses)
    interval = change.interval
    if interval is not None:
        ends = (endpoint.shown(interval.low), endpoint.shown(interval.high))
        interval = Interval(ends[0], ends[1], interval.level, interval.method)
    name = "tokens" if endpoint.name == "length" else endpoint.name
    return EndpointResult(
        name=endpoint.name,
        outcome=outcome,
        reference=float(getattr(comparison.reference, name).mean()),
        quantized=float(getattr(comparison.quantized, name).mean()),
        change=Estimate(endpoint.shown(change.value), interval),
        margin=endpoint.shown(endpoint.margin),
        p_pass=max(p for p, _ in sides),
        p_fail=min(p for _, p in sides),
        decide=decide_it,
        power=_power(endpoint, error, prompts, method=method, alpha=alpha, seed=seed),
    )


def _at_least_safe(found: Decider, prompts: int) -> Decider:
    """No number of samples lets a model pass on too few prompts."""
    if found.prompts is None:
        return replace(found, samples=None, further_samples=None)
    total = max(found.prompts, SAFE_PROMPTS)
    return Decider(total, total - prompts, None, None)


def _power(endpoint: Endpoint, error: float, prompts: int, *, method: Method, alpha: float, seed: int) -> float:
    """P(pass) of a model that is no different, with the spread over prompts that was found."""
    if method == "betting":
        d = endpoint.differences
        unchanged = replace(endpoint, differences=np.clip(d - d.mean(), -endpoint.bound, endpoint.bound))
        sides = [(side.x, side.low) for side in unchanged.sides()]
        return chance_of_wealth(sides, math.log(1 / alpha), seed=seed)
    if prompts < SAFE_PROMPTS:
        return 0.0
    return power_curve([0.0], endpoint.margin, error, alpha, equivalence=endpoint.equivalence)[0]
