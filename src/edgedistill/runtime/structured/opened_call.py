"""Holds a call that the model begins by itself to a valid one: nothing is masked until it opens a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import EdgedistillError
from edgedistill.runtime.text.detokenize import Detokenizer
from edgedistill.runtime.text.reasoning import ReasoningSplitter
from edgedistill.runtime.tools.forced import rest_grammar
from edgedistill.runtime.tools.splitter import unquoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from llguidance import LLMatcher
    from tokenizers import Tokenizer

    from edgedistill.catalog.tool_formats import ToolFormat
    from edgedistill.runtime.structured.masks import MaskMaker
    from edgedistill.runtime.text.reasoning import ReasoningGrammar, TagPair
    from edgedistill.runtime.tools.types import Tool


class OpenedCallMask:
    """A ``TokenMask`` from the mark that opens a call to the call's end; then free until the next one.

    A mark in reasoning or in quotes opens none. A form without a mark, and a schema that llguidance cannot use, leave
    calls as free as without this mask.
    """

    finished = False

    def __init__(
        self,
        maker: MaskMaker,
        tokenizer: Tokenizer,
        grammar: ReasoningGrammar,
        formats: Sequence[ToolFormat],
        tools: Sequence[Tool],
        *,
        opened: TagPair | None,
        begun: str = "",
    ) -> None:
        """Watch one reply.

        Args:
            maker: The model's masks.
            tokenizer, grammar: The model's.
            formats, tools: How it writes calls, and of what.
            opened: The reasoning that the prompt has opened.
            begun: The beginning of the reply that is known already.
        """
        self._maker, self._tools = maker, tools
        # " to=functions." may stand in any text; the marks of special tokens do not.
        self._marks = [(mark, one) for one in formats for mark in one.opens if not mark[0].isspace()]
        self._keep = max((len(mark) for mark, _ in self._marks), default=1)
        """Characters of the answer's end in which a mark may have begun."""
        self._detokenizer = Detokenizer(tokenizer, keep=(*grammar.marks, *(m for one in formats for m in one.marks)))
        self._splitter = ReasoningSplitter(grammar, opened=opened)
        self._text, self._before = "", ""
        self._matcher: LLMatcher | None = None
        self._watch(begun)

    def apply(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See ``TokenMask``."""
        if self._matcher is None:
            return logits
        allowed = self._maker.allowed(self._matcher)
        return np.where(allowed, logits, np.float32(-np.inf)) if allowed.any() else logits

    def observe(self, token: int) -> None:
        """See ``TokenMask``."""
        text = self._detokenizer.feed(token)
        if self._matcher is None:
            self._watch(text)
            return
        self._splitter.feed(text)
        if not self._matcher.consume_tokens([token]) or self._matcher.is_stopped():
            self._matcher, self._text = None, ""

    def _watch(self, text: str) -> None:
        segments = self._splitter.feed(text)
        self._text += "".join(segment.text for segment in segments if segment.kind == "answer")
        found = [
            (at, -len(mark), one) for mark, one in self._marks if (at := unquoted(self._text, mark, self._before)) >= 0
        ]  # fmt: skip
        if not found:
            cut = max(0, len(self._text) - self._keep)
            self._before, self._text = self._text[cut - 1 : cut] or self._before, self._text[cut:]
            return
        at, length, one = min(found, key=lambda item: item[:2])
        rest, self._text = self._text[at - length :], ""
        self._before = ""
        try:
            matcher = self._maker.matcher(rest_grammar(one, self._tools, self._maker.special), "form of a call")
        except EdgedistillError:
            return
        # What came in the token that completed the mark may already be none of the call.
        if not rest or matcher.consume_tokens(self._maker.tokens.tokenize_str(rest)):
            self._matcher = matcher
