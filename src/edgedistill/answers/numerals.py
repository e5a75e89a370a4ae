"""Numbers written in words: English ones with parts and nouns, other languages' from zero to twenty, Chinese numerals.

Words that name something else somewhere ("once", "elf", "Lima", "DOS") are left out: a text that is read as a number
by mistake is worse than a number that stays a text.
"""

from __future__ import annotations

import re
from fractions import Fraction

_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ONES = {word: value for value, word in enumerate(_SMALL)} | {word: 10 * at for at, word in enumerate(_TENS, start=2)}
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = ["half", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_DENOMINATORS = {word: at for at, word in enumerate(_PARTS, start=2)} | {"quarter": 4}
_DENOMINATORS |= {f"{word}s": value for word, value in _DENOMINATORS.items()} | {"halves": 2}

_OTHERS = (
    # from zero; "-" where the word means something else as well
    "cero uno - tres cuatro cinco - siete ocho nueve diez - doce trece catorce quince dieciséis diecisiete dieciocho diecinueve veinte",
    "zéro - deux trois quatre cinq - sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit dix-neuf vingt",
    "- eins zwei drei vier fünf sechs sieben acht neun zehn - zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn zwanzig",
    "- - dois três quatro cinco seis sete oito nove dez onze doze treze quatorze quinze dezesseis dezessete dezoito dezenove vinte",
    "- - due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici diciassette diciotto "
    "diciannove venti",
    "ноль один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать тринадцать четырнадцать пятнадцать "
    "шестнадцать семнадцать восемнадцать девятнадцать двадцать",
    "- één twee drie vier vijf zes zeven acht negen tien - twaalf dertien veertien vijftien zestien zeventien achttien negentien twintig",
    "- jeden dwa trzy cztery pięć sześć siedem osiem dziewięć dziesięć", "sıfır bir iki üç dört beş altı yedi sekiz dokuz",
    "nol satu dua tiga empat - enam tujuh delapan sembilan sepuluh", "không một hai - bốn năm sáu bảy tám chín mười",
    "शून्य एक दो तीन चार पाँच छह सात आठ नौ दस", "صفر واحد اثنان ثلاثة أربعة خمسة ستة سبعة ثمانية تسعة عشرة",
    "영 하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉 열", "ศูนย์ หนึ่ง สอง สาม สี่ ห้า หก เจ็ด แปด เก้า สิบ",
)  # fmt: skip
_ROUND = {
    30: "treinta trente dreißig trinta trenta тридцать", 40: "cuarenta quarante vierzig quarenta quaranta сорок",
    50: "cincuenta cinquante fünfzig cinquenta cinquanta пятьдесят", 60: "sesenta soixante sechzig sessenta sessanta шестьдесят",
    70: "setenta siebzig settanta семьдесят", 80: "ochenta achtzig oitenta ottanta восемьдесят",
    90: "noventa neunzig novanta девяносто", 100: "cien hundert cento сто",
}  # fmt: skip
_FOREIGN = {
    word: value for words in _OTHERS for value, word in enumerate(words.split()) if word != "-"
} | {word: value for value, words in _ROUND.items() for word in words.split()}  # fmt: skip
_PERIOD = re.compile(r"(half )?an? (hour|minute|day|week|month|year)", re.IGNORECASE)
_FIRST_WORD = re.compile(r"[^\s\d.,;:!?()]+")

_CHINESE = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
_POWERS = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_HAN = re.compile(f"[{''.join(_CHINESE)}{''.join(_POWERS)}{''.join(_MYRIADS)}]+")


def in_figures(text: str) -> tuple[str, bool] | None:
    """``text`` with the number in words at its beginning in figures, and whether nouns may follow it; None where it
    begins with none.

    Nouns may follow in lower case only, and not "one": *One Direction* and *Seven Samurai* are names.
    """
    if text[:1].isdigit():  # 3 and a half
        half = re.fullmatch(r"(\d+) and a half\b(.*)", text)
        return None if half is None else (f"{half[1]} 1/2{half[2]}", True)
    if (found := _HAN.match(text)) is not None and (value := _chinese(found.group())) is not None:
        return f"{value}{text[found.end() :]}", False
    word = _FIRST_WORD.match(text)
    if word is None or (word.group().isupper() and len(word.group()) > 1):
        return None
    if (known := _FOREIGN.get(word.group().casefold())) is not None:
        return f"{known}{text[word.end() :]}", False
    return _english(text)


def _english(text: str) -> tuple[str, bool] | None:
    if (period := _PERIOD.fullmatch(text)) is not None:
        return f"{'1/2' if period[1] else '1'} {period[2]}", False
    sign, rest = "", text
    if (found := re.match(r"(?:negative|minus) (?=\S)", rest, re.IGNORECASE)) is not None:
        sign, rest = "-", rest[found.end() :]
        if re.match(r"[\d.]", rest):
            return f"-{rest}", True
    value, end = _whole(rest)
    part = re.match(r"[ -](\w+)\b", rest[end:]) if end else None
    if end and part is not None and (bottom := _DENOMINATORS.get(part[1].casefold())) is not None:
        many = part[1].casefold().endswith("s")
        if many != (value != 1):
            return None  # twenty-fifth
        return f"{sign}{value}/{bottom}{rest[end + part.end() :]}", True
    if not end:
        part = re.match(r"an? (half|third|quarter)\b(?! of\b)", rest, re.IGNORECASE)
        return None if part is None else (f"{sign}1/{_DENOMINATORS[part[1].casefold()]}{rest[part.end() :]}", True)
    if (more := re.match(r" and (?:an?|(\w+)) (\w+)\b", rest[end:])) is not None:
        top, bottom = _ONES.get((more[1] or "one").casefold()), _DENOMINATORS.get(more[2].casefold())
        if top and bottom:
            return f"{sign}{value + Fraction(top, bottom)}{rest[end + more.end() :]}", True
    following = re.match(r"-|\s+(\w+)", rest[end:])
    if following is not None and (following[1] or "one").casefold() in (*_ONES, *_LARGE, "hundred"):
        return None  # seventy five two, five-year-old
    return f"{sign}{value}{rest[end:]}", value != 1


def last_in_words(text: str) -> str | None:
    """The last whole number in English words, with the words behind it, as figures; None where there is none. "one" is
    more often no number.
    """
    starts = [found.start() for found in re.finditer(r"(?<![\w-])[A-Za-z]", text)]
    for start in reversed(starts):
        value, end = _whole(text[start:])
        if value > 1 and not any(
            _whole(text[before:])[1] >= start - before + end for before in starts if start - 40 < before < start
        ):
            return f"{value}{text[start + end :]}"
    return None


def _whole(text: str) -> tuple[int, int]:
    """The value of a whole number in English words and where it ends; (0, 0) where there is none."""
    total = group = end = 0
    before = ""
    if (
        found := re.match(r"a (?=(?:hundred|thousand|million|billion|trillion|dozen)\b)", text, re.IGNORECASE)
    ) is not None:
        group, end, before = 1, found.end() - 1, "a"
    while (found := re.compile(r"(?:[ -]|^)?(and )?([A-Za-z]+)\b").match(text, end)) is not None:
        word = found[2].casefold()
        if found[1] and before not in ("hundred", *_LARGE):
            break
        if word in _ONES:
            value = _ONES[word]
            if (before in _TENS and 0 < value < 10 and not found[1]) or not before or before in ("hundred", *_LARGE):
                group += value
            else:
                break
        elif word == "hundred" and before and 0 < group < 100:
            group *= 100
        elif word in _LARGE and before and group:
            total, group = total + group * _LARGE[word], 0
        elif word == "dozen" and before and group:
            group *= 12
        else:
            break
        before, end = word, found.end()
    return (total + group, end) if before not in ("", "a") else (0, 0)


def _chinese(text: str) -> int | None:
    """The value of Chinese numerals, with or without their powers of ten; None where they are no number."""
    if not set(text) & {*_POWERS, *_MYRIADS}:
        return int("".join(str(_CHINESE[character]) for character in text))
    total = group = 0
    digit: int | None = None
    for character in text:
        if character in _CHINESE:
            if digit:
                return None
            digit = _CHINESE[character]
        elif character in _POWERS:
            group += (1 if digit is None else digit) * _POWERS[character]
            digit = None
        else:
            total = (total + group + (digit or 0)) * _MYRIADS[character]
            group, digit = 0, None
    return total + group + (digit or 0)
