"""Describes the gate's decision in sentences: what it is about, its reasons, its power, and what would decide it.

It also computes the power curves and describes the audits of the samplers.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.gate.decide import observed
from edgedistill.verify.gate.endpoints import endpoints
from edgedistill.verify.report.model import GateReport, PowerCurve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgedistill.verify.gate.decide import EndpointResult, GateResult, Outcome
    from edgedistill.verify.gate.endpoints import Endpoint, Estimand, Margins
    from edgedistill.verify.gate.sequential import SequentialState
    from edgedistill.verify.metrics.paired import Comparison
    from edgedistill.verify.report.model import VerifyReport
    from edgedistill.verify.stats.sampler_audit import SamplerAudit

LABELS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "distance": "distance of answers",
    "agreement": "agreement C",
    "entropy": "collision entropy",
    "length": "length, typical ratio",
    "tokens": "length, total tokens",
    "garbage": "truncated or unparsed",
    "collapse": "collapse verdict",
}
_POINTS = 41
_LITTLE_COVERAGE = 0.5
_VARIES = {True: "seeds differ", False: "seeds do not differ", None: "too little choice to tell seeds apart"}


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
        sequential: The state in which a sequential run stopped.
        deterministic: Decoding left no choice: agreement and entropy are then not scored, and the gate cannot pass.
    """
    if deterministic:
        result = _unscored(result)
    found = endpoints(comparison, margins, result.estimand, ordered=sequential is not None)
    return GateReport(
        result=result,
        reasons=_reasons(result, comparison, deterministic=deterministic),
        power=_power(result, found),
        decide=_decide(result, sequential, deterministic=deterministic),
        curves=tuple(_curve(endpoint, result.alpha) for endpoint in found),
        sequential=sequential,
    )


def _unscored(result: GateResult) -> GateResult:
    rows = tuple(
        replace(row, outcome="inconclusive", decide=None, power=0.0) if row.name in ("agreement", "entropy") else row
        for row in result.endpoints
    )
    outcomes: list[Outcome] = [row.outcome for row in rows]
    return replace(result, endpoints=rows, outcome="fail" if "fail" in outcomes else "inconclusive")


def estimand_text(estimand: Estimand, prompts: int) -> str:
    """What a verdict is about, in a sentence."""
    if estimand == "suite":
        return (
            f"The verdict is about these {prompts} prompts: it accounts for the noise of sampling and says nothing "
            "about other prompts (--estimand population does)."
        )
    return f"The verdict is about prompts like these: the {prompts} that were asked count as a random sample of them."


def _reasons(result: GateResult, comparison: Comparison, *, deterministic: bool) -> tuple[str, ...]:
    reasons = [estimand_text(result.estimand, result.prompts)]
    if deterministic:
        reasons.append(
            "Decoding was deterministic, so every model agrees with itself: agreement and entropy were not scored."
        )
    better = [LABELS[row.name] for row in result.endpoints if row.direction == "better"]
    worse = any(row.direction == "worse" for row in result.endpoints)
    if better:
        also = "" if worse else " and nothing was shown to be worse"
        reasons.append(f"The bundle is better than the reference in {' and '.join(better)}{also}.")
    for row in result.endpoints:
        if row.outcome == "pass" or (deterministic and row.name in ("agreement", "entropy")):
            continue
        told = f"{LABELS[row.name]}: {change_text(row)}, margin {margin_text(row)}"
        word = f"shown to be beyond it ({row.direction})" if row.direction else "shown to be beyond it"
        reasons.append(f"{told}: {word if row.outcome == 'fail' else 'not decided'}.")
    reasons += _flips(comparison)
    reasons += _few_seen(result, comparison)
    if result.collapse is not None and result.collapse.outcome != "pass":
        before, after = result.collapse.reference, result.collapse.quantized
        word = "shown" if result.collapse.outcome == "fail" else "not certain"
        reasons.append(f"collapse verdict: {before.name or 'none'} before, {after.name or 'none'} after ({word}).")
        if after.name in ("collapsed", "partly-collapsed"):
            reasons.append(after.reason)
    if result.outcome == "pass":
        reasons.append(f"Every endpoint was shown to be within its margin (alpha {result.alpha:g} each).")
    return (*reasons, *result.notes)


