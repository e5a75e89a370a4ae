"""SentencePiece BPE vocabularies (Llama 2, Mistral, Gemma) as tokenizer.json, built from tokens and scores.

SentencePiece joins the neighbours whose union has the best score. The same order as explicit merges: every way to cut
a token into two tokens, best score first (so do transformers' own converters, convert_slow_tokenizer.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SPACE = "▁"


def build_sentencepiece_bpe(
    tokens: Mapping[int, str],
    scores: Sequence[float],
    *,
    unknown: str | None,
    merges: Sequence[str] | None = None,
    add_prefix_space: bool,
    special: Iterable[int] = (),
    added: Iterable[int] = (),
) -> bytes:
    """tokenizer.json of a SentencePiece BPE.

    Args:
        tokens: Text by id, spaces as ``▁``, bytes as ``<0x0A>``.
        scores: Score by id.
        unknown: Text of the unknown token.
        merges: ``left right`` pairs by falling priority, where the vocabulary lists them; None: by the scores.
        add_prefix_space: A space is put before the text and after every special token.
        special: Ids that text decoding may leave out.
        added: Ids that are matched as a whole but are ordinary text.

    Raises CheckpointError if the vocabulary cannot spell all bytes, or lacks a token of a merge.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    special, added = sorted(set(special)), sorted(set(added))
    # Runs of spaces are listed in the form they have in text, but merges see them after normalization.
    texts = {index: text.replace(" ", _SPACE) if not text.strip(" ") else text for index, text in tokens.items()}
    vocab = {text: index for index, text in texts.items()}
    if len(vocab) != len(texts):
        raise CheckpointError("The vocabulary of the GGUF file has a token twice.", hint="Download it again.")
    missing = [f"<0x{byte:02X}>" for byte in range(256) if f"<0x{byte:02X}>" not in vocab]
    if missing:
        raise CheckpointError(
            f"The vocabulary of the GGUF file lacks {len(missing)} byte tokens, such as {missing[0]}.",
            hint="Use a file with the model's whole vocabulary.",
        )
    apart = {texts[index] for index in special}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=_merges(vocab, scores, apart) if merges is None else _listed(merges, vocab),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    replace = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), replace]) if add_prefix_space else replace
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if add_prefix_space:
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens([AddedToken(texts[i], normalized=False, special=True) for i in special])
    tokenizer.add_tokens(
        [AddedToken(texts[i], normalized=False, special=False) for i in added if _SPACE not in texts[i]]
    )
    text: str = tokenizer.to_str()
    return text.encode("utf-8")


def _listed(merges: Sequence[str], vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    pairs = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocab.keys():
            raise CheckpointError(f"A merge of the tokenizer is {merge!r}, which its vocabulary has no tokens for.",
                                  hint="Download the file again.")  # fmt: skip
        pairs.append((left, right))
    return pairs


def _merges(vocab: Mapping[str, int], scores: Sequence[float], apart: set[str]) -> list[tuple[str, str]]:
    """All ways to join two tokens to a third, the best score first; special tokens (``apart``) take no part."""
    found: list[tuple[float, int, int, str, str]] = []
    for text, index in vocab.items():
        if text in apart:
            continue
        for cut in range(1, len(text)):
            left, right = vocab.get(text[:cut]), vocab.get(text[cut:])
            if left is not None and right is not None:
                found.append((-scores[index], left, right, text[:cut], text[cut:]))
    found.sort(key=lambda merge: merge[:3])
    return [(left, right) for _, _, _, left, right in found]
