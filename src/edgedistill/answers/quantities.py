"""Numbers and what stands beside them: percent, money, units, scale words; ratios. All exact.

A dollar sign is never part of a key, because LaTeX uses it for formulas; nouns that are no unit of measurement ("12 apples")
are left out. Units, other currencies and percent signs stay: ``5 km`` is not ``5 m``.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd, lcm

from edgedistill.answers.plain import FUNCTIONS, NAMES
from edgedistill.answers.words import NOT_COUNTED, SCALES, UNITS, UNITS_FOLDED

_MAX_EXPONENT = 99
MAX_LENGTH = 400
"""Longer strings are no final answers; the bound also keeps hostile exponents and digits from costing time."""

_GROUPED = r"\d{1,3}(?:(?:,\d{3})+|(?:'\d{3})+|(?: \d{3})+)|\d{1,2}(?:,\d{2})+,\d{3}"
_DECIMAL = rf"(?:(?:{_GROUPED}|\d+)(?![,']?\d)(?:\.\d*)?|\.\d+)"
_DOTTED = r"\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?|\d{1,3}(?:\.\d{3})+,\d{1,2}"
"""Two points, or a point and a comma that no thousands follow, are a decimal comma's in any language."""
_GERMAN = r"(?:\d{1,3}(?:[. ]\d{3})+(?:,\d+)?|\d+,\d+)"
_POWER_OF_TEN = r"(?:[eE]([+-]?\d{1,4})(?![\w.])|\s*\*\s*10\s*\^\s*\(?\s*([+-]?\d{1,4})\s*\)?)"
_PLAIN = re.compile(rf"([+-]?)\s*({_DECIMAL}){_POWER_OF_TEN}?")
_FRACTION = re.compile(rf"([+-]?)\s*\(?\s*([+-]?)({_DECIMAL})\s*\)?\s*/\s*\(?\s*([+-]?)\s*({_DECIMAL})(?:\s*\))?")
_MIXED = re.compile(r"([+-]?)\s*(\d+)\s+\(?(\d+)\)?\s*/\s*\(?(\d+)\)?")
_TEN = re.compile(r"([+-]?)10\s*\^\s*\(?\s*([+-]?\d{1,4})\s*\)?")

CURRENCIES = "$€£¥￥₹₩₽฿₫₺"
_MONEY = frozenset([
    "USD", "EUR", "GBP", "JPY", "CNY", "¥", "INR", "KRW", "RUB", "BRL", "THB", "VND", "TRY", "IDR", "AUD", "CAD", "HKD",
    "TWD", "SGD", "cent",
])  # fmt: skip

_FEET_AND_INCHES = re.compile(r"^(\d+)['′] ?(\d{1,2}(?:\.\d+| \d+/\d+)?)[\"″]?$")
_WORD = r"[^\W\d_]+(?:['’-][^\W\d_]+)*"
_UNIT = re.compile(
    r"(square[ -]|sq\.?[ -]?|cubic[ -]|cu[. -]+|quadrat[ -]?|平方|立方)?"
    r"(%|[€£¥￥₹₩₽฿₫₺¢]|[^\W\d_]+/[^\W\d_]+(?:\^\(?\d\)?)?|deg(?:rees?)? (?:[Cc]elsius|[Ff]ahrenheit|[CF]\b)|deg ?[CF]?(?![a-z])|(?:per|por|pour|phần) \w+|"
    + _WORD
    + r"(?: per \w+)?)"
    r"(?: ?\^ ?\(?([23])\)?|\s(squared|cubed))?\.?"
)
_PER = re.compile(r"(?<![\w^])([A-Za-z]+)(?: ?\* ?| )([A-Za-z]+) ?\^-([123])")
_COMMA_AND_UNIT = re.compile(r"(?<![\d,.])\d+,\d{1,2}(?![\d,.])")
_NOUNS = re.compile(rf"\s*\(?{_WORD}\.?\)?(?:,? {_WORD}\.?){{0,5}}\s*")


def parse_number(text: str, *, decimal_comma: bool = False) -> Fraction | None:
    """The exact value of a text in ``plain`` spelling that is a number and nothing else; None otherwise.

    Fractions (1/2), mixed numbers (1 1/2), decimals, separators of thousands, powers of ten up to 99.
    """
    found = _number(text.strip(), decimal_comma) if len(text) <= MAX_LENGTH else None
    return found[0] if found is not None and not found[1].strip() else None