def _flips(comparison: Comparison) -> list[str]:
    """A sentence on samples that changed between right and wrong, which an unchanged accuracy can hide."""
    if comparison.accuracy is None:
        return []
    lost, _, gained = comparison.accuracy.weights.mean(axis=0)
    if lost == gained == 0:
        return []
    return [f"Of the paired samples {100 * lost:.1f} % turned from right to wrong, {100 * gained:.1f} % the other way."]


def _few_seen(result: GateResult, comparison: Comparison) -> list[str]:
    """A sentence if most answers occurred once, which leaves the entropies undecided."""
    entropy = next((row for row in result.endpoints if row.name == "entropy"), None)
    seen = min(float(comparison.reference.coverage.mean()), float(comparison.quantized.coverage.mean()))
    if entropy is None or entropy.outcome != "inconclusive" or seen >= _LITTLE_COVERAGE:
        return []
    wanted = entropy.decide.samples if entropy.decide is not None else None
    more = f"; about {wanted} samples a prompt would decide it" if wanted else ""
    return [
        f"Most answers occurred once: those that occurred more often hold {100 * seen:.0f} % of the probability "
        f"(Good-Turing coverage), which is too little to compare entropies{more}."
    ]


def change_text(row: EndpointResult) -> str:
    """An endpoint's change with its interval, in its unit."""
    interval, number, unit = row.change.interval, _NUMBERS[row.name], _UNITS[row.name]
    text = "not measured" if math.isnan(row.change.value) else number(row.change.value, "+")
    if interval is not None:
        text = f"{text} [{number(interval.low, '+')}, {number(interval.high, '+')}]"
    return text + unit


def margin_text(row: EndpointResult) -> str:
    """An endpoint's margin with the direction it guards."""
    number = _NUMBERS[row.name](row.margin, "")
    if row.least:
        return f"{_NUMBERS[row.name](row.least, '')} to {number}"
    sign = {"accuracy": "-", "length": "at most ", "tokens": "at most ", "distance": "at most ", "garbage": "+"}
    return f"{sign.get(row.name, '±')}{number}{_UNITS[row.name]}"


def value_text(row: EndpointResult, value: float) -> str:
    """A model's own value of an endpoint; a dash for none."""
    if math.isnan(value):
        return "-"
    if row.name in ("length", "tokens"):
        return f"{value:.1f} tokens"
    if row.name in ("accuracy", "garbage"):
        return f"{100 * value:.1f} %"
    return f"{value:.3f}{_UNITS[row.name]}"


def _points(value: float, sign: str) -> str:
    return f"{round(100 * value, 2) + 0.0:{sign}.2f}"


def _plain(value: float, sign: str) -> str:
    return "unbounded" if math.isinf(value) else f"{round(value, 3) + 0.0:{sign}.3f}"


def _ratio(value: float, _: str) -> str:
    return "unbounded" if math.isinf(value) else f"{value:.3f}x"


_NUMBERS = {
    "accuracy": _points, "distance": _plain, "agreement": _plain, "entropy": _plain, "length": _ratio,
    "tokens": _ratio, "garbage": _points,
}  # fmt: skip
_UNITS = {
    "accuracy": " points", "distance": "", "agreement": "", "entropy": " bits", "length": "", "tokens": "",
    "garbage": " points",
}  # fmt: skip


