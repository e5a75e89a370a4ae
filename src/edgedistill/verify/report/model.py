"""The report of a verification as plain data: settings, measured numbers with intervals, and the gate's decision.

It is written as JSON and read back (``report_json``, ``read_report``); all other outputs are made from it. The
published schema, ``report.schema.json``, is derived from these classes by ``json_schema``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgedistill import notebook
from edgedistill.errors import EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_OK, VerifyError
from edgedistill.json_codec import Record
from edgedistill.renamed import current_keys
from edgedistill.schema import Form
from edgedistill.verify.gate.decide import CollapseResult, Decider, EndpointResult, GateResult, Method, Outcome
from edgedistill.verify.gate.endpoints import Estimand, Name
from edgedistill.verify.gate.sequential import SequentialState
from edgedistill.verify.metrics.accuracy import HallucinationVariance
from edgedistill.verify.metrics.collapse import Collapse
from edgedistill.verify.metrics.collapse_verdict import Verdict
from edgedistill.verify.metrics.copier import Copies
from edgedistill.verify.metrics.device_agreement import Device, DeviceComparison, DeviceReport
from edgedistill.verify.metrics.diversity import Diversity
from edgedistill.verify.metrics.lengths import FormSummary
from edgedistill.verify.metrics.lost_prompts import AnswerShare, LostPrompt
from edgedistill.verify.metrics.perturbations import PerturbationCheck, TemperatureSweep
from edgedistill.verify.metrics.procedure_score import ProcedureChange, ProcedureReport, ProcedureScore
from edgedistill.verify.metrics.second_opinion import SecondOpinion
from edgedistill.verify.metrics.suite_summary import PromptSummary, SuiteResult
from edgedistill.verify.metrics.survival import SurvivalCurve
from edgedistill.verify.metrics.token_divergence import DivergenceSummary
from edgedistill.verify.stats.sampler_audit import SamplerAudit
from edgedistill.verify.types import Estimate, Interval, ModelIdentity, RunSettings, ShippedDifference

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 4
FAILING = ("collapsed", "partly-collapsed", "consistent-wrong")
"""Verdicts with which an audit fails."""

Kind = Literal["verify", "audit"]

NAMES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        AnswerShare, Collapse, CollapseResult, Copies, Decider, Device, DeviceComparison, DeviceReport,
        DivergenceSummary, Diversity, EndpointResult, Estimate, FormSummary, GateResult, HallucinationVariance,
        Interval, LostPrompt, ModelIdentity, ProcedureChange, ProcedureReport, ProcedureScore, PerturbationCheck,
        PromptSummary, RunSettings, SamplerAudit, SecondOpinion, SequentialState, ShippedDifference, SuiteResult,
        SurvivalCurve, TemperatureSweep, Verdict,
    )
} | {"Outcome": Outcome, "Method": Method, "Name": Name, "Estimand": Estimand}  # fmt: skip
"""Types that the annotations of the report's classes refer to, by name."""


def _estimate(value: Any) -> Any:
    """Earlier reports have a number where an estimate belongs: that is an estimate without an interval."""
    return value if isinstance(value, dict) else {"value": value}


def _interval(value: Any) -> Any:
    """Ends of an interval that are null in JSON are infinite."""
    if not isinstance(value, dict):
        return value
    ends = {name: end for name, end in (("low", -math.inf), ("high", math.inf)) if value.get(name, "") is None}
    return {**value, **ends}


FORM = Form(
    VerifyError,
    names=NAMES,
    null_is_nan=True,
    before={
        Estimate: _estimate,
        Interval: _interval,
        RunSettings: lambda value: current_keys(value, {"mode": "numerics"}, "the report"),
        ProcedureReport: lambda value: current_keys(value, {"mode": "name"}, "the report"),
    },
    max_bytes=256 << 20,
)


@dataclass(frozen=True, slots=True)
class SuiteInfo:
    """The suite of a run: ``prompts`` of its ``prompts_in_suite`` were sampled; ``gold``: it has right answers."""

    name: str
    sha256: str
    prompts: int
    prompts_in_suite: int
    variants: int
    gold: bool


