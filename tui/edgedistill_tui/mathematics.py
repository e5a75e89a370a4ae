r"""Converts LaTeX in answers to characters that a terminal shows: ``\(\frac{1}{2} \le x^2\)`` becomes ``1/2 ≤ x²``.

This is for display only: what is stored, copied and saved is what the model wrote. pylatexenc converts the symbols;
this module adds the parentheses that plain text needs where LaTeX has braces. Code and invalid LaTeX are left
unchanged.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pylatexenc.latex2text import LatexNodes2Text

_CODE = re.compile(r"(`{3,}|~{3,})[\s\S]*?(?:\1|\Z)|(?<!\\)(`+)(?:(?!\2)[\s\S])*?\2")
_BRACED = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_MATHEMATICS = re.compile(
    r"\\\((?P<inline>[\s\S]+?)\\\)|\\\[(?P<display>[\s\S]+?)\\\]|\$\$(?P<dollars>[^$]+)\$\$"
    rf"|(?<![\\$\w])\$(?P<dollar>[^$\n]*?[\\^_][^$\n]*?)\$(?!\w)|(?P<box>\\boxed\s*{_BRACED})"
)
_RAISED = str.maketrans("0123456789+-=()ni", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ")
_LOWERED = str.maketrans("0123456789+-=()aeijkmnx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑᵢⱼₖₘₙₓ")
_ATOM = re.compile(r"[^\W_]+|[√∛]?\([^()]*\)|[\d.,]+%?")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>~|#])")
_BOXED, _UNBOXED = "\ue000", "\ue001"
_BOLD = {ord(_BOXED): "**", ord(_UNBOXED): "**"}
_LARGEST = 20_000
"""Largest number of characters of a formula that is converted."""


def readable(markdown: str) -> str:
    """``markdown`` with its mathematics in characters; the rest unchanged."""
    if "\\" not in markdown and "$" not in markdown:
        return markdown
    parts, end = [], 0
    for code in _CODE.finditer(markdown):
        parts += [_MATHEMATICS.sub(_shown, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _MATHEMATICS.sub(_shown, markdown[end:])])


def _shown(match: re.Match[str]) -> str:
    formula = next(group for group in match.groups() if group is not None)
    if len(formula) > _LARGEST:
        return match[0]
    try:
        text = " ".join(_text(_scripts(formula)).split())
    except Exception:
        # The library raises many kinds of errors for invalid LaTeX.
        return match[0]
    if not text:
        return match[0]
    escaped = _MARKDOWN.sub(r"\\\1", text).translate(_BOLD)
    return f"\n\n{escaped}\n\n" if match["display"] is not None or match["dollars"] is not None else escaped


def _scripts(formula: str) -> str:
    """Exponents and indices as raised and lowered characters where there are all of them, else in parentheses."""

    def script(match: re.Match[str]) -> str:
        command, sign, inner = match[1] or "", match[2], match[3].removeprefix("{").removesuffix("}").strip()
        table = _RAISED if sign == "^" else _LOWERED
        if inner and all(ord(character) in table for character in inner):
            # Without a space, letters that follow a command would belong to its name.
            return f"{command} {inner.translate(table)}" if command else inner.translate(table)
        return f"{command}{sign}{inner}" if re.fullmatch(r"\w|\\[A-Za-z]+", inner) else f"{command}{sign}({inner})"

    formula = re.sub(r"\^\s*(\\circ\b|\{\s*\\circ\s*\})", "°", formula)
    before = None
    while before != formula:  # from the innermost braces outwards
        before = formula
        formula = re.sub(r"(\\[A-Za-z]+)?(?<!\\)([\^_])\s*(\{[^{}]*\})", script, formula)
    return re.sub(r"(\\[A-Za-z]+)?(?<!\\)([\^_])(\w)", script, formula)


def _operand(text: str) -> str:
    text = text.strip()
    return text if _ATOM.fullmatch(text) else f"({text})"


def _text(formula: str) -> str:
    from pylatexenc.latexwalker import LatexWalker

    nodes, _, _ = LatexWalker(formula, latex_context=_commands(), tolerant_parsing=True).get_latex_nodes()
    text: str = _converter().nodelist_to_text(nodes)
    return text


@cache
def _commands() -> Any:
    from pylatexenc.latexwalker import get_default_latex_context_db
    from pylatexenc.macrospec import std_macro

    known = get_default_latex_context_db()
    known.add_context_category("edgedistill", prepend=True, macros=[std_macro("boxed", "{")])
    return known


@cache
def _converter() -> LatexNodes2Text:
    from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db

    def arguments(node: Any, to_text: Any) -> list[str]:
        return [to_text.nodelist_to_text([one]) for one in node.nodeargd.argnlist if one is not None]

    def fraction(node: Any, l2tobj: Any) -> str:
        upper, lower = (_operand(text) for text in arguments(node, l2tobj))
        return f"{upper}/{lower}"

    def root(node: Any, l2tobj: Any) -> str:
        *degree, inner = arguments(node, l2tobj)
        sign = {"3": "∛", "4": "∜"}.get(degree[0].strip("[] "), f"{degree[0].strip('[] ')}√") if degree else "√"
        return f"{sign}{inner}" if re.fullmatch(r"[^\W_]+", inner) else f"{sign}({inner})"

    def boxed(node: Any, l2tobj: Any) -> str:
        return f"{_BOXED}{arguments(node, l2tobj)[-1].strip()}{_UNBOXED}"

    def barred(node: Any, l2tobj: Any) -> str:
        return "".join(f"{character}\u0305" for character in arguments(node, l2tobj)[-1])

    known = get_default_latex_context_db()
    macros = [MacroTextSpec(name, fraction) for name in ("frac", "dfrac", "tfrac", "cfrac")]
    macros += [MacroTextSpec(name, barred) for name in ("overline", "bar")]
    macros += [MacroTextSpec("sqrt", root), MacroTextSpec("boxed", boxed)]
    known.add_context_category("edgedistill", prepend=True, macros=macros)
    return LatexNodes2Text(math_mode="text", latex_context=known, strict_latex_spaces="based-on-source")
