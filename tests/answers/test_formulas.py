"""Keys of formulas have the value of what they stand for, and do not depend on the order in which it was written."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.answers.expression import expression_key

POINTS = ({"x": 1.7, "y": 2.3}, {"x": 0.6, "y": 3.1})
leaves = st.sampled_from(["x", "y", "2", "3", "7", "12", "0.5", "1.25"])


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(inner, st.sampled_from(["+", "-", "*", "/", " "]), inner)
    return st.one_of(
        pairs.map(lambda pair: f"({pair[0]}){pair[1]}({pair[2]})"),
        st.tuples(inner, st.sampled_from(["2", "3", "(-1)", "(1/2)"])).map(lambda pair: f"({pair[0]})^{pair[1]}"),
        inner.map(lambda one: f"-({one})"),
        inner.map(lambda one: f"sqrt({one})"),
    )


formulas = st.recursive(leaves, grown, max_leaves=5)


def value(text: str, point: dict[str, float]) -> float | None:
    """Of a formula by Python's arithmetic; None where it has no real value."""
    spelled = re.sub(r"(?<=[\dxy)]) *(?=[xys(])", "*", text.replace("^", "**"))
    spelled = re.sub(r"(?<=[xy)]) *(?=\d)", "*", spelled)
    try:
        found = eval(spelled, {"__builtins__": {}}, {**point, "sqrt": math.sqrt, "abs": abs})
    except (ZeroDivisionError, ValueError, OverflowError, TypeError):
        return None
    return found if isinstance(found, int | float) else None


@settings(max_examples=150)
@given(formulas)
def test_a_key_has_the_value_of_its_formula(text: str) -> None:
    key = expression_key(text)
    for point in POINTS:
        truth = value(text, point)
        if key is not None and truth is not None and abs(truth) < 1e9:
            assert value(key, point) == pytest.approx(truth, rel=1e-9, abs=1e-9), (text, key)