@dataclass(frozen=True, slots=True)
class PromptPair:
    """One prompt and what compares the two models on it; everything after ``gold`` is None in an audit.

    Attributes:
        distance: Unbiased squared distance of the answer distributions.
        pairs: Pairs of samples with the same random numbers. ``lost``, ``gained``: those that changed from right to
            wrong, or the reverse. ``flips``: share of both.
        kl, kl_on_policy: Mean KL in nats on the reference's and on the bundle's replies; None if it was not measured,
            as for the next two.
        top_agreement, delta_entropy: On the reference's replies: share of positions with the same first choice, mean
            change of the token entropy in bits.
    """

    prompt_id: str
    question: str
    tags: tuple[str, ...]
    gold: str | None
    distance: Estimate | None = None
    pairs: int | None = None
    lost: int | None = None
    gained: int | None = None
    kl: Estimate | None = None
    flips: Estimate | None = None
    kl_on_policy: Estimate | None = None
    top_agreement: Estimate | None = None
    delta_entropy: Estimate | None = None


@dataclass(frozen=True, slots=True)
class PairMetrics:
    """Over prompts, each with its interval: distance of answers, flips (None without gold), ratio of lengths."""

    distance: Estimate
    flips: Estimate | None
    lost: Estimate | None
    gained: Estimate | None
    length_ratio: Estimate


@dataclass(frozen=True, slots=True)
class AuditExtras:
    """Metrics of one model beyond the prompts of the suite; None if not measured or not possible with the suite."""

    perturbations: PerturbationCheck | None = None
    sweep: TemperatureSweep | None = None
    diversity: Diversity | None = None
    second_opinion: SecondOpinion | None = None


@dataclass(frozen=True, slots=True)
class PositionBin:
    """Mean KL in nats over the positions [start, stop) of replies; None where nothing was measured."""

    start: int
    stop: int
    forced: Estimate | None
    on_policy: Estimate | None


@dataclass(frozen=True, slots=True)
class TokenReport:
    """Comparison per token.

    Attributes:
        forced, on_policy: KL on the reference's and on the bundle's replies.
        exposure: Ratio of the two.
        llama_cpp: KLD as llama.cpp computes it, on the reference's replies; None: they are too short.
        by_position: KL by position in the reply.
        survival: Survival curve of coupled pairs, of which ``parted`` of ``coupled_pairs`` differ.
        hazard, hazard_by_100: First differences per 100 tokens, over all positions and by hundreds of positions.
        path: KL between decoding and scoring with the same bundle: the difference between its two numerical paths.
    """

    forced: DivergenceSummary | None = None
    on_policy: DivergenceSummary | None = None
    exposure: Estimate | None = None
    llama_cpp: Estimate | None = None
    by_position: tuple[PositionBin, ...] = ()
    survival: SurvivalCurve | None = None
    coupled_pairs: int = 0
    parted: int = 0
    hazard: Estimate | None = None
    hazard_by_100: tuple[Estimate, ...] = ()
    path: DivergenceSummary | None = None


