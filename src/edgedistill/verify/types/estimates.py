"""A number and how well it is known."""

from __future__ import annotations

from dataclasses import dataclass

from edgedistill.json_codec import Record


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
class Estimate(Record):
    """A number and how well it is known. ``interval`` is None where the data allow none; NaN means undefined."""

    value: float
    interval: Interval | None = None

    def scaled(self, factor: float) -> Estimate:
        """In another unit: value and ends times a positive ``factor``."""
        found = self.interval
        if found is not None:
            found = Interval(factor * found.low, factor * found.high, found.level, found.method)
        return Estimate(factor * self.value, found)
