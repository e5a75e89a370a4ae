"""The gate's decision in sentences: why, what could have been seen, what would decide it; and its power curves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.gate.decide import overall
from edgedistill.verify.gate.endpoints import endpoints
from edgedistill.verify.report.model import GateReport, PowerCurve
from edgedistill.verify.stats.power import components, power_curve, smallest_effect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.verify.gate.decide import EndpointResult, GateResult, Outcome
    from edgedistill.verify.gate.endpoints import Endpoint, Margins
    from edgedistill.verify.gate.sequential import SequentialState
    from edgedistill.verify.metrics.paired import Comparison

LABELS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "agreement": "agreement C",
    "entropy": "answer entropy",
    "length": "length ratio",
    "garbage": "truncated or unparsed",
    "collapse": "collapse verdict",
}
_POINTS = 41


def gate_report(
    result: GateResult,
    comparison: Comparison,
    margins: Margins,
    *,
    sequential: SequentialState | None = None,
    deterministic: bool = False,
) -> GateReport:
    """Put a decision into words.

    Args:
        result: Of ``gate.decide`` on the comparison and margins.
        sequential: The state in which a sequential run stopped; its outcomes then replace those of ``result``.
        deterministic: Decoding left no choice: agreement and entropy are then not scored, and the gate cannot pass.
    """
    if sequential is not None:
        result = _stopped(result, sequential)
    if deterministic:
        result = _unscored(result)
    found = endpoints(comparison, margins)
    return GateReport(
        result=result,
        reasons=_reasons(result, deterministic=deterministic),
        power=_power(result, found, comparison),
        decide=_decide(result, sequential, deterministic=deterministic),
        curves=tuple(_curve(endpoint, comparison, result.alpha) for endpoint in found),
        sequential=sequential,
    )


def _stopped(result: GateResult, state: SequentialState) -> GateResult:
    stopped: dict[str, Outcome] = dict(state.endpoints.items())
    rows = tuple(replace(row, outcome=stopped[row.name]) for row in result.endpoints)
    outcomes = [row.outcome for row in rows] + ([] if result.collapse is None else [result.collapse.outcome])
    return replace(result, endpoints=rows, outcome=overall(outcomes))


def _unscored(result: GateResult) -> GateResult:
    rows = tuple(
        replace(row, outcome="inconclusive", decide=None, power=0.0) if row.name in ("agreement", "entropy") else row
        for row in result.endpoints
    )
    outcomes: list[Outcome] = [row.outcome for row in rows]
    return replace(result, endpoints=rows, outcome="fail" if "fail" in outcomes else "inconclusive")


def _reasons(result: GateResult, *, deterministic: bool) -> tuple[str, ...]:
    reasons = []
    if deterministic:
        reasons.append(
            "Decoding was deterministic, so every model agrees with itself: agreement and entropy were not scored."
        )
    for row in result.endpoints:
        if row.outcome == "pass" or (deterministic and row.name in ("agreement", "entropy")):
            continue
        found = f"{LABELS[row.name]}: {change_text(row)}, margin {margin_text(row)}"
        reasons.append(f"{found}: {'shown to be beyond it' if row.outcome == 'fail' else 'not decided'}.")
    if result.collapse is not None and result.collapse.outcome != "pass":
        before, after = result.collapse.reference.name, result.collapse.quantized.name
        word = "shown" if result.collapse.outcome == "fail" else "not certain"
        reasons.append(f"collapse verdict: {before or 'none'} before, {after or 'none'} after ({word}).")
    if result.outcome == "pass":
        reasons.append(f"Every endpoint was shown to be within its margin (alpha {result.alpha:g} each).")
    return (*reasons, *result.notes)


def change_text(row: EndpointResult) -> str:
    """An endpoint's change with its interval, in its unit."""
    interval, number, unit = row.change.interval, _NUMBERS[row.name], _UNITS[row.name]
    text = number(row.change.value, "+")
    if interval is not None:
        text = f"{text} [{number(interval.low, '+')}, {number(interval.high, '+')}]"
    return text + unit


def margin_text(row: EndpointResult) -> str:
    """An endpoint's margin with the direction it guards."""
    sign = {"accuracy": "-", "length": "at most ", "garbage": "+"}.get(row.name, "±")
    return f"{sign}{_NUMBERS[row.name](row.margin, '')}{_UNITS[row.name]}"


