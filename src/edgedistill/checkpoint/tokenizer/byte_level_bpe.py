"""Byte-level BPE tokenizers (GPT-2's family) as tokenizer.json, built from tokens and merges.

The pre-tokenizer that cuts text into words is not part of a vocabulary; ``pre_tokenizers`` has it by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.checkpoint.tokenizer.load import plain_error
from edgedistill.checkpoint.tokenizer.pre_tokenizers import IGNORE_MERGES, NFC, check_known, pre_tokenizer
from edgedistill.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


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

    check_known(pre)
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
            ignore_merges=pre in IGNORE_MERGES,
        )
    except Exception as error:  # the Rust side raises a bare Exception
        raise CheckpointError(f"The tokenizer's merges do not fit its vocabulary ({plain_error(error)}).") from error
    tokenizer = Tokenizer(model)
    if pre in NFC:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer(pre)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    # tokenizers keeps the id of an added token whose text is in the vocabulary already.
    tokenizer.add_special_tokens([AddedToken(tokens[i], normalized=False, special=True) for i in special])
    tokenizer.add_tokens([AddedToken(tokens[i], normalized=False, special=False) for i in added])
    text: str = tokenizer.to_str()
    return text.encode("utf-8")
