"""Between prompts and tokens: what a model is given for a prompt, and what its tokens come to as a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedistill.errors import ContextLengthError
from edgedistill.runtime.text.detokenize import dropped_ids
from edgedistill.runtime.text.reasoning import DEFAULT_TAGS, TagPair, opened_by
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
        ids = {tag: tokenizer.token_to_id(tag) for pair in tags for tag in (pair.open, pair.close)}
        self._tag_ids: dict[str, int] = {tag: token for tag, token in ids.items() if token is not None}
        self._dropped = dropped_ids(tokenizer, tuple(ids))
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

    def tokens(self, text: str) -> list[int]:
        """Ids of a reply."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def closing(self, prompt: Prompt, thinking: bool | None) -> list[int]:
        """Ids that end the reasoning which a prompt leaves open; none where it leaves none."""
        opened = self.encode(prompt, thinking).opened
        return [] if opened is None else self.tokens(f"\n{opened.close}\n\n")

    def drawn(self, encoded: Encoded, index: int, tokens: Sequence[int], finish: Finish) -> Drawn:
        """The sample that generated tokens come to: text, answer, form."""
        text, reasoning = self._read(tokens, encoded.opened)
        reading = read_reply(encoded.prompt, text, truncated=finish != "stop", opened=encoded.opened, tags=self._tags)
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
        text: str = self._tokenizer.decode([t for t in tokens if t not in self._dropped], skip_special_tokens=False)
        # Where every tag is a token of its own, as usual, tokens say what is reasoning. Otherwise the text has to.
        for pair in self._tags:
            for tag in (pair.open, pair.close):
                if text.count(tag) != (tokens.count(self._tag_ids[tag]) if tag in self._tag_ids else 0):
                    transcript = Transcript(self._tokenizer, (), self._tags, opened=opened)
                    for token in tokens:
                        transcript.add(token)
                    transcript.finish()
                    return transcript.text(), transcript.reasoning_tokens
        opening = {self._tag_ids[pair.open]: pair for pair in self._tags if pair.open in self._tag_ids}
        current, count = opened, 0
        for token in tokens:
            before = current
            if current is None:
                current = opening.get(token)
            elif token == self._tag_ids.get(current.close):
                current = None
            count += before is not None or current is not None
        return text, count
