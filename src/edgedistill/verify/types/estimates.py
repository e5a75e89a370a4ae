"""A number and how well it is known."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval: ends, the coverage it claims, and how it was computed."""

    low: float
    high: float
    level: float
    method: str

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and how well it is known. ``interval`` is None where the data allow none; NaN means undefined."""

    value: float
    interval: Interval | None = None

    def scaled(self, factor: float) -> Estimate:
        """In another unit: value and ends times a positive ``factor``."""
        found = self.interval
        if found is not None:
            found = Interval(factor * found.low, factor * found.high, found.level, found.method)
        return Estimate(factor * self.value, found)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: NaN and infinities become None."""
        interval = None if self.interval is None else asdict(self.interval)
        if interval is not None:
            interval["low"], interval["high"] = _finite(interval["low"]), _finite(interval["high"])
        return {"value": _finite(self.value), "interval": interval}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
