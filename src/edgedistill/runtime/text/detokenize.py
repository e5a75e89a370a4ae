"""Text from tokens, one token at a time: never half a character, and in the end exactly what decoding at once gives.

A byte-level vocabulary cuts characters anywhere, so bytes wait in an incremental UTF-8 decoder until a character is
complete. A SentencePiece vocabulary spells rare characters as runs of byte tokens, and whether a run is valid shows
only at its end, so a run waits for it; the space that marks the first word is dropped. Other decoders fall back to
decoding everything again and giving out what has become certain.
"""

from __future__ import annotations

import codecs
import functools
import json
import re
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from tokenizers import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_REPLACEMENT = "\ufffd"


class _Stage(Protocol):
    """Incremental form of one decoder: pieces of the vocabulary in, text out."""

    def feed(self, piece: str) -> str: ...

    def finish(self) -> str: ...


class Detokenizer:
    """Incremental decoder of one sequence.

    Special tokens (end of turn, padding) are dropped except those that the marks in ``keep`` consist of: a model's
    reasoning marks may be special, and they must reach the splitter. Ids outside the vocabulary (padding rows of an
    embedding) decode to nothing.
    """

    def __init__(self, tokenizer: Tokenizer, *, keep: Collection[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._dropped = dropped_ids(tokenizer, keep)
        self._stage = _make_stage(tokenizer)

    def feed(self, token: int) -> str:
        """Text that is certain after ``token``; often one piece, sometimes empty, never half a character."""
        if token in self._dropped:
            return ""
        piece = self._tokenizer.id_to_token(token)
        return "" if piece is None else self._stage.feed(piece)

    def finish(self) -> str:
        """The rest at the end of the sequence; bytes that never became a character turn into U+FFFD."""
        return self._stage.finish()


def dropped_ids(tokenizer: Tokenizer, keep: Collection[str] = ()) -> frozenset[int]:
    """Ids of special tokens that are no part of any mark in ``keep``."""
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(
        i for i, token in added.items() if token.special and not any(token.content in mark for mark in keep)
    )


def decode(tokenizer: Tokenizer, tokens: Iterable[int], *, keep: Collection[str] = ()) -> str:
    """Decode a whole sequence; equal to the joined pieces of a ``Detokenizer``."""
    dropped = dropped_ids(tokenizer, keep)
    text: str = tokenizer.decode([t for t in tokens if t not in dropped], skip_special_tokens=False)
    return text


def token_bytes(tokenizer: Tokenizer, token: int) -> bytes | None:
    """The bytes that a token stands for inside a text; None for an id without a token."""
    piece = tokenizer.id_to_token(token)
    if piece is None:
        return None
    if match := _BYTE_TOKEN.fullmatch(piece):
        return bytes([int(match[1], 16)])
    decoder = {} if tokenizer.decoder is None else json.loads(tokenizer.decoder.__getstate__())
    if any(part["type"] == "ByteLevel" for part in _flatten(decoder or None)):
        return _piece_bytes(piece, _byte_alphabet())
    return str(tokenizer.decode([token], skip_special_tokens=False)).encode()


# ---- byte-level -------------------------------------------------------------------------------------------------


def _piece_bytes(piece: str, alphabet: dict[str, int]) -> bytes:
    try:
        return bytes(alphabet[c] for c in piece)
    except KeyError:
        return piece.encode()


@functools.cache
def _byte_alphabet() -> dict[str, int]:
    """GPT-2's mapping of printable characters to bytes (openai/gpt-2 ``bytes_to_unicode``, inverted)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {**{chr(b): b for b in plain}, **{chr(256 + i): b for i, b in enumerate(rest)}}


class _ByteLevel:
    """Pieces spelled in GPT-2's byte alphabet; a piece with any other character (an added token) is plain text."""

    def __init__(self) -> None:
        self._alphabet = _byte_alphabet()
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, piece: str) -> str:
        return self._utf8.decode(_piece_bytes(piece, self._alphabet))

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


# ---- SentencePiece ----------------------------------------------------------------------------------------------


class _Pieces:
    """A chain of per-piece rewrites, runs of byte tokens, and characters stripped from the start of the text."""

    def __init__(
        self, rewrite: Callable[[str, bool], str], *, byte_fallback: bool, strip: str, strip_count: int
    ) -> None:
        self._rewrite = rewrite
        self._byte_fallback = byte_fallback
        self._strip = strip
        self._strip_left = strip_count
        self._run = bytearray()
        self._first = True

    def feed(self, piece: str) -> str:
        piece = self._rewrite(piece, self._first)
        self._first = False
        if self._byte_fallback and (match := _BYTE_TOKEN.fullmatch(piece)):
            self._run.append(int(match[1], 16))
            return ""
        return self._stripped(self._flush() + piece)

    def finish(self) -> str:
        return self._stripped(self._flush())

    def _flush(self) -> str:
        run, self._run = bytes(self._run), bytearray()
        try:
            return run.decode()
        except UnicodeDecodeError:  # tokenizers turns every byte of an invalid run into one replacement character
            return _REPLACEMENT * len(run)

    def _stripped(self, text: str) -> str:
        while text and self._strip_left:
            if text[0] != self._strip:
                self._strip_left = 0
                break
            text = text[1:]
            self._strip_left -= 1
        return text


# ---- anything else ----------------------------------------------------------------------------------------------


class _Whole:
    """Decode all pieces again and give out the common beginning: right for any decoder, quadratic in length."""

    def __init__(self, decode_pieces: Callable[[list[str]], str]) -> None:
        self._decode = decode_pieces
        self._pieces: list[str] = []
        self._done = ""

    def feed(self, piece: str) -> str:
        self._pieces.append(piece)
        # What one more piece may still change is the end: keep back the last two pieces' text.
        return self._give(self._decode(self._pieces[:-2]) if len(self._pieces) > 2 else "")

    def finish(self) -> str:
        return self._give(self._decode(self._pieces))

    def _give(self, text: str) -> str:
        if not text.startswith(self._done):
            return ""
        new, self._done = text[len(self._done) :], text
        return new


# ---- choice -----------------------------------------------------------------------------------------------------


def _make_stage(tokenizer: Tokenizer) -> _Stage:
    """The incremental form of the tokenizer's decoder, read from its own JSON."""
    # What it is pickled by; ``to_str`` would write out the whole vocabulary, which takes a while.
    decoder = None if tokenizer.decoder is None else json.loads(tokenizer.decoder.__getstate__())
    parts = _flatten(decoder)
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds and kinds <= {"ByteLevel", "Fuse"}:
        return _ByteLevel()
    stage = _pieces_stage(parts) if parts else None
    if stage is not None:
        return stage

    def decode_pieces(pieces: list[str]) -> str:
        text: str = " ".join(pieces) if tokenizer.decoder is None else tokenizer.decoder.decode(pieces)
        return text

    return _Whole(decode_pieces)


def _flatten(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [part for inner in decoder["decoders"] for part in _flatten(inner)]
    return [decoder]


def _pieces_stage(parts: list[dict[str, Any]]) -> _Stage | None:
    """``_Pieces`` for Replace*/Metaspace*, ByteFallback?, Fuse?, Strip? in this order; None for anything else."""
    rewrites: list[Callable[[str, bool], str]] = []
    rest = list(parts)
    while rest and rest[0]["type"] in ("Replace", "Metaspace"):
        part = rest.pop(0)
        if part["type"] == "Metaspace":
            rewrites.append(_metaspace(part))
        elif "String" in part["pattern"]:
            rewrites.append(_replace(part["pattern"]["String"], part["content"]))
        else:
            return None
    byte_fallback = bool(rest) and rest[0]["type"] == "ByteFallback"
    rest = rest[1:] if byte_fallback else rest
    fused = bool(rest) and rest[0]["type"] == "Fuse"
    rest = rest[1:] if fused else rest
    strip, count = "", 0
    if rest and fused and rest[0]["type"] == "Strip" and rest[0]["stop"] == 0:
        part = rest.pop(0)
        strip, count = part["content"], part["start"]
    if rest or not (rewrites or byte_fallback or fused):
        return None

    def rewrite(piece: str, first: bool) -> str:
        for step in rewrites:
            piece = step(piece, first)
        return piece

    return _Pieces(rewrite, byte_fallback=byte_fallback, strip=strip, strip_count=count)


def _replace(old: str, new: str) -> Callable[[str, bool], str]:
    return lambda piece, first: piece.replace(old, new)  # noqa: ARG005


def _metaspace(part: dict[str, Any]) -> Callable[[str, bool], str]:
    mark = part["replacement"]
    drop_first = part.get("prepend_scheme", "always") != "never"
    return lambda piece, first: piece.replace(mark, "" if first and drop_first else " ")
