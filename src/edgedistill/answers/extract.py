"""Where a text states its answer: boxed, behind ``####``, announced, in the last line in bold, a heading, a row of a
table, or as the last line itself.

The whole span is read (``typed.read_span``). What is no answer as a whole is *unread* (None) unless a number is asked
for. Reasoning has to be removed from the text before. Time is linear in the length of the text.
"""

from __future__ import annotations

import re
from typing import Literal

from edgedistill.answers.anchors import is_heading, last_anchor
from edgedistill.answers.boxes import boxed_contents, boxed_spans
from edgedistill.answers.choices import chosen_letter
from edgedistill.answers.numerals import last_in_words
from edgedistill.answers.plain import plain
from edgedistill.answers.quantities import quantity
from edgedistill.answers.sentences import (
    EDGES,
    NUMBER,
    corrected,
    first_sentence,
    last_sentence,
    only_moment,
    only_number,
)
from edgedistill.answers.typed import Answer, AnswerType, read_span, typed_answer

AnswerRule = Literal["auto", "boxed", "hash", "phrase", "number", "choice", "text"]
"""How an answer is taken from a text; see ``extract``."""

MAX_TEXT = 65_536
"""Of longer texts the end is read, and of what is neither boxed nor behind ``####`` the last quarter of it."""

_HASH = re.compile(r"####[ \t]*([^\n]+)")
_JSON = re.compile(
    r"""["'](?:final[ _])?answer["']\s*:\s*(?:"((?:[^"\\\n]|\\.){1,400})"|([^"\s{\[][^,}\n]{0,400}))""", re.IGNORECASE
)
_TAGGED = re.compile(r"<((?:final_?)?answer)>([^<]{1,400})</\1>", re.IGNORECASE)
_MARKER = re.compile(r"^\s*(?:[-*•+]|\d{1,2}[.)])\s+")
_NUMBERS = [str(at) for at in range(1, 100)]
_BULLET = re.compile(r"^\s*[-*•+]\s+")
_ANNOUNCING = re.compile(r"[:：][\s*_]*$")
_SET_OFF = re.compile(r"\*\*|[$\\|]")
_FORMULA_BELOW = ("$$", "\\[")
_CELL = " |"
_RULE = re.compile(r"[-|:\s=*_`$]+|\\\]|\\\)")
"""A line that says nothing: under a heading, between rows of a table, the end of a formula."""
_UNDERLINE = re.compile(r"[-=_*|:\s]{3,}")
_BEHIND_MATH = re.compile(r"\s*(?:[,.;。，]|$|\(|because|since|so\b)")
_BOLD = re.compile(r"\*\*([^*\n]{1,400})\*\*|__([^_\n]{1,400})__")
_MATH = re.compile(r"\$\$?([^$\n]{1,400})\$\$?|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]", re.DOTALL)
_LEAD = re.compile(
    r"^\s*(?:(?:(?:therefore|thus|hence|so|finally|then|consequently|in conclusion|as a result|we (?:get|have|find|obtain|conclude that)|"
    r"this (?:gives|means|yields)(?: us)?|it follows that|which (?:gives|is)|por lo tanto|por tanto|entonces|donc|ainsi|also|daher|somit|portanto|"
    r"logo|quindi|dunque|итого|значит|следовательно|vậy|dolayısıyla|jadi)\b|因此|所以|故|于是|따라서|したがって|よって|总共|总计|一共|共|총|合計|รวม|ดังนั้น|"
    r"इसलिए|कुल)[,:，：\s]*)+",
    re.IGNORECASE,
)
_COPULA = re.compile(
    r"\b(?:is|are|was|were|equals|be|ist|sind|es|son|est|sont|é|são|è|sono|là|adalah)\s+|[是为は]\s*(?=\S)"
)
_DENIED = re.compile(r"\b(?:not|never|cannot|can't|nor|neither|unlikely|impossible)\b|n't\b", re.IGNORECASE)
_TRUTH = re.compile(r"true|false", re.IGNORECASE)
_IT = re.compile(
    r"^(?:(?:the|this) )?(?:statement|claim|sentence|proposition|assertion|it|this|that)\s*$", re.IGNORECASE
)
_NOT_THIS = re.compile(
    r"(?:\bnot|n't|\bnever)\s+(?:equal to |exactly |simply )?[^\s\w]*\d[\d.,/]*[^\w\s]*$", re.IGNORECASE
)
_UNANSWERED = re.compile(r"\b(?:I (?:do not|don't|cannot|can't|am|'m)|I'm|sorry|let me|let's|we need)\b", re.IGNORECASE)
_BETWEEN_BOXES = re.compile(
    r"[\s$.\\()\[\]]*(?:,|;|&|and|or|und|oder|y|et|ou|e|и|или|和|或|と|,\s*(?:and|or))[\s$\\()\[\]]*(?:[a-zA-Z]\s*=\s*)?"
)
_LETTER_IS_RIGHT = re.compile(
    r"[*_]*\(?([A-Z])[).]*[*_]* is (?:the )?(?:correct|right|best)(?: (?:answer|option|choice))?[.!*_]*"
)
_LETTER_WITH_REASON = re.compile(
    r"^[*_]*(?:\(([A-Z])\)|([A-Z])[.)])[*_]*\s+(?![A-Z]\.)(?!(?:and|or|&|und|oder|y|et|ou|и|или)\s+\(?[A-Z]\b)\S"
)


