"""Replies scored by a right answer that a suite states, in the form that a suite may state it in."""

from __future__ import annotations

import pytest

from edgedistill.verify.sampling.answers import answer_of
from edgedistill.verify.suites.draft import Draft
from edgedistill.verify.types import Message

RIGHT = [
    ("The answer is 2.5 hours.", "150 minutes"), ("150", "150 minutes"), ("2.5 hours", "2.5"), ("It takes 2 hours and 30 minutes.", "2.5 hours"),
    ("5000 m", "5 km"), ("5", "5 km"), ("5 km", "5"), ("The distance is 5,000 meters.", "5 km"), ("She has seven apples.", "7"),
    ("There are seven apples.", "7"), ("He has eleven left.", "11"), ("seven", "7"), ("7", "seven"), ("The answer is 7.", "seven"), (r"\boxed{120}", "5!"),
    (r"\boxed{2^{10}}", "1024"), ("1024", "2^10"), ("x_1=2, x_2=-3", "2, -3"), ("2 and -3", "x_1=2, x_2=-3"), ("x = 2 or x = -3", "-3, 2"),
    ("50 cents", "$0.50"), ("$0.50", "50 cents"), ("50", "50 cents"), ("$1.5M", "1500000"), ("The total is $18.", "18"), ("18 dollars", "$18"),
    ("$18.00", "18"), ("€5", "5"), ("5", "€5"), ("12%", "12"), ("12", "12%"), ("0.12", "12%"), ("12%", "0.12"), ("Paris", "Paris"),
    ("The capital of France is Paris.", "Paris"), ("It's Paris.", "Paris"), ("**Paris**", "paris"), ("The answer is Paris, the capital of France.", "Paris"),
    ("Yes, it is.", "yes"), ("No.", "no"), ("The statement is false.", "false"), ("3:45 PM", "15:45"), ("15h45", "3:45 PM"),
    ("January 5, 2024", "2024-01-05"), ("It was on January 5, 2024.", "2024-01-05"), ("July 1776", "July 1776"), ("It happened in July 1776.", "July 1776"),
    ("In 1776.", "1776"), ("The year was 1776.", "1776"), ("(B)", "B"), ("B. Paris", "B"), ("The answer is B", "B"), (r"\boxed{B}", "B"), ("3/4", "0.75"),
    ("75%", "3/4"), ("three quarters", "0.75"), (r"\frac{3}{4}", "75%"), ("(2,3)", "(2, 3)"), ("x=2,y=3", "x=2, y=3"), (r"\boxed{x=2}", "2"), ("2", "x=2"),
    ("y=2x+1", "y = 1+2x"), ("2x+1", "y=2x+1"), (r"\{1,2\}", "{2,1}"), ("1, 2", "{1, 2}"), ("1 and 2", "{2,1}"), ("H2O", "H2O"),
    ("The formula is H2O.", "H2O"), ("CO2", "CO2"), ("The answer is CO₂.", "CO2"), ("1.0.0", "1.0.0"), ("The answer is 192.168.0.1", "192.168.0.1"),
    ("The answer is O(n log n).", "O(n log n)"), (r"$O(n\log n)$", "O(n log n)"), ("90 degrees", "90"), ("90°", "90 degrees"),
    ("5 cm^2", "5 square centimeters"), ("5", "5 cm^2"), ("5 sq cm", "5"), ("12 apples and 3 pears", "12, 3"), ("一共有18个苹果", "18"), ("18元", "18"),
    ("答案是十八。", "18"), ("二十", "20"), ("La respuesta es siete.", "7"), ("sieben", "7"), ("2,5", "2,5"), ("Die Antwort ist 2,5.", "2.5"),
    ("1.234.567", "1234567"), ("Die Antwort ist 1.234.", "1234"), (r"\boxed{\text{seven}}", "7"), (r"\boxed{\text{The answer is }7}", "7"),
    ("12 hours", "0.5 days"), ("36 km/h", "10 m/s"), ("10", "10 m/s"), ("1 dozen", "12"), ("12", "1 dozen"), ("60%", "3/5"), ("one half", "1/2"),
    ("a third", "1/3"), ("33.33%", "33.33"), ("minus 5", "-5"), ("negative five", "-5"), ("-5 degrees Celsius", "-5°C"), ("-5", "-5°C"),
    ("between 3 and 5", "between 3 and 5"), ("3-5", "3-5"), ("at least 5", "at least 5"), ("x > 5", "x>5"), ("5 < x", "x > 5"),
    ("all real numbers", "all real numbers"), (r"(-\infty,\infty)", "(-∞, ∞)"), ("no solution", "No solution"), ("<answer>7</answer>", "7"),
    ("{\"answer\": 7}", "7"), ("The answer is 5. No, wait, it is 6.", "6"), ("1/2 hour", "30 minutes"), ("an hour", "1 hour"), ("half an hour", "30 minutes"),
    ("twice", "twice"), ("The answer is 3 o'clock.", "3:00"), ("3 pm", "3 in the afternoon"), ("2 to 1", "2:1"), ("10 to 20", "10 to 20"),
]  # fmt: skip

WRONG = [
    ("5 km", "5 m"), ("5000 km", "5 km"), ("2.5 hours", "25 minutes"), ("seventeen", "7"), ("The answer is 6.", "seven"), ("2^9", "1024"),
    ("3, 2", "x_1=2,x_2=-3"), ("$5", "50 cents"), ("150", "2.5 hours"), ("2.5", "150 minutes"), ("London", "Paris"), ("Paris and London", "Paris"),
    ("3:45 AM", "15:45"), ("January 6, 2024", "2024-01-05"), ("1776", "1777"), ("C", "B"), ("3/5", "0.75"), ("(3,2)", "(2,3)"), ("x=3,y=2", "x=2, y=3"),
    ("2x-1", "y=2x+1"), ("1, 3", "{1, 2}"), ("HO2", "H2O"), ("9", "90"), ("5 cm", "5 cm^2"), ("5 mg", "5 kg"), ("12 pears and 3 apples", "3, 12, 4"),
    ("十七", "18"), ("-5", "5"), ("5 degrees Fahrenheit", "5°C"), ("3-6", "3-5"), ("at most 5", "at least 5"), ("x < 5", "x>5"), ("7", "no solution"),
    ("The answer is 6. No, wait, it is 5.", "6"), ("100 minutes", "1 hour"), ("3 am", "3 in the afternoon"), ("1 to 2", "2:1"), ("10 cm", "1 m"),
    ("No, it is not 7.", "7"), ("It is not 7.", "7"),
]  # fmt: skip


def scored(reply: str, right: str) -> bool:
    prompt = Draft("here", "id", (Message("user", "?"),), (right,)).prompt()
    return answer_of(prompt, reply) == prompt.answer


@pytest.mark.parametrize(("reply", "right"), RIGHT)
def test_right(reply: str, right: str) -> None:
    assert scored(reply, right)


@pytest.mark.parametrize(("reply", "right"), WRONG)
def test_wrong(reply: str, right: str) -> None:
    assert not scored(reply, right)
