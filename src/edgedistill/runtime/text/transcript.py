"""From generated tokens to text events: detokenizer, stop strings and reasoning splitter in a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.runtime.events import Event
from edgedistill.runtime.text.detokenize import Detokenizer
from edgedistill.runtime.text.reasoning import ReasoningGrammar, ReasoningSplitter, Segment, TagPair

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Transcript:
    """The text of one generation as it grows.

    Attributes:
        tokens: Ids so far.
        reasoning_tokens: How many of them were inside the reasoning when they came.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: tuple[str, ...],
        grammar: ReasoningGrammar,
        *,
        opened: TagPair | None,
        begun: str = "",
    ) -> None:
        """``opened``: the reasoning tags that the prompt has opened; ``begun``: the beginning of the reply so far."""
        self._detokenizer = Detokenizer(tokenizer, keep=grammar.marks)
        self._stops = StopStrings(stops)
        self._splitter = ReasoningSplitter(grammar, opened=opened)
        self._splitter.resume(begun)
        self._segments: list[Segment] = []
        self._unreported = 0
        self.tokens: list[int] = []
        self.reasoning_tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._stops.found is not None

    @property
    def closed(self) -> bool:
        """False inside the reasoning, and between channels as long as none with the answer has come."""
        return self._splitter.closed

    def add(self, token: int) -> list[Event]:
        """Take one token; the events that are certain now."""
        self.tokens.append(token)
        self._unreported += 1
        before = self._splitter.in_reasoning
        events = self._events(self._splitter.feed(self._stops.feed(self._detokenizer.feed(token))))
        self.reasoning_tokens += before or self._splitter.in_reasoning
        return events

    def finish(self) -> list[Event]:
        """The rest, once no more tokens come."""
        rest = self._stops.feed(self._detokenizer.finish())
        return self._events(self._splitter.feed(rest + self._stops.finish()) + self._splitter.finish())

    def text(self, *kinds: str) -> str:
        """All text so far, or that of some kinds of segments."""
        return "".join(segment.text for segment in self._segments if not kinds or segment.kind in kinds)

    def _events(self, segments: list[Segment]) -> list[Event]:
        self._segments += segments
        events = []
        for segment in segments:
            events.append(Event(segment.kind, text=segment.text, tokens=self._unreported))
            self._unreported = 0
        return events


class StopStrings:
    """Finds the first of several strings in text that comes in pieces.

    ``found`` is the string that ended the text, None so far.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """Text that is certain to come before any stop string; empty once one was found."""
        if self.found is not None:
            return ""
        if not self._stops:
            return text
        buffer = self._held + text
        # The stop string that is complete first ends the text, whatever longer one it might have become part of.
        ends = [(buffer.find(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in buffer]
        if ends:
            end, _, self.found = min(ends)
            self._held = ""
            return buffer[: end - len(self.found)]
        keep = len(buffer)
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(buffer)), 0, -1):
                if stop.startswith(buffer[-size:]):
                    keep = min(keep, len(buffer) - size)
                    break
        self._held = buffer[keep:]
        return buffer[:keep]

    def finish(self) -> str:
        """The held back rest, at the end of a text without a stop string."""
        rest, self._held = self._held, ""
        return rest