def value_text(row: EndpointResult, value: float) -> str:
    """A model's own value of an endpoint."""
    if row.name == "length":
        return f"{value:.1f} tokens"
    if row.name in ("accuracy", "garbage"):
        return f"{100 * value:.1f} %"
    return f"{value:.3f}{_UNITS[row.name]}"


def _points(value: float, sign: str) -> str:
    return f"{100 * value:{sign}.2f}"


def _plain(value: float, sign: str) -> str:
    return "unbounded" if math.isinf(value) else f"{value:{sign}.3f}"


def _ratio(value: float, _: str) -> str:
    return "unbounded" if math.isinf(value) else f"{value:.3f}x"


_NUMBERS = {"accuracy": _points, "agreement": _plain, "entropy": _plain, "length": _ratio, "garbage": _points}
_UNITS = {"accuracy": " points", "agreement": "", "entropy": " bits", "length": "", "garbage": " points"}


def _power(result: GateResult, found: tuple[Endpoint, ...], comparison: Comparison) -> str:
    """What this many prompts and samples would show with 80 % power, and how rare a harm escapes them."""
    parts = []
    prompts = len(comparison.prompts)
    for endpoint in found:
        split = components(endpoint.differences, endpoint.halves, comparison.samples)
        effect = endpoint.shown(min(smallest_effect(split, prompts, alpha=result.alpha), endpoint.bound))
        parts.append(f"{LABELS[endpoint.name]} {_NUMBERS[endpoint.name](effect, '')}{_UNITS[endpoint.name]}")
    shown = "Shown with 80 % power is a distance to the margin of"
    if result.method == "betting":
        shown = (
            "Looked at once instead of after every step, they would show with 80 % power a distance to the margin of"
        )
    chance = min((row.power for row in result.endpoints), default=math.nan)
    return (
        f"With {prompts} prompts of {comparison.samples} samples an unchanged model would pass the hardest endpoint "
        f"with probability {chance:.2f}. {shown}: {', '.join(parts)}. "
        f"A harm on fewer than {100 * result.blind_spot:.1f} % of prompts may have struck none of these."
    )


def _decide(result: GateResult, state: SequentialState | None, *, deterministic: bool) -> str:
    if result.outcome != "inconclusive":
        return ""
    if deterministic:
        return "A run with a temperature above 0 would decide it."
    if state is not None and state.further_prompts:
        wanted = _further(state.further_prompts, "prompt")
        return f"About {wanted} would decide it at the rate at which evidence has grown."
    parts = []
    for row in result.endpoints:
        if row.outcome != "inconclusive" or row.decide is None:
            continue
        ways = []
        if row.decide.further_prompts:
            ways.append(_further(row.decide.further_prompts, "prompt"))
        if row.decide.further_samples:
            ways.append(_further(row.decide.further_samples, "sample") + " a prompt")
        parts.append(f"{LABELS[row.name]}: {' or '.join(ways) or 'nothing in practice, the change is at the margin'}")
    if result.further_prompts:
        every = _further(result.further_prompts, "prompt")
        parts.insert(0, f"{every} would decide every endpoint at 80 % power")
    if result.collapse is not None and result.collapse.outcome == "inconclusive":
        parts.append("collapse verdict: more prompts, until the intervals of both models clear the thresholds")
    if not parts:
        return "More prompts would decide it; their number cannot be told from these."
    return f"{'; '.join(parts)}."


def _further(count: int, what: str) -> str:
    return f"{count} further {what}{'' if count == 1 else 's'}"


def _curve(endpoint: Endpoint, comparison: Comparison, alpha: float) -> PowerCurve:
    """From no change to twice the margin, harm counted positive."""
    split = components(endpoint.differences, endpoint.halves, comparison.samples)
    error = math.sqrt(split.variance(len(comparison.prompts), comparison.samples))
    effects = np.linspace(0.0, min(2 * endpoint.margin, 0.99 * endpoint.bound), _POINTS)
    power = power_curve(effects, endpoint.margin, error, alpha, equivalence=endpoint.equivalence)
    return PowerCurve(endpoint.name, tuple(endpoint.shown(effect) for effect in effects.tolist()), power)