@settings(max_examples=60)
@given(formulas, formulas)
def test_the_order_of_terms_and_factors_does_not_matter(one: str, other: str) -> None:
    sums, products = ([value(f"({one}){sign}({other})", point) for point in POINTS] for sign in "+*")
    if sums[0] != pytest.approx(sums[1]):  # what is a number, however it was reached, is left as it stands
        assert expression_key(f"({one})+({other})") == expression_key(f"({other})+({one})")
    if products[0] != pytest.approx(products[1]):
        assert expression_key(f"({one})*({other})") == expression_key(f"({other})*({one})")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("3+2x", "2x+3"), ("x/x", "1"), ("--x", "x"), ("- x", "-x"), ("2x*3y", "6xy"),
        ("sqrt(12)", "2sqrt(3)"), ("sqrt 12 x", "2sqrt(3)*x"), ("1/sqrt(2)", "sqrt(2)/2"), ("sqrt(4/9)", "2/3"), ("sqrt(1/3)", "sqrt(3)/3"),
        ("8^(1/2)", "2sqrt(2)"), ("sqrt(49)", "7"), ("sqrt(0)", "0"), ("sqrt(1999966)", "sqrt(1999966)"), ("sqrt(10^12+1)x", None), ("sqrt(10^12)x", "1000000x"),
        ("2^3", "8"), ("2^64 x", f"{2**64}x"), ("2^65 x", f"{2**65}x"), ("2^1000", "2^1000"), ("2^1000 x", "2^1000*x"), ("(1/2)^1000", None), ("x^64", "x^64"), ("99999^64x", "99999^64*x"), ("1/2^3 x", "x/8"), ("2^(-3)x", "x/8"),
        ("x^(-1)", "x^(-1)"), ("(2x)^3", "8x^3"), ("(x^2)^3", "x^6"), ("(x+1)(x+1)", "(x+1)^2"), ("(x+1)^2(x+1)", "(x+1)^3"), ("(x+1)^2/(x+1)", "(x+1)"),
        ("-(x+1)", "-x-1"), ("2(x+1)", "2(x+1)"), ("x^y", "x^y"), ("x^y*x^y", "x^(y+y)"), ("x*x^y", "x^(1+y)"), ("x^(y+1)", "x^(y+1)"),
        ("2^x", "2^x"), ("e^(2x)", "e^(2x)"), ("e^(-x)", "e^(-x)"), ("e^-x", "e^(-x)"), ("(x+1)^x", "(x+1)^x"), ("x^(1/3)", "x^(1/3)"), ("x^(2)^3", None),
        ("x_1", "x_1"), ("x_12+1", "x_12+1"), ("x_(n+1)", "x_(n+1)"), ("x_n+1", "x_n+1"), ("x'", "x'"), ("f'(x)", "f'(x)"), ("f(x,y)", "f(x,y)"), ("f(x", None), ("P(A)", "P(A)"), ("k(x+1)", "(x+1)*k"),
        ("5!", "120"), ("0!", "1"), ("60!/59!", "60"), ("61!", "61!"), ("(1/2)!", "1/2!"), ("5!!", "5!!"), ("(3!)!", "720"), ("(n+1)!", "(n+1)!"), ("n!!", "n!!"), ("10_2", "10_2"), ("|x-1|", "abs(x-1)"), ("|x||y|", "abs(x)*abs(y)"), ("|x", None), ("2|x|", "2abs(x)"),
        ("sin(x)", "sin(x)"), ("sin x", "sin(x)"), ("sin^2(x)", "sin(x)^2"), ("2sin(x)cos(x)", "2cos(x)*sin(x)"), ("log_2(8)", "3"), ("log_2 8", "3"), ("log_4 8", "3/2"), ("log_3(1/9)", "-2"), ("log_2(1)", "0"), ("log_2 3", "log_2(3)"), ("log 8", "log(8)"), ("log_1 1", "log_1(1)"), ("log_2(0)", "log_2(0)"),
        ("gcd(4,6)", "2"), ("gcd(x,6)", "gcd(x,6)"), ("lcm(4,6)", "12"), ("max(2,3)", "3"), ("min(2,3)", "2"), ("gcd(1/2,3)", "gcd(1/2,3)"), ("binom(5,2)", "10"), ("binom(2,5)", "binom(2,5)"), ("binom(n,2)", "binom(n,2)"), ("|-3|", "3"), ("root(3,8)", "2"), ("root(3,-8)", "-2"), ("root(4,-16)", "(-16)^(1/4)"), ("root(3,9)", "9^(1/3)"), ("27^(2/3)", "9"), ("(8/27)^(1/3)", "2/3"), ("(-2)^3", "-8"), ("-2^2", "-4"),
        ("sin^(-1)(x)", "arcsin(x)"), ("sin(x)^(-1)", "sin(x)^(-1)"), ("exp(x)", "e^x"), ("dy/dx", "d_x^(-1)*d_y"), ("(dy)/(dx)", "d_x^(-1)*d_y"), ("dx", None), ("2dx", "2dx"), ("root(2,12)", "2sqrt(3)"), ("root(3 8)", None), ("root(3,8", None), ("vec(AB)", "vec(AB)"), ("vec(A", None),
        ("pi", "pi"), ("2pi", "2pi"), ("alpha + 1", "alpha+1"), ("x +- 1", "(+-1)+x"), ("+-1", "(+-1)"), ("x/0", None), ("x/(1-1)", None), ("0^(-1)x", None),
        ("3 5", None), ("x 2", "2x"), ("x2", None), ("H2O", None), ("abc", None), ("abcd+1", None), ("abc+1", "abc+1"), ("cat dog", None), ("the 5th", None), ("x+", None), ("+", None),
        ("", None), (" ", None), ("x)", None), ("(x", None), ("()", None), ("x ? y", None), ("...", None), ("1+2", "1+2"), ("1 + (2)", "1+2"), ("3*4", "3*4"), ("0.5x", "x/2"), (".5x", "x/2"), ("-3", "-3"),
        ("9" * 60 + "x", "9" * 60 + "x"), ("9" * 61 + "x", None), ("(" * 20 + "x" + ")" * 20, "x"), ("(" * 30 + "x" + ")" * 30, None), ("x^2+x^3+1", "x^3+x^2+1"), ("y+x", "x+y"),
        ("3*2^x", "3*2^x"), ("sqrt((n+1)!)", "sqrt((n+1)!)"), ("(x-x)y+z", "z"), ("sqrt(2x)^3", "(2x)^(3/2)"), ("sqrt(xy)sqrt(xy)", "(xy)"), ("sqrt(sin(x))", "sqrt(sin(x))"), ("1234^40x", f"{1234**40}x"), ("1234^64x", "1234^64*x"), ("2^64*" * 63 + "2^63x", f"{2**4095}x"), ("2^64*" * 64 + "x", None), ("x" + "/2^64" * 63 + "/2^63", f"x/{2**4095}"), ("x" + "/2^64" * 64, None),
        ("(xy^z)^2", "(x*y^z)^2"), ("sqrt(6)", "sqrt(6)"), ("sqrt(1018081)x", "1009x"), ("sqrt(50)x", "5sqrt(2)*x"), ("(" * 23 + "x" + ")" * 23, "x"), ("(" * 24 + "x" + ")" * 24, None), ("+".join(["(x)"] * 30), "30x"), ("(x)+" * 10 + "(" * 24 + "x" + ")" * 24, None),
        ("+x", "x"), ("+-x", "(+-x)"), ("+ -x", "-x"), ("-+x", "-x"), ("3(4)", "3(4)"), ("x*-y", "-xy"), ("x/-2", "-x/2"), ("(x+y)'", "(x+y)'"), ("(x+y)!'", "(x+y)!'"), ("x+*2", None), ("g(x)", "g(x)"), ("h'(x,y)", "h'(x,y)"), ("f_1(x)", "f_1(x)"), ("P(A|B)", None),
        ("overline(AB)", "overline(AB)"), ("hat(x)+1", "hat(x)+1"), ("bar(x)", "bar(x)"), ("widehat(AB)", "widehat(AB)"), ("2 pi x", "2pi*x"), ("x ", "x"), ("2 sin x", "2sin(x)"), ("cat 2", None), ("x cat", None),
        ("sqrt(x+1)", "sqrt(x+1)"), ("sqrt(x)sqrt(y)", "sqrt(x)*sqrt(y)"), ("x*sqrt(x)", "x^(3/2)"), ("sqrt(2)sqrt(3)", "sqrt(2)*sqrt(3)"), ("sqrt(2)sqrt(2)x", "2x"), ("sqrt(-1)", "sqrt(-1)"),
    ],
)  # fmt: skip
def test_keys(text: str, key: str | None) -> None:
    assert expression_key(text) == key
