"""Encodes prompts for a model, and turns the tokens of its replies into samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedistill.errors import ContextLengthError
from edgedistill.runtime.text.reasoning import DEFAULT_GRAMMAR, ReasoningGrammar, TagPair, opened_by
from edgedistill.runtime.text.transcript import Transcript
from edgedistill.verify.metrics.lengths import repetition_rate
from edgedistill.verify.sampling.answers import read_reply
from edgedistill.verify.types import Drawn, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tokenizers import Tokenizer

    from edgedistill.runtime.batch.request import Finish
    from edgedistill.verify.types import Prompt


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded prompt: its token ids, and the reasoning tags that it leaves open."""

    prompt: Prompt
    ids: tuple[int, ...]
    opened: TagPair | None


class Replies:
    """Prompts to ids and ids to samples, for one tokenizer and template.

    Args:
        tokenizer: The model's.
        render: Function of messages (dicts with role and content) and ``thinking`` that returns the prompt's text.
        encode: Function from that text to token ids.
        context_length: Largest number of tokens of prompt and reply together.
        grammar: The tags of the model's reasoning.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        render: Callable[[list[dict[str, str]], bool | None], str],
        encode: Callable[[str], list[int]],
        *,
        context_length: int,
        grammar: ReasoningGrammar = DEFAULT_GRAMMAR,
    ) -> None:
        self._tokenizer = tokenizer
        self._render = render
        self._encode = encode
        self._limit = context_length
        self._grammar = grammar
        self._known: dict[tuple[Prompt, bool | None], Encoded] = {}

    def encode(self, prompt: Prompt, thinking: bool | None) -> Encoded:
        """The token ids of a prompt, cached because rendering a template takes time.

        Raises:
            ContextLengthError: No room for a reply.
            TemplateError, GenerationError: See ``ChatTemplate.render``.
        """
        key = (prompt, thinking)
        if key not in self._known:
            messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
            text = self._render(messages, thinking)
            ids = self._encode(text)
            if not 0 < len(ids) < self._limit:
                raise ContextLengthError(
                    f"The prompt `{prompt.id}` has {len(ids)} tokens, the context holds {self._limit} with the reply.",
                    hint="Shorten it, or export with a larger --context.",
                )
            self._known[key] = Encoded(prompt, tuple(ids), opened_by(text, self._grammar))
        return self._known[key]

    def tokens(self, text: str) -> list[int]:
        """Ids of a reply."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def closing(self, prompt: Prompt, thinking: bool | None) -> list[int]:
        """Token ids that close the reasoning that a prompt leaves open; empty if it leaves none open."""
        opened = self.encode(prompt, thinking).opened
        return [] if opened is None else self.tokens(f"\n{opened.close}\n\n")

    def reasoning_end(self, tokens: Sequence[int], encoded: Encoded) -> int | None:
        """Number of tokens up to and including the tag that closes the reasoning; None if there is no reasoning, or it
        is not closed.
        """
        transcript = Transcript(self._tokenizer, (), self._grammar, opened=encoded.opened)
        closed, end = transcript.closed, None
        for at, token in enumerate(tokens):
            transcript.add(token)
            if transcript.closed and not closed:
                end = at + 1
            closed = transcript.closed
        return end if closed else None

    def drawn(self, encoded: Encoded, index: int, tokens: Sequence[int], finish: Finish) -> Drawn:
        """The sample of a reply's tokens: text, answer, form."""
        text, reasoning = self._read(tokens, encoded.opened)
        truncated = finish != "stop"
        reading = read_reply(
            encoded.prompt, text, truncated=truncated, opened=encoded.opened, grammar=self._grammar
        )  # fmt: skip
        sample = Sample(
            prompt_id=encoded.prompt.id,
            index=index,
            kind=reading.kind,
            answer=reading.answer,
            text=reading.text,
            tokens=len(tokens),
            reasoning_tokens=reasoning,
            unclosed=reading.unclosed,
            repetition=repetition_rate(tokens),
            correct=reading.correct,
            loose=reading.loose,
        )
        return Drawn(sample, tuple(tokens), finish)

    def _read(self, tokens: Sequence[int], opened: TagPair | None) -> tuple[str, int]:
        """The text of a reply and its reasoning tokens, as a ``Transcript`` counts them."""
        transcript = Transcript(self._tokenizer, (), self._grammar, opened=opened)
        for token in tokens:
            transcript.add(token)
        transcript.finish()
        return transcript.text(), transcript.reasoning_tokens
