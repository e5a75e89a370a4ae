"""One spelling for answers that mean the same, exactly: numbers become fractions, never floats.

1/2, 0.5, .50 and \\frac{1}{2} are one answer; so are 1,000 and 1000. What a number may carry and still be that
number, by rule: a currency sign before it, a percent sign or words of letters (units) after it, LaTeX spacing and text.
Everything else is compared as text without outer punctuation, extra white space and (outside LaTeX) case.

Must not know: where in a reply the answer was found.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_LENGTH = 400
"""Longer strings are no final answers; the bound also keeps hostile exponents and digits from costing time."""

_MAX_EXPONENT = 99

_THOUSANDS = r"\d{1,3}(?:,\d{3})+"
_DECIMAL = rf"(?:(?:{_THOUSANDS}|\d+)(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(rf"([+-]?)\s*({_DECIMAL})(?:[eE]([+-]?\d{{1,4}}))?")
_RATIO = re.compile(rf"([+-]?)\s*({_DECIMAL})\s*/\s*([+-]?)\s*({_DECIMAL})")
_MIXED = re.compile(r"([+-]?)\s*(\d+)\s+(\d+)\s*/\s*(\d+)")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])|\\[,;: ]|~")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|°")
_UNITS = re.compile(r"\s*(?:%|[A-Za-zµ€£$¢²³/ .]*)\s*")
_NAMED = re.compile(r"[A-Za-z]\s*=\s*(?=\S)")
_ORDINAL_TAIL = re.compile(r"\s*(?:st|nd|rd|th)\b", re.IGNORECASE)
_FORMULA = re.compile(r"\\|[=+^*<>]")
_CURRENCY = "$€£¥"
_OUTER = " \t\r\n.,;:!?\"'`*_"


def canonical(text: str) -> str | None:
    """The canonical form of an answer; None for nothing at all.

    Args:
        text: An answer as a reply gives it or as a suite states it.

    Returns:
        "n" or "n/d" in lowest terms for a number; a normalised text otherwise; None if empty or longer than MAX_LENGTH.
    """
    if len(text) > MAX_LENGTH:
        return None
    cleaned = _clean(text)
    if not cleaned:
        return None
    number = parse_number(cleaned)
    if number is not None:
        return str(number)
    items = _items(cleaned)
    if items is not None:
        return items
    if _FORMULA.search(cleaned):
        return re.sub(r"\s+", "", cleaned)
    return re.sub(r"\s+", " ", cleaned).casefold()


def parse_number(text: str) -> Fraction | None:
    """The exact value of a text that is one number with at most a currency sign or units; None if it is anything else.

    Fractions (1/2), mixed numbers (1 1/2), decimals, thousands separators, exponents up to 99 and ``\\frac`` are read.
    """
    if len(text) > MAX_LENGTH:
        return None
    text = plain_fractions(text.strip()).replace("−", "-").replace("–", "-")
    sign = ""
    if text[:1] in "+-" and text[1:].lstrip()[:1] in tuple(_CURRENCY):
        sign, text = text[0], text[1:].lstrip()
    text = sign + text.lstrip(_CURRENCY).lstrip()
    for pattern, read in ((_MIXED, _read_mixed), (_RATIO, _read_ratio), (_NUMBER, _read_decimal)):
        found = pattern.match(text)
        if found is None:
            continue
        rest = text[found.end() :]
        if not _is_unit(rest):
            continue
        return read(found)
    return None


def plain_fractions(text: str) -> str:
    """The text with a/b in place of every ``\\frac{a}{b}``."""
    return _LATEX_FRACTION.sub(_fraction_text, text)


def _is_unit(rest: str) -> bool:
    """Whether what follows a number may be dropped: nothing, %, or words; "x" and "n" alone are variables."""
    word = rest.strip()
    if word and re.fullmatch(r"[a-zA-Z]", word) and word not in "mgslhd":
        return False
    return _UNITS.fullmatch(rest) is not None and _ORDINAL_TAIL.fullmatch(rest) is None


def _fraction_text(found: re.Match[str]) -> str:
    top = found.group(1) if found.group(1) is not None else found.group(2)
    bottom = found.group(3) if found.group(3) is not None else found.group(4)
    return f" {top.strip()}/{bottom.strip()} "


def _decimal(digits: str) -> Fraction:
    digits = digits.replace(",", "")
    whole, _, part = digits.partition(".")
    return Fraction(int(whole or "0")) + (Fraction(int(part), 10 ** len(part)) if part else 0)


def _read_decimal(found: re.Match[str]) -> Fraction | None:
    exponent = int(found.group(3) or 0)
    if abs(exponent) > _MAX_EXPONENT:
        return None
    value = _decimal(found.group(2)) * Fraction(10) ** exponent
    return -value if found.group(1) == "-" else value


def _read_ratio(found: re.Match[str]) -> Fraction | None:
    bottom = _decimal(found.group(4))
    if bottom == 0:
        return None
    value = _decimal(found.group(2)) / bottom
    return -value if (found.group(1) == "-") != (found.group(3) == "-") else value


def _read_mixed(found: re.Match[str]) -> Fraction | None:
    if int(found.group(4)) == 0:
        return None
    value = int(found.group(2)) + Fraction(int(found.group(3)), int(found.group(4)))
    return -value if found.group(1) == "-" else value


def _clean(text: str) -> str:
    """Strip mathematics mode, emphasis, LaTeX spacing and text commands, degrees, "x =", outer punctuation."""
    # \! is a negative space: 10,\!000 is MATH's way to write 10,000.
    text = text.replace("\\$", "$").replace("\\%", "%").replace("\\!", "").replace("\u00a0", " ")
    text = _TEXT.sub(r" \1 ", text)
    text = _DEGREES.sub("", _SPACING.sub(" ", text))
    text = text.replace("\\(", " ").replace("\\)", " ").replace("\\[", " ").replace("\\]", " ")
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("{,}", ",")
    text = _strip_outer(text)
    while len(text) > 1 and text[0] == "$" == text[-1]:
        text = _strip_outer(text[1:-1])
    named = _NAMED.match(text)
    return _strip_outer(text[named.end() :]) if named else text


def _strip_outer(text: str) -> str:
    stripped = text.strip(_OUTER)
    # A leading point belongs to a decimal: ".5" is no punctuation.
    at = text.find(stripped) if stripped else -1
    return "." + stripped if stripped[:1].isdigit() and at > 0 and text[at - 1] == "." else stripped


def _items(text: str) -> str | None:
    """Tuples, intervals and lists: each entry canonical, brackets kept; sets ``\\{..\\}`` stay text."""
    opened, closed = ("", "") if text[0] not in "([" or text[-1] not in ")]" else (text[0], text[-1])
    inner = text[1:-1] if opened else text
    if "," not in inner or any(c in inner for c in "()[]"):
        return None
    entries = [_clean(part) for part in inner.split(",")]
    values = [parse_number(entry) for entry in entries]
    if any(value is None for value in values):
        return None
    return opened + ",".join(str(value) for value in values) + closed
