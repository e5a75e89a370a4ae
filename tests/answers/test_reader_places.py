"""Where a reply states its answer, and of which type it is: the reading that a careful person would give."""

from __future__ import annotations

import pytest

from edgedistill.answers.anchors import is_heading, last_anchor
from edgedistill.answers.boxes import boxed_spans
from edgedistill.answers.extract import extract, read
from edgedistill.answers.fit import fit
from edgedistill.answers.typed import canonical, read_span


@pytest.mark.parametrize(
    ("span", "kind", "key"),
    [
        (r"\{x : x > 2\}", "set", "{x:x>2}"), ("{1, 2, 1}", "set", "{1,2}"),
        (r"(-\infty, 1) \cup [2, 3)", "interval", "(-infinity,1) union [2,3)"), (r"[2,3) \cup (-\infty,1)", "interval", "(-infinity,1) union [2,3)"),
        (r"\begin{pmatrix}1 & 2\\3 & 4\end{pmatrix}", "tuple", "[1,2;3,4]"), ("(1, 2)", "tuple", "(1,2)"), ("[1, 2]", "interval", "[1,2]"),
        ("[1, 2, 3]", "list", "1,2,3"), ("[1, 2, 3)", "interval", "[1,2,3)"), ("[5]", "list", "[5]"), ("(5)", "number", "5"), ("(1, 2) and (3, 4)", "list", "(1,2),(3,4)"),
        (r"\pm 3", "list", "-3,3"), (r"x = \pm 3", "list", "-3,3"), (r"y = \pm 2", "list", "y=-2,y=2"), (r"\pm\sqrt{2}", "list", "-sqrt(2),sqrt(2)"),
        ("x = 3 or x = 5", "list", "3,5"), ("x=5, x=3", "list", "3,5"), ("y = 3, x = 5", "list", "5,y=3"), ("3 and 3", "number", "3"), ("3, 1, 2", "list", "3,1,2"),
        ("3, 1, or 2", "list", "1,2,3"), ("1; 2; 3", "list", "1,2,3"), ("red, green and blue", "list", "red,green,blue"), ("red and green", "list", "green,red"),
        ("1,200 and 3", "list", "1200,3"), ("1,200, 3", "list", "1200,3"), ("1,2,3", "list", "1,2,3"), ("a1 and b2", "text", "a1 and b2"),
        ("x > 3", "relation", "3<x"), ("3 < x", "relation", "3<x"), ("x >= 3", "relation", "3<=x"), ("5 > x > 3", "relation", "3<x<5"), ("3 < x <= 5", "relation", "3<x<=5"),
        ("x != 3", "relation", "x!=3"), ("y = 2x + 1", "relation", "y=2x+1"), ("x = 7", "number", "7"), ("3 + 4 = 7", "number", "7"), ("2/4 = 1/2", "number", "1/2"),
        ("f(x) = 2x = x + x", "relation", "f(x)=2x"), ("x + y = 3", "relation", "x+y=3"), ("5 = y", "relation", "y=5"), ("5 = x", "number", "5"), ("area = 12 cm^2", "unit", "12 cm^2"),
        ("x in [1, 2)", "interval", "[1,2)"), ("x ~= 3.14", "number", "157/50"), ("y ~= 3.14", "relation", "y=157/50"), ("area ~= 12 cm^2", "unit", "12 cm^2"), (r"\pi \approx 3.14", "expression", "pi"), ("22/7 ~= 3.14", "fraction", "22/7"), ("x in R", "relation", "xinR"), ("Lima is in Peru", "text", "lima is in peru"), ("x =", "text", "x ="), ("total cost = $12", "number", "12"),
        ("yes", "text", "yes"), ("No, because", "text", "no"), ("TRUE.", "text", "true"), ("nobody", "text", "nobody"), ("a", "expression", "a"), ("(a)", "letter", "A"), ("B", "letter", "B"),
        ("B.", "letter", "B"), ("(B) the second", "letter", "B"), ("B) the second", "letter", "B"), ("B: the second", "letter", "B"), ("(A) and (C)", "list", "A,C"), ("B - the second one", "letter", "B"),
        ("The Eiffel Tower", "text", "eiffel tower"), ("a cat", "text", "cat"), ("an apple", "text", "apple"), ("'Paris'", "text", "paris"), ("<b>12</b>", "number", "12"), ("about 12", "number", "12"),
        ("approximately 3.5 km", "unit", "3500 m"), ("12 (twelve)", "number", "12"), ("12 because 3 * 4 = 12", "number", "12"), ("12, not 13", "number", "12"), ("18です", "number", "18"), ("5!", "number", "120"), ("12!", "number", "479001600"),
        ("(n)!", "expression", "n!"), ("wow!", "text", "wow"), (".5", "number", "1/2"), ("12 units", "number", "12"), ("12 square units", "number", "12"), ("1/2", "fraction", "1/2"), ("3:45 PM", "time", "15:45"),
        ("3:2", "ratio", "3:2"), ("5 May 2020", "date", "2020-05-05"), ("x + 1", "expression", "x+1"),
    ],
)  # fmt: skip
def test_types_and_keys_of_spans(span: str, kind: str, key: str) -> None:
    answer = read_span(span)
    assert answer is not None
    assert (answer.type, answer.key, answer.span) == (kind, key, span)


