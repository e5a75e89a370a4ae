"""The audits of the samplers in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedistill.verify.report.model import VerifyReport
    from edgedistill.verify.stats.sampler_audit import SamplerAudit

_VARIES = {True: "seeds differ", False: "seeds do not differ", None: "too little choice to tell seeds apart"}


def audit_text(audit: SamplerAudit) -> str:
    """What was found, in half a line."""
    repeats = "the same seed repeats" if audit.reproduces else "the same seed does not repeat"
    return f"{repeats}, {_VARIES[audit.varies]}, chi-square p {audit.chi_square.p_value:.3g}"


def samplers_text(report: VerifyReport) -> str:
    """A sentence about the samplers of a report; empty where decoding was deterministic."""
    if report.sampler is None:
        return ""
    if report.reference is None:
        return f"Sampler audited: {audit_text(report.sampler)}."
    theirs = "not audited" if report.reference_sampler is None else audit_text(report.reference_sampler)
    return f"Samplers audited: {audit_text(report.sampler)}; of the reference: {theirs}."
