"""A measured number with its confidence interval."""

from __future__ import annotations

from dataclasses import dataclass

from edgedistill.json_codec import Record


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval: its ends, its nominal coverage ``level``, and the method that it was computed with."""

    low: float
    high: float
    level: float
    method: str

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Estimate(Record):
    """A number with its interval, which is None if the data do not allow one; NaN means undefined."""

    value: float
    interval: Interval | None = None

    def scaled(self, factor: float) -> Estimate:
        """Value and ends times a positive ``factor``, to change the unit."""
        found = self.interval
        if found is not None:
            found = Interval(factor * found.low, factor * found.high, found.level, found.method)
        return Estimate(factor * self.value, found)
