"""Numbers and what stands beside them: percent, money, units, scale words; dates, times and ratios. All exact.

A dollar sign is never part of a key, because LaTeX uses it for formulas; nouns that are no unit of measurement ("12 apples")
are left out. Units, other currencies and percent signs stay: ``5 km`` is not ``5 m``.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd, lcm

from edgedistill.answers.plain import FUNCTIONS, NAMES
from edgedistill.answers.words import MONTHS, NOT_COUNTED, SCALES, UNITS, UNITS_FOLDED

_MAX_EXPONENT = 99
MAX_LENGTH = 400
"""Longer strings are no final answers; the bound also keeps hostile exponents and digits from costing time."""

_GROUPED = r"\d{1,3}(?:(?:,\d{3})+|(?:'\d{3})+|(?: \d{3})+)|\d{1,2}(?:,\d{2})+,\d{3}"
_DECIMAL = rf"(?:(?:{_GROUPED}|\d+)(?![,']?\d)(?:\.\d*)?|\.\d+)"
_GERMAN = r"(?:\d{1,3}(?:[. ]\d{3})+(?:,\d+)?|\d+,\d+)"
_POWER_OF_TEN = r"(?:[eE]([+-]?\d{1,4})(?![\w.])|\s*\*\s*10\s*\^\s*\(?\s*([+-]?\d{1,4})\s*\)?)"
_PLAIN = re.compile(rf"([+-]?)\s*({_DECIMAL}){_POWER_OF_TEN}?")
_FRACTION = re.compile(rf"([+-]?)\s*\(?\s*([+-]?)({_DECIMAL})\s*\)?\s*/\s*\(?\s*([+-]?)\s*({_DECIMAL})(?:\s*\))?")
_MIXED = re.compile(r"([+-]?)\s*(\d+)\s+\(?(\d+)\)?\s*/\s*\(?(\d+)\)?")
_TEN = re.compile(r"([+-]?)10\s*\^\s*\(?\s*([+-]?\d{1,4})\s*\)?")

CURRENCIES = "$€£¥￥₹₩₽฿₫₺"
_MONEY = frozenset(
    ("USD", "EUR", "GBP", "JPY", "CNY", "¥", "INR", "KRW", "RUB", "BRL", "THB", "VND", "TRY", "IDR", "cent")
)

_FEET_AND_INCHES = re.compile(r"^(\d+)['′] ?(\d{1,2}(?:\.\d+| \d+/\d+)?)[\"″]?$")
_WORD = r"[^\W\d_]+(?:['’-][^\W\d_]+)*"
_UNIT = re.compile(
    r"(square[ -]|sq\.?[ -]?|cubic[ -]|cu[. -]+|quadrat[ -]?|平方|立方)?"
    r"(%|[€£¥￥₹₩₽฿₫₺¢]|[^\W\d_]+/[^\W\d_]+(?:\^\(?\d\)?)?|deg(?:rees?)? (?:[Cc]elsius|[Ff]ahrenheit|[CF]\b)|deg ?[CF]?(?![a-z])|(?:per|por|pour|phần) \w+|"
    + _WORD
    + r"(?: per \w+)?)"
    r"(?: ?\^ ?\(?([23])\)?|\s(squared|cubed))?\.?"
)
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
    text = re.sub(r"\b(?:US|A|C|HK|NT|S)\$", "$", text)
    text = _FEET_AND_INCHES.sub(r"\1 ft \2 inches", text)
    if len(text) > MAX_LENGTH:
        return None
    sign = ""
    if re.match(r"[+-]\s*[^\w\s.(]", text):
        sign, text = text[0], text[1:].lstrip()
    prefix = re.match(
        rf"(?:([{CURRENCIES}])|(USD|EUR|GBP|BRL|INR|Rs\.?|Rp\.?|R\$|RMB|百分之|%|yüzde)(?![a-z]))\s*(?=[\d.-])", text
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


def _spell(value: Fraction, unit: str) -> str:
    if unit in ("", "USD"):
        return str(value)
    return f"{value}%" if unit == "%" else f"{value} {unit}"


def _number(text: str, decimal_comma: bool) -> tuple[Fraction, str, bool] | None:
    """(value, what follows, whether it was written as a fraction) of a text that begins with a number."""
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
    text = re.sub(r"^-(?=[A-Za-z])", "", text)
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


_WEEKDAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,? )?"
_MONTH_DAY = re.compile(rf"{_WEEKDAY}([^\W\d_]+)\.? (\d{{1,2}})(?:st|nd|rd|th)?(?:,? (\d{{4}}))?", re.IGNORECASE)
_DAY_MONTH = re.compile(
    rf"{_WEEKDAY}(?:the |el |le )?(\d{{1,2}})(?:st|nd|rd|th|er|\.|º)? (?:of |de )?([^\W\d_]+)\.?(?:,? (?:de |del )?(\d{{4}}))?(?: г(?:ода|\.)?)?",
    re.IGNORECASE,
)
_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})|(\d{4}) ?[年년] ?(\d{1,2}) ?[月월] ?(\d{1,2}) ?[日일号]")
_SHORT = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4}|\d{2})")
_CLOCK = re.compile(r"(\d{1,2})(?:[:.](\d{2})(?::(\d{2}))?)?\s*([ap])\.?\s?m\b\.?", re.IGNORECASE)
_HOURS = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?(?: ?(?:h|hrs|hours|uhr))?", re.IGNORECASE)
_RATIO = re.compile(r"(\d+(?:\.\d+)?)((?: ?(?::| to ) ?\d+(?:\.\d+)?)+)")


def date_key(text: str) -> str | None:
    """The key of a date (``2024-01-05``, ``--01-05`` without a year); None where the text is none.

    Day and month in figures alone (3/4/2024) are left as they stand: which is which depends on the country.
    """
    text = text.strip(" .")
    if (found := _ISO.fullmatch(text)) is not None:
        year, month, day = (part for part in found.groups() if part)
        return _date(year, int(month), int(day))
    for pattern, month_at, day_at in ((_MONTH_DAY, 1, 2), (_DAY_MONTH, 2, 1)):
        found = pattern.fullmatch(text)
        if found is not None and (number := MONTHS.get(found[month_at].casefold())) is not None:
            return _date(found[3], number, int(found[day_at]))
    if (found := _SHORT.fullmatch(text)) is not None:
        return "/".join(str(int(part)) for part in found.groups())
    return None


def _date(year: str | None, month: int, day: int) -> str | None:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{year or '-'}-{month:02}-{day:02}"


def time_key(text: str) -> str | None:
    """The key of a time of day (``15:45``); None where the text is none. ``3:45`` without a half of the day is 3:45."""
    text = text.strip(" ,")
    if (found := _CLOCK.fullmatch(text)) is not None and 1 <= int(found[1]) <= 12:
        hour = int(found[1]) % 12 + (12 if found[4] in "pP" else 0)
        return _clock(hour, found[2], found[3])
    if (found := _HOURS.fullmatch(text)) is not None and int(found[1]) < 24:
        return _clock(int(found[1]), found[2], found[3])
    return {"noon": "12:00", "midnight": "00:00", "12 noon": "12:00", "12 midnight": "00:00"}.get(text.casefold())


def _clock(hour: int, minutes: str | None, seconds: str | None) -> str | None:
    if int(minutes or 0) > 59 or int(seconds or 0) > 59:
        return None
    return f"{hour:02}:{minutes or '00'}" + (f":{seconds}" if seconds and int(seconds) else "")


def ratio_key(text: str) -> str | None:
    """The key of a ratio in lowest terms (``3:2``); None where the text is none."""
    found = _RATIO.fullmatch(text.strip())
    if found is None:
        return None
    parts = [Fraction(part) for part in re.findall(r"\d+(?:\.\d+)?", text)]
    if len(parts) > 6 or any(len(part) > 20 for part in re.findall(r"\d+", text)):
        return None
    scale = lcm(*(part.denominator for part in parts))
    whole = [int(part * scale) for part in parts]
    divisor = gcd(*whole)
    return ":".join(str(part // divisor) for part in whole) if divisor else None