def extract(text: str, rule: AnswerRule = "auto", expected: AnswerType | None = None) -> str | None:
    """The key of the answer in ``text`` (reasoning removed already); None where it is unread. See ``read``."""
    answer = read(text, rule, expected)
    return None if answer is None else answer.key


def read(text: str, rule: AnswerRule = "auto", expected: AnswerType | None = None) -> Answer | None:
    """The answer that a text states.

    Args:
        text: A reply without its reasoning.
        rule: ``auto``: the last boxed group, ``####``, announcement, or what the last line says. ``boxed``, ``hash``,
            ``phrase``: that one place alone. ``number``: the last number of the text. ``choice``: the letter of a
            multiple-choice question. ``text``: the whole text, case and white space folded.
        expected: The type of the right answer where it is known. A number, and nothing else, may then be taken from
            among words; a text from behind the last "is"; a letter from wherever the rule ``choice`` looks.

    Returns:
        None where nothing is stated, or what is stated is longer than an answer.
    """
    if rule == "text":
        whole = re.sub(r"\s+", " ", text).strip()
        return Answer("text", whole.casefold(), whole) if whole else None
    marked, text = text[-MAX_TEXT:], text[-MAX_TEXT // 4 :]
    if rule == "choice" or (rule == "auto" and expected == "letter"):
        return chosen_letter([*boxed_contents(marked)[-1:], *_HASH.findall(marked)[-1:]], text)
    if rule != "auto":
        places = {
            "boxed": (_boxed, marked),
            "hash": (_hash, marked),
            "phrase": (_phrase, text),
            "number": (_last_number, text),
        }
        finder, place = places[rule]
        return finder(place)
    for finder in (_boxed, _hash, _tagged):
        if (found := finder(marked)) is not None:
            return found
    return _phrase(text) or _last_line(text, expected)


def _boxed(text: str) -> Answer | None:
    """The last box; boxes that only "and" or a comma lies between are entries of one list."""
    spans = boxed_spans(text)
    if not spans:
        return None
    first = len(spans) - 1
    while first and _BETWEEN_BOXES.fullmatch(text[spans[first - 1][2] + 1 : spans[first][0]]):
        first -= 1
    return read_span(", ".join(text[a:b] for _, a, b in spans[first:]))


def _hash(text: str) -> Answer | None:
    found = _HASH.findall(text)
    return read_span(found[-1]) if found else None


def _tagged(text: str) -> Answer | None:
    """Between marks ``<answer>``, or as the value of "answer" in JSON."""
    if found := _TAGGED.findall(text):
        return read_span(found[-1][1])
    found = _JSON.findall(text) if text.rstrip(" \n`").endswith("}") else []
    return read_span(found[-1][0] or found[-1][1]) if found else None


def _phrase(text: str) -> Answer | None:
    """What the last announcement announces: on its line, or on the next that is not empty, as one entry or as a
    list.
    """
    anchor = last_anchor(text)
    if anchor is None:
        lines = text.splitlines()
        headings = [below for below, line in enumerate(lines[:-1], start=1) if is_heading(line)]
        return _announced(lines[headings[-1] :], new_line=True, decimal_comma=False) if headings else None
    below = text.rfind("\n", anchor.start, anchor.end) + 1  # with the bullet or the bold that begins there
    tail = text[below or anchor.end :]
    if not below and text.count("**", anchor.start, anchor.end) % 2:
        tail = tail.replace("**", "", 1)  # the end of the bold that began before
    first = _announced(tail.splitlines(), new_line=below > 0, decimal_comma=anchor.decimal_comma)
    return corrected(tail) or first


def _announced(tail: list[str], *, new_line: bool, decimal_comma: bool) -> Answer | None:
    lines = [line.strip() for line in tail if line.strip() and not _UNDERLINE.fullmatch(line.strip())]
    if not lines:
        return None
    first = re.sub(r"^\}\s*", "", lines[0])  # of \text{Answer: }
    if new_line:
        if len(lines) > 1 and all(_BULLET.match(line) for line in lines):
            entries = (first_sentence(_BULLET.sub("", line)) for line in lines)
            return read_span(", ".join(entries), decimal_comma=decimal_comma)
        if len(lines) > 1 and [line.partition(" ")[0].rstrip(".)") for line in lines] == _NUMBERS[: len(lines)]:
            numbered = [read_span(_MARKER.sub("", line), decimal_comma=decimal_comma) for line in lines]
            if any(one is None or one.type == "text" for one in numbered):
                return None  # steps
            return read_span(", ".join(_MARKER.sub("", line) for line in lines), decimal_comma=decimal_comma)
        if len(lines) > 3 and not _SET_OFF.match(first):
            return None  # a solution begins here, not an answer
        first = _BULLET.sub("", first)
    if first in _FORMULA_BELOW and len(lines) > 1:
        first = lines[1]
    first = first.strip(_CELL)
    math = _MATH.match(first)
    if math is not None and _BEHIND_MATH.match(first, math.end()):
        return read_span(math.group(), decimal_comma=decimal_comma)
    sentence = first_sentence(first)
    answer = read_span(sentence, decimal_comma=decimal_comma)
    if answer is not None and answer.type == "text":
        return only_number(sentence, decimal_comma) or answer
    return answer


def _last_line(text: str, expected: AnswerType | None) -> Answer | None:
    """What the last line says: a cell of a table, bold, a formula, the line itself, a number among words."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _RULE.fullmatch(line.strip())]
    if not lines:
        return None
    anchor = last_anchor(lines[-1])
    announced = anchor is not None and not lines[-1][anchor.end :].strip(EDGES)
    if announced or _ANNOUNCING.search(lines[-1]) or (lines[-1].startswith("#") and is_heading(lines[-1])):
        return None  # and never said
    line = re.sub(r"^(?:#{1,6}|A:)\s+", "", lines[-1])
    line = re.sub(r"(?<=\d)!+$", "", line)
    if len(lines) == 1 and expected is None and (letter := _LETTER_WITH_REASON.match(line)) is not None:
        return Answer("letter", letter[1] or letter[2], line)
    if (letter := _LETTER_IS_RIGHT.fullmatch(line)) is not None:
        return Answer("letter", letter[1], line)
    if line.startswith("|") and (line.count("|") > 2 or (len(lines) > 1 and lines[-2].startswith("|"))):
        return read_span([cell for cell in line.split("|") if cell.strip()][-1])
    if _BULLET.match(line) or (_MARKER.match(lines[-2]) if len(lines) > 1 else expected is not None):
        line = _MARKER.sub("", line)
    bold = [found[1] or found[2] for found in _BOLD.finditer(line)]
    if bold and not bold[-1].endswith(":") and (stated := read_span(bold[-1])) is not None:
        if stated.type != "text":
            return stated
        if len(bold) == 1:
            return only_number(line, False) or stated
    sentence = last_sentence(line)
    return (
        _formula(sentence)
        or _stated(sentence, whole=len(lines) == 1 and sentence == line)
        or only_number(_LEAD.sub("", sentence), False)
        or only_moment(sentence)
        or _among_words(line, sentence, expected, text)
    )


def _formula(sentence: str) -> Answer | None:
    """The last formula of a sentence, unless words of weight follow it."""
    found = list(_MATH.finditer(sentence))
    if not found or len(sentence[found[-1].end() :].split()) > 4:
        return None
    first = len(found) - 1
    while first and _BETWEEN_BOXES.fullmatch(sentence[found[first - 1].end() : found[first].start()]):
        first -= 1
    if first < len(found) - 1:
        return read_span(sentence[found[first].start() : found[-1].end()])
    answer = read_span(next(group for group in found[-1].groups() if group))
    if answer is None or answer.type == "text":
        return None
    following = sentence[found[-1].end() :].strip(" .*,;")
    if following and answer.type in ("number", "fraction"):
        counted = read_span(found[-1].group() + " " + following)
        return answer if counted is None or counted.type == "list" else counted
    return answer


def _stated(sentence: str, *, whole: bool) -> Answer | None:
    """A sentence that is an answer by itself, after words like "therefore" or "we get"."""
    text = _LEAD.sub("", sentence)
    if _UNANSWERED.search(text):
        return None
    pieces = _COPULA.split(text)
    named = text if "{" in sentence else text.rpartition(": ")[2]
    for candidate in (text, pieces[1] if len(pieces) == 2 else text, named):
        answer = read_span(candidate)
        if candidate == pieces[-1] != text and _DENIED.search(pieces[0]):
            continue
        if answer is not None and answer.type != "text" and not (candidate != text and answer.type == "letter"):
            return answer
        if candidate != text and _TRUTH.fullmatch(candidate.strip(EDGES)) and _IT.search(pieces[0]):
            return read_span(candidate)
    words = text.split()
    if whole and (
        (len(words) == 1 and text.isascii())
        or (len(words) <= 3 and not text.startswith("I ") and not re.search(r"\d", text))
    ):
        return read_span(text)
    if whole and re.match(r"(?:yes|no|true|false)\b[,.]", text, re.IGNORECASE):
        return read_span(text)
    return None


def _among_words(line: str, sentence: str, expected: AnswerType | None, text: str) -> Answer | None:
    if expected == "text":
        lead = re.match(r"\W*(yes|no|true|false)\b", text, re.IGNORECASE)
        if lead is not None:
            return read_span(lead[1])
        tail = _COPULA.split(_LEAD.sub("", sentence))[-1]
        return read_span(tail) if len(tail.split()) <= 6 and not _UNANSWERED.search(sentence) else None
    if expected in ("number", "fraction", "percent", "money", "unit"):
        if _NOT_THIS.search(line):
            return None
        found = _last_number(line) or _last_number(text)
        spelled = last_in_words(sentence) if found is None else None
        return found if spelled is None else only_number(spelled, False)
    # "12 + 30 = 42 of them", "first 3, then 4": without a type to look for, only what an equals sign says is an answer.
    _, sign, tail = line.rpartition("=")
    return only_number(tail, False) if sign else None


def _last_number(text: str) -> Answer | None:
    """The last number of a text, with a unit or percent sign behind it."""
    for line in reversed(text.splitlines()):
        spelled = plain(_MARKER.sub("", line[-4096:]))
        spelled = re.sub(r"\((\d+)\)/\((\d+)\)", r"\1/\2", spelled)
        found = list(NUMBER.finditer(spelled))
        if not found:
            continue
        span = found[-1].group()
        unit = re.match(
            r"\s*(?:[%€£¥₹]|[^\W\d_]{1,3}(?:/[^\W\d_]+|\^\(?\d\)?)?(?![^\W_])|[^\W\d_]+)", spelled[found[-1].end() :]
        )
        for candidate in ((span + unit.group()) if unit else "", span):
            if candidate and (typed := quantity(candidate.strip())) is not None:
                return typed_answer(typed[0], typed[1], span)  # type: ignore[arg-type]
    return None
