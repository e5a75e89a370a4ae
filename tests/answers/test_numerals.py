"""Numbers in words are the numbers that they name; words that name something else stay words."""

from __future__ import annotations

import pytest

from edgedistill.answers.numerals import in_figures
from edgedistill.answers.typed import canonical


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("seven", "7"), ("Twelve", "12"), ("zero", "0"), ("nineteen", "19"), ("twenty", "20"), ("twenty-one", "21"), ("ninety nine", "99"),
        ("one hundred and five", "105"), ("one hundred five", "105"), ("a hundred", "100"), ("two hundred and thirty-four", "234"), ("three thousand", "3000"),
        ("two thousand and six", "2006"), ("twelve thousand three hundred and forty-five", "12345"), ("one million", "1000000"), ("two million three hundred thousand", "2300000"),
        ("four billion", "4000000000"), ("a dozen", "12"), ("two dozen", "24"), ("minus five", "-5"), ("negative 5", "-5"), ("negative seven", "-7"), ("two thirds", "2/3"),
        ("one half", "1/2"), ("a half", "1/2"), ("three quarters", "3/4"), ("three-quarters", "3/4"), ("one tenth", "1/10"), ("two and a half", "5/2"), ("3 and a half", "7/2"),
        ("two and three quarters", "11/4"), ("seven apples", "7"), ("two and a half cups", "5/2 cup"), ("five dollars", "5"), ("fifty percent", "50%"), ("three kilometers", "3 km"), ("one hour", "1 h"),
        ("siete", "7"), ("douze", "12"), ("sieben", "7"), ("семь", "7"), ("dix-sept", "17"), ("fünf Euro", "5 EUR"), ("twaalf", "12"), ("tujuh", "7"), ("yedi", "7"), ("सात", "7"), ("سبعة", "7"), ("ห้า", "5"), ("일곱", "7"),
        ("七", "7"), ("十", "10"), ("十二", "12"), ("二十五", "25"), ("一百零五", "105"), ("三千", "3000"), ("一万二千", "12000"), ("二〇二四", "2024"), ("两", "2"), ("三亿", "300000000"), ("七元", "7 CNY"),
    ],
)  # fmt: skip
def test_numbers_in_words(text: str, key: str) -> None:
    assert canonical(text) == key
    assert canonical(f"**{text}**") == key


@pytest.mark.parametrize(
    "text",
    ["Seven Samurai", "One Direction", "one of them", "one way", "no one", "twenty-fifth", "first", "two third", "two and a half men and more", "seventy five two",
     "DOS", "once", "elf", "Lima", "on", "a hundred-to-one shot", "half", "a half of them", "hundred", "thousand", "dozen", "and five", "five and six and seven", "siete magníficos", "三国演义", "一一二三十", "seven, eight or nine times as many"],
)  # fmt: skip
def test_what_is_no_number_in_words(text: str) -> None:
    assert not (canonical(text) or "").replace("/", "").lstrip("-").isdecimal()


def test_what_follows_a_number_in_words() -> None:
    assert in_figures("seven red apples") == ("7 red apples", True)
    assert in_figures("one apple") == ("1 apple", False)
    assert in_figures("sieben Äpfel") == ("7 Äpfel", False)
    assert in_figures("12 apples") is None
    assert in_figures("twenty-fifth") is None
    assert in_figures("") is None
