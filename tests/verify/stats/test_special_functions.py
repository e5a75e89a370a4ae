"""Own special functions against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special as scipy_special
from scipy import stats

from edgedistill.verify.metrics.consistency import grassberger_g
from edgedistill.verify.stats.special_functions import (
    beta_cdf,
    beta_quantile,
    chi_square_quantile,
    chi_square_tail,
    normal_cdf,
    normal_quantile,
    student_quantile,
)


@pytest.mark.parametrize("a", [0.5, 1, 2, 7, 60, 512, 4000])
@pytest.mark.parametrize("b", [0.5, 1, 3, 40, 512])
def test_beta(a: float, b: float) -> None:
    for x in (1e-6, 0.01, 0.3, 0.5, 0.9, 0.999):
        assert beta_cdf(x, a, b) == pytest.approx(scipy_special.betainc(a, b, x), rel=1e-9, abs=1e-12)
    for p in (0.025, 0.05, 0.5, 0.975):
        assert beta_quantile(p, a, b) == pytest.approx(scipy_special.betaincinv(a, b, p), rel=1e-8, abs=1e-12)


@given(st.floats(-1, 4), st.floats(-1, 4), st.floats(1e-4, 1 - 1e-4))
def test_beta_quantiles_of_any_shape(log_a: float, log_b: float, p: float) -> None:
    a, b = 10**log_a, 10**log_b
    x = beta_quantile(p, a, b)
    assert 0 <= x <= 1
    if 1e-200 < x < 1 - 1e-12:
        assert scipy_special.betainc(a, b, x) == pytest.approx(p, rel=1e-6)
    assert (beta_quantile(0.0, a, b), beta_quantile(1.0, a, b)) == (0.0, 1.0)


@pytest.mark.parametrize("degrees", [1, 2.5, 5, 30, 200])
def test_chi_square_quantiles(degrees: float) -> None:
    for p in (0.025, 0.5, 0.95, 0.999):
        assert chi_square_quantile(p, degrees) == pytest.approx(stats.chi2.ppf(p, degrees), rel=1e-9)


@pytest.mark.parametrize("degrees", [1, 2, 5, 30, 200])
def test_chi_square(degrees: int) -> None:
    for x in (0.0, 0.1, 1, degrees / 2, degrees, degrees * 1.5, degrees + 100):
        assert chi_square_tail(x, degrees) == pytest.approx(stats.chi2.sf(x, degrees), rel=1e-9, abs=1e-14)


def test_normal() -> None:
    assert normal_quantile(0.975) == pytest.approx(stats.norm.ppf(0.975))
    for p in (0.001, 0.3, 0.5, 0.975):
        for degrees in (1, 4, 29, 500):
            assert student_quantile(p, degrees) == pytest.approx(stats.t.ppf(p, degrees), rel=1e-8, abs=1e-7)
    assert normal_cdf(-1.3) == pytest.approx(stats.norm.cdf(-1.3))


def test_grassberger_function_by_its_definition() -> None:
    n = np.arange(1, 60)
    psi = scipy_special.digamma
    expected = psi(n) + 0.5 * (-1.0) ** n * (psi((n + 1) / 2) - psi(n / 2))
    assert np.allclose(grassberger_g(59)[1:], expected, atol=1e-12)


def test_ends_of_the_beta_distribution() -> None:
    assert [beta_cdf(x, 2.0, 3.0) for x in (-1.0, 0.0, 1.0, 2.0)] == [0.0, 0.0, 1.0, 1.0]
    assert [beta_quantile(p, 2.0, 3.0) for p in (0.0, 1.0)] == [0.0, 1.0]
    assert chi_square_tail(0.0, 3) == chi_square_tail(-1.0, 3) == 1.0
