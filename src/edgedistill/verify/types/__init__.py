"""The plain data that samplers fill and statistics read: prompts and suites, samples, estimates, who was asked.

Must not know: how samples are drawn, models, files.
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
from edgedistill.verify.types.run import ModelIdentity, ModelKind, RunSettings, SamplingPath
from edgedistill.verify.types.samples import Drawn, Sample, Trial

__all__ = [
    "AnswerKind",
    "Check",
    "Drawn",
    "Estimate",
    "Extraction",
    "Interval",
    "Message",
    "ModelIdentity",
    "ModelKind",
    "Prompt",
    "Role",
    "RunSettings",
    "Sample",
    "SamplingPath",
    "Suite",
    "SuiteSampling",
    "Trial",
    "Variant",
]
