"""The report of a verification as plain data: what was measured, how, how sure, and what follows from it.

Written as JSON and read back (``report_json``, ``read_report``); every other form of the report is drawn from it.
The published schema, ``report.schema.json``, is derived from these classes by ``schema``.
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
"""Verdicts that an audit fails on."""

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
"""What the annotations of the tree refer to, by name."""


def _estimate(value: Any) -> Any:
    """A bare number where an estimate belongs, as earlier reports have it, is one without an interval."""
    return value if isinstance(value, dict) else {"value": value}


def _interval(value: Any) -> Any:
    """Ends of an interval that are null are infinite."""
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
    """The suite as it was used: ``prompts`` of its ``prompts_in_suite`` were asked; ``gold``: replies can be wrong."""

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
        pairs: Samples of equal noise. ``lost``, ``gained``: those of them that turned wrong, or right. ``flips``: the
            share that did either.
        kl, kl_on_policy: Mean KL in nats on the reference's and on the bundle's replies; like the next two None where
            it was not measured.
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
    """What further sampling of one model shows; None where it was not done or the suite does not allow it."""

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
    """Token by token. ``llama_cpp``: llama.cpp's KLD on the reference's samples, for comparison (None: too short).

    ``path``: KL between decoding and scoring of the same bundle: how far its two numerical paths lie apart.
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
    """P(pass) of an endpoint at each true change; on the scale of the endpoint's margin."""

    endpoint: str
    effects: tuple[float, ...]
    power: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class GateReport:
    """The verdict and its reasons in sentences.

    ``power``: what this design could have seen. ``decide``: what would decide an inconclusive run, empty otherwise.
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

    ``claim``: what the samples support of "x % consistent, y bits", in sentences. ``definitions``: name to text.
    ``devices``: who drew the bundle's samples, if they were spread over a cluster.
    ``procedure``: how answers were made, where answers were scored; None for single replies drawn in batches.
    ``sampler``, ``reference_sampler``: audits of the samplers; None where decoding was deterministic, of the reference
    also where its samples were stored in a baseline or it drew none.
    ``reference_settings``: where they are not the bundle's (``settings``). ``shipped``: what the two models ship
    differently beside their weights. ``lost_most``: the prompts on which the bundle lost most, worst first.
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
        """Of the gate: 0 pass, 1 fail, 3 inconclusive.

        An audit fails on collapse and on answers that are consistently wrong, and is inconclusive where there is no
        verdict or it is not certain, or decoding was deterministic. A comparison without a gate (its reference could
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
        """Read ``to_dict``'s result back. Raises VerifyError naming the field that does not fit."""
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
    """Read a report from a file. Raises VerifyError for anything else than a report."""
    try:
        return VerifyReport.from_dict(FORM.parse(FORM.read_file(path), path.name))
    except FileNotFoundError as error:
        raise VerifyError(f"Report {path} cannot be read: {error.strerror or error}.") from error
    except VerifyError as error:
        raise VerifyError(f"{path} is not a report: {error.message}", hint=error.hint) from error
