"""One spelling for symbols: Unicode and LaTeX to plain text that numbers, formulas and words are read from.

``½`` becomes ``1/2``, ``x²`` ``x^(2)``, ``\\leq`` and ``≤`` ``<=``, ``\\text{ cm}`` `` cm``, ``１８`` and ``१८``
``18``. Braces that
group become parentheses; braces of a set stay braces.
"""

from __future__ import annotations

import re
import unicodedata

_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPT = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBSCRIPTS = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_SYMBOLS = {
    "−": "-", "–": "-", "‒": "-", "﹣": "-", "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "∕": "/", "⁄": "/",
    "≤": "<=", "≦": "<=", "⩽": "<=", "≥": ">=", "≧": ">=", "⩾": ">=", "≠": "!=", "≈": "~=", "≃": "~=",
    "∞": " infinity ", "π": " pi ", "√": " sqrt ", "∪": " union ", "∩": " intersect ", "∈": " in ", "±": "+-",
    "°": " deg ", "∅": " \\emptyset ", "∖": " setminus ", "⟨": "(", "⟩": ")", "⋀": "∧", "⋁": "∨", **dict.fromkeys("«»„‟「」『』《》", '"'), "⌊": " \\lfloor ", "⌋": " \\rfloor ", "⌈": " \\lceil ", "⌉": " \\rceil ", "、": ",", "،": ",", "٫": ".", "٬": ",", "。": ".", "।": ".", "“": '"', "”": '"',
    "’": "'", "‘": "'", "℃": " degC ", "℉": " degF ", "∠": " angle ", "△": " triangle ", "∶": ":", "٪": "%",
    "\u200b": "", "\u200e": "", "\u200f": "", "\ufeff": "",
}  # fmt: skip
_TABLE = str.maketrans(_SYMBOLS)
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "θ": "theta", "λ": "lambda", "μ": "mu",
    "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "ω": "omega", "Δ": "Delta", "Ω": "Omega",
}  # fmt: skip
FUNCTIONS = frozenset((
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln",
    "lg", "exp", "det", "gcd", "lcm", "max", "min", "abs",
))  # fmt: skip
NAMES = frozenset((*_GREEK.values(), "infinity", "pi", "angle", "triangle"))
"""Words that are one symbol of a formula."""

