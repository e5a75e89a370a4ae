"""Answers in every form that replies have: brackets, chains of relations, lists in words, sentences, long replies."""

from __future__ import annotations

import pytest

from edgedistill.answers.anchors import last_anchor
from edgedistill.answers.extract import MAX_TEXT, extract, read
from edgedistill.answers.fit import fit
from edgedistill.answers.sentences import first_sentence, last_sentence
from edgedistill.answers.typed import canonical, read_span


@pytest.mark.parametrize(
    ("span", "kind", "key"),
    [
        ("(1, 2), (3, 4)", "list", "(1,2),(3,4)"), ("((1, 2), 3)", "tuple", "((1,2),3)"), (r"\{1, \{2, 3\}\}", "set", "{1,{2,3}}"), ("((1, 2)", "text", "((1, 2)"), ("(1,2)(3,4)", "text", "(1,2)(3,4)"),
        (r"\{x | x > 2\}", "set", "{x:x>2}"), (r"\{x \mid x > 2\}", "set", "{x:x>2}"), (r"\{1; 2\}", "set", "{1,2}"), ("[[1, 2], [3, 4]]", "interval", "[[1,2],[3,4]]"),
        (r"\begin{bmatrix}(1,2) & 3\\ & 4\\\end{bmatrix}", "tuple", "[(1,2),3;4]"), ("(X, Y)", "tuple", "(X,Y)"), ("X and Y", "list", "X,Y"), ("X, Y", "list", "X,Y"), ("{X, Y}", "set", "{X,Y}"), ("(X; Y)", "tuple", "(X,Y)"),
        ("[1, 2] ∪ [3, 4] ∪ \\{5\\}", "interval", "[1,2] union [3,4] union {5}"), ("the labor union strike", "text", "labor union strike"), ("labor union", "text", "labor union"), ("union of workers", "text", "union of workers"),
        (r"\pm 3, 5", "list", "-3,3,5"), (r"\pm 1 \pm 2", "expression", "(+-1)+(+-2)"), ("X = ±2", "list", "-2,2"),
        ("12, a very old red house", "text", "12, a very old red house"), ("12, an old red house", "list", "12,old red house"), ("a big old red house, Lima", "text", "big old red house, lima"), ("old red house, Lima", "list", "lima,old red house"),
        ("Lima, Quito, the very old town of Cusco", "list", "lima,quito,very old town of cusco"), ("5 and (5)", "number", "5"), (".5 and .7", "list", "1/2,7/10"), ("red, , green", "list", "green,red"), ("Lima, '', Quito", "list", "lima,,quito"),
        ("3 < x > 2", "relation", "3<x>2"), ("1 < 2 < 3 < 4 < 5 < 6 < 7 < 8 < 9 < 10", "relation", "1<2<3<4<5<6<7<8<9<10"), ("12 = it is a very long name", "text", "12 = it is a very long name"), ("= 3", "text", "= 3"),
        ("y = 22/7 ~= 3.14", "relation", "y=22/7"), ("y ~= 3.14 ~= 3.1", "relation", "y=157/50"), ("X ~= 3.14", "number", "157/50"), ("X = 1 + 1 = 2", "number", "2"), ("2x + 1 = 1 + 2x = y", "relation", "y=2x+1"), ("a + b = c = 3", "relation", "a+b=3"),
        ("3 + 4 = 2 + 5 = 7", "number", "7"), ("sqrt(2) * sqrt(8) = 4", "number", "4"), ("12/5 = 2.4 = y", "relation", "y=12/5"), ("total cost ~= 12 km", "unit", "12 km"), ("y_1 = 2 + 1 = 3", "relation", "y_1=3"),
        ("北京です", "text", "北京"), ("北京です (首都)", "text", "北京"), ("18 (十八)です", "number", "18"), ("2x square units", "expression", "2x"), ("sqrt(2) units", "expression", "sqrt(2)"),
        ("总共**北京**市", "text", "总共北京市"), ("**12**km", "unit", "12 km"), ("12.!", "number", "12"), ("5!.", "number", "120"), ("'.5'", "number", "1/2"), ('".5"', "number", "1/2"), ("New   York", "text", "new york"), ("The the", "text", "the"),
        ("[" * 24 + "x" + "]" * 24, "list", "[" * 24 + "x" + "]" * 24), ("[" * 25 + "x" + "]" * 25, "text", "[" * 25 + "x" + "]" * 25),
        ("3 pm", "time", "15:00"), ("5'6\"", "unit", "66 in"), ("5’ 6”", "unit", "66 in"), ("5′6½″", "unit", "133/72 yd"), ("6'", "number", "6"), ("5 ft 3 in", "unit", "63 in"), ("7 in.", "unit", "7 in"), ("7 in^2", "unit", "7 in^2"), ("7 in total", "number", "7"), ("1'000", "number", "1000"),
    ],
)  # fmt: skip
def test_forms_of_spans(span: str, kind: str, key: str) -> None:
    answer = read_span(span)
    assert answer is not None
    assert (answer.type, answer.key) == (kind, key)


