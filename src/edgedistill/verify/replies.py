"""Between prompts and tokens: what a model is given for a prompt, and what its tokens come to as a sample.

Must not know: sessions, how tokens are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedistill.errors import ContextLengthError
from edgedistill.runtime.reasoning import DEFAULT_TAGS, TagPair, opened_by
from edgedistill.runtime.transcript import Transcript
from edgedistill.verify.answers import read_reply
from edgedistill.verify.lengths import repetition_rate
from edgedistill.verify.run_settings import Drawn
from edgedistill.verify.types import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tokenizers import Tokenizer

    from edgedistill.verify.run_settings import Finish
    from edgedistill.verify.types import Prompt


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt as the model is given it: its ids, and the reasoning tags that it leaves open."""

    prompt: Prompt
    ids: tuple[int, ...]
    opened: TagPair | None


class Replies:
    """Prompts to ids and ids to samples, for one tokenizer and template.

    Args:
        tokenizer: The model's.
        render: Messages (dicts with role and content) and the wish for reasoning to the text of the prompt.
        encode: That text to ids.
        context_length: Most tokens of prompt and reply together.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        render: Callable[[list[dict[str, str]], bool | None], str],
        encode: Callable[[str], list[int]],
        *,
        context_length: int,
        tags: tuple[TagPair, ...] = DEFAULT_TAGS,
    ) -> None:
        self._tokenizer = tokenizer
        self._render = render
        self._encode = encode
        self._limit = context_length
        self._tags = tags
        self._known: dict[tuple[Prompt, bool | None], Encoded] = {}

    def encode(self, prompt: Prompt, thinking: bool | None) -> Encoded:
        """The ids of a prompt; remembered, because rendering a template takes a while.

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
            self._known[key] = Encoded(prompt, tuple(ids), opened_by(text, self._tags))
        return self._known[key]

    def drawn(self, encoded: Encoded, index: int, tokens: Sequence[int], finish: Finish) -> Drawn:
        """The sample that generated tokens come to: text, answer, form."""
        transcript = Transcript(self._tokenizer, (), self._tags, opened=encoded.opened)
        for token in tokens:
            transcript.add(token)
        transcript.finish()
        reading = read_reply(
            encoded.prompt, transcript.text(), truncated=finish != "stop", opened=encoded.opened, tags=self._tags
        )
        sample = Sample(
            prompt_id=encoded.prompt.id,
            index=index,
            kind=reading.kind,
            answer=reading.answer,
            text=reading.text,
            tokens=len(tokens),
            reasoning_tokens=transcript.reasoning_tokens,
            unclosed=reading.unclosed,
            repetition=repetition_rate(tokens),
            correct=reading.correct,
            loose=reading.loose,
        )
        return Drawn(sample, tuple(tokens), finish)
