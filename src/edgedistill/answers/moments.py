"""Dates and times of day: one key each, whatever the language and the order of its parts."""

from __future__ import annotations

import re

from edgedistill.answers.words import MONTHS

_WEEKDAY = (
    r"(?:(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?|(?:mon|diens|donners|frei|sams|sonn)tag|mittwoch|lundi|mardi|"
    r"mercredi|jeudi|vendredi|samedi|dimanche|lunes|martes|miércoles|jueves|viernes|sábado|domingo)[.,]*(?: (?:den|el|le) )? ?)?"
)
_LEAD = r"(?:(?:on|in|am|im|den|the|el|le|en) )?"
_MONTH_DAY = re.compile(
    rf"{_LEAD}{_WEEKDAY}([^\W\d_]+)\.? (?:the )?(\d{{1,2}})(?:st|nd|rd|th)?(?:,? (\d{{4}}))?", re.IGNORECASE
)
_DAY_MONTH = re.compile(
    rf"{_LEAD}{_WEEKDAY}(?:the )?(\d{{1,2}})(?:st|nd|rd|th|er|\.|º)? (?:of |de )?([^\W\d_]+)\.?(?:,? (?:de |del )?(\d{{4}}))?(?: г(?:ода|\.)?)?",
    re.IGNORECASE,
)
_MONTH_YEAR = re.compile(
    rf"{_LEAD}([^\W\d_]+)\.?,? (?:of |de |del )?(\d{{4}})|(\d{{4}}) ?[年년] ?(\d{{1,2}}) ?[月월]", re.IGNORECASE
)
_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})|(\d{4}) ?[年년] ?(\d{1,2}) ?[月월] ?(\d{1,2}) ?[日일号號]")
_SHORT = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4}|\d{2})")
_IN_WORDS = re.compile(
    r"(?<![^\W_])(?:(?:MONTH)\.? \d{1,2}(?:st|nd|rd|th)?(?:,? \d{4})?|\d{1,2}(?:st|nd|rd|th|er|\.|º)? (?:of |de )?(?:MONTH)(?:,? (?:de |del )?\d{4})?|"
    r"(?:MONTH),? \d{4})(?![^\W_])".replace("MONTH", "|".join(sorted(MONTHS, key=len, reverse=True))),
    re.IGNORECASE,
)

_CLOCK = re.compile(r"(\d{1,2})(?:[:.](\d{2})(?::(\d{2}))?)?\s*([ap])\.?\s?m\b\.?", re.IGNORECASE)
_HOURS = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?(?: ?(?:h|hrs|hours|uhr))?", re.IGNORECASE)
_SPOKEN = re.compile(
    r"(\d{1,2})(?::(\d{2}))?(?: o'? ?clock)?(?: (?:in the (morning|afternoon|evening)|at (night)))?|(\d{1,2}) uhr(?: (\d{2}))?|(\d{1,2}) ?h ?(\d{2})",
    re.IGNORECASE,
)
_GLUED = re.compile(
    r"(上午|早上|凌晨|午前|오전|下午|晚上|傍晚|午後|오후)? ?(\d{1,2}) ?(?:([点點])|[时時시])(?:整| ?(半|반)| ?(\d{1,2}) ?[分분])?"
)
_LATE = frozenset(("下午", "晚上", "傍晚", "午後", "오후", "afternoon", "evening", "night"))
_NAMED = re.compile(r"(?:12(?::00)? )?(?:(noon)|midnight)", re.IGNORECASE)


def date_key(text: str) -> str | None:
    """The key of a date (``2024-01-05``; ``--01-05`` without a year, ``2024-01`` without a day); None where the text is
    none.

    Day and month in figures alone (3/4/2024) are left as they stand if both could be a month: which is which depends on
    the country.
    """
    text = text.strip(" .")
    if (found := _ISO.fullmatch(text)) is not None:
        year, month, day = (part for part in found.groups() if part)
        return _date(year, int(month), int(day))
    for pattern, month_at, day_at in ((_MONTH_DAY, 1, 2), (_DAY_MONTH, 2, 1)):
        found = pattern.fullmatch(text)
        if found is not None and (number := MONTHS.get(found[month_at].casefold())) is not None:
            return _date(found[3], number, int(found[day_at]))
    if (found := _MONTH_YEAR.fullmatch(text)) is not None:
        month_number = MONTHS.get(found[1].casefold()) if found[1] else int(found[4])
        return None if month_number is None or month_number > 12 else f"{found[2] or found[3]}-{month_number:02}"
    if (found := _SHORT.fullmatch(text)) is not None:
        first, second, year = found.groups()
        if len(year) == 4 and min(int(first), int(second)) <= 12 < max(int(first), int(second)):
            return _date(year, min(int(first), int(second)), max(int(first), int(second)))
        return "/".join(str(int(part)) for part in found.groups())
    return None


def only_date(text: str) -> str | None:
    """The key of the only date with a month's name among other words without figures; None where there is none."""
    found = list(_IN_WORDS.finditer(text))
    return date_key(found[0].group()) if len(found) == 1 and not re.search(r"\d", _IN_WORDS.sub("", text)) else None


def has_date(text: str) -> bool:
    """Whether a month's name stands beside figures."""
    return _IN_WORDS.search(text) is not None


def _date(year: str | None, month: int, day: int) -> str | None:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{year or '-'}-{month:02}-{day:02}"


def time_key(text: str) -> str | None:
    """The key of a time of day (``15:45``); None where the text is none. ``3:45`` without a half of the day is 3:45."""
    text = text.strip(" ,")
    if (found := _CLOCK.fullmatch(text)) is not None and 1 <= int(found[1]) <= 12:
        return _clock(_late(int(found[1]), late=found[4] in "pP", early=True), found[2], found[3])
    if (found := _HOURS.fullmatch(text)) is not None:
        return _clock(int(found[1]), found[2], found[3])
    if (found := _SPOKEN.fullmatch(text)) is not None and not text.isdecimal():
        half = (found[3] or found[4] or "").casefold()
        return _clock(
            _late(int(found[1] or found[5] or found[7]), late=half in _LATE, early=bool(half)),
            found[2] or found[6] or found[8],
        )
    if (found := _GLUED.fullmatch(text)) is not None and (found[1] or found[4] or found[5] or not found[3]):
        minutes = "30" if found[4] else found[5]
        return _clock(_late(int(found[2]), late=found[1] in _LATE, early=bool(found[1])), minutes)
    named = _NAMED.fullmatch(text)
    return None if named is None else "12:00" if named[1] else "00:00"


def _late(hour: int, *, late: bool, early: bool) -> int:
    """The hour of 24; 12 begins a half of the day."""
    if not (late or early) or hour > 12:
        return hour
    return hour % 12 + (12 if late else 0)


def _clock(hour: int, minutes: str | None, seconds: str | None = None) -> str | None:
    if hour > 23 or int(minutes or 0) > 59 or int(seconds or 0) > 59:
        return None
    return f"{hour:02}:{int(minutes or 0):02}" + (f":{seconds}" if seconds and int(seconds) else "")
