"""Byte-level BPE tokenizers (GPT-2's family) as tokenizer.json, built from tokens and merges.

The pre-tokenizer that cuts text into words is not part of a vocabulary; it goes by the names that GGUF files use.
The expressions are those of the original tokenizer.json files; llama.cpp lists the same families in llama-vocab.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.checkpoint.tokenizer.load import plain_error
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tokenizers import pre_tokenizers

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_TEKKEN = rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|\p{{N}}|{_REST_SLASH}"
_GPT4O = (
    rf"{_LEAD}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_LEAD}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_REST_SLASH}"
)

# The newest fallback of llama.cpp, for files that name no pre-tokenizer.
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", "gpt-2", r"\p{N}+", r"[0-9][0-9][0-9]")
_CJK = r"[一-龥぀-ゟ゠-ヿ]+"
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2_STEPS = ("gpt-2",)
_DIGIT_STEPS = ("digits", "gpt-2")

# Name -> splits, each of which cuts the pieces of the one before. Two have names: "gpt-2" is GPT-2's expression,
# "digits" sets every digit apart.
_SPLITS: dict[str, tuple[str, ...]] = {
    "default": _DEFAULT,
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt", "gigachat", "a.x-4.0", "mellum", "exaone4"), _GPT2_STEPS),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGIT_STEPS),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "lfm2"), (_LLAMA3,)),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe", "glm4"), (_LLAMA3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"), (_QWEN2,)),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), (_GPT4O,)),
    "tekken": (_TEKKEN,),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", "digits"),
    "deepseek-v3": (r"\p{N}{1,3}", _CJK, _DEEPSEEK3),
}  # fmt: skip
# A word that is a token as a whole is not merged from its letters (tiktoken's behaviour).
_IGNORE_MERGES = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "lfm2", "pixtral", "tekken"})
# Text is composed (NFC) before it is cut.
_NFC = frozenset({"qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"})
# Families whose prompts start with the beginning-of-sequence token unless metadata says otherwise.
ADD_BOS = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "lfm2", "tekken"})


def build_byte_level_bpe(
    tokens: Mapping[int, str],
    merges: Sequence[str],
    pre: str,
    *,
    special: Iterable[int] = (),
    added: Iterable[int] = (),
) -> bytes:
    """tokenizer.json of a byte-level BPE.

    Args:
        tokens: Every token by id; in GPT-2's byte alphabet except special and added ones.
        merges: ``left right`` pairs by falling priority.
        pre: Name of the pre-tokenizer, as in GGUF's ``tokenizer.ggml.pre``.
        special: Ids that text decoding may leave out (``<|im_end|>``).
        added: Ids that are matched as a whole but are ordinary text (``<think>``).

    Raises UnsupportedModelError for an unknown ``pre``, CheckpointError for tokens and merges that do not fit.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    if pre not in _SPLITS:
        raise UnsupportedModelError(
            f"The pre-tokenizer {pre!r} of this model is not known; known are {', '.join(sorted(_SPLITS))}.",
            hint="Export from the original Hugging Face checkpoint, which has a tokenizer.json.",
        )
    special, added = sorted(set(special)), sorted(set(added))
    vocab = {token: index for index, token in tokens.items()}
    if len(vocab) != len(tokens):
        raise CheckpointError(f"The vocabulary has {len(tokens) - len(vocab)} tokens twice.")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    if any(len(pair) != 2 for pair in pairs):
        bad = next(merge for merge, pair in zip(merges, pairs, strict=True) if len(pair) != 2)
        raise CheckpointError(f"A merge of the tokenizer is {bad!r}, expected two tokens with one space between.")
    try:
        model = models.BPE(
            vocab=vocab,
            merges=[(pair[0], pair[1]) for pair in pairs],
            ignore_merges=pre in _IGNORE_MERGES,
        )
    except Exception as error:  # the Rust side raises a bare Exception
        raise CheckpointError(f"The tokenizer's merges do not fit its vocabulary ({plain_error(error)}).") from error
    tokenizer = Tokenizer(model)
    if pre in _NFC:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _pre_tokenizer(pre)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    # tokenizers keeps the id of an added token whose text is in the vocabulary already.
    tokenizer.add_special_tokens([AddedToken(tokens[i], normalized=False, special=True) for i in special])
    tokenizer.add_tokens([AddedToken(tokens[i], normalized=False, special=False) for i in added])
    text: str = tokenizer.to_str()
    return text.encode("utf-8")


def _pre_tokenizer(pre: str) -> pre_tokenizers.PreTokenizer:
    from tokenizers import Regex, pre_tokenizers

    steps: list[pre_tokenizers.PreTokenizer] = []
    for step in _SPLITS[pre]:
        if step == "digits":
            steps.append(pre_tokenizers.Digits(individual_digits=True))
        elif step == "gpt-2":
            steps.append(pre_tokenizers.Split(Regex(_GPT2), behavior="isolated", invert=False))
        else:
            steps.append(pre_tokenizers.Split(Regex(step), behavior="isolated", invert=False))
    # Bytes become letters last: the expressions speak of the text itself.
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
