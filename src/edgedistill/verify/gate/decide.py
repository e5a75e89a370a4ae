"""The verdict on a quantized model: pass, fail, or inconclusive with what would decide it.

Passing takes every endpoint shown within its margin, each at alpha: an intersection-union test, so alpha is not split.
Failing takes one endpoint shown beyond its margin; since any one would do, the hypotheses share alpha (Holm 1979, by
``endpoints.WEIGHTS``). A difference that is merely not significant decides nothing.

Every test is a bet on bounded observations (``stats.betting``), valid at any number of them, whatever their
distribution. The estimand is one of two:

- ``suite``: these prompts. Samples are the observations; only the noise of sampling counts. The question of a
  regression test.
- ``population``: prompts like these. Prompts are the observations, a random sample; harm may be rare and total. The
  question of a release.

The interval of an endpoint is the test's own inversion: within the margin exactly if the endpoint passes, beyond it
exactly if it fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgedistill.errors import EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_OK, VerifyError
from edgedistill.verify.gate.endpoints import endpoints
from edgedistill.verify.stats.betting import holm
from edgedistill.verify.types import Estimate, Interval

if TYPE_CHECKING:
    from edgedistill.verify.gate.endpoints import Endpoint, Estimand, Margins
    from edgedistill.verify.metrics.collapse_verdict import Verdict
    from edgedistill.verify.metrics.paired import Comparison

Outcome = Literal["pass", "fail", "inconclusive"]
Method = Literal["permutation", "bootstrap", "betting"]
"""Earlier reports hold the first two."""

ALPHA = 0.05
POWER = 0.8
MOST = 1_000_000
"""Beyond this many prompts or samples the answer is "not in practice" (None)."""

BLIND = 0.1
"""Of the largest distance that a prompt's answers could have, below which a change of all of them hardly counts."""

PAIRED = ("distance", "agreement", "entropy")
"""Endpoints of which two samples of a prompt are one observation: an odd one out counts for nothing."""

EXIT_CODES: dict[Outcome, int] = {"pass": EXIT_OK, "fail": EXIT_FAIL, "inconclusive": EXIT_INCONCLUSIVE}


@dataclass(frozen=True, slots=True)
class Decider:
    """What would decide an endpoint at 80 % power if the truth is as observed: prompts *or* samples, in all and
    further. None: not in practice (more than a million), or no answer to the question that was asked.
    """

    prompts: int | None
    further_prompts: int | None
    samples: int | None
    further_samples: int | None


