"""The 25 verifiers of IFEval (Zhou et al., arXiv 2311.07911), with their published names and parameters.

They decide like those of lm-evaluation-harness on the published prompts; keywords are literal texts in both, not
patterns. langdetect, with a fixed seed, detects languages, and NLTK's Punkt model counts sentences (extra: ifeval).
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from edgedistill.errors import SuiteError
from edgedistill.extras import missing
from edgedistill.verify.suites.values import kind as kind_of
from edgedistill.verify.types import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RELATIONS = ("less than", "at least")
_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_LANGUAGES = ("language:response_language", "change_case:english_capital", "change_case:english_lowercase")
_SENTENCES = ("length_constraints:number_sentences",)
# Where NLTK's word tokenizer splits, as far as it matters for words in capital letters.
_APART = re.compile(r"[;@#$%&?!\[\](){}<>\"“”`]|\.{2,}|--|[:,](?=\D|$)")
_CONTRACTED = re.compile(
    r"(?i)(?<=\w)('s|'m|'d|'ll|'re|'ve|n't)(?=\s|$|[.,])|\b(can(?=not\b)|gim(?=me\b)|gon(?=na\b)|got(?=ta\b)|lem(?=me\b)|"
    r"wan(?=na\b))"
)


def require(kind: str) -> None:
    """Raises MissingExtraError if the library that a verifier needs is not installed."""
    try:
        if kind in _LANGUAGES:
            import langdetect  # noqa: F401
        if kind in _SENTENCES:
            import punkt  # noqa: F401
    except ImportError as error:
        raise missing(
            f"the check `{kind}` needs the package {error.name}, which is not installed.", "ifeval"
        ) from error


def checks_of(row: Mapping[str, Any], where: str) -> tuple[Check, ...]:
    """The checks of a published record: ``instruction_id_list`` and ``kwargs``, nulls left out. Raises SuiteError."""
    names, given = row["instruction_id_list"], row.get("kwargs")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise SuiteError(f"{where}: `instruction_id_list` is {kind_of(names)}; expected a list of names.")
    if not isinstance(given, list) or len(given) != len(names) or not all(isinstance(one, dict) for one in given):
        raise SuiteError(f"{where}: `kwargs` is {kind_of(given)}; expected a list of {len(names)} objects.")
    checks = []
    for name, parameters in zip(names, given, strict=True):
        if name not in IFEVAL:
            raise SuiteError(f"{where}: the instruction `{name[:60]}` is none of IFEval's 25.")
        known = IFEVAL[name][0]
        kept = {key: _plain(value) for key, value in parameters.items() if value is not None and key in known}
        checks.append(Check(name, tuple(sorted(kept.items()))))
    return tuple(checks)


def _plain(value: Any) -> Any:
    """Lists as tuples, and 3.0 as 3: tables store whole numbers as floats in columns with missing values."""
    if isinstance(value, list):
        return tuple(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def language(text: str) -> str | None:
    """The ISO 639-1 code of a text's language; None if it cannot be detected."""
    import langdetect

    langdetect.DetectorFactory.seed = 0
    try:
        return str(langdetect.detect(text))
    except langdetect.LangDetectException:
        return None


@cache
def _sentence_tokenizer() -> Any:
    import punkt

    return punkt.PunktSentenceTokenizer(punkt.load_model("english"))


def sentence_count(text: str) -> int:
    """Number of sentences by NLTK's English Punkt model."""
    return len(_sentence_tokenizer().tokenize(text))


def _relation(count: int, limit: int, relation: str) -> bool:
    return count < limit if relation == RELATIONS[0] else count >= limit


def _in_english(text: str) -> bool:
    return language(text) in ("en", None)


def _occurrences(text: str, word: str) -> int:
    return len(re.findall(re.escape(word.strip()), text, re.IGNORECASE))


def _avoids(text: str, words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in words)


def _paragraphs(text: str, number: int) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    if any(not part.strip() for part in parts[1:-1]):
        return False
    return sum(bool(part.strip()) for part in parts) == number


def _first_word(text: str, number: int, nth: int, word: str) -> bool:
    parts = text.split("\n\n")
    if sum(bool(part.strip()) for part in parts) != number or not 0 < nth <= number:
        return False
    words = parts[nth - 1].split()
    first = words[0].lstrip("'").lstrip('"') if words else ""
    return bool(words) and re.split(r"[.,?!'\"]", first)[0].lower() == word.strip().lower()


def _postscript(text: str, marker: str) -> bool:
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(patterns.get(marker.strip(), re.escape(marker.strip().lower())), text.lower()) is not None


def _bullets(text: str) -> int:
    star = re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE)
    return len(star) + len(re.findall(r"^\s*-.*$", text, re.MULTILINE))


def _highlights(text: str) -> int:
    one = [found for found in re.findall(r"\*[^\n\*]*\*", text) if found.strip("*").strip()]
    two = [found for found in re.findall(r"\*\*[^\n\*]*\*\*", text) if found[2:-2].strip()]
    return len(one) + len(two)


