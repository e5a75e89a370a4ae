"""The tokenizer of a GGUF file as tokenizer.json, with its special tokens and chat template.

``gpt2`` vocabularies are byte-level BPE with a named pre-tokenizer; ``llama`` ones are SentencePiece BPE, where a
score per token takes the place of merges; ``gemma4`` ones are that with merges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgedistill.checkpoint.tokenizer.byte_level_bpe import build_byte_level_bpe
from edgedistill.checkpoint.tokenizer.files import END_TEXTS
from edgedistill.checkpoint.tokenizer.pre_tokenizers import ADD_BOS
from edgedistill.checkpoint.tokenizer.sentencepiece_bpe import build_sentencepiece_bpe
from edgedistill.checkpoint.types import SpecialTokens
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_PRE = (
    "The GGUF file names no pre-tokenizer (tokenizer.ggml.pre): text is cut by llama.cpp's default rules, which may "
    "not be those that the model was trained with. Its answers may be worse than the original's."
)

_RETURN = "<|return|>"
"""Ends a reply of gpt-oss, whose ``<|end|>`` ends every message, its reasoning too."""
_GEMMA4 = "gemma4"
"""A vocabulary in the manner of SentencePiece, whose merges are listed."""
# Token types of GGUF (gguf.TokenType).
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """Texts by id, and the ids of each type."""

    texts: dict[int, str]
    types: list[int]

    def of_type(self, kind: int) -> list[int]:
        return [index for index, found in enumerate(self.types) if found == kind and index in self.texts]


def build_tokenizer(metadata: Mapping[str, Any]) -> bytes:
    """tokenizer.json (UTF-8) of the tokenizer that ``metadata`` describes.

    Raises CheckpointError for damaged metadata, UnsupportedModelError for a kind of tokenizer that is not known.
    """
    model = metadata.get("tokenizer.ggml.model")
    vocabulary = _read_vocabulary(metadata)
    special = [*vocabulary.of_type(_CONTROL), *vocabulary.of_type(_UNKNOWN)]
    added = vocabulary.of_type(_USER_DEFINED)
    if model == "gpt2":
        merges = metadata.get("tokenizer.ggml.merges")
        if not isinstance(merges, list):
            raise CheckpointError("The GGUF file has no tokenizer.ggml.merges.", hint="Download it again.")
        pre = _pre_tokenizer(metadata)
        return build_byte_level_bpe(vocabulary.texts, merges, pre, special=special, added=added)
    if model in ("llama", _GEMMA4):
        scores = _numbers(metadata, "scores", len(vocabulary.types))
        if scores is None:
            raise CheckpointError("The GGUF file has no tokenizer.ggml.scores.", hint="Download it again.")
        merges = metadata.get("tokenizer.ggml.merges") if model == _GEMMA4 else None
        if model == _GEMMA4 and not isinstance(merges, list):
            raise CheckpointError("The GGUF file has no tokenizer.ggml.merges.", hint="Download it again.")
        unknown = _token_id(metadata, "unknown", vocabulary, 0)
        return build_sentencepiece_bpe(
            vocabulary.texts,
            [float(score) for score in scores],
            unknown=None if unknown is None else vocabulary.texts[unknown],
            merges=merges,
            add_prefix_space=bool(metadata.get("tokenizer.ggml.add_space_prefix", model == "llama")),
            special=special,
            added=added,
        )
    raise UnsupportedModelError(
        f"The tokenizer of the GGUF file is of kind {model!r}; expected 'gpt2', 'llama' or 'gemma4'.",
        hint="Export from the original Hugging Face checkpoint, which has a tokenizer.json.",
    )


def tokenizer_notes(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences for the user about what the file does not say."""
    if metadata.get("tokenizer.ggml.model") != "gpt2" or metadata.get("tokenizer.ggml.pre"):
        return ()
    return (NO_PRE,)


