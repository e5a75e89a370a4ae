"""Amounts of one kind have one unit where that is exact; others stay as they are, and right answers keep theirs."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.answers.fit import fit
from edgedistill.answers.measures import common
from edgedistill.answers.typed import canonical, read_span
from edgedistill.answers.words import UNITS


@pytest.mark.parametrize(
    ("key", "in_common"),
    [
        ("5000 m", "5 km"), ("5 km", "5 km"), ("1500 m", "1500 m"), ("3/2 km", "1500 m"), ("100 cm", "1 m"), ("12 in", "1 ft"), ("5 ft 6 in", "66 in"), ("5280 ft", "1 mi"), ("1000 g", "1 kg"),
        ("1500 ml", "1500 ml"), ("3/2 l", "1500 ml"), ("60 min", "1 h"), ("2 h 30 min", "150 min"), ("5/2 h", "150 min"), ("-2 h 30 min", "-150 min"), ("24 h", "1 day"), ("14 day", "2 week"), ("12 month", "1 year"),
        ("36 km/h", "10 m/s"), ("60 km/h", "60 km/h"), ("10000 cm^2", "1 m^2"), ("1000000 cm^3", "1 m^3"), ("5 cm^2", "5 cm^2"), ("2000 W", "2 kW"), ("1/3 km", "1000/3 m"), ("1/3 nm", "1/3 nm"), ("50 cent", "1/2"), ("500 cent", "5"), ("0 km", "0 km"), ("0 m", "0 km"),
        ("5 ton", "5 ton"), ("5 oz", "5 oz"), ("5 gal", "5 gal"), ("20 degC", "20 degC"), ("30 day", "30 day"), ("1 year 3 day", "1 year 3 day"), ("1 m 5 cm^2", "1 m 5 cm^2"), ("5", "5"), ("5%", "5%"), ("5 EUR", "5 EUR"), ("paris", "paris"), ("5 m of it", "5 m of it"), ("1 MB", "1 MB"),
    ],
)  # fmt: skip
def test_the_common_unit(key: str, in_common: str) -> None:
    assert common(key) == in_common
    assert common(in_common) == in_common


@pytest.mark.parametrize("unit", sorted(set(UNITS.values()) - {"", "%", "USD"}))
def test_the_key_of_an_amount_is_read_as_itself(unit: str) -> None:
    """Right answers are kept as keys and read again."""
    assert canonical(f"7 {unit}") == f"7 {unit}"


@given(st.fractions(max_denominator=1000), st.sampled_from(["km", "m", "cm", "mm", "um"]))
def test_an_amount_has_one_key_in_all_units(value: Fraction, unit: str) -> None:
    sizes = {
        "km": Fraction(1000),
        "m": Fraction(1),
        "cm": Fraction(1, 100),
        "mm": Fraction(1, 1000),
        "um": Fraction(1, 10**6),
    }
    keys = {common(f"{value * sizes[unit] / size} {other}") for other, size in sizes.items()}
    assert len(keys) == 1
    number, _, name = keys.pop().partition(" ")
    assert Fraction(number) * sizes.get(name, Fraction(1, 10**9)) == value * sizes[unit]


@pytest.mark.parametrize(
    ("reply", "gold", "key"),
    [
        ("12000 m", "12 km", "12 km"), ("12", "12 km", "12 km"), ("12 km", "12", "12"), ("12000 m", "12", "12000"), ("150 minutes", "2.5 hours", "5/2 h"), ("2.5", "2.5 hours", "5/2 h"), ("2.5 hours", "2.5", "5/2"),
        ("2 h 30 min", "150 minutes", "150 min"), ("120 min", "7 h", "2 h"), ("2 h", "7 h", "2 h"), ("2", "7 h", "2 h"), ("50 cents", "$0.50", "1/2"), ("$0.50", "50 cents", "50 cent"), ("50", "50 cents", "50 cent"),
        ("5", "5 cm^2", "5 cm^2"), ("5 sq cm", "5", "5"), ("5 m/s²", "5", "5"), ("12 hours", "0.5 days", "1/2 day"), ("d = 5000 m", "5 km", "5 km"), ("d = 120 min", "120", "120"), ("3 red, 4 blue", "3, 4", "3,4"), ("3 red, 5 blue", "3, 4", "3 red,5 blue"),
    ],
)  # fmt: skip
def test_the_right_answer_has_the_unit_that_is_asked_for(reply: str, gold: str, key: str) -> None:
    answer, wanted = read_span(reply), canonical(gold)
    assert answer is not None
    assert wanted is not None
    assert fit(answer, [wanted]) == key


def test_a_molecule_is_text_however_it_is_written() -> None:
    plain, formula = read_span("H2O"), read_span("H_2O")
    assert plain is not None
    assert formula is not None
    assert (plain.type, plain.key) == (formula.type, formula.key) == ("text", "h2o")
