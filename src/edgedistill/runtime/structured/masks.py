"""The masks of one model, by llguidance (Lark grammars, JSON schemas; github.com/guidance-ai/llguidance)."""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgedistill.errors import GenerationError
from edgedistill.extras import missing
from edgedistill.runtime.structured.channels import channels_grammar
from edgedistill.runtime.text.detokenize import decode

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy.typing as npt
    from llguidance import LLMatcher, LLTokenizer
    from tokenizers import Tokenizer

    from edgedistill.runtime.structured.constraint import Constraint
    from edgedistill.runtime.structured.gate import ReasoningGate
    from edgedistill.runtime.text.reasoning import ReasoningGrammar

    Bools = npt.NDArray[np.bool_]


class TokenMask(Protocol):
    """Which tokens may come next in one sequence."""

    @property
    def finished(self) -> bool:
        """Whether the reply is complete and nothing may follow."""
        ...

    def apply(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """``logits`` float32 [V], minus infinity where a token may not come; a copy unless everything may."""
        ...

    def observe(self, token: int) -> None:
        """``token`` was drawn."""
        ...


_SPACE = r"( |\n {0,20})"
"""White space between the parts of JSON. Without a bound a model may write it for ever."""
_WORD = "▁"
"""How SentencePiece writes a space."""
_LINES = "/\\n{0,2}/"
"""What may stand between the end of reasoning and the answer."""


class MaskMaker:
    """Makes the masks of one model.

    Args:
        tokenizer: Its tokenizer.
        vocab_size: Length of its logits.
        eos: Ids that end a reply.
    """

    def __init__(self, tokenizer: Tokenizer, *, vocab_size: int, eos: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.eos = sorted(eos)

    @functools.cached_property
    def special(self) -> dict[str, int]:
        """Special tokens by their text: a grammar names them by number."""
        added = self._tokenizer.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    @functools.cached_property
    def tokens(self) -> LLTokenizer:
        """The vocabulary as llguidance wants it (some tenths of a second for a large one).

        Raises:
            MissingExtraError: llguidance is not installed.
            GenerationError: It cannot read this tokenizer.
        """
        try:
            from llguidance import LLTokenizer
        except ImportError as error:
            raise missing("A reply in a given form needs llguidance, which is not installed.", "structured") from error
        try:
            return LLTokenizer(self._tokenizer.to_str(), n_vocab=self.vocab_size, eos_token=self.eos or None)
        except Exception as error:  # its exceptions are ValueErrors and panics of Rust
            raise GenerationError(
                f"llguidance cannot read the tokenizer of this model, so that its replies take no form: {_line(error)}."
            ) from error

    def matcher(self, grammar: str, about: str) -> LLMatcher:
        """A matcher at its start; raises GenerationError, which calls the grammar ``about``."""
        from llguidance import LLMatcher

        matcher = LLMatcher(self.tokens, grammar, log_level=0)
        if matcher.is_error():
            raise GenerationError(f"The {about} cannot be used: {_line(matcher.get_error())}.")
        return matcher

    @functools.cached_property
    def spaces(self) -> Bools | None:
        """bool [V]: tokens that begin with a space, where the first one of a text is dropped (Llama 2); else None."""
        mark = self._tokenizer.token_to_id(_WORD)
        if mark is None or decode(self._tokenizer, [mark]):
            return None
        vocabulary = self._tokenizer.get_vocab().items()
        found = np.zeros(self.vocab_size, dtype=np.bool_)
        found[[number for piece, number in vocabulary if piece.startswith((_WORD, "<0x20>"))]] = True
        return found

    def allowed(self, matcher: LLMatcher) -> Bools:
        """bool [V]: the tokens that may come next."""
        bits = np.zeros((1, (self.vocab_size + 31) // 32), dtype=np.int32)
        matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        found = np.unpackbits(bits.view(np.uint8)[0], count=self.vocab_size, bitorder="little")
        return found.view(np.bool_)

    def mask(
        self,
        constraint: Constraint | None,
        *,
        calls: str | None = None,
        required: bool = True,
        gate: ReasoningGate | None = None,
        channels: ReasoningGrammar | None = None,
        begun: str = "",
        first: bool = False,
    ) -> GrammarMask:
        """A mask for one reply.

        Args:
            constraint: The form of its answer; None: none.
            calls: Lark grammar of calls that may stand in place of an answer, or have to: see ``required``.
            required: Whether ``calls`` have to come.
            gate: Of its reasoning.
            channels: The marks of its channels, if it is in channels; then there is no ``gate``.
            begun: What of a reply in channels stands already.
            first: The mask begins with the first token of a text.

        Raises:
            MissingExtraError, GenerationError: See ``tokens`` and ``matcher``.
        """
        _ = self.tokens  # before anything else of llguidance is asked for
        about = "form of a call" if constraint is None else constraint.about
        answer = None if constraint is None or (required and calls is not None) else _grammar(constraint)
        if channels is not None:
            whole = channels_grammar(channels, self.special, calls, answered=answer is not None)
            mask = GrammarMask(self, self.matcher(json.dumps(_within(whole, answer)), about), None)
            return mask.after(self._tokenizer.encode(begun, add_special_tokens=False).ids)
        if calls is not None:
            answer = _within(calls.replace("start: calls", "start: calls | @answer", 1) if answer else calls, answer)
        if answer is None:
            raise ValueError("a mask needs a form")
        if gate is not None and not gate.passed and (constraint is None or constraint.kind == "json_schema"):
            answer = _within(f"start: {_LINES} @answer", answer)
        spaced = None
        if first and self.spaces is not None:
            spaced = self.matcher(json.dumps(_within('start: " " @answer', answer)), about)
        return GrammarMask(self, self.matcher(json.dumps(answer), about), gate, spaced)


def _grammar(constraint: Constraint) -> Any:
    """In llguidance's own form, ``{"grammars": [...]}``."""
    from llguidance import LLMatcher, grammar_from

    try:
        if constraint.kind == "json_schema":
            text = LLMatcher.grammar_from_json_schema(constraint.text, defaults={"whitespace_pattern": _SPACE})
        else:
            names: Mapping[str, Any] = {"grammar": "grammar", "regex": "regex", "choices": "choice"}
            text = grammar_from(names[constraint.kind], constraint.text)
    except ValueError as error:
        raise GenerationError(f"The {constraint.about} cannot be used: {_line(error)}.") from error
    # A Lark grammar is given back as it is, unless something had to be added.
    return json.loads(text) if text.startswith("{") else {"grammars": [{"lark_grammar": text}]}


def _within(lark: str, answer: dict[str, Any] | None) -> dict[str, Any]:
    """``lark``, which names ``@answer`` unless there is none."""
    [first, *rest] = answer["grammars"] if answer is not None else [None]
    named = [] if first is None else [{**first, "name": "answer"}]
    return {"grammars": [{"lark_grammar": lark}, *named, *rest]}


def _line(error: object) -> str:
    """The first line of what llguidance says."""
    return str(error).strip().partition("\n")[0].rstrip(".")[:300]


class GrammarMask:
    """A ``TokenMask`` by a grammar that begins where reasoning ends."""

    def __init__(
        self, maker: MaskMaker, matcher: LLMatcher, gate: ReasoningGate | None, spaced: LLMatcher | None = None
    ) -> None:
        """``spaced``: the grammar after a space that is dropped; it counts if the first token begins with one."""
        self._spaced = spaced
        self._maker = maker
        self._matcher = matcher
        self._gate = gate
        self._begins: frozenset[int] = frozenset()
        """Tokens that begin reasoning, or go on with its mark, and no answer."""
        self._consume_rest()

    def after(self, tokens: list[int]) -> GrammarMask:
        """This mask, once ``tokens`` have been drawn; raises GenerationError where they do not fit."""
        self._consume(tokens)
        return self

    @property
    def finished(self) -> bool:
        """Whether the reply is complete and nothing may follow."""
        return self._gate is None and self._matcher.is_stopped()

    def apply(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See ``TokenMask``; raises GenerationError where no token is left."""
        gate = self._gate
        if gate is not None and gate.in_reasoning:
            allowed = np.ones(len(logits), dtype=np.bool_)
            allowed[self._maker.eos] = False
            if gate.awaited:
                allowed &= ~self._too_much(gate.awaited)
        elif gate is not None and gate.begun:
            self._begins = gate.openings
            allowed = np.zeros(len(logits), dtype=np.bool_)
            allowed[list(self._begins)] = True
        else:
            allowed = self._maker.allowed(self._matcher)
            spaced, spaces = self._spaced, self._maker.spaces
            if spaced is not None and spaces is not None:
                allowed &= ~spaces
            if gate is not None:
                self._begins = frozenset(token for token in gate.openings if not allowed[token])
                allowed[list(self._begins)] = True
            if spaced is not None:
                allowed |= self._maker.allowed(spaced)
        if not allowed.any():
            raise GenerationError(
                f"No token may follow in the given form: {_line(self._matcher.get_error()) or 'it ended'}."
            )
        return np.where(allowed, logits, np.float32(-np.inf))

    def observe(self, token: int) -> None:
        """See ``TokenMask``."""
        gate, spaced, self._spaced = self._gate, self._spaced, None
        if gate is not None and (gate.in_reasoning or token in self._begins):
            gate.observe(token)
            self._consume_rest()
            return
        self._gate = None
        if spaced is not None and self._maker.spaces is not None and self._maker.spaces[token]:
            self._matcher = spaced
        self._consume([token])

    def _consume_rest(self) -> None:
        """The reasoning may be over: what came with its end is the beginning of the answer."""
        gate = self._gate
        if gate is None or not gate.passed:
            return
        self._gate = None
        if rest := gate.take_rest():
            self._consume(self._maker.tokens.tokenize_str(rest))

    def _consume(self, tokens: list[int]) -> None:
        if not self._matcher.consume_tokens(tokens):
            why = _line(self._matcher.get_error()) or "it goes on after its end"
            raise GenerationError(f"The reply does not fit the given form: {why}.")

    def _too_much(self, awaited: str) -> Bools:
        """Tokens that end the reasoning and go on with more than white space: the mask could not see that."""
        mark = re.escape(awaited)
        grammars = [json.dumps({"grammars": [{"lark_grammar": f"start: {_regex(text)}"}]}) for text in (
            rf"{mark}\s*\S(.|\n)*", rf"{mark}\s*"
        )]  # fmt: skip
        more, exactly = (
            self._maker.allowed(self._maker.matcher(one, "mark of reasoning")) for one in grammars
        )  # fmt: skip
        return more & ~exactly


def _regex(text: str) -> str:
    from llguidance import regex_to_lark

    return f"/{regex_to_lark(text)}/"
