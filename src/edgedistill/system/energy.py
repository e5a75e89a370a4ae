"""Energy that the processor packages took, where Linux exposes their counters (RAPL, /sys/class/powercap).

The counters cover whole packages, so that whatever else runs on the machine is in the figure. They wrap around; often
only root can read them. Where there are none, there is no figure, and no guess in its place.

Must not know: what is measured.
"""

from __future__ import annotations

import re
from pathlib import Path

_PACKAGE = re.compile(r"^[a-z-]*rapl:\d+$")
_ROOT = Path("/sys/class/powercap")


class EnergyMeter:
    """Counters of all packages.

    Args:
        root: Where the kernel lists them; tests pass a copy.
    """

    def __init__(self, root: Path = _ROOT) -> None:
        self._counters: list[tuple[Path, int]] = []
        try:
            directories = sorted(entry for entry in root.iterdir() if _PACKAGE.match(entry.name))
        except OSError:
            directories = []
        for directory in directories:
            counter, most = directory / "energy_uj", _number(directory / "max_energy_range_uj")
            if _number(counter) is not None and most:
                self._counters.append((counter, most))

    @property
    def available(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._counters)

    def read(self) -> tuple[int, ...] | None:
        """Microjoules of every package as its counter stands; None where one cannot be read."""
        values = [_number(counter) for counter, _ in self._counters]
        return tuple(v for v in values if v is not None) if values and None not in values else None

    def joules(self, before: tuple[int, ...] | None, after: tuple[int, ...] | None) -> float | None:
        """Energy between two readings less than one wrap of a counter apart; None where one of them failed."""
        if before is None or after is None:
            return None
        pairs = zip(before, after, self._counters, strict=True)
        return sum((last - first) % (most + 1) for first, last, (_, most) in pairs) / 1e6


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
