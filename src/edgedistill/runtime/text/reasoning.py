"""Splitting decoded text into reasoning and answer, chunk by chunk.

A reasoning model wraps its thoughts in tags (``<think>`` ... ``</think>``). The opening tag may be generated, or the
chat template may have written it at the end of the prompt; the closing tag may never come. Tags may arrive in pieces:
text that could still become a tag is held back until it is decided. Nothing is lost: the segments in order,
markers included, are the raw text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SegmentKind = Literal["reasoning", "answer", "marker"]


@dataclass(frozen=True, slots=True)
class TagPair:
    """An opening and a closing tag."""

    open: str
    close: str

    def __post_init__(self) -> None:
        if not self.open or not self.close or self.open == self.close:
            raise ValueError(f"a tag pair needs two different, non-empty tags, found {self.open!r} and {self.close!r}")


DEFAULT_TAGS: tuple[TagPair, ...] = (
    TagPair("<think>", "</think>"),
    TagPair("<thinking>", "</thinking>"),
    TagPair("<reasoning>", "</reasoning>"),
    TagPair("[THINK]", "[/THINK]"),
)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text and what it is part of."""

    kind: SegmentKind
    text: str


@dataclass(frozen=True, slots=True)
class SplitText:
    """A whole text, split. ``reasoning`` and ``answer`` are stripped of outer white space.

    ``closed`` is False where the text ended inside the reasoning.
    """

    reasoning: str
    answer: str
    closed: bool


def opened_by(prompt: str, tags: tuple[TagPair, ...] = DEFAULT_TAGS) -> TagPair | None:
    """The pair whose opening tag ends ``prompt`` (white space aside): generation then starts inside the reasoning."""
    tail = prompt.rstrip()
    return next((pair for pair in tags if tail.endswith(pair.open)), None)


def opened_after(text: str, tags: tuple[TagPair, ...] = DEFAULT_TAGS, *, opened: TagPair | None) -> TagPair | None:
    """The pair that is open after ``text``, the beginning of a reply that starts inside ``opened`` (None: outside)."""
    splitter = ReasoningSplitter(tags, opened=opened)
    splitter.feed(text)
    splitter.finish()
    return splitter.current


class ReasoningSplitter:
    """Incremental splitter; feed it text as it comes and finish it once.

    Inside reasoning only the closing tag of its own pair counts: an opening tag there is text, and so is a closing tag
    in the answer. The answer may hold several reasoning passages.
    """

    def __init__(self, tags: tuple[TagPair, ...] = DEFAULT_TAGS, *, opened: TagPair | None = None) -> None:
        """``opened``: the pair that the prompt has opened already (see ``opened_by``)."""
        self._tags = tags
        self._current = opened
        self._held = ""

    @property
    def current(self) -> TagPair | None:
        """The pair that is open."""
        return self._current

    @property
    def in_reasoning(self) -> bool:
        """True where text fed now, if it is no tag, is reasoning."""
        return self._current is not None

    def feed(self, text: str) -> list[Segment]:
        """Segments that are decided after ``text``; may be empty while a tag is incomplete."""
        self._held += text
        return self._scan(final=False)

    def finish(self) -> list[Segment]:
        """The held back rest at the end of the text, where an incomplete tag is just text."""
        return self._scan(final=True)

    def _scan(self, *, final: bool) -> list[Segment]:
        """Take from the held text what is decided: the earliest tag wins, of two at one place the longer."""
        segments: list[Segment] = []
        while True:
            buffer, wanted = self._held, self._wanted()
            found = [(buffer.find(tag), -len(tag), tag) for tag in wanted if tag in buffer]
            start, _, tag = min(found) if found else (len(buffer), 0, "")
            open_end = len(buffer) if final else _possible_tag(buffer, wanted)
            if not found or open_end <= start:
                # No tag yet, or one that a longer tag, begun no later, may still swallow when more text comes.
                self._emit(segments, buffer[:open_end])
                self._held = buffer[open_end:]
                return segments
            self._emit(segments, buffer[:start])
            segments.append(Segment("marker", tag))
            self._current = None if self._current else next(pair for pair in self._tags if pair.open == tag)
            self._held = buffer[start + len(tag) :]

    def _wanted(self) -> tuple[str, ...]:
        return (self._current.close,) if self._current else tuple(pair.open for pair in self._tags)

    def _emit(self, segments: list[Segment], text: str) -> None:
        if text:
            segments.append(Segment("reasoning" if self._current else "answer", text))


def split(text: str, tags: tuple[TagPair, ...] = DEFAULT_TAGS, *, opened: TagPair | None = None) -> SplitText:
    """Split a finished text; the same rules as the incremental splitter."""
    splitter = ReasoningSplitter(tags, opened=opened)
    segments = splitter.feed(text) + splitter.finish()
    return SplitText(
        reasoning="".join(s.text for s in segments if s.kind == "reasoning").strip(),
        answer="".join(s.text for s in segments if s.kind == "answer").strip(),
        closed=not splitter.in_reasoning,
    )


def _possible_tag(buffer: str, tags: tuple[str, ...]) -> int:
    """Index from which the end of ``buffer`` is a proper beginning of a tag; its length if there is none."""
    longest = max(len(tag) for tag in tags) - 1
    for start in range(max(0, len(buffer) - longest), len(buffer)):
        if any(len(tag) > len(buffer) - start and tag.startswith(buffer[start:]) for tag in tags):
            return start
    return len(buffer)
