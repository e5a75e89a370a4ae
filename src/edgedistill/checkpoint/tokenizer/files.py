"""Tokenizer, special tokens and chat template of a Hugging Face directory, without transformers.

Reads what transformers 4 and 5 write: special tokens as strings or tables, templates inside tokenizer_config.json
or in files of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

from edgedistill.checkpoint.config_values import MAX_VOCABULARY
from edgedistill.checkpoint.tokenizer.byte_level_bpe import build_byte_level_bpe
from edgedistill.checkpoint.tokenizer.load import MAX_BYTES, load_tokenizer
from edgedistill.checkpoint.types import SpecialTokens
from edgedistill.errors import CheckpointError, UnsupportedModelError
from edgedistill.schema import Form, limits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tokenizers import Tokenizer

# Pre-tokenizer of vocab.json + merges.txt by tokenizer class; others need tokenizer.json.
_BPE_CLASSES = {"GPT2Tokenizer": "gpt-2", "Qwen2Tokenizer": "qwen2"}
_SPECIAL_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")

# Control tokens that end a turn or a text whatever the metadata says (llama.cpp's llama-vocab.cpp keeps such a list).
END_TEXTS = frozenset({
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<|end_of_text|>",
    "<EOT>", "_<EOT>", "[EOT]", "<|eot|>", "<eos>", "<|eos|>", "<｜end▁of▁sentence｜>", "<|end▁of▁sentence|>",
    "<turn|>", "<end_of_utterance>", "<|end_of_turn|>", "<|endofturn|>", "[|endofturn|]", "<|END_OF_TURN_TOKEN|>",
    "<|role_end|>", "<|assistant_end|>", "<seed:eos>",
})  # fmt: skip


FORM = Form(CheckpointError, hint="Download it again, or compare it with the original model's.", max_bytes=MAX_BYTES)
Index = Annotated[int, limits(low=0, high=MAX_VOCABULARY)]


class _Token(TypedDict):
    content: str
    special: NotRequired[bool]


@dataclass(frozen=True, slots=True)
class _Added:
    added_tokens_decoder: dict[int, _Token] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    ids: dict[str, Index]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from ``path``, ``{}`` if there is no such file; CheckpointError if it is something else."""
    try:
        return FORM.parse_object(FORM.read_file(path), path.name)
    except FileNotFoundError:
        return {}


def read_tokenizer_json(directory: Path, tokenizer_config: Mapping[str, Any]) -> bytes:
    """Content of tokenizer.json, or one built from vocab.json and merges.txt.

    Raises CheckpointError if there is no tokenizer, UnsupportedModelError if only a SentencePiece model is there.
    """
    path = directory / "tokenizer.json"
    try:
        if path.exists():
            return FORM.read_file(path)
        vocab_path, merges_path = directory / "vocab.json", directory / "merges.txt"
        if vocab_path.exists() and merges_path.exists():
            return _from_vocab_and_merges(vocab_path, merges_path, tokenizer_config)
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot be read ({error.strerror}).") from error
    if (directory / "tokenizer.model").exists():
        raise UnsupportedModelError(
            f"{directory.name} has only tokenizer.model (SentencePiece); expected tokenizer.json.",
            hint="Write it with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR).",
        )
    raise CheckpointError(
        f"{directory.name} has no tokenizer.json.", hint="Copy tokenizer.json of the original model into it."
    )


def _from_vocab_and_merges(vocab_path: Path, merges_path: Path, tokenizer_config: Mapping[str, Any]) -> bytes:
    kind = tokenizer_config.get("tokenizer_class") or "GPT2Tokenizer"
    pre = _BPE_CLASSES.get(str(kind).removesuffix("Fast"))
    if pre is None:
        raise UnsupportedModelError(
            f"vocab.json and merges.txt of a {kind} cannot be converted; expected one of {', '.join(_BPE_CLASSES)}.",
            hint="Write tokenizer.json with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR).",
        )
    vocab = FORM.decode(_Vocabulary, {"ids": read_json(vocab_path)}, vocab_path.name)
    table = FORM.decode(_Added, dict(tokenizer_config), "tokenizer_config.json").added_tokens_decoder
    tokens: dict[int, str] = {index: text for text, index in vocab.ids.items()}
    tokens |= {index: entry["content"] for index, entry in table.items()}
    lines = FORM.read_text(merges_path).splitlines()
    merges = [line for line in lines if line and not line.startswith("#version")]
    special = [index for index, entry in table.items() if entry.get("special")]
    plain = [index for index, entry in table.items() if not entry.get("special")]
    return build_byte_level_bpe(tokens, merges, pre, special=special, added=plain)


