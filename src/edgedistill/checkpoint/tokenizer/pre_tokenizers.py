"""Pre-tokenizers by the names that GGUF files use: how text is split into words before byte-level BPE merges each.

A vocabulary does not hold these expressions. They are those of the original tokenizer.json files; llama.cpp lists the
same families in llama-vocab.cpp.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from edgedistill.errors import UnsupportedModelError

if TYPE_CHECKING:
    from tokenizers import pre_tokenizers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_WORDS = rf"{_LEAD}\p{{L}}+"
_SPACES = r"\s+(?!\S)|\s+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_REST = rf"{_SIGNS}|\s*[\r\n]+|{_SPACES}"
_REST_SLASH = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|{_SPACES}"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"
_QWEN35 = rf"{_CONTRACTIONS}|{_LEAD}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|{_SPACES}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(upper: str, lower: str, ending: str = "") -> str:
    """Words that change between upper and lower case at most once, with ``ending``."""
    return rf"{_LEAD}{upper}*{lower}+{ending}|{_LEAD}{upper}+{lower}*{ending}"


_TEKKEN = rf"{_cased(_UPPER, _LOWER)}|\p{{N}}|{_REST_SLASH}"
_GPT4O = rf"{_cased(_UPPER, _LOWER, f'{_CONTRACTIONS}?')}|\p{{N}}{{1,3}}|{_REST_SLASH}"
_YOUTU = rf"{_cased(_UPPER, _LOWER, f'{_CONTRACTIONS}?')}|\p{{N}}|{_REST_SLASH}"
_NOT_HAN = r"&&[^\p{Han}]]"
_KIMI_CASED = _cased(_UPPER[:-1] + _NOT_HAN, _LOWER[:-1] + _NOT_HAN, f"{_CONTRACTIONS}?")
_KIMI = rf"[\p{{Han}}]+|{_KIMI_CASED}|\p{{N}}{{1,3}}|{_REST}"
_SEED = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|{_SPACES}"
_BAILING = rf"'(?i:[sdmt]|ll|ve|re)|{_WORDS}|\p{{N}}|{_SIGNS}|\s*[\r\n]|{_SPACES}"
_EXAONE_MOE = (
    rf"{_CONTRACTIONS}|{_LEAD}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?"
    rf"|\s*[\r\n]|{_SPACES}"
)
_LONG_SPACES = "|".join(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4))
_JAIS2 = (
    rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_SIGNS}|\s*[\r\n]+"
    rf"|{_LONG_SPACES}|\s{{1,2}}(?!\S)|\s"
)
_CJK = r"[一-龥぀-ゟ゠-ヿ]+"
_DEEPSEEK_SIGNS = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
_DEEPSEEK3 = (r"\p{N}{1,3}", _CJK, rf"{_DEEPSEEK_SIGNS}| ?[\p{{P}}\p{{S}}]+[\r\n]*|\s*[\r\n]+|{_SPACES}")
_SPARK = (r"\p{N}{1,3}", _CJK, rf"{_DEEPSEEK_SIGNS}| ?[\p{{P}}\p{{S}}]+|[\r\n]|{_SPACES}", r"\p{N}")
# Letters that have a case, as ranges of code points: written as letters, several would be changed by composition (NFC).
_DEEPSEEK_RANGES = (
    "41-5a 61-7a b5 c0-d6 d8-f6 f8-1ba 1bc-1bf 1c4-293 295-2af 370-373 376 377 37b-37d 37f 386 388-38a 38c "
    "38e-3a1 3a3-3f5 3f7-481 48a-52f 531-556 10a0-10c5 13a0-13f5 13f8-13fd 1c90-1cba 1cbd-1cbf 1d00-1d2b "
    "1d6b-1d77 1d79-1d9a 1e00-1f15 1f18-1f1d 1f20-1f45 1f48-1f4d 1f50-1f57 1f59 1f5b 1f5d 1f5f-1f7d 1f80-1fb4 "
    "1fb6-1fbc 1fbe 1fc2-1fc4 1fc6-1fcc 1fd0-1fd3 1fd6-1fdb 1fe0-1fec 1ff2-1ff4 1ff6-1ffc 2102 2107 210a-2113 "
    "2115 2119-211d 2124 2126 2128 212a-212d 212f-2134 2139 213c-213f 2145-2149 214e 2183 2184 2c00-2c7b "
    "2c7e-2ce4 2ceb-2cee 2cf2 2cf3 a640-a66d a680-a69b a722-a76f a771-a787 a78b-a78e ab70-abbf fb00-fb06 "
    "fb13-fb17 ff21-ff3a ff41-ff5a 10400-1044f 104b0-104d3 104d8-104fb 10c80-10cb2 10cc0-10cf2 118a0-118df "
    "1e900-1e943 "
)
_DEEPSEEK_LETTERS = "".join("-".join(rf"\x{{{code}}}" for code in part.split("-")) for part in _DEEPSEEK_RANGES.split())
_DEEPSEEK_LLM = (
    r"[\r\n]", rf"\s?[{_DEEPSEEK_LETTERS}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", r"[一-龥ࠀ-一가-퟿]+",
    "digit_runs",
)  # fmt: skip
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_PUNCTUATION = r"[\p{P}\$\+<=>\^~\|]+"
_DIGIT_GROUPS = r"\d{1,3}(?=(?:\d{3})*\b)"

# Name -> splits, each of which cuts the pieces of the one before. Some have names: see ``_STEPS``.
SPLITS: dict[str, tuple[str, ...]] = {
    # The newest fallback of llama.cpp, for files that name no pre-tokenizer.
    "default": (_PUNCTUATION, "gpt-2", "digit_runs", r"[0-9][0-9][0-9]"),
    **dict.fromkeys(
        ("gpt-2", "phi-2", "olmo", "mpt", "gigachat", "a.x-4.0", "mellum", "exaone4", "jais", "trillion",
         "granite-docling"),
        ("gpt-2",),
    ),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
        ("digits", "gpt-2"),
    ),
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "lfm2", "midm-2.0", "dbrx", "smaug-bpe",
         "chatglm-bpe", "glm4"),
        (_LLAMA3,),
    ),
    **dict.fromkeys(
        ("qwen2", "deepseek-r1-qwen", "kormo", "stablelm2", "megrez", "hunyuan", "solar-open", "grok-2"),
        (_QWEN2,),
    ),
    "qwen35": (_QWEN35,),
    "ufakzeka": (rf"{_WORDS}|\p{{N}}|{_REST}",),
    "laguna": (r"[^\n]+|[\n]+", _QWEN2),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), (_GPT4O,)),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), (_DIGIT_GROUPS, _GPT4O)),
    "tekken": (_TEKKEN,),
    "youtu": (r"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+", _YOUTU),
    "kimi-k2": (_KIMI,),
    "deepseek-llm": _DEEPSEEK_LLM,
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", "digits"),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), _DEEPSEEK3),
    "spark2_5": _SPARK,
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", "gpt-2", r"[0-9][0-9][0-9]"),
    **dict.fromkeys(("poro-chat", "bloom", "gpt3-finnish"), (_BLOOM,)),
    "viking": (_BLOOM, "digits"),
    "jais-2": (_JAIS2,),
    "chameleon": (
        r"<sentinel:[0-9]+>", r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", "digits",
        r"[\p{P}!-/:-@\[-`{-~]", "gpt-2",
    ),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), (_BAILING,)),
    "seed-coder": (_SEED,),
    "exaone-moe": (_EXAONE_MOE,),
    "minicpm5": (r"\p{N}{1,3}", rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}+|{_REST}"),
    "superbpe": ("digit_runs", r"(?=(\d{3})+(?!\d))"),
}  # fmt: skip
_RAW = "merges raw UTF-8 in the manner of SentencePiece instead of bytes"
_ENCODER = "is that of an encoder, which writes no text"
# What llama.cpp has a name for and no tokenizer is built for, with the reason.
REFUSED: dict[str, str] = {
    **dict.fromkeys(("gemma4", "sarvam-moe"), _RAW),
    **dict.fromkeys(
        ("jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code", "jina-v5-nano", "roberta-bpe",
         "modern-bert", "f2llmv2", "granite-embed-multi-97m", "granite-embed-multi-311m", "whitespace"),
        _ENCODER,
    ),
    "afmoe": "groups digits by the length of their run, in a way that no expression says",
}  # fmt: skip
# A word that is a token as a whole is not merged from its letters (tiktoken's behaviour).
IGNORE_MERGES = frozenset({
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "lfm2", "pixtral", "midm-2.0", "tekken", "youtu",
    "minicpm5",
})  # fmt: skip
# Text is composed (NFC) before it is cut.
NFC = frozenset({"qwen2", "qwen35", "deepseek-r1-qwen", "stablelm2", "megrez"})
# Families whose prompts start with the beginning-of-sequence token unless metadata says otherwise.
ADD_BOS = frozenset({
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "lfm2", "midm-2.0", "tekken", "chameleon",
})  # fmt: skip


def check_known(pre: str) -> None:
    """Raise UnsupportedModelError, which says why, unless there is a pre-tokenizer of the name ``pre``."""
    hint = "Export from the original Hugging Face checkpoint, which has a tokenizer.json."
    if pre in REFUSED:
        raise UnsupportedModelError(f"The pre-tokenizer {pre!r} of this model {REFUSED[pre]}.", hint=hint)
    if pre not in SPLITS:
        close = difflib.get_close_matches(pre, SPLITS, n=3, cutoff=0.5)
        nearest = f"; similar are {', '.join(close)}" if close else ""
        raise UnsupportedModelError(
            f"The pre-tokenizer {pre!r} of this model is none of the {len(SPLITS)} known ones{nearest}.", hint=hint
        )


def pre_tokenizer(pre: str) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer of a name in ``SPLITS``; bytes become letters behind it."""
    from tokenizers import Regex, pre_tokenizers

    steps: list[pre_tokenizers.PreTokenizer] = []
    for step in SPLITS[pre]:
        if step == "digits":
            steps.append(pre_tokenizers.Digits(individual_digits=True))
        else:
            expression = {"gpt-2": GPT2, "digit_runs": r"\p{N}+"}.get(step, step)
            steps.append(pre_tokenizers.Split(Regex(expression), behavior="isolated", invert=False))
    # Bytes become letters last: the expressions speak of the text itself.
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
