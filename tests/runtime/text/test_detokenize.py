from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from edgedistill.runtime.text.detokenize import Detokenizer, decode

TEXTS = [
    "The quick brown fox",
    "größer, naïve café",
    "数学は楽しい",
    "👩‍👩‍👧 emoji 🚀",
    "a  b   c",
    "x = 3.14 * y\n\tz",
]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>", "<think>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_tokens([AddedToken("<tool>", special=False), AddedToken("→ünï", special=False)])
    return tokenizer


def sentencepiece(decoder: decoders.Decoder) -> Tokenizer:
    vocab: dict[str, int] = {"<unk>": 0, "</s>": 1}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    for piece in ["▁", "▁The", "▁quick", "a", "b", "▁▁", "é", "数", "▁x▁", "."]:
        vocab[piece] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    return tokenizer


def llama2() -> Tokenizer:
    return sentencepiece(
        decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    )


def gemma() -> Tokenizer:
    return sentencepiece(decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]))


def metaspace() -> Tokenizer:
    return sentencepiece(decoders.Metaspace(prepend_scheme="first"))


def word_piece() -> Tokenizer:
    vocab = {piece: i for i, piece in enumerate(["[UNK]", "the", "##s", "fox", "jump", "!", "##ed", "é", ","])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def no_decoder() -> Tokenizer:
    return Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))


def end_of_word() -> Tokenizer:
    """A decoder that no fast path knows: what the last piece turns into depends on its being the last."""
    tokenizer = Tokenizer(models.WordLevel({"a</w>": 0, "b": 1, "c</w>": 2, "é": 3}, unk_token="b"))
    tokenizer.decoder = decoders.BPEDecoder()
    return tokenizer


MAKERS = [byte_level, llama2, gemma, metaspace, word_piece, no_decoder, end_of_word]
TOKENIZERS = {make.__name__: make() for make in MAKERS}


def pieces(tokenizer: Tokenizer, ids: list[int], keep: tuple[str, ...] = ()) -> list[str]:
    detokenizer = Detokenizer(tokenizer, keep=keep)
    return [detokenizer.feed(i) for i in ids] + [detokenizer.finish()]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_arbitrary_tokens_join_to_the_full_decode(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    # Two ids beyond the vocabulary: embeddings are padded, and a model can draw such a row.
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() + 1), max_size=30))
    expected = tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(pieces(tokenizer, ids)) == expected
    assert decode(tokenizer, ids) == expected


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_byte_level_text_survives_and_no_piece_is_half_a_character(text: str) -> None:
    tokenizer = TOKENIZERS["byte_level"]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    got = pieces(tokenizer, ids)
    assert "".join(got) == tokenizer.decode(ids, skip_special_tokens=True)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in got)


@given(st.text(alphabet="ab数é 🚀ß", max_size=40))
def test_byte_fallback_text(text: str) -> None:
    tokenizer = TOKENIZERS["gemma"]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    got = pieces(tokenizer, ids)
    assert "".join(got) == text
    assert not any("\ufffd" in piece for piece in got)


def test_pieces_come_as_early_as_they_can() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    ids = tokenizer.encode("Ω!", add_special_tokens=False).ids
    assert pieces(tokenizer, ids) == ["", "Ω", "!", ""]


def test_special_tokens_are_dropped_unless_kept() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    ids = [tokenizer.token_to_id("<think>"), *tokenizer.encode("so", add_special_tokens=False).ids]
    ids.append(tokenizer.token_to_id("<|end|>"))
    assert "".join(pieces(tokenizer, ids)) == "so"
    assert "".join(pieces(tokenizer, ids, keep=("<think>",))) == "<think>so"
    assert decode(tokenizer, ids, keep=("<think>",)) == "<think>so"


def test_space_of_the_first_word_is_dropped_once() -> None:
    tokenizer = TOKENIZERS["llama2"]
    ids = [tokenizer.token_to_id(p) for p in ["▁The", "▁quick", "▁"]]
    assert pieces(tokenizer, ids) == ["The", " quick", " ", ""]