_COMMANDS = {
    **dict.fromkeys(("cdot", "times", "ast"), " * "), "div": " / ",
    **dict.fromkeys(("le", "leq", "leqslant", "leqq"), " <= "),
    **dict.fromkeys(("ge", "geq", "geqslant", "geqq"), " >= "),
    **dict.fromkeys(("ne", "neq"), " != "), "lt": " < ", "gt": " > ", "approx": " ~= ", "infty": " infinity ",
    "pm": " +-", "mp": " +-", "cup": " union ", "cap": " intersect ", "in": " in ", "emptyset": "{}", "varnothing":
    "{}",
    "circ": " deg ", "degree": " deg ", "colon": ":", "ldots": "...", "dots": "...", "cdots": "...", "to": " -> ",
    "rightarrow": " -> ", "mid": "|", "vert": "|", "lvert": "|", "rvert": "|", **dict.fromkeys(("land", "wedge"), " ∧ "), **dict.fromkeys(("lor", "vee"), " ∨ "), **dict.fromkeys(("neg", "lnot"), " ¬"),
    **dict.fromkeys(("setminus", "smallsetminus", "backslash"), " setminus "), "langle": "(", "rangle": ")",
    "lbrace": "{", "rbrace": "}", "varepsilon": " epsilon ", "varphi": " phi ", "vartheta": " theta ",
    **dict.fromkeys(("left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "displaystyle", "textstyle", "limits", "quad", "qquad", "hfill", "space", "thinspace", "enspace", "large", "Large", "rm", "bf"), " "),
}  # fmt: skip
_WRAPPERS = frozenset(
    ["text", "textbf", "textit", "textrm", "textsf", "textnormal", "mathrm", "mathbf", "mathit", "mathsf", "mathbb", "mathcal", "mbox", "hbox", "operatorname", "ce", "boxed", "fbox", "framebox", "emph", "underline", "bold", "boldsymbol", "ensuremath", "bm"]
)  # fmt: skip
_NUMBER_SETS = str.maketrans("RZNQC", "ℝℤℕℚℂ")
_UNSEEN = frozenset(("color", "textcolor", "phantom", "hphantom", "vphantom", "label", "tag", "hspace", "vspace"))
"""Commands whose argument is not to be read."""
_FRACTIONS = frozenset(("frac", "dfrac", "tfrac", "cfrac", "nicefrac", "sfrac"))
_BETWEEN = {"over": ("(", ")/(", ")"), "choose": ("binom(", ", ", ")")}
"""Commands that stand between their arguments, and what is put around these."""
_INFIX = re.compile(r"\\(over|choose)(?![A-Za-z])\s*")
_COMMAND = re.compile(r"\\([A-Za-z]+)\*?[ \t]*")
_MATRIX = re.compile(r"\\(?:begin|end)\s*\{([pbvB]?(?:small)?matrix|array|cases|aligned)\}(?:\{[clr|]*\})?")
_SYSTEM = re.compile(r"\\begin\{(cases|aligned|align\*?|gathered)\}(.*?)\\end\{\1\}", re.DOTALL)
_DOLLAR_NAMES = {"US": "USD", "R": "BRL", "A": "AUD", "C": "CAD", "HK": "HKD", "NT": "TWD", "S": "SGD"}
_DOLLARS = re.compile(r"\b(US|R|A|C|HK|NT|S)\\?\$(?=\s?[\d.-])")
_HIGHER_ROOT = re.compile(r"([∛∜]) ?(?:\(([^()]*)\)|(\d+|[a-z]))")
_MICRO = re.compile(r"[µμ](?=[mgslL](?![^\W_]))")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|dot|bar)\s*\{(\d+)\}")
_MAX_DEPTH = 40


def plain(text: str) -> str:
    """``text`` with every symbol in one spelling; white space folded. Text that is no LaTeX keeps its words and
    case.
    """
    if not text.isascii():
        text = _unicode(unicodedata.normalize("NFC", text))
    text = _DOLLARS.sub(lambda found: f"{_DOLLAR_NAMES[found[1]]} ", text)
    if "\\" in text or "{" in text or "$" in text:
        text = _REPEATING.sub(_repeating, text)
        text = _SYSTEM.sub(_system, re.sub(r"\\not\s*=", r"\\neq ", text))
        text = _MATRIX.sub(_matrix, text)
        text = _Latex(text).read()
    text = re.sub(r"(?<=\d) ?[xX] ?(?=10\^)", "*", text)
    text = re.sub(r"\^\s*\(?\s*deg(?![A-Za-z])(?:\s*\))?", " deg", text)
    text = text.replace("**", "^") if re.search(r"[A-Za-z0-9)]\*\*-?[A-Za-z0-9(]", text) else text.replace("**", "")
    text = re.sub(r"(?<![\d_])\d{1,3}(?:_\d{3})+(?![\d_])", lambda found: found.group().replace("_", ""), text)
    return re.sub(r"\s+", " ", text).strip()


def _system(found: re.Match[str]) -> str:
    """Equations one below the other as a list; pieces with their conditions stay."""
    rows = re.sub(r"&\s*(?=[=<>]|\\[lg]eq?)", "", found[2])
    return found.group() if "&" in rows else ", ".join(row for row in rows.split(r"\\") if row.strip())


def _matrix(found: re.Match[str]) -> str:
    if not found.group().startswith("\\begin"):
        return "⟧"
    return " det ⟦" if found[1].startswith("v") else "⟦"


def _unicode(text: str) -> str:
    text = _MICRO.sub("u", text)
    text = _HIGHER_ROOT.sub(lambda found: f" root({'34'['∛∜'.index(found[1])]}, {found[2] or found[3]}) ", text)
    text = _SUPERSCRIPTS.sub(lambda found: f"^({found.group().translate(_SUPERSCRIPT)})", text)
    text = _SUBSCRIPTS.sub(lambda found: "_" + found.group().translate(_SUBSCRIPT), text)
    text = text.translate(_TABLE)
    return text if text.isascii() else "".join(map(_character, text))


def _character(character: str) -> str:
    if character.isascii():
        return character
    if character in _GREEK:
        return f" {_GREEK[character]} "
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.digit(character))
    if kind == "Zs":
        return " "
    folded = unicodedata.normalize("NFKC", character)
    if "⁄" in folded:  # a fraction in one sign, which may follow a whole number
        return " " + folded.replace("⁄", "/")
    return folded.translate(_TABLE) if "！" <= character <= "～" or kind == "No" else character