@dataclass(frozen=True, slots=True)
class EndpointResult:
    """One endpoint.

    Attributes:
        name: Which.
        outcome: Its own outcome.
        reference, quantized: Means over prompts; for length and tokens in tokens, for entropy in bits (NaN if no two
            answers agree); NaN for the distance, which no model has by itself.
        change: The difference (for length and tokens the ratio) with the interval that the test inverts to.
        margin: The limit of ``change`` (for equivalence: of its size; for length and tokens: the ratio).
        p_pass: The largest p-value of "not within the margin" of its sides; p_fail: the smallest of "within it".
        decide: What would decide it, if inconclusive.
        power: P(pass) if the truth is no difference, at the spread that was observed.
        least: For length and tokens: the smallest ratio that passes; 0 for none.
        direction: better, worse, higher or lower where the interval excludes no difference; else empty.
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
    least: float = 0.0
    direction: str = ""


@dataclass(frozen=True, slots=True)
class CollapseResult:
    """The endpoint "verdict of the collapse audit unchanged"."""

    outcome: Outcome
    reference: Verdict
    quantized: Verdict


@dataclass(frozen=True, slots=True)
class GateResult:
    """The whole verdict. ``blind_spot``: harm on fewer than this share of prompts may have gone unseen (of the
    population). ``estimand``: what it is about; reports before schema 4 hold none and are about the population.
    """

    outcome: Outcome
    endpoints: tuple[EndpointResult, ...]
    collapse: CollapseResult | None
    prompts: int
    samples: int
    alpha: float
    method: Method
    blind_spot: float
    notes: tuple[str, ...] = ()
    estimand: Estimand = "population"

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive."""
        return EXIT_CODES[self.outcome]

    @property
    def further_prompts(self) -> int | None:
        """Further prompts that would decide every undecided endpoint at 80 % power; None: not in practice, or none
        needed.
        """
        return self._further("further_prompts")

    @property
    def further_samples(self) -> int | None:
        """The same in samples a prompt."""
        return self._further("further_samples")

    def _further(self, what: str) -> int | None:
        wanted = [getattr(result.decide, what) for result in self.endpoints if result.decide is not None]
        if self.outcome != "inconclusive" or None in wanted:
            return None
        return max(wanted, default=None)


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of a run that may end at several points, each a part of alpha: of each endpoint's test to pass
    (``within``), and of all tests to fail together (``beyond``).
    """

    within: float = ALPHA
    beyond: float = ALPHA


def require_alpha(alpha: float) -> None:
    """Raises VerifyError for an alpha that makes no sense."""
    if not 0 < alpha < 0.5:
        raise VerifyError(f"alpha is {alpha:g}; expected more than 0 and less than 0.5, usually 0.05.")


def decide(
    comparison: Comparison,
    margins: Margins,
    *,
    verdicts: tuple[Verdict, Verdict] | None = None,
    alpha: float = ALPHA,
    estimand: Estimand = "suite",
    sequential: bool = False,
    levels: Levels | None = None,
) -> GateResult:
    """Decide; deterministic.

    Args:
        comparison: Both models on the same prompts (``paired.compare``).
        margins: Validated here.
        verdicts: Of the collapse audit, (reference, quantized); None where the suite allows none.
        alpha: Of each one-sided test; in (0, 0.5).
        estimand: See the module.
        sequential: Prompts came in random order, and somebody looked on the way: population only.
        levels: Of this look at a run that may end at several points; by default alpha for either.

    Raises:
        VerifyError: margins or alpha that make no sense; a sequential run about these prompts.
    """
    require_alpha(alpha)
    if sequential and estimand == "suite":
        raise VerifyError("A sequential run samples its prompts; expected estimand `population`.")
    found = endpoints(comparison, margins, estimand, ordered=sequential)
    within = [endpoint.within() for endpoint in found]
    beyond = [endpoint.beyond() for endpoint in found]
    shared = levels or Levels(alpha, alpha)
    weights = [weight for endpoint in found for weight in endpoint.shares()]
    rejected, each = holm([p for sides in beyond for p in sides], shared.beyond, weights)
    how = _How(comparison, shared.within, estimand, sequential)
    results, at = [], 0
    for endpoint, passing, failing in zip(found, within, beyond, strict=True):
        part = slice(at, at + len(failing))
        at += len(failing)
        within_limits = max(passing) <= shared.within
        outcome: Outcome = "fail" if any(rejected[part]) else "pass" if within_limits else "inconclusive"
        results.append(_result(endpoint, outcome, (max(passing), min(failing)), each[part], how))
    results, notes = _blind_prompts(results, comparison, margins)
    collapse = None if verdicts is None else collapse_endpoint(*verdicts)
    outcomes = [result.outcome for result in results] + ([] if collapse is None else [collapse.outcome])
    return GateResult(
        outcome=overall(outcomes),
        endpoints=tuple(results),
        collapse=collapse,
        prompts=len(comparison.prompts),
        samples=comparison.samples,
        alpha=alpha,
        method="betting",
        blind_spot=1 - alpha ** (1 / len(comparison.prompts)),
        notes=notes,
        estimand=estimand,
    )


def _blind_prompts(
    results: list[EndpointResult], comparison: Comparison, margins: Margins
) -> tuple[list[EndpointResult], tuple[str, ...]]:
    """The distance decides nothing where too many prompts have no answer that comes twice: D is at most C_q + C_p.

    With gold answers accuracy watches these prompts: one with a right answer of any frequency is none of them.
    """
    blind = comparison.reference.agreement + comparison.quantized.agreement < BLIND
    if comparison.accuracy is not None or blind.mean() <= margins.distance / 2:
        return results, ()
    told = (
        f"On {blind.sum()} of {blind.size} prompts hardly any two samples agree: if all of these answers had become "
        "others, the distance of answers would not show it, and without gold answers nothing else would."
    )
    return [
        replace(row, outcome="inconclusive", decide=Decider(None, None, None, None))
        if row.name == "distance" and row.outcome == "pass"
        else row
        for row in results
    ], (told,)


def observed(name: str, samples: int) -> int:
    """Independent observations of an endpoint in so many samples of a prompt."""
    return samples // 2 if name in PAIRED else samples


def overall(outcomes: list[Outcome]) -> Outcome:
    """Any fail fails; all must pass to pass."""
    if "fail" in outcomes:
        return "fail"
    return "pass" if outcomes and all(outcome == "pass" for outcome in outcomes) else "inconclusive"


def collapse_endpoint(reference: Verdict, quantized: Verdict) -> CollapseResult:
    """Pass if unchanged; fail if it changed and both verdicts are certain, or if only the quantized model collapsed."""
    if reference.name == quantized.name:
        return CollapseResult("pass", reference, quantized)
    certain = quantized.certain and (reference.certain or quantized.name in ("collapsed", "partly-collapsed"))
    return CollapseResult("fail" if certain else "inconclusive", reference, quantized)


def ends(endpoint: Endpoint, outcome: Outcome, levels: list[float], alpha: float) -> tuple[float, float, float]:
    """The interval of the parameter that agrees with the outcome, and its level.

    The lower end tells whether the lower limit is kept (at alpha) and whether the upper one is exceeded (at Holm's
    level), the upper end the reverse. Where an end has both tasks it is the narrower one if the endpoint passes, and
    the wider one otherwise, which is then neither within the margin nor, unless it fails, beyond it.
    """
    of_low = levels[0] if endpoint.low is not None else None
    of_high = levels[-1] if endpoint.high is not None else None
    low_alpha = alpha if of_high is None or (outcome == "pass" and endpoint.low is not None) else of_high
    high_alpha = alpha if of_low is None or (outcome == "pass" and endpoint.high is not None) else of_low
    low, high = endpoint.bets.lower(low_alpha), endpoint.bets.upper(high_alpha)
    if outcome == "pass":  # bisection stops a hair short of the limit
        low = low if endpoint.low is None else max(low, endpoint.low)
        high = high if endpoint.high is None else min(high, endpoint.high)
    return low, high, 1 - low_alpha - high_alpha


@dataclass(frozen=True, slots=True)
class _How:
    """What all endpoints have in common."""

    comparison: Comparison
    alpha: float
    estimand: Estimand
    sequential: bool


def _result(
    endpoint: Endpoint, outcome: Outcome, p: tuple[float, float], levels: list[float], how: _How
) -> EndpointResult:
    low, high, level = ends(endpoint, outcome, levels, how.alpha)
    shown = sorted((endpoint.shown(low), endpoint.shown(high)))
    method = "betting, samples of these prompts" if how.estimand == "suite" else "betting, prompts"
    interval = Interval(shown[0], shown[1], level, f"{method}, sequential" if how.sequential else method)
    before, after = _means(endpoint, how.comparison)
    limit = endpoint.high if endpoint.high is not None else -(endpoint.low or 0.0)
    return EndpointResult(
        name=endpoint.name,
        outcome=outcome,
        reference=before,
        quantized=after,
        change=Estimate(_finite(endpoint.shown(endpoint.bets.estimate)), interval),
        margin=round(math.log2(limit), 12) if endpoint.name == "entropy" else endpoint.shown(limit),
        p_pass=p[0],
        p_fail=p[1],
        decide=_decider(endpoint, levels[0], how) if outcome == "inconclusive" else None,
        power=endpoint.power(endpoint.null, how.alpha),
        least=0.0
        if endpoint.name not in ("length", "tokens") or endpoint.low is None
        else (1 + endpoint.low if endpoint.name == "length" else endpoint.low),
        direction=_direction(endpoint, low, high),
    )


def _direction(endpoint: Endpoint, low: float, high: float) -> str:
    if low <= endpoint.null <= high:
        return ""
    more = low > endpoint.null
    if endpoint.name == "accuracy":
        return "better" if more else "worse"
    if endpoint.name == "garbage":
        return "worse" if more else "better"
    if endpoint.name == "entropy":
        more = not more  # the parameter is the ratio of the agreements
    return "higher" if more else "lower"


def _means(endpoint: Endpoint, comparison: Comparison) -> tuple[float, float]:
    if endpoint.name == "distance":
        return math.nan, math.nan
    name = {"length": "tokens", "entropy": "agreement"}.get(endpoint.name, endpoint.name)
    means = [float(np.mean(getattr(model, name))) for model in (comparison.reference, comparison.quantized)]
    if endpoint.name == "entropy":
        means = [_finite(endpoint.shown(mean)) for mean in means]
    return means[0], means[1]


def _finite(value: float) -> float:
    """NaN for the entropy of answers of which no two agree: it is beyond what the samples can tell."""
    return value if math.isfinite(value) else math.nan


def _decider(endpoint: Endpoint, level: float, how: _How) -> Decider:
    """The fewest observations that decide at 80 % power: samples of these prompts, or prompts like these."""
    truth = endpoint.bets.estimate
    inside = (endpoint.low is None or truth > endpoint.low) and (endpoint.high is None or truth < endpoint.high)

    def chance(scale: float) -> float:
        return endpoint.power(truth, how.alpha, scale=scale) if inside else endpoint.power_to_fail(level, scale=scale)

    suite = how.estimand == "suite"
    have = observed(endpoint.name, how.comparison.samples) if suite else len(how.comparison.prompts)
    most = MOST / have
    if not math.isfinite(truth) or chance(most) < POWER:
        return Decider(None, None, None, None)
    low, high = 0.0, math.log(most)
    for _ in range(24):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if chance(math.exp(middle)) >= POWER else (middle, high)
    total = math.ceil(have * math.exp(high))
    if not suite:
        return Decider(total, total - have, None, None)
    total *= 2 if endpoint.name in PAIRED else 1
    return Decider(None, None, total, total - how.comparison.samples)
