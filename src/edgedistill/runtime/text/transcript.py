"""From generated tokens to text events: detokenizer, stop strings, reasoning splitter and calls of tools in a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.runtime.events import Event
from edgedistill.runtime.text.detokenize import Detokenizer
from edgedistill.runtime.text.reasoning import ReasoningGrammar, ReasoningSplitter, Segment, TagPair
from edgedistill.runtime.tools.splitter import Piece, ToolSplitter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

    from edgedistill.catalog.tool_formats import ToolFormat
    from edgedistill.runtime.tools.types import Tool, ToolCall


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
        tools: Sequence[Tool] = (),
        formats: Sequence[ToolFormat] = (),
    ) -> None:
        """Read replies of one model.

        Args:
            tokenizer, grammar: Its tokenizer and the marks of its reasoning.
            stops: Texts that end a reply.
            opened: The reasoning tags that the prompt has opened.
            begun: The beginning of the reply so far.
            tools, formats: What may be called, and how this model writes calls.
        """
        self._tools = ToolSplitter(formats, tools) if tools else None
        marks = [mark for one in formats for mark in one.marks] if tools else []
        self._detokenizer = Detokenizer(tokenizer, keep=(*grammar.marks, *marks))
        self._stops = StopStrings(stops)
        self._splitter = ReasoningSplitter(grammar, opened=opened)
        self._splitter.resume(begun)
        self._pieces: list[Segment | Piece] = []
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

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The complete calls so far."""
        return tuple(self._tools.calls) if self._tools is not None else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be read as a call."""
        return tuple(self._tools.notes) if self._tools is not None else ()

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
        events = self._events(self._splitter.feed(rest + self._stops.finish()) + self._splitter.finish())
        return events + (self._given(self._tools.finish()) if self._tools is not None else [])

    def text(self, *kinds: str) -> str:
        """All text so far, or that of some kinds of pieces."""
        return "".join(piece.text for piece in self._pieces if not kinds or piece.kind in kinds)

    def _events(self, segments: list[Segment]) -> list[Event]:
        if self._tools is None:
            return self._given(segments)
        pieces: list[Segment | Piece] = []
        for segment in segments:
            if segment.kind == "answer":
                pieces += self._tools.feed(segment.text)
            else:
                pieces += (*self._tools.finish(), segment)
        return self._given(pieces)

    def _given(self, pieces: Sequence[Segment | Piece]) -> list[Event]:
        self._pieces += pieces
        events = []
        for piece in pieces:
            call = piece.call if isinstance(piece, Piece) else None
            events.append(Event(piece.kind, text=piece.text, tokens=self._unreported, call=call))
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
