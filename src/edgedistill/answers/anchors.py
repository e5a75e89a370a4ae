"""The words that announce an answer, in the larger languages; what follows them is the answer.

Languages that write a decimal comma are marked, because "2,5" is a number there and a list elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_POINT = (
    # English, Chinese, Japanese, Korean, Hindi, Thai, Arabic, Hebrew, Bengali, Urdu, Persian, Tamil, Telugu, Swahili
    ("answer|solution|result|choice|option", r"(?:the|my|our)\s+(?:\w+\s+)?(?:final |correct |right )?(?:answer|solution|result|choice|option)s?\s*(?:is|are|=|:|would be|will be|must be)"),
    ("answer", r"(?:(?:final|correct|short|my) )?answers?\s*(?:is|are|[:=：])"),
    ("result", r"(?:final )?result\s*(?:is\b|[:=：])"),
    ("solution", r"solution\s*is\b"),
    ("答案|结果|結果", r"(?:最终|最後|最后|正确|正確)?(?:的)?(?:答案|结果|結果)(?:应该|應該|应|選項|选项)?(?:是|为|為|等于|等於|选|選|[:：=])"),
    ("答", r"答[:：]"),
    ("选项|選項", r"(?:正确|正確)?的?(?:选项|選項)(?:应该|應該)?(?:是|为|為|[:：])"),
    ("选|選", r"(?:应|應|故|所以)?(?:选择|選擇|选|選)[:：\s]*(?=[(（]?[A-Z])"),
    ("答|正解|回答|結果", r"(?:最終的な|最終|正しい)?(?:答え|解答|正解|回答|結果)(?:は|[:：=])"),
    ("정답|답|결과", r"(?:최종 ?)?(?:정답|답|결과)(?:은|는|[:：=])"),
    ("उत्तर|जवाब|परिणाम", r"(?:अंतिम )?(?:सही )?(?:उत्तर|जवाब|परिणाम)\s*(?:है\s*[:：]?|[:：=]|होगा)"),
    ("उत्तर|जवाब", r"(?:अंतिम )?(?:सही )?(?:उत्तर|जवाब)(?=\s+[\d(०-९])"),
    ("คำตอบ|ผลลัพธ์", r"(?:คำตอบ|ผลลัพธ์)(?:สุดท้าย|ที่ถูกต้อง)?\s*(?:คือ|เป็น|[:：=])"),
    ("ตอบ", r"ตอบ\s*[:：]?"),
    ("جابة|جواب|نتيجة", r"(?:الإجابة|الاجابة|الجواب|النتيجة)(?:\s+(?:النهائية|النهائي|الصحيحة|الصحيح))?\s*(?:هي|هو|[:：=])"),
    ("תשובה", r"(?:התשובה)(?:\s+הסופית)?\s*(?:היא|[:：=])"),
    ("উত্তর", r"(?:চূড়ান্ত )?উত্তর\s*(?:হল|হলো|[:：=])"),
    ("جواب", r"(?:حتمی )?جواب\s*(?:ہے|[:：=])"),
    ("پاسخ|جواب", r"(?:پاسخ|جواب)(?:\s+نهایی)?\s*[:：=]"),
    ("பதில்", r"பதில்\s*[:：=]"),
    ("సమాధానం", r"సమాధానం\s*[:：=]"),
    ("jibu", r"jibu\s*(?:ni\b|[:=])"),
    ("sagot", r"(?:ang )?sagot\s*(?:ay\b|[:=])"),
)  # fmt: skip
_COMMA = (
    # Spanish, French, German, Portuguese, Italian, Russian, Ukrainian, Vietnamese, Turkish, Indonesian, Dutch, Polish, Swedish, Czech, Greek, Romanian
    ("respuesta|solución", r"(?:la )?(?:respuesta|solución)(?: final| correcta)?\s*(?:es|son|sería|[:=：])"),
    ("resultado", r"(?:el )?resultado(?: final)?\s*(?:es|[:=：])"),
    ("réponse|solution", r"(?:la )?(?:réponse|solution)(?: finale| correcte)?\s*(?:est|sont|[:=：])"),
    ("résultat", r"(?:le )?résultat(?: final)?\s*(?:est|[:=：])"),
    ("antwort|lösung", r"(?:die )?(?:endgültige |richtige |finale )?(?:antwort|lösung)\s*(?:ist|lautet|[:=：])"),
    ("ergebnis", r"(?:das )?(?:ergebnis|endergebnis)\s*(?:ist|lautet|beträgt|[:=：])"),
    ("resposta", r"(?:a )?resposta(?: final| correta)?\s*(?:é|são|[:=：])"),
    ("resultado", r"(?:o )?resultado(?: final)?\s*(?:é|[:=：])"),
    ("risposta|soluzione", r"(?:la )?(?:risposta|soluzione)(?: finale| corretta| esatta)?\s*(?:è|sono|[:=：])"),
    ("risultato", r"(?:il )?risultato(?: finale)?\s*(?:è|[:=：])"),
    ("ответ|результат", r"(?:правильный |окончательный |итоговый )?(?:ответ|результат)\s*(?:равен|будет|есть|это|[:=：—–-])"),
    ("відповідь", r"(?:правильна |остаточна )?відповідь\s*(?:є|це|[:=：—–-])"),
    ("đáp án|đáp số|câu trả lời|kết quả", r"(?:đáp án|đáp số|câu trả lời|kết quả)(?: cuối cùng| đúng)?\s*(?:là|[:=：])"),
    ("cevap|yanıt|sonuç", r"(?:nihai |doğru )?(?:cevap|yanıt|cevabı|sonuç)\s*(?:[:=：]|(?=\s[\d(A-Z\\$]))"),
    ("jawaban|hasil", r"(?:jawaban|hasil)(?:nya)?(?: akhir(?:nya)?| yang benar)?\s*(?:adalah|ialah|[:=：])"),
    ("antwoord|resultaat", r"(?:het )?(?:juiste )?(?:antwoord|resultaat)\s*(?:is|[:=：])"),
    ("odpowiedź", r"(?:ostateczna |poprawna )?odpowiedź\s*(?:to\b|[:=：])"),
    ("svar|resultatet", r"(?:svaret|svar|resultatet)\s*(?:är|er|[:=：])"),
    ("odpověď", r"(?:správná )?odpověď\s*(?:je|[:=：])"),
    ("απάντηση", r"(?:η )?(?:τελική )?απάντηση\s*(?:είναι|[:=：])"),
    ("răspunsul", r"răspunsul(?: final| corect)?\s*(?:este|[:=：])"),
)  # fmt: skip


_BEFORE = 48
"""Most characters of a phrase before its noun."""
_TRIES = 6


@dataclass(frozen=True, slots=True)
class _Phrase:
    noun: str
    pattern: re.Pattern[str]
    decimal_comma: bool


# Letters of scripts without spaces touch what comes before and after them.
_PHRASES = [
    _Phrase(
        noun,
        re.compile(rf"(?<![A-Za-zÀ-ÿА-я])(?:{phrase})(?!(?<=[A-Za-zÀ-ÿА-я])[A-Za-zÀ-ÿА-я])[\s:：*_=]*", re.IGNORECASE),
        comma,
    )
    for table, comma in ((_POINT, False), (_COMMA, True))
    for nouns, phrase in table
    for noun in nouns.split("|")
]
"""By the noun that each has to contain: looking for nouns is what makes a long text cheap to search."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where the words that announce an answer begin and end, and whether their language writes a decimal comma."""

    start: int
    end: int
    decimal_comma: bool


