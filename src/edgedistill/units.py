"""Numbers for people: bytes, counts and durations as short text."""

from __future__ import annotations

import re

from edgedistill.errors import UsageError

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def format_bytes(count: float) -> str:
    """``count`` bytes with a binary unit and three significant digits: ``1.46 GiB``."""
    value = float(count)
    for unit in _BYTE_UNITS:
        if abs(value) < 1024 or unit == _BYTE_UNITS[-1]:
            return f"{int(value)} {unit}" if unit == "B" else f"{value:.{_decimals(value)}f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def parse_bytes(text: str) -> int:
    """Bytes of ``2.5GB``, ``900 MB`` or ``1.2GiB``; a bare number is bytes.

    Raises:
        UsageError: Anything else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt]?)(i?)b)?\s*", text.lower())
    if match is None:
        raise UsageError(f"{text!r} is not a size.", hint="Expected something like 2.5GB, 900MB or 1.2GiB.")
    power = "kmgt".index(match[2]) + 1 if match[2] else 0
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def format_count(count: float) -> str:
    """``count`` things with a decimal suffix: ``2.1 M``, ``8.0 B``."""
    value = float(count)
    for suffix in ("", " K", " M", " B"):
        if abs(value) < 1000 or suffix == " B":
            return f"{value:.0f}" if not suffix else f"{value:.1f}{suffix}"
        value /= 1000
    raise AssertionError("unreachable")


def format_seconds(seconds: float) -> str:
    """A duration: ``4.2 ms``, ``3.1 s``, ``2 min 05 s``."""
    if seconds < 1:
        return f"{seconds * 1000:.{_decimals(seconds * 1000)}f} ms"
    if seconds < 60:
        return f"{seconds:.{_decimals(seconds)}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def parse_seconds(text: str) -> float:
    """A duration: ``90``, ``90s``, ``20m``, ``1h30m``. Raises ValueError for anything else."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def format_rate(per_second: float) -> str:
    """Tokens per second: ``312 tok/s``, ``8.4 tok/s``."""
    return f"{per_second:,.0f} tok/s" if per_second >= 100 else f"{per_second:.1f} tok/s"


def _decimals(value: float) -> int:
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
