"""Masks over vocabularies of SentencePiece: bytes for rare characters, and a first space that is dropped."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from edgedistill.catalog.reasoning import ReasoningGrammar, TagPair
from edgedistill.catalog.tool_formats import HERMES
from edgedistill.runtime.structured.constraint import constraint_of
from edgedistill.runtime.structured.gate import ReasoningGate
from edgedistill.runtime.structured.masks import MaskMaker
from edgedistill.runtime.structured.opened_call import OpenedCallMask
from edgedistill.runtime.text.detokenize import Detokenizer
from edgedistill.runtime.tools.forced import calls_grammar
from edgedistill.runtime.tools.splitter import ToolSplitter
from edgedistill.runtime.tools.types import Tool

END = 2
POINT: dict[str, Any] = {
    "type": "object",
    "properties": {"where": {"enum": ["é", "日本", "red sea"]}, "deep": {"type": "boolean"}},
    "required": ["where", "deep"],
    "additionalProperties": False,
}
DIVE = Tool("dive", "Dive.", POINT)
THINK = ReasoningGrammar((TagPair("<think>", "</think>"),))


def tokenizer_of(kind: str) -> Tokenizer:
    """Llama 2's: a space before each text, dropped when it is decoded. Gemma's: neither."""
    vocabulary = {piece: number for number, piece in enumerate(["<unk>", "<s>", "</s>"])}
    letters = '▁abcdefghijklmnopqrstuvwxyz{}[]<>/_":,0123456789\n-'
    for piece in [*(f"<0x{byte:02X}>" for byte in range(256)), *letters]:
        vocabulary[piece] = len(vocabulary)
    merges = [("▁", "{"), ("▁", "["), ("▁", '"'), ("r", "e"), ("re", "d"), ("▁", "red"), ("t", "r"), ("u", "e"),
              ("tr", "ue"), ("▁", "true"), ('"', ":"), ("▁", "▁"), ("▁", "a"), ("{", '"')]  # fmt: skip
    for first, second in merges:
        vocabulary[first + second] = len(vocabulary)
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    space, back = normalizers.Replace(" ", "▁"), decoders.Replace("▁", " ")
    if kind == "Llama 2":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space])
        parts = [back, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    else:
        tokenizer.normalizer = space
        parts = [back, decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in ("<unk>", "<s>", "</s>")])
    return tokenizer


@pytest.fixture(scope="module", params=["Llama 2", "Gemma"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return tokenizer_of(request.param)


def maker_of(tokenizer: Tokenizer) -> MaskMaker:
    return MaskMaker(tokenizer, vocab_size=tokenizer.get_vocab_size() + 3, eos=[END])


def drawn(tokenizer: Tokenizer, mask: Any, rng: np.random.Generator) -> str:
    """A text that a model without preferences writes under ``mask``."""
    size, detokenizer, text = tokenizer.get_vocab_size() + 3, Detokenizer(tokenizer), ""
    for _ in range(400):
        token = int((mask.apply(np.zeros(size, dtype=np.float32)) + rng.gumbel(size=size)).argmax())
        if token == END:
            break
        mask.observe(token)
        text += detokenizer.feed(token)
        if mask.finished:
            break
    return text + detokenizer.finish()


@pytest.mark.parametrize(
    ("form", "fits"),
    [
        ({"json_schema": POINT}, lambda text: set(json.loads(text)) == {"where", "deep"}),
        ({"choices": ["red", " äh", "日本"]}, lambda text: text in ("red", " äh", "日本")),
        ({"regex": "( a|b {2}c|ü+){1,3}"}, lambda text: re.fullmatch("( a|b {2}c|ü+){1,3}", text)),
        ({"grammar": 'start: "[" /[^a-z\\]]{1,4}/ "]"'}, lambda text: re.fullmatch(r"\[[^a-z\]]{1,4}\]", text, re.S)),
    ],
    ids=["schema", "choices", "regex", "grammar"],
)
def test_what_is_decoded_has_the_form(tokenizer: Tokenizer, form: Any, fits: Any) -> None:
    maker, rng = maker_of(tokenizer), np.random.default_rng(1)
    texts = {drawn(tokenizer, maker.mask(constraint_of(**form), first=True), rng) for _ in range(12)}
    assert len(texts) > 1
    assert all(fits(text) for text in texts), texts


def test_the_first_word_may_be_written_as_the_model_writes_it() -> None:
    for kind, first in (("Llama 2", {"▁true", "true"}), ("Gemma", {"true"})):
        tokenizer = tokenizer_of(kind)
        maker = maker_of(tokenizer)
        mask = maker.mask(constraint_of(choices=["true"]), first=True)
        allowed = np.isfinite(mask.apply(np.zeros(maker.vocab_size, dtype=np.float32)))
        pieces = {tokenizer.id_to_token(number) for number in np.flatnonzero(allowed).tolist()}
        assert {piece for piece in pieces if not piece.startswith("<0x")} == first
        assert (maker.spaces is None) == (kind == "Gemma")


def test_after_reasoning_a_space_is_a_space(tokenizer: Tokenizer) -> None:
    maker, rng = maker_of(tokenizer), np.random.default_rng(2)
    ids = tokenizer.encode("<think>ah</think>").ids
    for _ in range(4):
        gate = ReasoningGate(tokenizer, THINK, opened=None, may_open=THINK.tags[0])
        mask = maker.mask(constraint_of(choices=["red", "é"]), gate=gate, first=True)
        detokenizer = Detokenizer(tokenizer)
        for token in ids:
            assert np.isfinite(mask.apply(np.zeros(maker.vocab_size, dtype=np.float32))[token])
            mask.observe(token)
            detokenizer.feed(token)
        assert drawn(tokenizer, mask, rng).strip() in ("red", "é")


def test_calls_that_have_to_come_and_calls_that_are_opened(tokenizer: Tokenizer) -> None:
    maker, rng = maker_of(tokenizer), np.random.default_rng(3)
    for turn in range(6):
        text = ""
        if turn % 2:
            mask: Any = maker.mask(
                None, calls=calls_grammar(HERMES, [DIVE], maker.special, several=False), first=True
            )  # fmt: skip
        else:
            mask = OpenedCallMask(maker, tokenizer, THINK, [HERMES], [DIVE], opened=None)
            text = "<tool_call>"
            for token in tokenizer.encode(text).ids:
                mask.observe(token)
            rest, zeros = Detokenizer(tokenizer), np.zeros(maker.vocab_size, dtype=np.float32)
            rest.feed(tokenizer.encode(text).ids[-1])
            while (held := mask.apply(zeros)) is not zeros:
                token = int((held + rng.gumbel(size=maker.vocab_size)).argmax())
                mask.observe(token)
                text += rest.feed(token)
            text += rest.finish()
        splitter = ToolSplitter([HERMES], [DIVE])
        splitter.feed(text or drawn(tokenizer, mask, rng))
        splitter.finish()
        [call] = splitter.calls
        assert set(json.loads(call.arguments)) == {"where", "deep"}
