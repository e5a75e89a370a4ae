"""Numbers for people."""

from __future__ import annotations

import pytest

from edgedistill.errors import UsageError
from edgedistill.units import format_bytes, format_count, format_rate, format_seconds, parse_bytes


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (99.5 * 1024, "99.5 KiB"),
        (180 << 20, "180 MiB"),
        (3 << 30, "3.00 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7"), (999, "999"), (1000, "1.0 K"), (2_130_000, "2.1 M"), (8.03e9, "8.0 B")]
)
def test_counts(count: float, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0042, "4.20 ms"), (0.25, "250 ms"), (3.14159, "3.14 s"), (59.9, "59.9 s"), (125, "2 min 05 s")],
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_rates() -> None:
    assert format_rate(8.44) == "8.4 tok/s"
    assert format_rate(1234.5) == "1,234 tok/s"


@pytest.mark.parametrize(
    ("text", "count"),
    [("2.5GB", 2_500_000_000), ("900 mb", 900_000_000), ("1GiB", 1 << 30), ("12", 12), ("3kB", 3000), ("7B", 7)],
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2,5GB", "2.5 bananas"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a size"):
        parse_bytes(text)
