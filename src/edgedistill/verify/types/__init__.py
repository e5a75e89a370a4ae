"""Data classes that all of verification shares: prompts, samples, estimates, settings of a run.

Start at ``prompts.Suite``, ``samples.Sample``, ``estimates.Estimate`` and ``run.RunSettings``.

Never imports ``verify.stats``, ``verify.suites`` or any other part of verification.
"""

from edgedistill.verify.types.estimates import Estimate, Interval
from edgedistill.verify.types.prompts import (
    AnswerKind,
    Check,
    Extraction,
    Message,
    Prompt,
    Role,
    Suite,
    SuiteSampling,
    Variant,
)
from edgedistill.verify.types.run import (
    ModelIdentity,
    ModelKind,
    Procedure,
    ProcedureName,
    RunSettings,
    Shipped,
    ShippedDifference,
)
from edgedistill.verify.types.samples import Drawn, Sample, Trial

__all__ = [
    "AnswerKind", "Check", "Drawn", "Estimate", "Extraction", "Interval", "Message", "ModelIdentity", "ModelKind",
    "Procedure", "ProcedureName", "Prompt", "Role", "RunSettings", "Sample", "Shipped", "ShippedDifference", "Suite",
    "SuiteSampling", "Trial", "Variant",
]  # fmt: skip
