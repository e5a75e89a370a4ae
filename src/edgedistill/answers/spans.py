"""The part of a span that is its answer: one spelling, without emphasis, hedges, asides and reasons."""

from __future__ import annotations

import re

from edgedistill.answers.expression import value
from edgedistill.answers.plain import plain
from edgedistill.answers.quantities import parse_number

_OUTER = " \t\r\n.,;:!?\"'`*_…。"
_HEDGE = re.compile(
    r"(?:approximately|approx\.?|about|around|roughly|nearly|exactly|equal to|equals|simply|just|only|therefore|thus|hence|so|"
    r"ungefähr|etwa|circa|ca\.|aproximadamente|unos|environ|cerca de|circa|примерно|около|约|大约|約|およそ|약|प्रायः|लगभग|khoảng|ประมาณ|"
    r"yaklaşık|sekitar|حوالي|تقريبا|~=|~|that|there (?:are|is)|it is|it's|they are|given by|option|choice|réponse|"
    r"(?:the )?(?:final |correct )?answer(?: is|:)|both(?=.* and )|(?:la|le|die|der|l['’])(?: (?:opción|letra|opção|lettre|option|antwort))?(?= [A-Z]$)|"
    r"the (?:number|integer|value|fraction|letter|option|choice))(?=[\s\d$\\(:]|(?<=\W))[ :]*",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"(?<=\S)\s+[(\[（]([^()\[\]（）]*)[)\]）]\s*[.。]?$")
_ASIDE_WORD = re.compile(
    r"(?<![^\W\d_])(?!(?:sqrt|sin|cos|tan|log|pi|ln|exp|mod|alpha|beta|theta|deg|infinity)\b)[^\W\d_]{2,}"
)
_NOTE = re.compile(r"^\s*(?:i\.e|e\.g|cf)\.|^\d+ [ds]\.? ?[pf]\.?$")
_CLAUSE = re.compile(
    r",?\s+(?:because|since|which|rounded|where|as (?:the|we|it)|after|given that|weil|porque|parce que|car|потому что|because of|"
    r"so (?:the|it|we|that)|instead of|rather than|when|for (?:all|every|any)|to (?:\d+|one|two|three|four) (?:decimal|significant))\b|,?\s+(?:i\.e|e\.g)\.|,\s+(?:so|as|and so|or (?:about|approximately|roughly)|not|if|with|where|but)\s|"
    r"\s[—–]\s(?=[^\W\d])|[，,](?=因为|所以|即|也就是)"
)
_APPOSITION = re.compile(r"([^\d,;][^,;]*),\s+(?:the|an?)\s+[^,;]+\s(?:of|in|that|who|which)\s[^,;]*$")
"""Paris, the capital of France."""
_SUFFIX = re.compile(
    r"(?:です|でした|だ|である|になります|となります|입니다|이다|이에요|예요|입니다|ครับ|ค่ะ| है| हैं|'[dt][ıiuü]r|\s+olur|。)+[.。\s]*$"
)
_TAG = re.compile(r"</?(?:b|i|u|em|strong|span|p|br|sub|code)(?: [^<>]*)?/?>", re.IGNORECASE)
_INSTEAD = re.compile(r"not .{1,40}?(?:,? but (?:rather )?|, (?:it's|it is|rather) )(?=\S)", re.IGNORECASE)
_STRUCK = re.compile(r"~~[^~\n]{1,80}~~")
_THOUSANDS = {"k": "thousand", "K": "thousand", "M": "million", "B": "billion"}
_SHORT_MONEY = re.compile(r"(?<!\w)\$ ?(\d[\d,.]*) ?([kKMB])(?![\w$])")
_OPEN_AT = re.compile(r"([\[\]])([^\[\]]+[,;][^\[\]]+)([\[\]])")


def core(span: str) -> str:
    """The span in ``plain`` spelling without emphasis, hedges, asides and reasons."""
    # Emphasis first: a power is written x**2, never **2**.
    span = _TAG.sub("", span) if "<" in span else span
    span = _STRUCK.sub("", span) if "~~" in span else span
    span = _SHORT_MONEY.sub(lambda found: f"${found[1]} {_THOUSANDS[found[2]]}", span)
    text = re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", span.strip())
    text = re.sub(r"\bx(?=[1-9] ?=)", "x_", _SUFFIX.sub("", plain(text)))
    if (clause := _CLAUSE.search(text)) is not None and clause.start():
        text = text[: clause.start()]
    if (behind := _APPOSITION.match(text)) is not None:
        text = behind[1]
    while (
        (aside := _ASIDE.search(text)) is not None
        and (_ASIDE_WORD.search(aside[1]) or _NOTE.search(aside[1]) or _same(text[: aside.start()], aside[1]))
        and text[: aside.start()].strip(_OUTER)
    ):
        text = text[: aside.start()]
    text = outer(text)
    if (ends := _OPEN_AT.fullmatch(text)) is not None and (ends[1] == "]" or ends[3] == "["):
        text = f"{'(' if ends[1] == ']' else '['}{ends[2]}{')' if ends[3] == '[' else ']'}"
    text = re.sub(r"(?<=\S) +(?:square |cubic )?units?$", "", text)
    while (hedge := _HEDGE.match(text)) is not None and text[hedge.end() :].strip(_OUTER):
        text = outer(text[hedge.end() :])
    if (instead := _INSTEAD.match(text)) is not None:
        text = text[instead.end() :]
    return _SUFFIX.sub("", text)


def _same(before: str, aside: str) -> bool:
    """Whether an aside is the calculation of the number before it: 12 (3 * 4)."""
    number = parse_number(before.strip(_OUTER))
    return number is not None and not aside.strip().isdecimal() and value(aside.partition("=")[0]) == number


def outer(text: str) -> str:
    """Without outer punctuation; a leading point belongs to a decimal, "!" after a figure or bracket is a factorial."""
    tail = text.lstrip(_OUTER)
    stripped = tail.rstrip(_OUTER)
    before, after = text.removesuffix(tail), tail.removeprefix(stripped)
    if stripped[:1].isdigit() and before.endswith("."):
        stripped = "." + stripped
    if re.fullmatch(r"(?:\d+|[a-z]|\(.*\))", stripped) and after.startswith("!"):
        stripped += "!!" if after.startswith("!!") else "!"
    return stripped
