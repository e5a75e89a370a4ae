"""Whether only the collapse verdict is still open, for a sequential run whose endpoints have passed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.verify.gate.decide import collapse_endpoint
from edgedistill.verify.metrics.suite_summary import summarise_suite
from edgedistill.verify.report.build import asked_suite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.verify.types import Sample, Suite


def collapse_is_open(
    suite: Suite,
    reference: Sequence[Sample],
    quantized: Sequence[Sample],
    *,
    deterministic: bool,
    level: float,
    seed: int,
) -> bool:
    """Whether the gate would be inconclusive for the collapse verdict on these samples, the same of both models."""
    asked = asked_suite(suite, reference)
    verdicts = [
        summarise_suite(asked, samples, deterministic=deterministic, level=level, seed=seed).verdict
        for samples in (reference, quantized)
    ]
    before, after = verdicts
    if before is None or after is None:
        return False
    return collapse_endpoint(before, after).outcome == "inconclusive"
