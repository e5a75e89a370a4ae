"""How often intervals hold the truth that they were simulated from."""

from __future__ import annotations

import numpy as np

from edgedistill.verify.types import Estimate


def covers(estimates: list[Estimate], truth: float, slack: float = 0.0) -> float:
    """Share of the intervals that hold ``truth``, their ends moved outwards by ``slack``."""
    ends = [(e.interval.low - slack, e.interval.high + slack) for e in estimates if e.interval is not None]
    assert len(ends) == len(estimates)
    return float(np.mean([low <= truth <= high for low, high in ends]))
