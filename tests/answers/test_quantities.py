"""Numbers, units, dates, times and ratios: exact values that a reader of the language would give."""

from __future__ import annotations

from fractions import Fraction

import pytest

from edgedistill.answers.moments import date_key, time_key
from edgedistill.answers.plain import plain
from edgedistill.answers.quantities import parse_number, quantity, ratio_key


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 1/2", "3/2"), ("-1 1/2", "-3/2"), ("+1 1/2", "3/2"), ("2 (1)/(4)", "9/4"), ("-1/2", "-1/2"), ("-(1/2)", "-1/2"),
        ("(1)/(2)", "1/2"), ("1/-2", "-1/2"), ("-1/-2", "1/2"), ("-(-1)/-2", "-1/2"), ("1.5/0.5", "3"), ("1/0", None),
        ("1/2/3", None), ("1 1/0", None), ("1e-3", "1/1000"), ("1E+3", "1000"), ("1e99", str(10**99)), ("1e100", None),
        ("1e-99", f"1/{10**99}"), ("1e-100", None), ("2*10^3", "2000"), ("2 * 10^(-2)", "1/50"), ("10^3", "1000"),
        ("-10^2", "-100"), ("10^(-1)", "1/10"), ("10^99", str(10**99)), ("10^100", None), ("1,234", "1234"),
        ("1,23,456", "123456"), ("1'000", "1000"), ("1 000 000", "1000000"), ("12,34", None), ("1,2345", None), ("1.", "1"),
        (".5", "1/2"), ("-.5", "-1/2"), ("+ 5", "5"), ("- 5", "-5"), ("1.2.3", None), ("5 km", None), ("", None), ("x", None),
        ("0.250", "1/4"), ("1" * 400, "1" * 400), ("1" * 401, None),
    ],
)  # fmt: skip
def test_numbers_with_a_decimal_point(text: str, value: str | None) -> None:
    assert parse_number(text) == (None if value is None else Fraction(value))
    assert parse_number(f" {text} ") == parse_number(text) or len(text) > 398


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2,5", "5/2"), ("-2,5", "-5/2"), ("+2,5", "5/2"), ("1.234,5", "2469/2"), ("1.234", "1234"), ("1.234.567", "1234567"),
        ("1 234,5", "2469/2"), ("0.123", "123/1000"), ("0,123", "123/1000"), ("2.5", "5/2"), ("1,234.5", "2469/2"), ("7", "7"),
    ],
)  # fmt: skip
def test_numbers_with_a_decimal_comma(text: str, value: str) -> None:
    assert parse_number(text, decimal_comma=True) == Fraction(value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$5", ("money", "5")), ("US$5", ("money", "5")), ("5 USD", ("money", "5")), ("€5", ("money", "5 EUR")),
        ("-€5", ("money", "-5 EUR")), ("€-5", ("money", "-5 EUR")), ("+ £ 5", ("money", "5 GBP")), ("EUR 5", ("money", "5 EUR")),
        ("Rs. 50", ("money", "50 INR")), ("Rs 50", ("money", "50 INR")), ("Rp. 50", ("money", "50 IDR")), ("Rp 5", ("money", "5 IDR")),
        ("R$5", ("money", "5 BRL")), ("RMB 5", ("money", "5 CNY")), ("5 cents", ("money", "5 cent")),
        ("百分之5", ("percent", "5%")), ("%5", ("percent", "5%")), ("yüzde 5", ("percent", "5%")), ("12.5%", ("percent", "25/2%")),
        ("5 percent", ("percent", "5%")), ("1/2%", ("percent", "1/2%")), ("5% of it", ("percent", "5%")),
        ("2 h 30 min", ("unit", "2 h 30 min")), ("2 hours and 30 minutes", ("unit", "2 h 30 min")), ("5 ft 3 inches", ("unit", "5 ft 3 in")),
        ("1 day 2 h 3 min 4 s", ("unit", "1 day 2 h 3 min 4 s")), ("1 week 1 day 2 h 3 min 4 s", None), ("5 m 5 m", None), ("5% 3 m", None),
        ("5 apples 3 m", None), ("5 m 3", None), ("5 ft 3 in", ("unit", "5 ft 3 in")), ("3 4", None),
        ("1.5 million", ("number", "1500000")), ("3 hundred thousand", ("number", "300000")), ("2 millones de euros", ("money", "2000000 EUR")),
        ("5万", ("number", "50000")), ("3万元", ("money", "30000 CNY")), ("2 trillion thousand", ("number", str(2 * 10**15))), ("2 trillion million", ("number", str(2 * 10**18))), ("€2 million", ("money", "2000000 EUR")),
        ("5 square meters", ("unit", "5 m^2")), ("5 sq. ft", ("unit", "5 ft^2")), ("5 cubic cm", ("unit", "5 cm^3")),
        ("5 cu. ft", ("unit", "5 ft^3")), ("5 m^2", ("unit", "5 m^2")), ("5 m squared", ("unit", "5 m^2")), ("5 m cubed", ("unit", "5 m^3")),
        ("5 cm^(3)", ("unit", "5 cm^3")), ("5平方米", ("unit", "5 m^2")), ("5立方米", ("unit", "5 m^3")), ("5km", ("unit", "5 km")), ("5 cups", ("unit", "5 cup")), ("5 squares", ("number", "5")), ("5 cubes", ("number", "5")), ("5 sqft", ("unit", "5 ft^2")), ("5 quadratmeter", ("unit", "5 m^2")),
        ("5 km/h", ("unit", "5 km/h")), ("5 km per hour", None), ("5 miles per hour", ("unit", "5 mph")), ("5 deg C", ("unit", "5 degC")),
        ("5 degrees celsius", ("unit", "5 degC")), ("5 degrees", ("number", "5")), ("5 meters long", ("unit", "5 m")), ("5 Meter", ("unit", "5 m")),
        ("5 apples", ("number", "5")), ("5-dollar", ("money", "5")), ("5 red apples", ("number", "5")), ("5 of them", ("number", "5")),
        ("1/2 apples", ("fraction", "1/2")), ("3 1/2 cups", ("unit", "7/2 cup")), ("5 dozen", ("number", "60")), ("2 dozen eggs", ("number", "24")), ("5 or more", None), ("5 by 3", None),
        ("5x", None), ("2xy", None), ("5 x", None), ("5!", None), ("5 pi", None), ("5 sin", None), ("5 apples!", ("number", "5")), ("5.", ("number", "5")),
        ("5 (apples)", ("number", "5")), ("5 m (3", None), ("5 m)", ("unit", "5 m")), ("5 abc", ("number", "5")), ("5 ab", None), ("5ab cd", None),
        ("5 " + "a" * 398, ("number", "5")), ("3 1/2", ("fraction", "7/2")), ("5d", None), ("5cats", ("number", "5")), ("5cat", None), ("5米长", ("unit", "5 m")), ("5, km", None), ("RMB5", ("money", "5 CNY")), ("￥5", ("money", "5 ¥")), ("5'11", ("unit", "5 ft 11 in")), ("5'111", ("number", "5111")),
        ("5個", ("number", "5")), ("x", None), ("5 " + "a" * 400, None), ("5 apples, pears and plums", None),
    ],
)  # fmt: skip
def test_quantities(text: str, found: tuple[str, str] | None) -> None:
    assert quantity(text) == found