def last_anchor(text: str) -> Anchor | None:
    """The last announcement of an answer; None where there is none. A reply may state an answer, doubt it and state another."""
    lowered = text.lower()
    if len(lowered) != len(text):
        lowered = text
    last: Anchor | None = None
    for phrase in _PHRASES:
        at = len(lowered)
        for _ in range(_TRIES):
            at = lowered.rfind(phrase.noun, 0, at + len(phrase.noun) - 1 if at < len(lowered) else at)
            if at < 0 or (last is not None and at < last.start):
                break
            found = next(
                (m for m in phrase.pattern.finditer(text, max(0, at - _BEFORE), at + 512) if m.start() <= at < m.end()),
                None,
            )
            if found is not None:
                if last is None or found.end() > last.end:
                    last = Anchor(found.start(), found.end(), phrase.decimal_comma)
                break
    return last


_NOUNS = (
    "answer|final answer|the answer|result|final result|solution|答案|最终答案|結果|结果|答|答え|解答|回答|정답|답|respuesta|respuesta final|resultado|réponse|"
    "réponse finale|résultat|antwort|ergebnis|lösung|resposta|resposta final|risposta|risultato|ответ|результат|відповідь|đáp án|đáp số|cevap|sonuç|"
    "jawaban|उत्तर|คำตอบ|الإجابة|الجواب|antwoord|odpowiedź|svar|απάντηση|total|sum"
)
_HEADING = re.compile(rf"^[#*_\s]*(?:{_NOUNS})[*_\s:：]*$", re.IGNORECASE)


def is_heading(line: str) -> bool:
    """Whether a line says only that an answer follows, as a heading or the first cell of a table does."""
    return len(line) < 80 and _HEADING.match(line) is not None