def quantity(text: str, *, decimal_comma: bool = False) -> tuple[str, str] | None:
    """(type, key) of a text in ``plain`` spelling that is one number with what belongs to it; None otherwise.

    Types are number, fraction, percent, money, unit; keys are "7/2", "12%", "5 EUR", "5 km", "2 h 30 min".
    """
    if len(text) > MAX_LENGTH:
        return None
    found = _quantity(text, decimal_comma)
    if found is None and not decimal_comma and _COMMA_AND_UNIT.search(text) is not None:
        found = _quantity(text, True)  # 2,50 € in any language; 2,5 is a list
        return found if found is not None and found[0] in ("percent", "money", "unit") else None
    return found


def _quantity(text: str, decimal_comma: bool) -> tuple[str, str] | None:
    text = re.sub(r"\b(?:US|A|C|HK|NT|S)\$", "$", text)
    text = _FEET_AND_INCHES.sub(r"\1 ft \2 inches", text)
    text = re.sub(r"\bpounds? sterling\b", "GBP", text)
    text = _PER.sub(_per, re.sub(r"(?<=[A-Za-z]) ?\^\( ?(-?[1-3]) ?\)", r"^\1", text))
    sign = ""
    if re.match(r"[+-]\s*[^\w\s.(]", text):
        sign, text = text[0], text[1:].lstrip()
    prefix = re.match(
        rf"(?:([{CURRENCIES}])|(USD|EUR|GBP|BRL|INR|AUD|CAD|HKD|TWD|SGD|Rs\.?|Rp\.?|R\$|RMB|百分之|%|yüzde)(?![a-z]))\s*(?=[\d.-])",
        text,
    )
    unit = ""
    if prefix is not None:
        names = {
            "$": "USD",
            "百分之": "%",
            "Rs": "INR",
            "Rs.": "INR",
            "Rp": "IDR",
            "Rp.": "IDR",
            "R$": "BRL",
        }
        unit = names.get(prefix[0].strip()) or UNITS[prefix[0].strip()]
        text = text[prefix.end() :]
    parts: list[tuple[Fraction, str]] = []
    kind = "number"
    text = sign + text
    while text:
        found = _number(text, decimal_comma)
        if found is None:
            return None
        value, rest, written = found
        scaled = _scale(rest)
        value, rest = value * scaled[0], scaled[1]
        beside = _unit(rest)
        if beside is None:
            return None
        own, rest = beside
        kind = "fraction" if written else kind
        parts.append((value, own or unit))
        text = rest.strip()
        if text and (not own or own == "%" or len(parts) > 3):
            return None
        text = re.sub(r"^(?:and|und|y|et|e|и)\s+", "", text)
    if {"h", "s"} & {name for _, name in parts}:  # 3h 30m
        parts = [(value, "min" if name == "m" else name) for value, name in parts]
    units = {name for _, name in parts}
    if len(units) < len(parts) or (len(parts) > 1 and "" in units):
        return None
    key = " ".join(_spell(value, name) for value, name in parts)
    name = parts[-1][1]
    if name == "%":
        kind = "percent"
    elif name:
        kind = "money" if name in _MONEY else "unit"
    return kind, key


def _per(found: re.Match[str]) -> str:
    """m s^-2 as m/s^2."""
    above, below, power = found.groups()
    if above not in UNITS or below not in UNITS:
        return found.group()
    return f"{above}/{below}" + ("" if power == "1" else f"^{power}")


def _spell(value: Fraction, unit: str) -> str:
    if unit in ("", "USD"):
        return str(value)
    return f"{value}%" if unit == "%" else f"{value} {unit}"


def _number(text: str, decimal_comma: bool) -> tuple[Fraction, str, bool] | None:
    """(value, what follows, whether it was written as a fraction) of a text that begins with a number."""
    decimal_comma = decimal_comma or re.match(rf"[+-]?\s*(?:{_DOTTED})(?![.,]?\d)", text) is not None
    if decimal_comma and (found := re.match(rf"([+-]?)\s*({_GERMAN})(?![\d.]*\d)", text)) is not None:
        digits = found[2].replace(".", "").replace(" ", "").replace(",", ".")
        if not re.fullmatch(r"0\.\d{3}", found[2]):
            value = Fraction(digits)
            return (-value if found[1] == "-" else value), text[found.end() :], False
    if (found := _MIXED.match(text)) is not None and int(found[4]):
        value = int(found[2]) + Fraction(int(found[3]), int(found[4]))
        return (-value if found[1] == "-" else value), text[found.end() :], True
    if (found := _FRACTION.match(text)) is not None and found.group().count("(") == found.group().count(")"):
        bottom = _decimal(found[5])
        if bottom == 0:
            return None
        value = _decimal(found[3]) / bottom
        negative = (found[1] == "-") ^ (found[2] == "-") ^ (found[4] == "-")
        return (-value if negative else value), text[found.end() :], True
    if (found := _TEN.match(text)) is not None and abs(int(found[2])) <= _MAX_EXPONENT:
        value = Fraction(10) ** int(found[2])
        return (-value if found[1] == "-" else value), text[found.end() :], False
    if (found := _PLAIN.match(text)) is None:
        return None
    exponent = int(found[3] or found[4] or 0)
    if abs(exponent) > _MAX_EXPONENT:
        return None
    value = _decimal(found[2]) * Fraction(10) ** exponent
    return (-value if found[1] == "-" else value), text[found.end() :], False


