"""Sums of products with exact coefficients: what ``expression`` computes with, and the one spelling of each."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from edgedistill.answers import arithmetic

_MAX_BITS = 512
"""Of a number that is a power; a larger one stays a power."""
MAX_DIGITS = 60

Product = tuple[tuple[str, "Fraction | str"], ...]
"""Factors as (base, exponent), sorted."""
Sum = dict[Product, Fraction]


class NotAFormula(ValueError):
    """The text is no formula of this grammar."""


def render(value: Sum) -> str:
    """The key of a sum: terms of high degree first."""
    terms = sorted(((mono, coefficient) for mono, coefficient in value.items() if coefficient), key=_order)
    out = ""
    for mono, coefficient in terms:
        sign = "-" if coefficient < 0 else ("+" if out else "")
        out += sign + _term(mono, abs(coefficient))
    return out or "0"


def _order(term: tuple[Product, Fraction]) -> tuple[Fraction | int, str]:
    degree = sum((exponent for _, exponent in term[0] if isinstance(exponent, Fraction)))
    return -degree, _term(term[0], Fraction(1))


def _term(mono: Product, coefficient: Fraction) -> str:
    if not mono:
        return str(coefficient)
    factors = [_factor(base, exponent) for base, exponent in mono]
    plain = all(re.fullmatch(r"[A-Za-z](\^\d+)?", factor) for factor in factors)
    joined = ("" if plain else "*").join(factors)
    top = "" if coefficient.numerator == 1 else str(coefficient.numerator)
    bottom = "" if coefficient.denominator == 1 else f"/{coefficient.denominator}"
    return top + ("*" if top and not plain and joined[:1].isdigit() else "") + joined + bottom


def _factor(base: str, exponent: Fraction | str) -> str:
    if exponent == 1:
        return base
    if exponent == Fraction(1, 2):
        return f"sqrt{base}" if base.startswith("(") and base.endswith(")") else f"sqrt({base})"
    power = exponent if isinstance(exponent, str) else str(exponent)
    return f"{base}^{power}" if re.fullmatch(r"\d+|[A-Za-z]", power) else f"{base}^({power})"


def number(value: Fraction | int) -> Sum:
    return {(): Fraction(value)}


def atom(name: str) -> Sum:
    return {((name, Fraction(1)),): Fraction(1)}


def constant(value: Sum) -> Fraction | None:
    if not value:
        return Fraction(0)
    return value[()] if set(value) == {()} else None


def add(first: Sum, second: Sum, sign: int = 1) -> Sum:
    total = dict(first)
    for mono, coefficient in second.items():
        total[mono] = total.get(mono, Fraction(0)) + sign * coefficient
    return {mono: coefficient for mono, coefficient in total.items() if coefficient}


def _single(value: Sum) -> tuple[Product, Fraction]:
    """One product; a sum becomes a factor in parentheses."""
    if not value:
        return (), Fraction(0)
    if len(value) == 1:
        return next(iter(value.items()))
    return ((f"({render(value)})", Fraction(1)),), Fraction(1)


def multiply(first: Sum, second: Sum) -> Sum:
    for one, other in ((first, second), (second, first)):
        if constant(one) == -1:
            return {mono: -coefficient for mono, coefficient in other.items()}
    (left, a), (right, b) = _single(first), _single(second)
    coefficient = _bounded(a * b)
    factors: dict[str, Fraction | str] = dict(left)
    for base, exponent in right:
        known = factors.get(base, Fraction(0))
        if isinstance(known, str) or isinstance(exponent, str):
            factors[base] = exponent if known == 0 else f"{known}+{exponent}"
        else:
            factors[base] = known + exponent
    for base, exponent in list(factors.items()):
        if base.isdigit() and isinstance(exponent, Fraction):  # roots of whole numbers: keep exponents in [0, 1)
            whole = math.floor(exponent)
            coefficient = _bounded(coefficient * _power_of(Fraction(int(base)), whole))
            factors[base] = exponent - whole
    mono = tuple(sorted(((base, e) for base, e in factors.items() if e != 0), key=lambda item: item[0]))
    return {mono: coefficient} if coefficient else {}


def _power_of(base: Fraction, exponent: int) -> Fraction:
    if abs(exponent) * max(base.numerator.bit_length(), base.denominator.bit_length()) > _MAX_BITS:
        raise NotAFormula
    return base**exponent


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > 4096 or value.denominator.bit_length() > 4096:
        raise NotAFormula
    return value


def _root(value: Fraction) -> Sum:
    """sqrt of a number >= 0 as a coefficient times the root of a number without square factors (below 10^6)."""
    inner = value.numerator * value.denominator
    if inner > 10**12:
        raise NotAFormula
    outer = 1
    for factor in range(2, 1000):
        while inner and inner % factor**2 == 0:
            inner //= factor**2
            outer *= factor
    if (whole := math.isqrt(inner)) ** 2 == inner:
        outer, inner = outer * whole, 1
    coefficient = Fraction(outer, value.denominator)
    return number(coefficient) if inner == 1 else {((str(inner), Fraction(1, 2)),): coefficient}


def _number_to(value: Fraction, exponent: int) -> Sum:
    """A power of a number, worked out unless that is a number of hundreds of figures: 2^10, not 2^1000."""
    try:
        return number(_power_of(value, exponent))
    except NotAFormula:
        if value.denominator != 1 or value < 2 or exponent < 0:
            raise
        return {((str(value), str(exponent)),): Fraction(1)}


def power(base: Sum, exponent: Sum) -> Sum:
    power = constant(exponent)
    value = constant(base)
    if value is not None and power == Fraction(1, 2) and value >= 0:
        return _root(value)
    if value is not None and power is not None and power.denominator > 2:
        exact = arithmetic.root(value, power.denominator)
        if exact is not None:
            value, power = exact, Fraction(power.numerator)
    if power is not None and power.denominator == 1:
        if value is not None:
            return _number_to(value, int(power))
        if len(base) == 1:
            mono, coefficient = _single(base)
            if all(isinstance(e, Fraction) for _, e in mono):
                raised = tuple((name, e * power) for name, e in mono if isinstance(e, Fraction))
                return multiply({raised: _power_of(coefficient, int(power))}, number(1))
    name = render(base)
    if not name.isdigit() and _single(base) != (((name, Fraction(1)),), Fraction(1)):
        name = f"({name})"
    return {((name, power if power is not None else render(exponent)),): Fraction(1)}