def _repeating(found: re.Match[str]) -> str:
    whole, fixed, period = found.groups()
    scale = 10 ** len(fixed)
    nines = 10 ** len(period) - 1
    top = int((whole or "0") + fixed or "0") * nines + int(period)
    return f" {top}/{scale * nines} "


class _Latex:
    """Rewrites LaTeX in one pass over its characters."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def read(self) -> str:
        return self._until("", 0)

    def _until(self, end: str, depth: int) -> str:
        out: list[str] = []
        between = ""
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == end:
                self._at += 1
                break
            if (infix := _INFIX.match(self._text, self._at)) is not None and not between:
                self._at, between = infix.end(), infix[1]
                opening, middle, _ = _BETWEEN[between]
                out = [f" {opening}", *out, middle]
            elif character == "\\":
                out.append(self._command(depth))
            elif character == "{":
                self._at += 1
                inner = self._until("}", depth + 1) if depth < _MAX_DEPTH else ""
                out.append("," if inner == "," else self._group(out, inner, end))
            elif character in "$~":
                self._at += 1
                out.append(" " if character == "~" else "")
            elif character == "&":
                self._at += 1
                out.append(",")
            else:
                self._at += 1
                out.append(character)
        return "".join(out) + (f"{_BETWEEN[between][2]} " if between else "")

    def _group(self, out: list[str], inner: str, end: str) -> str:
        """Braces after nothing that they belong to are of a set that was written without backslashes."""
        before = "".join(out[-1:]).rstrip()[-1:]
        if not before and not end and "," in inner and not inner.startswith(" binom("):
            return "{" + inner + "}"
        return f"({inner})"

    def _argument(self, depth: int) -> str:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        if self._at >= len(self._text) or depth >= _MAX_DEPTH:
            return ""
        character = self._text[self._at]
        if character == "{":
            self._at += 1
            return self._until("}", depth + 1)
        if character == "\\":
            return self._command(depth + 1)
        self._at += 1
        return character

    def _command(self, depth: int) -> str:
        found = _COMMAND.match(self._text, self._at)
        if found is None:
            return self._escape()
        self._at = found.end()
        name = found[1]
        if name in _WRAPPERS:
            inner = self._argument(depth)
            if name == "mathbb":
                return inner.translate(_NUMBER_SETS)
            return f" {inner} " if name.startswith("text") or name in ("mathrm", "mbox", "hbox") else inner
        if name in _UNSEEN:
            self._argument(depth)
            return ""
        if name == "times" and "\\vec" in self._text:
            return " cross "
        if name in _FRACTIONS:
            top = self._argument(depth)
            return f" ({top})/({self._argument(depth)}) "
        if name == "sqrt":
            index = ""
            if self._text[self._at : self._at + 1] == "[" and depth < _MAX_DEPTH:
                self._at += 1
                index = self._until("]", depth + 1)
            inner = self._argument(depth)
            return f" root({index}, {inner}) " if index else f" sqrt({inner}) "
        if name in ("pmod", "bmod", "mod"):
            return " mod " if name == "bmod" else f" (mod {self._argument(depth)}) "
        if name in ("binom", "dbinom", "tbinom"):
            top = self._argument(depth)
            return f" binom({top}, {self._argument(depth)}) "
        if name in ("overline", "vec", "hat", "bar", "widehat"):
            return f" {name}({self._argument(depth)}) "
        return _COMMANDS.get(name, f" {name} ")

    def _escape(self) -> str:
        escaped = self._text[self._at + 1 : self._at + 2]
        self._at += 2
        if escaped in "{}%#&_":
            return escaped
        if escaped == "\\":
            return ";"
        if escaped == "|":
            return "‖"
        return "" if escaped in "!$()[]" else " "