def test_a_decimal_comma_reaches_every_number() -> None:
    assert quantity("2,5 km", decimal_comma=True) == ("unit", "5/2 km")
    assert quantity("2,5") is None
    assert quantity("2,5 km") == quantity("2,50 km") == ("unit", "5/2 km")
    assert quantity("2,500 km") == ("unit", "2500 km")
    assert quantity("2,5 apples") is None
    assert quantity("-€2,5", decimal_comma=True) == ("money", "-5/2 EUR")
    assert quantity("1,5 h 2,5 min", decimal_comma=True) == ("unit", "3/2 h 5/2 min")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("2024-01-05", "2024-01-05"), ("2024/1/5", "2024-01-05"), ("2024.01.05", "2024-01-05"), ("2024年1月5日", "2024-01-05"),
        ("January 5, 2024", "2024-01-05"), ("Jan. 5th 2024.", "2024-01-05"), ("Friday, January 5", "--01-05"), ("5 January", "--01-05"),
        ("the 5th of January, 2024", "2024-01-05"), ("5 de enero de 2024", "2024-01-05"), ("5 января 2024 года", "2024-01-05"),
        ("31 December 1999", "1999-12-31"), ("32 January", None), ("January 0", None), ("2024-13-01", None), ("2024-12-32", None),
        ("2024-00-01", None), ("2024-01-01", "2024-01-01"), ("2024년 1월 5일", "2024-01-05"), ("2024-01-31", "2024-01-31"), ("3/4/2024", "3/4/2024"), ("03-04-24", "3/4/24"), ("3.4.2024", "3/4/2024"), ("5 apples", None),
        ("mai 3", "--05-03"), ("3/4", None), ("", None),
    ],
)  # fmt: skip
def test_dates(text: str, key: str | None) -> None:
    assert date_key(text) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("12 AM", "00:00"), ("12 pm", "12:00"), ("1 a.m.", "01:00"), ("11:59 PM", "23:59"), ("1:05:09 pm", "13:05:09"), ("1:05:00 pm", "13:05"),
        ("13 pm", None), ("0 am", None), ("23:59", "23:59"), ("0:00", "00:00"), ("24:00", None), ("3:60", None), ("3:59:60", None), ("3:59:59", "03:59:59"),
        ("3:45:00", "03:45"), ("15:30 Uhr", "15:30"), ("noon", "12:00"), ("Midnight", "00:00"), ("12 noon", "12:00"), ("12 midnight", "00:00"),
        ("3.45 pm", "15:45"), (" 9 AM,", "09:00"), ("9", None), ("3:4", None),
    ],
)  # fmt: skip
def test_times(text: str, key: str | None) -> None:
    assert time_key(text) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("3:2", "3:2"), ("6:4", "3:2"), ("1.5:1", "3:2"), ("2 to 4", None), ("4 to 2", "2:1"), ("2:4", "1:2"), ("1 to 2", "1:2"), ("1 : 2 : 3", "1:2:3"), ("0.5:0.25:1", "2:1:4"), ("0:0", None),
        ("0:3", "0:1"), ("1:2:3:4:5:6", "1:2:3:4:5:6"), ("1:2:3:4:5:6:7", None), ("1" * 20 + ":1", "1" * 20 + ":1"), ("1" * 21 + ":1", None), ("3", None),
    ],
)  # fmt: skip
def test_ratios(text: str, key: str | None) -> None:
    assert ratio_key(text) == key
    assert ratio_key(f" {text} ") == key


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("½", "1/2"), ("2½", "2 1/2"), ("x²", "x^(2)"), ("x⁻¹", "x^(-1)"), ("H₂O", "H_2O"), ("１８", "18"), ("१८", "18"), ("３＋４", "3+4"), ("a\u00a0b", "a b"),
        ("5 × 3 ÷ 2", "5 * 3 / 2"), ("≤ ≥ ≠ ≈", "<= >= != ~="), ("α+Ω", "alpha + Omega"), ("naïve", "naïve"), (r"\frac{1}{2}", "(1)/(2)"), (r"\frac12", "(1)/(2)"),
        (r"\sqrt{x}", "sqrt(x)"), (r"\sqrt[3]{x}", "root(3, x)"), (r"\sqrt2", "sqrt(2)"), (r"\text{ cm}", "cm"), (r"5\,\mathrm{cm}", "5 cm"), (r"\mathbb{R}", "ℝ"),
        (r"0.\overline{3}", "3/9"), (r"1.2\overline{34}", "1222/990"), (r".\overline{3}", "3/9"), (r"x \pmod{7}", "x (mod 7)"), (r"x \bmod 7", "x mod 7"),
        (r"\binom{5}{2}", "binom(5, 2)"), (r"\vec{v}", "vec(v)"), (r"\{1,2\}", "{1,2}"), ("{1,2}", "{1,2}"), ("x^{2}", "x^(2)"), ("x_{1,2}", "x_(1,2)"), ("1{,}234", "1,234"),
        (r"90^\circ", "90 deg"), (r"90^{\circ}", "90 deg"), (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "⟦1,2;3,4⟧"), ("x**2", "x^2"), ("**bold**", "bold"), ("5 x 10^3", "5*10^3"),
        (r"\$5~km", "5 km"), (r"50\%", "50%"), (r"a\\b", "a;b"), (r"\left( 1 \right)", "( 1 )"), (r"\unknown", "unknown"), (r"\frac{", "()/()"), ("$x$", "x"), (r"a\;b", "a b"),
        (r"\frac {1} {2}", "(1)/(2)"), (r"\frac{1} 2", "(1)/(2)"), (r"\dbinom{5}{2}", "binom(5, 2)"), (r"\tbinom 5 2", "binom(5, 2)"), (r"\hat{x}", "hat(x)"), (r"\bar{x}", "bar(x)"), (r"\overline{AB}", "overline(AB)"), (r"\widehat{AB}", "widehat(AB)"), (r"7 \mod 3", "7 (mod 3)"),
        (r"a\_b", "a_b"), (r"a\#b", "a#b"), (r"a\&b", "a&b"), (r"a\!b", "ab"), (r"a\,b", "a b"), (r"\mbox{cm}x", "cm x"), (r"\hbox{cm}x", "cm x"), (r"\mathrm{cm}x", "cm x"), (r"\textbf{a}b", "a b"), (r"\mathbf{a}b", "ab"), (r"\sqrt[", "sqrt()"), (r"\frac\frac1234", "( (1)/(2) )/(3) 4"), (r"\sqrt[3]", "root(3, )"),
        ("a" + "{" * 40 + "x" + "}" * 40, "a" + "(" * 40 + "x" + ")" * 40), ("a" + "{" * 41 + "x" + "}" * 41, "a" + "(" * 40 + "()x" + ")" * 40 + "}"), ("{x}", "(x)"), ("2{1,2}", "2(1,2)"), ("5x10^3", "5*10^3"), ("5 X 10^3", "5*10^3"), ("90^{deg}", "90 deg"), ("x^ (deg )", "x deg"), ("2**-3", "2^-3"), ("a ** b", "a b"), ("2.\\bar{3}", "21/9"),

    ],
)  # fmt: skip
def test_one_spelling(text: str, spelled: str) -> None:
    assert plain(text) == spelled