@pytest.mark.parametrize(
    ("span", "key"),
    [
        ("2,5", "5/2"), ("a,5", "5,a"), ("2,a", "2,a"), ("1,2,3", "1,2,3"), ("(2,5; 3,5)", "(5/2,7/2)"), ("(2,5)", "(2,5)"), ("[2,5]", "[2,5]"), ("{2,5; 3}", "{3,5/2}"), ("Fläche ~= 2,5", "5/2"), ("2,5 ~= 2", "5/2"),
        ("x = 1,5 + 1 = 2,5", "5/2"), ("1,5 + 1 = 2,5", "5/2"), ("x > 2,5", "5/2<x"), ("[1,5; 2) ∪ [3; 4)", "[3,4) union [3/2,2)"), ("2,5 cm", "25 mm"), ("2,5; 3,5", "5/2,7/2"),
    ],
)  # fmt: skip
def test_spans_of_languages_with_a_decimal_comma(span: str, key: str) -> None:
    answer = read_span(span, decimal_comma=True)
    assert answer is not None
    assert answer.key == key


@pytest.mark.parametrize(
    ("line", "first", "last"),
    [
        ("It is J. R. Tolkien. He wrote.", "It is J. R. Tolkien", "He wrote."), ("It is Peter J. Smith. He won.", "It is Peter J. Smith", "He won."), ("It is option B. A is wrong.", "It is option B", "A is wrong."),
        ("It is Mr. Smith, i.e. Bob. Ok.", "It is Mr. Smith, i.e. Bob", "Ok."), ("It is 5! It is.", "It is 5", "It is."), ("It is $5!$. It is.", "It is $5!$", "It is."), ("It is 5!. It is.", "It is 5!", "It is."), ("It is (n)! . So.", "It is (n)! ", "So."),
        ("Lima! Great.", "Lima", "Great."), ("Lima!", "Lima", "Lima!"), ("是北京。对。", "是北京", "对。"), ("Is it? Yes.", "Is it", "Yes."), ("It is 3.5 km. So.", "It is 3.5 km", "So."), ("He is USA. B. ok", "He is USA", "B. ok"), ("at 3 p.m. on it. So.", "at 3 p.m. on it", "So."),
        ("It is so. **", "It is so", "It is so. **"), ("no stop", "no stop", "no stop"), ("(see Fig. 3) ok. So", "(see Fig. 3) ok", "So"), ("What. Then lima. Quito.", "What", "Quito."), ("It is Mr. Jones. So.", "It is Mr. Jones", "So."), ("A b C. Dee. Fine. Great! x", "A b C", "x"),
    ],
)  # fmt: skip
def test_where_sentences_end(line: str, first: str, last: str) -> None:
    assert (first_sentence(line), last_sentence(line)) == (first, last)