@dataclass(frozen=True, slots=True)
class PowerCurve:
    """P(pass) of an endpoint for each of several true changes (``effects``, in the unit of the endpoint's margin)."""

    endpoint: str
    effects: tuple[float, ...]
    power: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class GateReport:
    """The verdict and its reasons in sentences.

    ``power``: how likely an unchanged model passes. ``decide``: what would decide an inconclusive run; else empty.
    """

    result: GateResult
    reasons: tuple[str, ...]
    power: str
    decide: str
    curves: tuple[PowerCurve, ...] = ()
    sequential: SequentialState | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport(Record):
    """The whole report; ``gate`` and everything of the reference are None in an audit of one model alone.

    ``claim``: sentences on how far the samples support a claim such as "x % consistent, y bits". ``definitions``: text
    by name of a number. ``devices``: the devices that drew the bundle's samples, if they were spread over a cluster.
    ``procedure``: the scores of a procedure; None for single replies drawn in batches. ``sampler``,
    ``reference_sampler``: audits of the samplers; None if decoding was deterministic, and for a reference whose samples
    come from a baseline or that drew none. ``reference_settings``: the reference's settings if they are not the
    bundle's (``settings``). ``shipped``: differences of the two models beside their weights. ``lost_most``: the prompts
    with the largest losses, worst first.
    """

    kind: Kind
    created: str
    versions: dict[str, str]
    machine: dict[str, str]
    bundle: ModelIdentity
    reference: ModelIdentity | None
    suite: SuiteInfo
    settings: RunSettings
    sampler: SamplerAudit | None
    claim: str
    bundle_result: SuiteResult
    reference_result: SuiteResult | None
    prompts: tuple[PromptPair, ...]
    pairs: PairMetrics | None
    bundle_extras: AuditExtras
    reference_extras: AuditExtras | None
    tokens: TokenReport
    gate: GateReport | None
    definitions: dict[str, str]
    notes: tuple[str, ...] = ()
    devices: DeviceReport | None = None
    procedure: ProcedureReport | None = None
    reference_sampler: SamplerAudit | None = None
    reference_settings: RunSettings | None = None
    shipped: tuple[ShippedDifference, ...] = ()
    lost_most: tuple[LostPrompt, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def exit_code(self) -> int:
        """0 for pass, 1 for fail, 3 for inconclusive.

        An audit fails for collapsed and for consistently wrong answers. It is inconclusive if there is no verdict, if
        the verdict is not certain, or if decoding was deterministic. A comparison without a gate (the reference could
        only score) is inconclusive at best.
        """
        if self.gate is not None:
            return self.gate.result.exit_code
        verdict = self.bundle_result.verdict
        if self.reference is not None and (verdict is None or verdict.name not in FAILING):
            return EXIT_INCONCLUSIVE
        if verdict is None or not verdict.certain or verdict.name in (None, "deterministic-decoding"):
            return EXIT_INCONCLUSIVE
        return EXIT_FAIL if verdict.name in FAILING else EXIT_OK

    def _repr_html_(self) -> str:
        from edgedistill.verify.report import tables

        metrics = [(row.label, row.reference, row.bundle) for row in tables.metric_rows(self)]
        parts = [notebook.text(f"{self.bundle.name}: {tables.headline(self)}. {self.claim}")]
        if self.gate is not None:
            parts.append(notebook.table(tables.ENDPOINT_HEADERS, tables.endpoint_rows(self)))
        return "".join([*parts, notebook.table(("metric", "reference", "bundle"), metrics)])

    @classmethod
    def from_dict(cls, value: Any) -> VerifyReport:
        """Read the result of ``to_dict``. Raises VerifyError that names the field that does not fit."""
        version = value.get("schema_version") if isinstance(value, dict) else None
        if not isinstance(version, int) or isinstance(version, bool):
            raise VerifyError(
                "it has no `schema_version`; expected a report of `edgedistill verify --json` or `audit --json`."
            )
        if version > SCHEMA_VERSION:
            raise VerifyError(
                f"it has schema {version}; this version of edgedistill reads up to {SCHEMA_VERSION}.",
                hint="Install the version of edgedistill that made it, or a newer one.",
            )
        return FORM.decode(cls, current_keys(value, {"mode": "procedure"}, "the report"), "report")


def report_json(report: VerifyReport) -> str:
    """The report as JSON text with a final newline."""
    return json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_report(path: Path) -> VerifyReport:
    """Read a report from a file. Raises VerifyError if it is not a report."""
    try:
        return VerifyReport.from_dict(FORM.parse(FORM.read_file(path), path.name))
    except FileNotFoundError as error:
        raise VerifyError(f"Report {path} cannot be read: {error.strerror or error}.") from error
    except VerifyError as error:
        raise VerifyError(f"{path} is not a report: {error.message}", hint=error.hint) from error
