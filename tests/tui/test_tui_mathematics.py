"""LaTeX in answers, as a terminal shows it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill_tui.mathematics import readable


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        (r"The result is \(\boxed{42}\).", "The result is **42**."),
        (r"So \boxed{\frac{1}{2}} apples.", "So **1/2** apples."),
        (r"\[ x = \frac{-b \pm \sqrt{b^2-4ac}}{2a} \]", "\n\nx = (-b ±√(b²-4ac))/2a\n\n"),
        (r"$a_{10}^2 \le \infty$ costs $5 and $6", "a₁₀² ≤∞ costs $5 and $6"),
        (r"\(a^{b+c} \cdot x_{ij}\)", "a^(b+c) · xᵢⱼ"),
        (r"\(2^{2^{x+1}}\)", "2^(2^(x+1))"),
        (r"\(\sqrt[3]{27} + \sqrt{x}\)", "∛27 + √x"),
        (r"\(90^\circ\), \(50\%\)", "90°, 50%"),
        (r"\(\overline{ab} * y\)", "a̅b̅ \\* y"),
        (r"\(\lim_{x \to 0} \ln x\)", r"lim\_(x → 0) ln x"),
        (r"\(\frac{a+b}{c}\)", "(a+b)/c"),
    ],
)
def test_formulas(markdown: str, shown: str) -> None:
    assert readable(markdown) == shown


@pytest.mark.parametrize(
    "markdown",
    [
        "plain text",
        "costs $5 or $6",
        "`\\(x\\)` and\n```python\nx = '\\\\frac{1}{2}'\n```\n",
        "```\n\\boxed{1}",
        "an open \\( bracket",
        "a \\$ and a_b_c",
    ],
)
def test_what_stays(markdown: str) -> None:
    assert readable(markdown) == markdown


@given(
    st.lists(
        st.sampled_from(["\\", "(", ")", "[", "]", "{", "}", "$", "frac", "a", "1", " ", "^", "_", "`", "&", "\n"])
    )
)
def test_nothing_that_a_model_writes_is_an_error(parts: list[str]) -> None:
    assert isinstance(readable("".join(parts)), str)


def test_deep_and_long_formulas_end() -> None:
    for text in ("\\(" + "{" * 3000 + "\\)", "\\boxed{" * 2000, "$" + "^{" * 2000 + "$", "\\(" + "x" * 50_000 + "\\)"):
        assert readable(text) == text or len(readable(text)) < 50_000