@pytest.mark.parametrize(
    ("reply", "key"),
    [
        ("So the answer is:", None), ("The answer is", None), ("The answer is ...", None), ("The sum is 12.\nSo the answer is:", None), ("## Answer", None), ("答案：", None), ("**Total:**", None), ("Total", "total"), ("The answer is $$", None),
        ("The train leaves at 3 pm", "15:00"), ("The train leaves at 3 p.m.", "15:00"), ("It starts at 15:45 in Lima.", "15:45"), ("It is open from 3 pm", None), ("It starts at 3 pm on Monday", None), ("It starts before 3 pm", None), ("Of 4 trains one leaves at 3 pm", None), ("It is 3 pm here, 4 pm there", None), ("We meet at 25:00 or so", None),
        ("## Answer\n12\n\nI hope that all of it is clear to you.", "12"), ("Total\n5\n\nTotal\n12\nI hope that all of it is clear to you.", "12"), ("We add.\nTotal\n12\n- as I said to you before now", "12"), ("Total\n* 6\n* 8", "6,8"), ("Total\n2,5", "2,5"), ("We add.\nTotal\n12.", "12"),
        ("Answer:\n" + "\n".join(f"- {n}" for n in range(1, 16)), ",".join(map(str, range(1, 16)))), ("Antwort:\n- 2,5\n- 3,5", "5/2,7/2"), ("Answer:\nLima.\nIt is so.\nIt is old.", "lima"), ("Answer:\nLima.\nIt is so.\nIt is old.\nThat was it for all of you today.", None), ("Answer:\n- 6\nI added.", "6"), ("The answer is 6.\n- so\n- so", "6"),
        ("Answer:\n  **12**\na b c d e\nf g h i j\nk l m n o", "12"), ("Answer:\n$12$\na b c d e\nf g h i j\nk l m n o", "12"), ("Answer:\n\\(12\\)\na b c d e\nf g h i j\nk l m n o", "12"), ("Answer:\n| 12 |\na b c d e\nf g h i j\nk l m n o", "12"), ("Answer:\n| Lima |", "lima"),
        ("The answer is\n$$\nx = 12\n$$\nas we have seen in all of the above steps.", "12"), ("The answer is\n\\[\nx = 12\n\\]\nas we have seen in all of the above steps.", "12"), ("The answer is\n$$\n12", "12"), ("The answer is $(1, 2)$, and it is the only one of them.", "(1,2)"), ("Die Antwort ist $2,5$, und mehr ist es auch nicht.", "5/2"), ("The answer is $3$ of $5$ here.", "$3$ of $5$ here".replace("$", "")),
        ("Die Antwort ist, dass er 1.234 Euro hat.", "1234 EUR"), ("The answer is that there were 5 at the table", "5"), ("He walked 5 km, as he told us", "5 km"), ("It costs us $12; so be it", "12"), ("We have 5 here: not 6", None), ("He has a2 and b", None),
        ("---", None), ("12\n\n***\n---", "12"), ("12 apples\n\\]", "12"), ("|x| 12|", "12"), ("| | Lima | |", "lima"), ("### Lima", "lima"), ("A: Lima", "lima"), ("1. Lima\n2. Quito", None), ("1. 5 km\n2. 7 km", "7 km"), ("- Lima", "lima"), ("Well.\n1. 7", "7"), ("7!", "7"),
        ("**Lima** and **Quito** are the capitals of them", None), ("**Lima** is the capital of all of it", "lima"), ("**Lima** has 12 people", "12"), ("We say: **Note:**", None), ("**12** is less than **x + 1**", "x+1"), ("**Lima:** 12 km", "12 km"),
        ("It goes. It is 12 km. *)", "12 km"), ("Answer:\n* 6\n* 8", "6,8"), ("Total\nLima", "lima"), ("We add.\nTotal\nLima is it.", "lima is it"), ("Answer:\n\n- 6, as I said", "6"), ("\nAnswer: 12.\nI hope that it is clear to you all.", "12"), ("The answer is\n\\[\n12", "12"),
        ("It is so.\n12!", "12"), ("- 6\n2. 12 km", "12 km"), ("**::** 12 km", "12 km"), ("Therefore 12 km it was for us", "12 km"), ("Thus, Lima", "lima"), ("$\\frac{1}{2}$ km", "500 m"), ("$3$; km.", "3 km"),
        ("He said: so: 12 km", "12 km"), ("He said: 5 = x", "5"), ("a = 5 of them = 12 apples", "a=12"), ("$Lima$, so be it for all", None), ("**Answer:**\n__6__\nas I said", "6"), ("We get $x = 3$ and this is all.", "3"), ("We get $x = 3$ and this is all there is.", "3"), ("$x=1$ and $y=2$ and $z=3$", "x=1,y=2,z=3".replace("x=1", "1")), ("We get $y$ as in $3$ km", "3 km"), ("Here $3$ dozens", "36"), ("$x + 1$ km", "x+1"),
        ("It is not so. It is 5 km", "5 km"), ("The grade of it is K", None), ("We conclude that x = 3", "3"), ("This is what is 5", "5"), ("The sum of it: 12 km", "12 km"), ("I don't know: 12", None), ("New York City", "new york city"), ("New York City now", None), ("I think so", None), ("Go to a2", None), ("No, never in my life", "no"), ("True, it is what we saw", "true"),
        ("We see that 5 = 5 and 6 = six", None), ("3 + 4 = at least 7", None), ("<answer> 12 </answer> and so on", "12"),
        (r"\boxed{1} is a, \boxed{2}", "2"), (r"\boxed{1}\boxed{2}", "2"), (r"\boxed{2,5}", "2,5"), (r"\boxed{3} or $y = \boxed{4}$", "3,4"), (r"\boxed{1}; \boxed{2}; \boxed{3}", "1,2,3"),
    ],
)  # fmt: skip
def test_what_replies_state(reply: str, key: str | None) -> None:
    assert extract(reply) == key