def read_special_tokens(metadata: Mapping[str, Any]) -> SpecialTokens:
    """Beginning, end and padding tokens; raises CheckpointError for ids outside the vocabulary."""
    vocabulary = _read_vocabulary(metadata)
    sentencepiece = metadata.get("tokenizer.ggml.model") == "llama"
    bos = _token_id(metadata, "bos", vocabulary, 1 if sentencepiece else None)
    eos = _token_id(metadata, "eos", vocabulary, 2 if sentencepiece else None)
    pad = _token_id(metadata, "padding", vocabulary, None)
    ends = [eos, _token_id(metadata, "eot", vocabulary, None), _token_id(metadata, "eom", vocabulary, None)]
    known = END_TEXTS - ({"<|end|>"} if _RETURN in vocabulary.texts.values() else set())
    ends += [index for index in vocabulary.of_type(_CONTROL) if vocabulary.texts[index] in known]
    add_bos = metadata.get("tokenizer.ggml.add_bos_token")
    if not isinstance(add_bos, bool):
        add_bos = sentencepiece or _pre_tokenizer(metadata) in ADD_BOS
    add_bos = add_bos or metadata.get("tokenizer.ggml.model") == _GEMMA4  # whatever the file says, as in llama.cpp

    def text(index: int | None) -> str | None:
        return None if index is None else vocabulary.texts.get(index)

    return SpecialTokens(
        bos_token=text(bos),
        eos_token=text(eos),
        pad_token=text(pad),
        bos_token_id=bos,
        pad_token_id=pad,
        eos_token_ids=tuple(dict.fromkeys(index for index in ends if index is not None)),
        add_bos=add_bos and bos is not None,
    )


def read_chat_template(metadata: Mapping[str, Any]) -> str | None:
    """The default chat template."""
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise CheckpointError("The chat template of the GGUF file is not text.", hint="Download it again.")
    return template


def read_generation_config(metadata: Mapping[str, Any], special: SpecialTokens) -> dict[str, Any]:
    """Recommended sampling settings as a generation_config, as far as the file states any."""
    names = {
        "temp": "temperature",
        "top_k": "top_k",
        "top_p": "top_p",
        "min_p": "min_p",
        "penalty_repeat": "repetition_penalty",
    }
    found = {name: metadata.get(f"general.sampling.{key}") for key, name in names.items()}
    settings: dict[str, Any] = {
        name: float(str(value)) if isinstance(value, float) else value
        for name, value in found.items()
        if isinstance(value, int | float)
    }
    if settings:
        settings["do_sample"] = True
    settings["eos_token_id"] = list(special.eos_token_ids)
    return settings


def _read_vocabulary(metadata: Mapping[str, Any]) -> _Vocabulary:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise CheckpointError("The GGUF file has no tokenizer.ggml.tokens.", hint="Use a file that has a vocabulary.")
    found = _numbers(metadata, "token_type", len(tokens))
    types = [1] * len(tokens) if found is None else [int(kind) for kind in found]
    # Rows of the embedding that no token uses are filled up as [PAD151936]; tokenizer.json has no entry for them.
    count = len(tokens)
    while count > 1 and types[count - 1] == _UNUSED and tokens[count - 1] == f"[PAD{count - 1}]":
        count -= 1
    texts = {index: text or f"[EMPTY_{index}]" for index, text in enumerate(tokens[:count])}
    if len(set(texts.values())) != len(texts):
        raise CheckpointError("The vocabulary of the GGUF file has a token twice.", hint="Download it again.")
    return _Vocabulary(texts, types)


def _numbers(metadata: Mapping[str, Any], key: str, least: int) -> list[Any] | None:
    """A numeric array of at least ``least`` values, None if there is none."""
    values = metadata.get(f"tokenizer.ggml.{key}")
    if values is None:
        return None
    if not hasattr(values, "tolist") or len(values) < least:
        raise CheckpointError(
            f"tokenizer.ggml.{key} of the GGUF file is not an array of {least} numbers.", hint="Download it again."
        )
    numbers: list[Any] = values[:least].tolist()
    return numbers


def _token_id(metadata: Mapping[str, Any], role: str, vocabulary: _Vocabulary, default: int | None) -> int | None:
    index = metadata.get(f"tokenizer.ggml.{role}_token_id", default)
    if index is None or (index == default and index not in vocabulary.texts):
        return None
    if not isinstance(index, int) or index not in vocabulary.texts:
        raise CheckpointError(
            f"tokenizer.ggml.{role}_token_id is {index!r}, the vocabulary has {len(vocabulary.texts)} tokens.",
            hint="Download the file again.",
        )
    return index


def _pre_tokenizer(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get("tokenizer.ggml.pre") or "default")