def test_bounds_of_a_span() -> None:
    assert read_span("x" * 400) is not None
    assert read_span("x" * 401) is None
    assert canonical(",".join(str(n) for n in range(64))) == ",".join(str(n) for n in range(64))
    assert read_span("2,5", decimal_comma=True).key == "5/2"
    assert read_span("2,5").key == "2,5"
    assert read_span("2,5 und 3,5", decimal_comma=True).key == "5/2,7/2"
    assert read_span("y = 2,5", decimal_comma=True).key == "y=5/2"
    assert (
        read_span(r"x = \pm 2,5", decimal_comma=True).key == read_span("x = 2,5 oder x = -2,5", decimal_comma=True).key
    )
    assert read_span(r"\pm 1 + 2").key == "-1+2,1+2", "the sign is of the first term"


@pytest.mark.parametrize(
    ("reply", "key"),
    [
        ("#### 1\n#### 2", "2"), ("<answer>1</answer> then <answer>2</answer>", "2"), (r"\boxed{1}, \boxed{2} and \boxed{3}", "1,2,3"),
        (r"\boxed{1}. Then \boxed{2} or \boxed{3}", "2,3"), (r"$x=\boxed{1}$ or $x=\boxed{2}$", "1,2"), ("The answer is:\n\n12", "12"), ("The answer is:\n- 6\n- 8\n- 9", "6,8,9"),
        ("The answer is\n$$\n12\n$$", "12"), ("The answer is $x^2$ because it is.", "x^2"), ("The answer is $3$ apples.", "3"), ("The answer is Mr. Smith.", "mr. smith"),
        ("The answer is 9 a.m. on Friday.", "9 a.m. on friday"), ("The answer is 9 pm sharp.", "9 pm sharp"), ("The answer is 3.5. It is exact.", "7/2"),
        ("The answer is that he has 12 apples left.", "12"), ("The answer is 5!", "5"), ("The answer is 5!.", "120"), ("The answer is Lima! Great.", "lima"),
        ("Answer:", None), ("## Answer\n\n12\n", "12"), ("Answer:\nFirst add.\nThen take.\nSo on.\nIt ends.", None),
        ("| a | b |\n|---|---|\n| sum | 12 |", "12"), ("It is **12**.", "12"), ("It is **x** and **12**.", "12"), ("**Note:** we get 12", "12"), ("The total: **12 apples**", "12"),
        ("__12__", "12"), ("- 12", "12"), ("1. 5\n2. 7", "7"), ("So we get 12.", "12"), ("Therefore, x = 12.", "12"), ("Thus it is 12 km", "12 km"), ("In total: 12", "12"), ("12 + 30 = 42 of them", "42"),
        ("It is not 12", None), ("between 3 and 5 people", None), ("at least 12 people", None), ("the 5th place", None), ("I am 12", "12"), ("He has 12 apples", "12"), ("He has 12 of 15 apples", None),
        ("We have $x = 3$.", "3"), ("We have $x = 3$ and so it goes on and on for them.", "3"), ("We have $3$ cm", "3 cm"), ("$x=1$ or $x=2$", "1,2"), ("Lima", "lima"), ("Lima is in Peru", None), ("yes, it is", "yes"),
        ("A:  12", "12"), ("### 12", "12"), ("12!!", "12"), ("B. Because of it", "B"), ("(C) as it is", "C"), ("Paris. It is in France.", None), ("One. Two. 12.", "12"), ("x is 5, y is 6", None), ("It is 5.\n\n---", "5"),
        ("$$\nx = 12\n$$", "12"), ("The answer is twice 12.", "twice 12"), ("The answer is 12 km, because 3 km is short", "12 km"),
    ],
)  # fmt: skip
def test_where_a_reply_states_its_answer(reply: str, key: str | None) -> None:
    assert extract(reply) == key