def read_chat_template(directory: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """The default chat template: chat_template.jinja, else chat_template.json, else tokenizer_config.json."""
    path = directory / "chat_template.jinja"
    try:
        if path.exists():
            return FORM.read_text(path)
    except OSError as error:
        raise CheckpointError(f"{path.name}: cannot be read ({error.strerror}).") from error
    template = read_json(directory / "chat_template.json").get("chat_template") or tokenizer_config.get("chat_template")
    if isinstance(template, list):  # transformers 4: [{"name": ..., "template": ...}]
        named = {entry["name"]: entry["template"] for entry in template if isinstance(entry, dict) and "name" in entry}
        template = named.get("default") or next(iter(named.values()), None)
    elif isinstance(template, dict):
        template = template.get("default") or next(iter(template.values()), None)
    if template is not None and not isinstance(template, str):
        raise CheckpointError(f"The chat template is a {type(template).__name__}, expected text.")
    return template


def read_special_tokens(
    directory: Path,
    tokenizer_json: bytes,
    config: Mapping[str, Any],
    generation_config: Mapping[str, Any],
    tokenizer_config: Mapping[str, Any],
    template: str | None = None,
) -> SpecialTokens:
    """Collect special tokens from all files that may state them.

    End tokens are the union of generation_config.json (or config.json where that says nothing), the tokenizer's own,
    and those that the chat template closes turns with: models often name their end of turn in only one of the three.
    Raises CheckpointError for a token or id that the tokenizer does not have.
    """
    tokenizer = load_tokenizer(tokenizer_json)
    texts = read_json(directory / "special_tokens_map.json") | dict(tokenizer_config)
    role = {name: _token_text(texts.get(name), name) for name in _SPECIAL_ROLES}
    bos = _resolve(tokenizer, "bos_token", role["bos_token"], generation_config, config)
    pad = _resolve(tokenizer, "pad_token", role["pad_token"], generation_config, config)
    ends = _ids(generation_config.get("eos_token_id")) or _ids(config.get("eos_token_id"))
    if role["eos_token"] is not None and (own := tokenizer.token_to_id(role["eos_token"])) is not None:
        ends = (*ends, own)
    ends = tuple(dict.fromkeys((*ends, *ends_of_turn(tokenizer, template))))
    for index in ends:
        if tokenizer.id_to_token(index) is None:
            raise CheckpointError(
                f"eos_token_id is {index}, which the tokenizer ({tokenizer.get_vocab_size()} tokens) does not have.",
                hint="Check that tokenizer.json belongs to this model.",
            )
    eos_text = role["eos_token"] or (tokenizer.id_to_token(ends[0]) if ends else None)
    return SpecialTokens(
        bos_token=tokenizer.id_to_token(bos) if bos is not None else None,
        eos_token=eos_text,
        pad_token=tokenizer.id_to_token(pad) if pad is not None else None,
        bos_token_id=bos,
        pad_token_id=pad,
        eos_token_ids=ends,
        add_bos=_adds_bos(tokenizer, bos, tokenizer_config),
    )


def ends_of_turn(tokenizer: Tokenizer, template: str | None) -> list[int]:
    """Known tokens of that meaning that ``template`` writes, as far as they are added tokens of ``tokenizer``.

    Not all are marked as special: some models' ``<|im_end|>`` was added as ordinary text.
    """
    if template is None or "<|channel|>" in template:  # gpt-oss ends every message, reasoning too, with <|end|>
        return []
    added = {token.content: index for index, token in tokenizer.get_added_tokens_decoder().items()}
    return [index for text, index in added.items() if text in END_TEXTS and text in template]


def _adds_bos(tokenizer: Tokenizer, bos: int | None, tokenizer_config: Mapping[str, Any]) -> bool:
    if bos is None:
        return False
    stated = tokenizer_config.get("add_bos_token")
    if isinstance(stated, bool):
        return stated
    # Otherwise the tokenizer's own post-processor decides.
    first: list[int] = tokenizer.encode("a").ids[:1]
    return first == [bos]


def _token_text(value: object, role: str) -> str | None:
    """Text of a special token that is stored as a string or as a table (AddedToken)."""
    if isinstance(value, dict):
        value = value.get("content")
    if value is not None and not isinstance(value, str):
        raise CheckpointError(f"{role} in the tokenizer's configuration is {value!r}, expected text.")
    return value or None


def _resolve(tokenizer: Tokenizer, role: str, text: str | None, *configs: Mapping[str, Any]) -> int | None:
    own: int | None = tokenizer.token_to_id(text) if text is not None else None
    if own is not None:
        return own
    for config in configs:
        for index in _ids(config.get(f"{role}_id")):
            if tokenizer.id_to_token(index) is not None:
                return index
    return None


def _ids(value: object) -> tuple[int, ...]:
    """Token ids from a config value: a number, a list of numbers, or nothing."""
    values: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(index) is int for index in values):
        raise CheckpointError(f"A token id in the configuration is {value!r}, expected whole numbers.")
    if any(index > MAX_VOCABULARY for index in values):
        raise CheckpointError(f"A token id in the configuration is {max(values)}; at most {MAX_VOCABULARY} are known.")
    return tuple(index for index in values if index >= 0)
