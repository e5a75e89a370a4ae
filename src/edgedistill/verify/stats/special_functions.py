"""Special functions for the statistics (normal, beta, Student's t, chi-square), so that SciPy is not required.

Tests compare them with SciPy to 1e-10.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_TINY = 1e-300
_STEPS = 10_000
_NORMAL = NormalDist()
EULER_GAMMA = 0.57721566490153286


def normal_quantile(p: float) -> float:
    """The standard normal quantile of p in (0, 1)."""
    return _NORMAL.inv_cdf(p)


def normal_cdf(x: float) -> float:
    """The standard normal distribution function."""
    return _NORMAL.cdf(x)


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side only
        return 1.0 - front * _beta_fraction(1 - x, b, a) / b
    return front * _beta_fraction(x, a, b) / a


def _beta_fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1) or _TINY)
    value = d
    for m in range(1, _STEPS):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / (1.0 + numerator * d or _TINY)
            c = 1.0 + numerator / c or _TINY
            value *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return value


@lru_cache(maxsize=1 << 16)
def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = p, to 14 digits (a, b > 0): Newton's steps, bisection where they leave the bracket."""
    if p <= 0.0 or p >= 1.0:
        return 0.0 if p <= 0.0 else 1.0
    low, x, high = 0.0, 0.5, 1.0
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    for _ in range(200):
        error = beta_cdf(x, a, b) - p
        low, high = (x, high) if error < 0 else (low, x)
        density = scale + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x)
        # A step that overflows or leaves the bracket is no step.
        step = error / math.exp(density) if -700 < density < 700 else math.inf
        following = x - step if low < x - step < high else 0.5 * (low + high)
        if following in (low, high) or abs(following - x) <= 4e-15 * x:
            break
        x = following
    return x


def student_quantile(p: float, degrees: float) -> float:
    """The quantile of p in (0, 1) of Student's t with ``degrees`` of freedom, through the beta distribution."""
    x = beta_quantile(2 * min(p, 1 - p), degrees / 2, 0.5)
    t = math.sqrt(degrees * (1 / x - 1))
    return t if p > 0.5 else -t


def chi_square_tail(x: float, degrees: float) -> float:
    """P(X >= x) of a chi-square variable: the upper regularised gamma function Q(degrees / 2, x / 2).

    Series below, Lentz's continued fraction above (DLMF 8.11.4, 8.9.2).
    """
    if x <= 0:
        return 1.0
    a, x = degrees / 2, x / 2
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1.0 / a
        for n in range(1, _STEPS):
            term *= x / (a + n)
            total += term
            if term < total * 1e-16:
                break
        return max(0.0, 1.0 - front * total)
    b = x + 1 - a
    c, d = 1.0 / _TINY, 1.0 / b
    value = d
    for n in range(1, _STEPS):
        numerator = -n * (n - a)
        b += 2
        d = 1.0 / (numerator * d + b)
        c = b + numerator / c
        value *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return front * value


def chi_square_quantile(p: float, degrees: float) -> float:
    """The quantile of p in (0, 1) of a chi-square variable: Newton's steps, and halves where they leave the bracket."""
    low, high = 0.0, max(1.0, degrees)
    while chi_square_tail(high, degrees) > 1 - p:
        low, high = high, 2 * high
    x, scale = 0.5 * (low + high), math.lgamma(degrees / 2) + math.log(2)
    for _ in range(200):
        error = chi_square_tail(x, degrees) - (1 - p)
        low, high = (x, high) if error > 0 else (low, x)
        density = (degrees / 2 - 1) * math.log(x / 2) - x / 2 - scale
        step = error / math.exp(density) if -700 < density < 700 else math.inf
        following = x + step if low < x + step < high else 0.5 * (low + high)
        if following in (low, high) or abs(following - x) <= 4e-16 * x:
            break
        x = following
    return x