@pytest.mark.parametrize(
    ("reply", "rule", "key"),
    [
        (r"\boxed{7} #### 8", "boxed", "7"), (r"\boxed{7} #### 8", "hash", "8"), ("#### 8\nThe answer is 9.", "phrase", "9"), ("12", "boxed", None), ("12", "hash", None), ("12", "phrase", None),
        ("3 then 4 km", "number", "4 km"), ("3 then 4%", "number", "4%"), ("3 then 4 because", "number", "4"), ("no", "number", None), ("12\nnone here", "number", "12"), ("1. 12", "number", "12"), (r"\frac{1}{2}", "number", "1/2"),
        ("x" * 5000 + " 42", "number", "42"), ("7\n" + "x" * 5000, "number", "7"), ("costs $1,200.50", "number", "2401/2"), ("-5", "number", "-5"), ("7-5", "number", "5"), ("5km", "number", "5 km"),
        (" A  B ", "text", "a b"), ("", "text", None), (" \n", "text", None),
        ("A\n#### B\n#### C", "choice", "C"), (r"\boxed{A} \boxed{B}", "choice", "B"), (r"\boxed{12} The answer is C", "choice", "C"), ("The answer is Option B.", "choice", "B"), ("The answer is the letter D", "choice", "D"),
        ("Correct: A\nb", "choice", "B"), ("Choice is c", "choice", "C"), ("(d) it is\nwell", "choice", "D"), ("well\nD. it is", "choice", "D"), ("A cat has nine", "choice", None), ("A dog or B", "choice", "B"), ("only I", "choice", "I"), ("", "choice", None),
        ("The answer is B-2", "choice", "B"), ("The answer is Berlin", "choice", None),
    ],
)  # fmt: skip
def test_rules(reply: str, rule: str, key: str | None) -> None:
    answer = read(reply, rule)  # type: ignore[arg-type]
    assert (None if answer is None else answer.key) == key
    assert answer is None or rule not in ("choice", "text") or answer.type == {"choice": "letter"}.get(rule, rule)


@pytest.mark.parametrize(
    ("reply", "expected", "key"),
    [
        ("It has 12 of 15", "number", "15"), ("It takes 5 km in all", "unit", "5 km"), ("It is 50% of it", "percent", "50%"), (r"It is $\frac{1}{2}$ of all that there was of them", "fraction", "1/2"), ("It costs €5 or so", "money", "5 EUR"),
        ("The capital of Peru is Lima", "text", "lima"), ("Yes, I think it is so", "text", "yes"), ("I do not know what it is", "text", None), ("It is a long story that goes on and on", "text", None),
        ("I choose B", "letter", "B"), ("First 3.\nThen nothing", "number", "3"), ("1. Lima", "text", "lima"), ("1. 12", "number", "12"), ("no number", "number", "no number"),
    ],
)  # fmt: skip
def test_an_expected_type_finds_more(reply: str, expected: str, key: str | None) -> None:
    assert extract(reply, "auto", expected) == key  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "gold", "tolerance", "key"),
    [
        ("12 km", "12", None, "12"), ("12", "12 km", None, "12 km"), ("12 m", "12 km", None, "12 m"), ("50%", "1/2", None, "1/2"), ("50%", "50", None, "50"), ("50", "50%", None, "50%"), ("50%", "50%", None, "50%"),
        ("y = 3", "3", None, "3"), ("3", "y=3", None, "y=3"), ("2x", "y=2x", None, "y=2x"), ("z = 3", "y=3", None, "z=3"), ("2, 3", "{2,3}", None, "{2,3}"), ("3, 2, 1", "1,2,3", None, "1,2,3"), ("2, 4", "{2,3}", None, "2,4"),
        ("3.14", "22/7", 0.01, "22/7"), ("3.14", "22/7", 0.001, "157/50"), ("3.5", "3", 0.5, "3"), ("3.14 km", "22/7 km", 0.01, "22/7 km"), ("3.14 m", "22/7 km", 0.01, "314 cm"), ("Paris", "12", None, "paris"), ("€12", "12", None, "12"),
    ],
)  # fmt: skip
def test_the_form_of_the_right_answer(reply: str, gold: str, tolerance: float | None, key: str) -> None:
    answer = read_span(reply)
    assert answer is not None
    assert fit(answer, [gold], tolerance) == key


def test_announcements() -> None:
    text = "The answer is 5. Die Antwort ist 2,5. But wait, result = 7"
    anchor = last_anchor(text)
    assert (text[anchor.start : anchor.end], anchor.decimal_comma) == ("result = ", False)
    german = last_anchor(text[:38])
    assert (text[german.start : german.end], german.decimal_comma) == ("Die Antwort ist ", True)
    assert last_anchor("nothing is said") is None
    assert last_anchor("answering machines are results of it") is None
    assert text[: last_anchor("The answer is 5. An answer was given, and answers differ").end] == "The answer is "
    assert [
        is_heading(line) for line in ("## Answer", "**Total:**", "Lösung", "The long answer", "#" * 80 + "answer")
    ] == [True, True, True, False, False]
    assert boxed_spans(r"a \boxed{1} \boxed{\boxed{2}} \boxed{3") == [(2, 9, 10), (12, 19, 28)]
    assert read("x" * 70_000 + " The answer is 12.").key == "12"
    assert extract("The answer is 12." + " and so on" * 3000) is None, "announced too far from the end"
