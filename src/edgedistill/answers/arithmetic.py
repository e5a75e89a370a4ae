"""Functions of plain numbers whose value is exact: 5! is 120, log_2 8 is 3, gcd(12, 18) is 6."""

from __future__ import annotations

import math
from fractions import Fraction

_MOST = 60
"""Largest number whose factorial is worked out: 82 digits."""


def factorial(value: Fraction | None) -> Fraction | None:
    """None where it is none of a whole number from 0 to 60."""
    if value is None or value.denominator != 1 or not 0 <= value <= _MOST:
        return None
    return Fraction(math.factorial(int(value)))


def root(value: Fraction, degree: int) -> Fraction | None:
    """The rational root of a number, None where it has none; odd roots of negative numbers are negative."""
    if not 2 <= degree <= 16 or (value < 0 and degree % 2 == 0):
        return None
    found = [_whole_root(part, degree) for part in (abs(value.numerator), value.denominator)]
    exact = Fraction(found[0], found[1])
    return (-exact if value < 0 else exact) if exact**degree == abs(value) else None


def _whole_root(value: int, degree: int) -> int:
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**degree <= value else (low, middle)
    return low


def value_of(name: str, values: list[Fraction]) -> Fraction | None:
    """The value of a function of numbers; None where it is not known exactly."""
    if name == "abs" and len(values) == 1:
        return abs(values[0])
    if name.startswith("log_") and len(values) == 1 and name[4:].isdecimal():
        return _logarithm(int(name[4:]), values[0])
    if name in ("max", "min") and values:
        return (max if name == "max" else min)(values)
    if not values or any(value.denominator != 1 or abs(value) > 10**18 for value in values):
        return None
    whole = [int(value) for value in values]
    if name in ("gcd", "lcm") and len(whole) > 1:
        return Fraction((math.gcd if name == "gcd" else math.lcm)(*whole))
    if name == "binom" and len(whole) == 2 and 0 <= whole[1] <= whole[0] <= 200:
        return Fraction(math.comb(*whole))
    return None


def _logarithm(base: int, value: Fraction) -> Fraction | None:
    """p/q with base^p = value^q, for q up to 6; None where there is none."""
    if base < 2 or base > 10**6 or value <= 0 or value.numerator.bit_length() + value.denominator.bit_length() > 512:
        return None
    for bottom in range(1, 7):
        power = value**bottom
        above = max(power.numerator, power.denominator)
        top = round(math.log(above) / math.log(base))
        if power in (Fraction(base) ** top, Fraction(1, base**top)):
            return Fraction(top if power >= 1 else -top, bottom)
    return None
