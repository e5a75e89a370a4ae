"""The reader of answers by kind: equal answers get one key, different ones do not, and what is no answer is unread."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.answers.boxes import boxed_contents
from edgedistill.answers.extract import extract, read
from edgedistill.answers.fit import fit
from edgedistill.answers.typed import canonical, read_span

BENCH = Path(__file__).parents[2] / "bench"

DIFFERENT = [
    ("The answer is 2x + 3.", "The answer is 5x + 3."),
    ("The answer is 1, 2, 3.", "The answer is 7, 9, 3."),
    ("The answer is January 5, 2024.", "The answer is March 9, 2024."),
    ("The answer is 3:45 PM.", "The answer is 4:45 PM.", "The answer is 3:45 AM."),
    ("The answer is 3:2.", "The answer is 5:2."),
    (r"Therefore $x \geq 5$.", r"Therefore $x \leq 5$.", "Therefore $x = 5$."),
    (r"\boxed{2xy}", r"\boxed{2}", r"\boxed{3xy}"),
    (r"\boxed{3\pi}", r"\boxed{3}", r"\boxed{4\pi}"),
    (r"\boxed{5!}", r"\boxed{5}", r"\boxed{6!}"),
    (r"\boxed{3 \text{ PM}}", r"\boxed{3 \text{ AM}}", r"\boxed{3}"),
    (r"\boxed{1.5 \text{ million}}", r"\boxed{1.5}", r"\boxed{1.5 \text{ billion}}"),
    (r"\boxed{x=3}", r"\boxed{y=3}", r"\boxed{z=3}"),
    (r"\boxed{1,200}", r"\boxed{1, 200}"),
    ("答案是2,5。", "答案是3,5。"),
    ("La respuesta es 2,5.", "La respuesta es 3,5."),
    ("The answer is 5 km.", "The answer is 5 m.", "The answer is 5 cm^2.", "The answer is 5 cm."),
    ("The answer is €5.", "The answer is £5.", "The answer is 5%."),
    ("The answer is at least 5.", "The answer is at most 5.", "The answer is 5.", "The answer is not 5."),
    ("The answer is 7 (mod 11).", "The answer is 7 (mod 13).", "The answer is 7."),
    ("The answer is the 5th.", "The answer is the 6th."),
    ("The answer is H2O.", "The answer is HO2."),
    (r"So $x > 3$ or $x < -2$.", r"So $x > 5$ or $x < -2$."),
    (r"\boxed{(3, 5)}", r"\boxed{[3, 5)}", r"\boxed{\{3, 5\}}"),
    (r"\boxed{e^{2x}}", r"\boxed{e^2x}"),
    (r"\boxed{2^x}", r"\boxed{2^y}"),
    ("The answer is 2024-01-05.", "The answer is 2023-01-05."),
    ("The answer is 3 * 4.", "The answer is 2 * 6."),
    ("The answer is x = 2, y = 3.", "The answer is x = 3, y = 2."),
    ("答案是北京。", "答案是上海。"),
    ("The answer is 2 dozen.", "The answer is 2.", "The answer is twice 2.", "The answer is half of 2."),
    ("The answer is 192.168.0.1.", "The answer is 192.168.0.2.", "The answer is 192.168."),
    (r"\boxed{\text{(A) and (C)}}", r"\boxed{\text{(A)}}", r"\boxed{\text{(A) and (B)}}"),
    ("The answer is 12:30 AM.", "The answer is 12:30 PM."),
    ("The answer is CO2.", "The answer is CO."),
    (r"\boxed{10_2}", r"\boxed{10_3}", r"\boxed{10}"),
    (r"\boxed{|x|}", r"\boxed{x}"),
    ("Ответ: да", "Ответ: нет"),
]

EQUAL = [
    ("The answer is 12 (see step 3).", "#### 12", "The answer is 12 because 3 * 4 = 12.", "<answer>12</answer>"),
    ("The answer is approximately 3.14 (rounded to 2 decimals).", "The answer is 3.14.", "So it is about 3.14."),
    ("Result:\n- 12 apples", "The answer is 12 apples.", "Answer:\n\n* 12", "12"),
    ("答案是18。", "答えは18です", "총18개", "คำตอบคือ18", "所以一共有18个苹果。", "Ответ: 18", "La respuesta es 18.", "उत्तर १८ है।",
     "الجواب هو ١٨", "Die Antwort lautet 18.", "La réponse est 18.", "A resposta é 18.", "Cevap: 18", "Đáp án là 18.",
     "Jawabannya adalah 18.", "La risposta è 18.", "정답은 18입니다."),
    ("Paris", "**Paris**", "Paris.", "The answer is Paris.", "Answer: paris", r"\boxed{\text{Paris}}", "Ответ: Paris", "答案：Paris"),
    ("Yes.", "yes", "The answer is yes.", "Yes, because 7 is prime."),
    (r"\boxed{x^2}", r"\boxed{x^{2}}", "The answer is x².", "#### x^2"),
    (r"\boxed{\sqrt3}", r"\boxed{\sqrt{3}}", "The answer is √3."),
    (r"\boxed{x \le 3}", r"\boxed{x \leq 3}", r"\boxed{x ≤ 3}", r"\boxed{3 \geq x}", "Therefore $x \\leqslant 3$."),
    (r"\boxed{1.2\times10^3}", r"\boxed{1200}", "The answer is 1,200.", "The answer is 1.2e3."),
    ("The answer is ½.", "The answer is 1/2.", r"\boxed{\frac12}", r"\boxed{\cfrac{1}{2}}", "La respuesta es 0,5.", "#### .5"),
    ("(B)", "B", "The answer is B.", "**B**", "Answer: B. Paris", "The correct option is (B)."),
    (r"\boxed{\{1,2\}}", r"\boxed{\{2,1\}}", r"\boxed{\left\{2,\ 1\right\}}"),
    ("A. Because B is not valid.", "The answer is A.", "(A) as B and C are wrong"),
    ("The answer is 6 and 8.", r"\boxed{6, 8}", r"$\boxed{6}$ and $\boxed{8}$", "The answers are:\n- 6\n- 8"),
    (r"\boxed{5\text{ cm}^2}", "The answer is 5 cm².", "The answer is 5 square centimeters.", "The area is 5 cm^2"),
    (r"\boxed{[1,\infty)}", r"\boxed{[1, \quad \infty)}", "The answer is [1, ∞)."),
    (r"\boxed{2\pi}", "The answer is 2π."),
    ("The answer is 3:45 PM.", "The answer is 15:45.", "The answer is 3:45 p.m."),
    ("## Final answer\n\n42", "| step | value |\n|---|---|\n| total | 42 |", "There are 3.\n\n**42**", "### 42", "12 + 30 = 42",
     "Answer: 42\n\nLet me know if you need 2 more!", "$$42$$", r"\[ x = 42 \]", "`42`"),
    (r"\boxed{\frac{\sqrt{2}}{2}}", r"\boxed{\frac{1}{\sqrt{2}}}", r"\boxed{\tfrac{1}{2}\sqrt2}"),
    ("Jan. 5, 2024", "The date is January 5, 2024.", "05 January 2024", "The date is 2024-01-05."),
    ("正确选项为C", "选C", "The correct answer is C: 12", "C) 12 apples"),
    (r"\boxed{\emptyset}", r"\boxed{\varnothing}", "The answer is ∅."),
    (r"\boxed{\mathbb{R}}", "The answer is ℝ."),
    (r"\boxed{\lfloor x \rfloor}", "The answer is ⌊x⌋."),
    ("Antwort: 3,5", "Die Antwort ist 3,5.", "The answer is 3.5."),
    ("Antwort: -3,5", "The answer is -3.5."),
    (r"\boxed{(x+1)^2 (x+1)}", r"\boxed{(x+1)^3}"),
    (r"\boxed{x \cdot x^{1/2}}", r"\boxed{x^{3/2}}"),
]  # fmt: skip


@pytest.mark.parametrize("replies", DIFFERENT, ids=lambda replies: replies[0][:30])
def test_different_answers_get_different_keys(replies: tuple[str, ...]) -> None:
    keys = [extract(reply) for reply in replies]
    assert None not in keys
    assert len(set(keys)) == len(keys), keys


@pytest.mark.parametrize("replies", EQUAL, ids=lambda replies: replies[0][:30])
def test_equal_answers_get_one_key(replies: tuple[str, ...]) -> None:
    keys = {reply: extract(reply) for reply in replies}
    assert len(set(keys.values())) == 1, keys
    assert None not in keys.values()


@pytest.mark.parametrize(
    "reply",
    ["", "I do not know", "Let me think about this.", "1. red\n2. blue\n3. green", "First 3, then 4.", "I'm sorry, no.",
     "In 1969 men walked on the moon.\nIt was a great day.", "The value of x is 5 and the value of y is 3."],
)  # fmt: skip
def test_what_states_no_answer_is_unread(reply: str) -> None:
    assert extract(reply) is None


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("The answer is 12.", "number"), (r"\boxed{\frac{1}{2}}", "fraction"), ("#### 1, 2, 3", "list"), (r"\boxed{\{1,2\}}", "set"),
        (r"\boxed{(1,2)}", "tuple"), (r"\boxed{[1,2)}", "interval"), (r"\boxed{x<2}", "relation"), (r"\boxed{2x+1}", "expression"),
        ("Answer: 5 January 2024", "date"), ("Answer: 9 AM", "time"), ("Answer: 3:2", "ratio"), ("Answer: €5", "money"),
        ("Answer: 5%", "percent"), ("Answer: 5 kg", "unit"), ("Answer: C", "letter"), ("Answer: Lima", "text"),
    ],
)  # fmt: skip
def test_types(reply: str, kind: str) -> None:
    answer = read(reply)
    assert answer is not None
    assert answer.type == kind
    assert answer.span.strip(" $.") in reply


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("A. Because B is not valid.", "A"), ("The answer is (c).", "C"), ("b", "B"), ("b) the second", "B"), ("K", "K"), ("**D**", "D"),
        ("The answer is M because A is wrong.", "M"), ("Option C is right, A is not.", "C"), ("A cat is B.", "B"), ("正确答案是 C。", "C"),
        ("故选：D", "D"), (r"\boxed{\textbf{(E)}\ 12}", "E"), ("I would choose D", "D"), ("The answer is a.", "A"), ("no letter", None),
        ("Let us see.\n\nAnswer: B) because of this", "B"), ("#### C", "C"),
    ],
)  # fmt: skip
def test_letters(reply: str, letter: str | None) -> None:
    assert extract(reply, "choice") == letter


@pytest.mark.parametrize(
    ("reply", "gold", "right"),
    [
        ("The answer is 12 km.", "12", True), ("The answer is 12.", "12 km", True), ("The answer is 12 m.", "12 km", False),
        (r"\boxed{50\%}", "50", True), ("The answer is 50%.", "1/2", True), (r"\boxed{y = 3}", "3", True), ("#### 3", "y = 3", True),
        (r"\boxed{z = 3}", "y = 3", False), ("The capital is Paris.", "Paris", True), ("It is Rome.", "Paris", False),
        ("Yes, it is prime.", "yes", True), ("First 3, then 4.", "4", True), ("So the total is €5", "5", True), (r"\boxed{2, 3}", r"\{3, 2\}", True),
        ("小明有18元。", "18", True), ("The answer is B, not A.", "B", True),
    ],
)  # fmt: skip
def test_an_answer_is_read_in_the_form_of_the_right_one(reply: str, gold: str, right: bool) -> None:
    key = canonical(gold)
    wanted = read_span(gold)
    assert key is not None
    assert wanted is not None
    answer = read(reply, "auto", wanted.type)
    assert answer is not None
    assert (fit(answer, [key]) == key) is right


def test_tolerance_and_further_right_answers() -> None:
    answer = read("The answer is 3.14.")
    assert answer is not None
    assert fit(answer, ["355/113"], 0.01) == "355/113"
    assert fit(answer, ["355/113"], 0.001) == "157/50"
    assert fit(answer, ["3", "157/50"]) == "3"


def test_texts_that_no_one_would_write_are_read_without_an_error() -> None:
    """Figures beyond what Python turns into a number, nesting beyond its stack, a fraction of nothing."""
    for text in ("9" * 20_000, "\\sqrt[" * 3000, "\\frac{" * 3000, r"\boxed{0/0}", "1" + "/1" * 3000):
        for rule in ("auto", "choice", "number", "boxed"):
            extract(text, rule)
    zero = read(r"\boxed{0/0}")
    assert zero is not None
    assert fit(zero, ["12"]) == zero.key
    assert fit(zero, ["12"], 0.5) == zero.key


def test_long_texts_take_linear_work() -> None:
    assert extract("\\boxed{" * 8000) is None
    assert boxed_contents("\\boxed{" * 20_000 + "7" + "}" * 20_000) == ["\\boxed{" * 19_999 + "7" + "}" * 19_999]
    for text in (
        "the answer is " * 20_000,
        "(" * 60_000,
        "$x" * 30_000,
        "a. " * 30_000,
        "{" * 60_000,
        "1," * 30_000,
        "**" * 30_000,
        "A " * 30_000,
        "9" * 60_000,
        "x" * 60_000,
    ):
        extract(text)
        extract(text, "choice")
        extract(text, "number")
    for inner in (
        "(" * 390,
        "{" * 390,
        "^" * 390,
        "9^" * 190 + "9",
        "\\frac" * 60,
        "-" * 390,
        "sqrt(" * 70,
        "|" * 390,
        "1,2;" * 90,
        "[...]",
        "[①, ₂]",
    ):
        canonical(inner)


@given(st.text(alphabet="0123456789+-*/^()[]{}\\,.;:= xyabpi$%frac", max_size=60))
def test_keys_are_stable(text: str) -> None:
    key = canonical(text)
    assert key == canonical(text)
    assert key != ""


def test_the_benchmark_finds_no_false_merges_and_few_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    sys.modules.pop("answers", None)
    import answers

    assert (len(answers.EQUAL), len(answers.DIFFER)) == (60, 60)
    assert len(answers.FORMS) >= 20
    counts = answers.measure(answers.pairs(1500, seed=7))["all"]
    assert counts["merged"] <= 0.001 * counts["different"]
    assert counts["split"] <= 0.03 * counts["equal"]
    assert json.dumps(dict(counts))