def _power(result: GateResult, found: Sequence[Endpoint]) -> str:
    """A sentence on how likely an unchanged model would have passed, now and with the size that would decide, and for
    the population on how rare a harm may not show on these prompts.
    """
    hardest = min(result.endpoints, key=lambda row: row.power)
    text = (
        f"With {result.prompts} prompts of {result.samples} samples a model that did not change, with the spread of "
        f"this one, would pass the hardest endpoint ({LABELS[hardest.name]}) with probability {hardest.power:.2f}"
    )
    text += f"{_larger(result, next((one for one in found if one.name == hardest.name), None))}."
    if result.estimand == "suite":
        return text
    return f"{text} Harm to fewer than {100 * result.blind_spot:.1f} % of prompts may not show on any of these."


def _larger(result: GateResult, hardest: Endpoint | None) -> str:
    """The same probability with the size that would decide; it can be far larger."""
    prompts, samples = result.further_prompts, result.further_samples
    if hardest is None or not (prompts or samples):
        return ""
    if prompts:
        scale, what = 1 + prompts / result.prompts, f"{result.prompts + prompts} prompts"
    else:
        total = result.samples + (samples or 0)
        scale, what = observed(hardest.name, total) / observed(hardest.name, result.samples), f"{total} samples of each"
    return f"; with {what}, {hardest.power(hardest.null, result.alpha, scale=scale):.2f}"


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
            ways.append(f"{_further(row.decide.further_samples, 'sample')} a prompt")
        parts.append(f"{LABELS[row.name]}: {' or '.join(ways) or 'nothing in practice, the change is at the margin'}")
    every = (result.further_prompts, "prompt", "") if result.further_prompts else (
        result.further_samples, "sample", " a prompt"
    )  # fmt: skip
    if every[0]:
        most = f"{_further(every[0], every[1])}{every[2]}"
        parts.insert(0, f"{most} would decide every endpoint at 80 % power if the truth is as observed")
    if result.collapse is not None and result.collapse.outcome == "inconclusive":
        parts.append("collapse verdict: more prompts, until the intervals of both models clear the thresholds")
    if not parts:
        return "More prompts would decide it; these do not show how many."
    return f"{'; '.join(parts)}."


def _further(count: int, what: str) -> str:
    return f"{count} further {what}{'' if count == 1 else 's'}"


def _curve(endpoint: Endpoint, alpha: float) -> PowerCurve:
    """P(pass) for true changes from none to twice the margin, on the side that has a limit."""
    limit = endpoint.high if endpoint.high is not None else endpoint.low
    far = endpoint.null + 2 * ((limit or 0.0) - endpoint.null)
    far = min(max(far, endpoint.bets.low + 0.01), 0.99 * endpoint.bets.high if endpoint.bets.bottom is None else far)
    if endpoint.name == "entropy":  # a rise is a ratio below 1
        far = endpoint.low**2 if endpoint.low is not None else far
    truths = np.linspace(endpoint.null, far, _POINTS).tolist()
    sign = -1.0 if endpoint.name == "accuracy" else 1.0  # harm counts positive
    power = [endpoint.power(truth, alpha) for truth in truths]
    falling = np.minimum.accumulate(power).tolist()
    return PowerCurve(endpoint.name, tuple(sign * endpoint.shown(truth) for truth in truths), tuple(falling))


def audit_text(audit: SamplerAudit) -> str:
    """The result of an audit in half a line."""
    repeats = "the same seed repeats" if audit.reproduces else "the same seed does not repeat"
    return f"{repeats}, {_VARIES[audit.varies]}, chi-square p {audit.chi_square.p_value:.3g}"


def samplers_text(report: VerifyReport) -> str:
    """A sentence about the samplers of a report; empty where decoding was deterministic."""
    if report.sampler is None:
        return ""
    if report.reference is None:
        return f"Sampler audited: {audit_text(report.sampler)}."
    reference_audit = "not audited" if report.reference_sampler is None else audit_text(report.reference_sampler)
    return f"Samplers audited: {audit_text(report.sampler)}; of the reference: {reference_audit}."