def _decimal(digits: str) -> Fraction:
    whole, _, part = re.sub(r"[,' ]", "", digits).partition(".")
    return Fraction(int(whole or "0")) + (Fraction(int(part), 10 ** len(part)) if part else 0)


def _scale(rest: str) -> tuple[int, str]:
    factor = 1
    while (found := re.match(r"\s*([^\W\d_]+)", rest)) is not None:
        word = found[1].casefold()
        if word not in SCALES:
            near = next(
                (w for w in (word[:2], word[:1]) if w in SCALES and not w.isascii() and ord(w[0]) > 0x2E80), None
            )
            if near is None:
                break
            word = near
        factor *= SCALES[word]
        rest = rest[found.start(1) + len(word) :]
        rest = re.sub(r"^ (?:de|di|of)(?= )", "", rest)
    return factor, rest


def _unit(rest: str) -> tuple[str, str] | None:
    """The canonical unit at the beginning of what follows a number and the rest; ("", "") where it is only nouns, None
    where what follows makes it no number.
    """
    touching = bool(rest) and not rest[0].isspace()
    if rest.startswith("!"):
        return None
    text = rest.lstrip().rstrip(" .,;:!?")
    text = re.sub(r"^-(?=[a-z]|[A-Z]{3})", "", text)
    if not text:
        return "", ""
    found = _UNIT.match(text)
    if found is not None:
        inches = found[2] == "in" and found.end() == len(text)  # "7 in", not "7 in total"
        name = "in" if inches else _known(found[2])
        if name is not None:
            power = found[3] or {"squared": "2", "cubed": "3"}.get(found[4] or "", "")
            if found[1]:
                power = "3" if found[1].startswith(("cu", "立")) else "2"
            following = text[found.end() :]
            name = f"{name}^{power}" if power and name else name
            if not name or not re.match(r"\s*(?:(?:and|und|y|et|e|и)\s+)?[\d.]", following):
                if not re.fullmatch(r"\s*\)?\s*", following) and not _nouns(following):
                    return None
                return name, ""
            return name, following
    if touching and text[0].isascii() and len(text.split()[0]) < 4:
        return None  # 2xy is a formula
    return ("", "") if _nouns(text) else None


def _known(word: str) -> str | None:
    word = word.strip()
    if word in UNITS:
        return UNITS[word]
    if (folded := UNITS_FOLDED.get(word.casefold())) is not None:
        return folded
    if word and ord(word[0]) > 0x0E00:  # scripts without spaces: a unit and what is glued to it
        return next((UNITS[word[:n]] for n in range(min(len(word), 8), 0, -1) if word[:n] in UNITS), None)
    return None


def _nouns(text: str) -> bool:
    """Whether these are words that a number may carry: counted things."""
    if _NOUNS.fullmatch(text) is None:
        return False
    words = re.findall(_WORD, text)
    if any(word.casefold() in NOT_COUNTED or word in NAMES or word in FUNCTIONS for word in words):
        return False
    return len(words[0]) > 2 or not words[0].isascii() or words[0] in ("of", "in")


_RATIO = re.compile(r"(\d+(?:\.\d+)?)((?: ?(?::| to ) ?\d+(?:\.\d+)?)+)")


def ratio_key(text: str) -> str | None:
    """The key of a ratio in lowest terms (``3:2``); None where the text is none."""
    found = _RATIO.fullmatch(text.strip())
    if found is None:
        return None
    parts = [Fraction(part) for part in re.findall(r"\d+(?:\.\d+)?", text)]
    if " to " in text and len(parts) == 2 and parts[0] < parts[1] and gcd(*(int(part) for part in parts)) > 1:
        return None  # 10 to 20 is a range as likely; 3 to 2 is none
    if len(parts) > 6 or any(len(part) > 20 for part in re.findall(r"\d+", text)):
        return None
    scale = lcm(*(part.denominator for part in parts))
    whole = [int(part * scale) for part in parts]
    divisor = gcd(*whole)
    return ":".join(str(part // divisor) for part in whole) if divisor else None
