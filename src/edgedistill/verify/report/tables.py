"""The tables of a report as text; all outputs (terminal, HTML, GitHub) show the same rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedistill.verify.report.gate_text import LABELS, change_text, margin_text, value_text
from edgedistill.verify.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.verify.metrics.procedure_score import ProcedureChange, ProcedureReport, ProcedureScore
    from edgedistill.verify.metrics.second_opinion import SecondOpinion
    from edgedistill.verify.metrics.suite_summary import SuiteResult
    from edgedistill.verify.report.model import AuditExtras, VerifyReport
    from edgedistill.verify.types import RunSettings

ENDPOINT_HEADERS = ("endpoint", "reference", "bundle", "change", "margin", "outcome")


@dataclass(frozen=True, slots=True)
class MetricRow:
    """A number of both models; ``key`` names its definition. Empty text: not measured."""

    key: str
    label: str
    reference: str
    bundle: str
    definition: str = ""


def percent(estimate: Estimate | None, digits: int = 1) -> str:
    """A share with its interval in per cent; empty for None, a dash for NaN."""
    return _text(estimate, 100.0, digits, " %")


def bits(estimate: Estimate | None) -> str:
    """An entropy or information."""
    return _text(estimate, 1.0, 3, " bits")


def number(estimate: Estimate | None, digits: int = 3) -> str:
    """A number without a unit."""
    return _text(estimate, 1.0, digits, "")


def nats(estimate: Estimate | None) -> str:
    """A divergence."""
    return _text(estimate, 1.0, 5, " nats")


def points(estimate: Estimate | None) -> str:
    """A difference of shares in percentage points."""
    return _text(estimate, 100.0, 1, " points", signed=True)


def _text(estimate: Estimate | None, scale: float, digits: int, unit: str, *, signed: bool = False) -> str:
    if estimate is None:
        return ""
    if not math.isfinite(estimate.value):
        return "-"
    text = _fixed(scale * estimate.value, digits, signed=signed)
    if estimate.interval is not None:
        low, high = estimate.interval.low, estimate.interval.high
        ends = [
            _fixed(scale * end, digits, signed=signed) if math.isfinite(end) else "unbounded" for end in (low, high)
        ]
        text = f"{text} [{ends[0]}, {ends[1]}]"
    return text + unit


def _fixed(value: float, digits: int, *, signed: bool = False) -> str:
    """``value`` with ``digits`` decimals, and no minus sign at zero."""
    return f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def endpoint_rows(report: VerifyReport) -> list[tuple[str, ...]]:
    """Rows under ``ENDPOINT_HEADERS``; none in an audit."""
    if report.gate is None:
        return []
    result = report.gate.result
    rows: list[tuple[str, ...]] = [
        (
            LABELS[row.name],
            value_text(row, row.reference),
            value_text(row, row.quantized),
            change_text(row),
            margin_text(row),
            row.outcome,
        )
        for row in result.endpoints
    ]
    if result.collapse is not None:
        before, after = result.collapse.reference.name, result.collapse.quantized.name
        rows.append((LABELS["collapse"], before or "-", after or "-", "", "unchanged", result.collapse.outcome))
    return rows


def metric_rows(report: VerifyReport) -> list[MetricRow]:
    """Every number of the suite with its definition."""
    before = dict(_suite(report.reference_result)) if report.reference_result is not None else {}
    rows = [
        MetricRow(label[0], label[1], before.get(label, ""), text, report.definitions.get(label[0], ""))
        for label, text in _suite(report.bundle_result)
    ]
    extras = dict(_extras(report.reference_extras)) if report.reference_extras is not None else {}
    rows += [
        MetricRow(label[0], label[1], extras.get(label, ""), text, report.definitions.get(label[0], ""))
        for label, text in _extras(report.bundle_extras)
    ]
    if (forced := report.tokens.forced) is not None:
        reference_bits, bundle_bits = bits(forced.entropy_p), bits(forced.entropy_q)
        key = "token_entropy"
        rows.append(MetricRow(key, "token entropy", reference_bits, bundle_bits, report.definitions.get(key, "")))
    rows += [MetricRow(key, label, "", text, report.definitions.get(key, "")) for (key, label), text in _pairs(report)]
    if (procedure := report.procedure) is not None:
        before = {} if procedure.reference is None else dict(_procedure(procedure.reference, procedure))
        rows += [
            MetricRow(key, label, before.get((key, label), ""), text, report.definitions.get(key, ""))
            for (key, label), text in _procedure(procedure.bundle, procedure)
        ]
        if (change := procedure.change) is not None:
            rows += [
                MetricRow("procedure_change", label, "", text, report.definitions.get("procedure_change", ""))
                for label, text in _procedure_change(change, procedure.trajectories)
            ]
    return [row for row in rows if row.bundle or row.reference]


def _suite(result: SuiteResult) -> Iterator[tuple[tuple[str, str], str]]:
    form = result.form
    yield ("accuracy", "accuracy"), percent(result.accuracy)
    yield ("accuracy", "accuracy, loose checks"), percent(result.loose)
    for k, value in result.pass_at.items():
        yield ("pass_at_k", f"pass@{k}"), percent(value)
    for k, value in result.majority_at.items():
        yield ("majority_at_k", f"maj@{k}"), percent(value)
    yield ("majority_share", "majority share"), percent(result.majority_share)
    yield ("agreement", "agreement C"), number(result.agreement)
    yield ("entropy", "answer entropy"), bits(result.entropy)
    yield ("entropy_plug_in", "... plug-in"), bits(result.entropy_plug_in)
    yield ("entropy_miller_madow", "... Miller-Madow"), bits(result.entropy_miller_madow)
    yield ("length", "tokens a reply"), number(form.tokens, 1)
    yield ("length", "reasoning tokens"), number(form.reasoning_tokens, 1)
    for name, quantile in zip(("p50", "p90", "p99", "max"), form.token_quantiles, strict=True):
        yield ("length", f"tokens a reply, {name}"), number(quantile, 0)
    yield ("truncated", "truncated"), percent(form.truncated)
    yield ("unparsed", "unparsed"), percent(form.unparsed)
    yield ("unclosed", "reasoning not closed"), percent(form.unclosed)
    yield ("repetition", "repetition"), percent(form.repetition)
    if (variance := result.hallucination) is not None:
        yield ("hallucination_variance", "variance of wrong, within prompts"), number(variance.within)
        yield ("hallucination_variance", "variance of wrong, between prompts"), number(variance.between)
        yield ("hallucination_variance", "variance of wrong, in all"), number(variance.total)
        yield ("hallucination_variance", "wrong for lack of an answer"), percent(variance.garbage)
        yield (
            ("hallucination_variance", "prompts always right, always wrong, mixed"),
            f"{variance.always_right}, {variance.always_wrong}, {variance.mixed}",
        )
    if (collapse := result.collapse) is not None:
        yield ("information", "information about the prompt"), bits(collapse.information_bits)
        yield ("information", "... of what it could be"), percent(collapse.ratio)
        yield ("top_share", "most frequent answer"), percent(collapse.top_share)
        yield ("effective_answers", "effective answers"), number(collapse.effective_answers, 1)
        yield ("off_prompt_collision", "off-prompt collision"), percent(collapse.off_prompt_collision, 2)
    if (copied := result.copied) is not None:
        yield ("copied", "copied from the prompt"), percent(copied.share)


def _extras(extras: AuditExtras) -> Iterator[tuple[tuple[str, str], str]]:
    if (varied := extras.perturbations) is not None:
        yield ("paraphrase_keeps", "paraphrase keeps the answer"), percent(varied.paraphrase_keeps)
        yield ("changed_number_changes", "changed number changes it"), percent(varied.changed_number_changes)
        yield ("changed_number_changes", "... to the right one"), percent(varied.changed_number_correct)
        yield ("empty_gives", "empty prompt gives it"), percent(varied.empty_gives)
    if (sweep := extras.sweep) is not None:
        for temperature, entropy in zip(sweep.temperatures, sweep.entropies, strict=True):
            yield ("entropy", f"entropy at temperature {temperature:g}"), bits(entropy)
    if (various := extras.diversity) is not None:
        for n, distinct in enumerate(various.distinct, start=1):
            yield ("distinct_n", f"distinct-{n}"), number(distinct)
        yield ("vendi", "Vendi score"), f"{number(various.vendi, 1)} of {various.texts} texts"
    if extras.second_opinion is not None:
        yield from _second_opinion(extras.second_opinion)


def _second_opinion(found: SecondOpinion) -> Iterator[tuple[tuple[str, str], str]]:
    name = "second_opinion"
    yield (name, f"with answers merged by {found.judge}"), f"{found.moved} samples moved"
    yield (name, "... majority share"), percent(found.majority_share)
    yield (name, "... agreement"), percent(found.agreement)
    yield (name, "... answer entropy"), bits(found.entropy)
    if found.accuracy is not None:
        yield (name, "... accuracy"), percent(found.accuracy)
    told = f"{found.equal} of {found.pairs} equal, {found.undecided} undecided"
    yield (name, "... pairs of answers"), f"{told}, in {found.asked} prompts"


def _pairs(report: VerifyReport) -> Iterator[tuple[tuple[str, str], str]]:
    if (pairs := report.pairs) is not None:
        yield ("distance", "distance of answers"), number(pairs.distance, 4)
        yield ("flips", "flips"), percent(pairs.flips)
        yield ("flips", "... right to wrong"), percent(pairs.lost)
        yield ("flips", "... wrong to right"), percent(pairs.gained)
        yield ("length_ratio", "length ratio"), number(pairs.length_ratio)
    tokens = report.tokens
    for key, label, part in (
        ("kl_teacher_forced", "KL, teacher-forced", tokens.forced),
        ("kl_on_policy", "KL, on-policy", tokens.on_policy),
        ("kl_path", "KL, scoring against decoding", tokens.path),
    ):
        if part is None:
            continue
        yield (key, label), nats(part.kl)
        for name, quantile in part.quantiles.items():
            yield (key, f"{label}: {name}"), nats(quantile)
        if part.infinite:
            yield (key, f"{label}: positions without a finite KL"), f"{part.infinite} of {part.positions}"
        yield ("top_agreement", f"top-1 agreement ({label.removeprefix('KL, ')})"), percent(part.top_agreement)
        if key == "kl_teacher_forced":
            yield ("delta_entropy", "change of token entropy"), bits(part.delta_entropy)
    yield ("exposure_index", "exposure index"), number(tokens.exposure)
    yield ("kl_llama_cpp", "KLD as llama.cpp"), nats(tokens.llama_cpp)
    if tokens.survival is not None:
        yield ("survival", "coupled pairs that diverged"), f"{tokens.parted} of {tokens.coupled_pairs}"
        median, found = tokens.survival.median, tokens.survival.median_interval
        text = "none: most never diverge" if median is None else number(Estimate(float(median), found), 0)
        yield ("survival", "median position"), text
    yield ("hazard", "divergences per 100 tokens"), number(tokens.hazard)


def _procedure(score: ProcedureScore, procedure: ProcedureReport) -> Iterator[tuple[tuple[str, str], str]]:
    k = procedure.trajectories
    yield ("mean_at_k", f"M@{k}, one trajectory"), percent(score.mean_at_k)
    yield ("pass_at_k_procedure", f"P@{k}, any of them"), percent(score.pass_at_k)
    yield ("vote_at_k", f"V@{k}, the vote"), percent(score.vote_at_k)
    yield ("deliberate_at_k", f"D@{k}, the deliberation"), percent(score.deliberate_at_k)
    yield ("cost", "tokens an answer"), number(score.tokens, 1)
    if k > 1:
        if procedure.name == "vote":  # a deliberation reads whole trajectories
            yield ("cost", "... with exact early stop"), number(score.stopped_tokens, 1)
        yield ("tied", "tied votes"), percent(score.tied)
        yield ("decided_by", "decided by"), ", ".join(f"{name} {count}" for name, count in score.decided_by.items())
    yield ("cost", "seconds an answer"), number(score.seconds)


def _procedure_change(change: ProcedureChange, k: int) -> Iterator[tuple[str, str]]:
    yield f"change of M@{k}", points(change.mean_at_k)
    yield f"change of P@{k}", points(change.pass_at_k)
    yield f"change of V@{k}", points(change.vote_at_k)
    yield f"change of D@{k}", points(change.deliberate_at_k)
    yield "change of tokens an answer", _text(change.tokens, 1.0, 1, "", signed=True)


UNPAIRED = (
    "Reference and bundle were drawn with noise of their own: the noise of sampling counts twice, so that the same "
    "verdict takes more samples than with shared noise."
)


def path_text(report: VerifyReport) -> str:
    """A sentence on how the replies were drawn: numerical path and shared random numbers."""
    settings = report.settings
    if report.procedure is not None:
        return _procedure_text(report.procedure, report.reference is not None, exact=settings.numerics == "exact")
    kernels = "exact kernels" if settings.numerics == "exact" else "the kernels it is deployed with"
    coupled = ", sharing the reference's noise" if settings.coupled and report.reference is not None else ""
    if report.bundle.kind == "endpoint":
        return f"A server drew the bundle's replies. {UNPAIRED}"
    if not settings.coupled:
        coupled = f". {UNPAIRED[:-1]}"
    return f"The bundle decoded every reply token by token, with {kernels}{coupled}."


def _procedure_text(procedure: ProcedureReport, coupled: bool, *, exact: bool) -> str:
    what = {
        "single": "One trajectory gave every answer",
        "vote": f"Every answer is the {procedure.vote} vote of {procedure.trajectories} trajectories",
        "deliberate": f"Every answer comes from a pass over {procedure.trajectories} trajectories and their vote",
    }[procedure.name]
    kernels = "exact kernels" if exact else "the kernels it is deployed with"
    return f"{what}, decoded with {kernels}{', sharing the reference’s noise' if coupled else ''}."


def settings_text(report: VerifyReport) -> str:
    """Sampling settings in a line, with the reference's if they differ."""
    text = _settings_text(report.settings)
    if report.reference_settings is None:
        return text
    return f"bundle: {text}; reference: {_settings_text(report.reference_settings)}"


def _settings_text(s: RunSettings) -> str:
    parts = [f"temperature {s.temperature:g}", f"top_p {s.top_p:g}", f"top_k {s.top_k}", f"min_p {s.min_p:g}"]
    if s.repetition_penalty != 1:
        parts.append(f"repetition penalty {s.repetition_penalty:g}")
    return ", ".join([*parts, f"at most {s.max_new_tokens} tokens", f"seed {s.seed}"])


def headline(report: VerifyReport) -> str:
    """The outcome in a few words."""
    if report.gate is not None:
        return report.gate.result.outcome.upper()
    verdict = report.bundle_result.verdict
    if verdict is None or verdict.name is None:
        return "NO VERDICT"
    return verdict.name.upper() + ("" if verdict.certain else " (not certain)")