def _sections(text: str, splitter: str) -> int:
    return len(re.findall(rf"\s?{re.escape(splitter.strip())}\s?\d+\s?", text))


def _json(text: str) -> bool:
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    return any(found.lstrip("<").rstrip(">").strip() for found in re.findall(r"<<[^\n]+>>", text))


def _two(text: str) -> bool:
    parts = text.split("******")
    if any(not part.strip() for part in parts[1:-1]):
        return False
    said = [part.strip() for part in parts if part.strip()]
    return len(said) == 2 and said[0] != said[1]


def capital_words(text: str) -> int:
    """Number of words in capital letters only."""
    return sum(word.isupper() for word in _CONTRACTED.sub(r" \1\2 ", _APART.sub(" ", text)).split())


IFEVAL: dict[str, tuple[tuple[str, ...], Callable[[str, Check], bool]]] = {
    "keywords:existence": (("keywords",), lambda t, c: all(_occurrences(t, word) for word in c.get("keywords"))),
    "keywords:frequency": (("keyword", "frequency", "relation"),
        lambda t, c: _relation(_occurrences(t, c.get("keyword")), c.get("frequency"), c.get("relation"))),
    "keywords:forbidden_words": (("forbidden_words",), lambda t, c: _avoids(t, c.get("forbidden_words"))),
    "keywords:letter_frequency": (("letter", "let_frequency", "let_relation"),
        lambda t, c: _relation(t.lower().count(c.get("letter").lower()), c.get("let_frequency"),
                               c.get("let_relation"))),
    "language:response_language": (("language",), lambda t, c: language(t) in (c.get("language"), None)),
    "length_constraints:number_sentences": (("num_sentences", "relation"),
        lambda t, c: _relation(sentence_count(t), c.get("num_sentences"), c.get("relation"))),
    "length_constraints:number_paragraphs": (("num_paragraphs",), lambda t, c: _paragraphs(t, c.get("num_paragraphs"))),
    "length_constraints:number_words": (("num_words", "relation"),
        lambda t, c: _relation(len(re.findall(r"\w+", t)), c.get("num_words"), c.get("relation"))),
    "length_constraints:nth_paragraph_first_word": (("num_paragraphs", "nth_paragraph", "first_word"),
        lambda t, c: _first_word(t, c.get("num_paragraphs"), c.get("nth_paragraph"), c.get("first_word"))),
    "detectable_content:number_placeholders": (("num_placeholders",),
        lambda t, c: len(re.findall(r"\[.*?\]", t)) >= c.get("num_placeholders")),
    "detectable_content:postscript": (("postscript_marker",), lambda t, c: _postscript(t, c.get("postscript_marker"))),
    "detectable_format:number_bullet_lists": (("num_bullets",), lambda t, c: _bullets(t) == c.get("num_bullets")),
    "detectable_format:constrained_response": ((), lambda t, _: any(answer in t for answer in _ANSWERS)),
    "detectable_format:number_highlighted_sections": (("num_highlights",),
        lambda t, c: _highlights(t) >= c.get("num_highlights")),
    "detectable_format:multiple_sections": (("section_spliter", "num_sections"),
        lambda t, c: _sections(t, c.get("section_spliter")) >= c.get("num_sections")),
    "detectable_format:json_format": ((), lambda t, _: _json(t)),
    "detectable_format:title": ((), lambda t, _: _title(t)),
    "combination:two_responses": ((), lambda t, _: _two(t)),
    "combination:repeat_prompt": (("prompt_to_repeat",),
        lambda t, c: t.strip().lower().startswith(c.get("prompt_to_repeat").strip().lower())),
    "startend:end_checker": (("end_phrase",),
        lambda t, c: t.strip().strip('"').lower().endswith(c.get("end_phrase").strip().lower())),
    "startend:quotation": ((), lambda t, _: len(t.strip()) > 1 and t.strip()[0] == t.strip()[-1] == '"'),
    "change_case:capital_word_frequency": (("capital_frequency", "capital_relation"),
        lambda t, c: _relation(capital_words(t), c.get("capital_frequency"), c.get("capital_relation"))),
    "change_case:english_capital": ((), lambda t, _: t.isupper() and _in_english(t)),
    "change_case:english_lowercase": ((), lambda t, _: t.islower() and _in_english(t)),
    "punctuation:no_comma": ((), lambda t, _: "," not in t),
}  # fmt: skip
"""Verifier: names of its parameters, and the test."""

INTEGERS = frozenset(
    name for names, _ in IFEVAL.values() for name in names
    if name.startswith("num_") or name.endswith("frequency") or name == "nth_paragraph"
)  # fmt: skip
LISTS = frozenset(("keywords", "forbidden_words"))
CHOICES = dict.fromkeys(("relation", "let_relation", "capital_relation"), RELATIONS)
