"""Amounts in one unit of their kind, where the conversion loses nothing: 5 km and 5,000 m, 2 h 30 min and 150 min.

Kinds are kept apart where a word has several sizes (ton, ounce, gallon, MB), where a factor is a convention (a month in
days) and where a difference is converted otherwise than a value (°C and °F). Inches are not turned into centimetres:
who was asked for one and says the other has calculated.
"""

from __future__ import annotations

import re
from fractions import Fraction

_THOUSANDTH = Fraction(1, 1000)
_KINDS: tuple[dict[str, Fraction | int], ...] = (
    # by size, the largest first
    {"km": 1000, "m": 1, "dm": Fraction(1, 10), "cm": Fraction(1, 100), "mm": _THOUSANDTH, "um": _THOUSANDTH**2, "nm": _THOUSANDTH**3},
    {"mi": 63360, "yd": 36, "ft": 12, "in": 1},
    {"kg": 1000, "g": 1, "mg": _THOUSANDTH, "ug": _THOUSANDTH**2},
    {"l": 1000, "ml": 1},
    {"week": 604800, "day": 86400, "h": 3600, "min": 60, "s": 1, "ms": _THOUSANDTH, "us": _THOUSANDTH**2, "ns": _THOUSANDTH**3},
    {"year": 12, "month": 1},
    {"km/s": 1000, "m/s": 1, "km/h": Fraction(5, 18)},
    {"GHz": 10**9, "MHz": 10**6, "kHz": 1000, "Hz": 1},
    {"kWh": 3_600_000, "kJ": 1000, "J": 1},
    {"MW": 10**6, "kW": 1000, "W": 1},
    {"kPa": 1000, "Pa": 1},
    {"kN": 1000, "N": 1},
    {"": 1, "cent": Fraction(1, 100)},
)  # fmt: skip
_SIZES = {unit: kind for kind in _KINDS for unit in kind if unit}
_PART = re.compile(r"(-?\d+(?:/\d+)?) ([^\d\s^][^\s^]*)(\^[23])?(?: |$)")


def common(key: str) -> str:
    """The key of an amount ("5 km", "2 h 30 min") in the unit of its kind in which it is a whole number, the largest of
    these; else in the largest in which it is at least one. Other keys are left as they are.
    """
    parts = _PART.findall(key)
    if not parts or sum(len(found.group()) for found in _PART.finditer(key)) != len(key):
        return key
    sizes = _SIZES.get(parts[0][1])
    power = parts[0][2]
    if sizes is None or any(unit not in sizes or exponent != power for _, unit, exponent in parts):
        return key
    degree = int(power[1:] or 1)
    sign = -1 if key.startswith("-") else 1
    total = sign * sum((abs(Fraction(value)) * sizes[unit] ** degree for value, unit, _ in parts), Fraction(0))
    values = [(total / Fraction(size) ** degree, unit) for unit, size in sizes.items() if unit != "dm"]
    value, unit = next(
        (found for found in values if found[0].denominator == 1),
        next((found for found in values if abs(found[0]) >= 1), values[-1]),
    )
    if "cent" in sizes:
        value, unit = values[0]
    return f"{value} {unit}{power}" if unit else str(value)