@pytest.mark.parametrize(
    ("reply", "rule", "key"),
    [
        ("1,5\n\nok", "number", "5"), ("a 12 km/h", "number", "12 km/h"), ("5 m^2 of it", "number", "5 m^2"), ("x 3 %", "number", "3%"), ("of 12 people", "number", "12"), ("3 xyz", "number", "3"), ("12\n\n", "number", "12"), ("1) 12\n2) none", "number", "12"), (r"\frac{3}{4} km", "number", "750 m"),
        ("I like B\nso do we", "choice", "B"), ("(B) is it\nnothing else", "choice", "B"), ("nothing\n(b) is it", "choice", "B"), ("A bird and so on", "choice", None), ("A bird, B", "choice", "B"), ("it's I", "choice", "I"), ("I think so", "choice", None), ("**C**", "choice", "C"),
        ("The answer is: B\nA", "choice", "B"), ("#### A\n\\boxed{12}", "choice", "A"), ("Option a", "choice", "A"), ("选B", "choice", "B"), ("选 b 吧", "choice", "B"), (r"\boxed{the letter C}", "choice", "C"), ("\\boxed{'D'}", "choice", "D"), ("answer is e because so", "choice", "E"), (r"\boxed{b, as it is}", "choice", "B"),
        ("Answer: B\nbut why is it so", "choice", "B"), (r"\boxed{OPTION **C**}", "choice", "C"), (r"\boxed{Option D}", "choice", "D"), (r"\boxed{Berlin} B", "choice", "B"), ("X is A\nnot me", "choice", "A"),
        ("A or B\nC or D\nnothing here", "choice", "D"), ("It is (c) or so\nnothing here", "choice", "C"), ("  \n ", "choice", None),
    ],
)  # fmt: skip
def test_rules_more(reply: str, rule: str, key: str | None) -> None:
    answer = read(reply, rule)  # type: ignore[arg-type]
    assert (None if answer is None else answer.key) == key
    assert answer is None or (answer.type == "letter") == (rule == "choice")


@pytest.mark.parametrize(
    ("reply", "expected", "key"),
    [
        ("- Yes it may be", "text", "yes"), ("Therefore the town is in the south", "text", "in the south"), ("It is one two three four five six", "text", "one two three four five six"), ("It is one two three four five six seven", "text", None), ("I'm sure it is Lima", "text", None),
        ("A. Because of it", "number", None), ("We are 12 of 15\nand so on", "percent", "15"), ("We are 12 of 15 €", "money", "15 EUR"), ("He has 12 of 15 km", "unit", "15 km"), ("Thus Lima", "text", "lima"), ("it 1/2 or 3/4 of it", "fraction", "3/4"), ("1. Lima", None, None),
    ],
)  # fmt: skip
def test_expected_types_more(reply: str, expected: str | None, key: str | None) -> None:
    assert extract(reply, "auto", expected) == key  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "rule", "most"),
    [(r"\boxed{7}", "boxed", MAX_TEXT), ("#### 7", "hash", MAX_TEXT), (r"\boxed{7}", "auto", MAX_TEXT), ("Answer: 7", "phrase", MAX_TEXT // 4), ("Answer: 7", "auto", MAX_TEXT // 4), ("7 of\n", "number", MAX_TEXT // 4)],
)  # fmt: skip
def test_how_far_from_the_end_an_answer_is_looked_for(answer: str, rule: str, most: int) -> None:
    """What is in a box or behind #### in the whole of the text that is read, anything else in its last quarter."""
    rest = "\n" + "so it goes " * MAX_TEXT
    assert extract("So " + answer + rest[: most - len(answer)], rule) == "7"  # type: ignore[arg-type]
    assert extract("So " + answer + rest[: most - len(answer) + 1], rule) is None  # type: ignore[arg-type]


def test_a_whole_text_is_a_text() -> None:
    assert read(" 12  KM ", "text").type == "text"
    assert read("The train leaves at 3 pm").type == "time"
    text = "So the final answer is 5"
    assert (last_anchor(text).start, last_anchor(text).end) == (3, 23)
    assert extract("A: The answer is 12. " + "So. " * 60) == "12"


@pytest.mark.parametrize(
    ("reply", "gold", "key"),
    [
        ("y = 3", "x > 3", "y=3"), ("y = 3", "y = x", "y=3"), ("3", "nothing", "3"), ("", "3", None), ("2, 3", "{3, 2}", "{2,3}"), ("{3, 4}", "3, 4", "3,4"), ("z = 2", "2", "2"), ("x > 3", "y = 3", "3<x"), ("1/2", "50%", "50%"), ("€5", "5 GBP", "5 EUR"),
    ],
)  # fmt: skip
def test_forms_of_right_answers(reply: str, gold: str, key: str | None) -> None:
    answer = read_span(reply)
    assert (None if answer is None else fit(answer, [canonical(gold) or ""])) == key
