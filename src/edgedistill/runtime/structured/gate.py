"""Lets the reasoning of a reply pass before its mask begins, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.runtime.text.detokenize import Detokenizer
from edgedistill.runtime.text.reasoning import ReasoningSplitter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

    from edgedistill.runtime.text.reasoning import ReasoningGrammar, TagPair


class ReasoningGate:
    """Where a reply stands before its answer.

    Args:
        tokenizer, grammar: The model's.
        opened: The reasoning that the prompt has opened.
        begun: The beginning of the reply that is known already.
        may_open: The pair with whose mark the reply may begin; None: it may not reason.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        grammar: ReasoningGrammar,
        *,
        opened: TagPair | None,
        begun: str = "",
        may_open: TagPair | None = None,
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer, keep=grammar.marks)
        self._splitter = ReasoningSplitter(grammar, opened=opened)
        before = self._splitter.feed(begun)
        self._rest = "".join(one.text for one in before if one.kind == "answer")
        self._openings: list[Sequence[int]] = []
        self._written: list[int] = []
        if may_open is not None and opened is None and not begun.strip():
            # Canonical tokens, with the line end that many models write after the mark.
            texts = (may_open.open, f"{may_open.open}\n")
            self._openings = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        self._pair = opened or may_open

    @property
    def in_reasoning(self) -> bool:
        """Whether the reply is inside its reasoning."""
        return self._splitter.in_reasoning

    @property
    def passed(self) -> bool:
        """Whether the answer comes now, and no reasoning before it."""
        return not (self.in_reasoning or self._openings)

    @property
    def openings(self) -> frozenset[int]:
        """Tokens that begin, or go on with, the mark that opens reasoning."""
        done = len(self._written)
        return frozenset(
            one[done] for one in self._openings if len(one) > done and list(one[:done]) == self._written
        )  # fmt: skip

    @property
    def begun(self) -> bool:
        """Whether a part of that mark has come, so that the rest has to."""
        return bool(self._written)

    @property
    def awaited(self) -> str:
        """What is missing of the mark that closes reasoning, where a part of it has come; otherwise empty."""
        close = self._pair.close if self._pair is not None else ""
        tail = self._splitter.held
        return close[len(tail) :] if self.in_reasoning and tail and close.startswith(tail) else ""

    def take_rest(self) -> str:
        """Text of the answer that came together with the end of the reasoning."""
        rest, self._rest = self._rest, ""
        return rest.lstrip()

    def observe(self, token: int) -> None:
        """``token`` was drawn, which is no part of the answer."""
        inside = self.in_reasoning
        if not inside:
            self._written.append(token)
        segments = self._splitter.feed(self._detokenizer.feed(token))
        if inside and not self.in_reasoning:
            self._rest = "".join(one.text for one in segments if one.kind == "answer") + self._splitter.held.strip()
        elif self.in_reasoning:
            self._openings, self._written = [], []
