"""Splitting decoded text into reasoning and answer, chunk by chunk.

A reasoning model wraps its thoughts in marks (``<think>`` ... ``</think>``), and some wrap the answer as well; which
marks is the model's grammar (``catalog.reasoning``). The opening mark may be generated, or the chat template may have
written it at the end of the prompt; the closing mark may never come. An opening is believed at the start of a reply
only: later it is text that speaks of marks. Marks may arrive in pieces: text that could still become one is held back
until it is decided. Nothing is lost: the segments in order, markers included, are the raw text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgedistill.catalog.reasoning import DEFAULT_GRAMMAR, DEFAULT_TAGS, ReasoningGrammar, TagPair

__all__ = [
    "DEFAULT_GRAMMAR", "DEFAULT_TAGS", "ReasoningGrammar", "ReasoningSplitter", "Segment", "SplitText", "TagPair",
    "opened_after", "opened_by", "split",
]  # fmt: skip

SegmentKind = Literal["reasoning", "answer", "marker"]
State = Literal["start", "reasoning", "answer"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text and what it is part of."""

    kind: SegmentKind
    text: str


@dataclass(frozen=True, slots=True)
class SplitText:
    """A whole text, split. ``reasoning`` and ``answer`` are stripped of outer white space.

    ``closed`` is False where the text ended inside the reasoning, or between channels before the answer's.
    """

    reasoning: str
    answer: str
    closed: bool


def opened_by(prompt: str, grammar: ReasoningGrammar = DEFAULT_GRAMMAR) -> TagPair | None:
    """The pair whose opening mark ends ``prompt`` (white space aside): generation then starts inside the reasoning."""
    tail = prompt.rstrip()
    return next((pair for pair in grammar.tags if tail.endswith(pair.open)), None)


def opened_after(text: str, grammar: ReasoningGrammar = DEFAULT_GRAMMAR, *, opened: TagPair | None) -> TagPair | None:
    """The pair that is open after ``text``, the beginning of a reply that starts inside ``opened`` (None: outside)."""
    splitter = ReasoningSplitter(grammar, opened=opened)
    splitter.feed(text)
    splitter.finish()
    return splitter.current


class ReasoningSplitter:
    """Incremental splitter; feed it text as it comes and finish it once.

    Inside reasoning only the closing mark of its own pair counts: an opening mark there is text, and so is any mark of
    reasoning in the answer. Some models write the mark again that the prompt has ended with: at the very beginning it
    is a mark.
    """

    def __init__(self, grammar: ReasoningGrammar = DEFAULT_GRAMMAR, *, opened: TagPair | None = None) -> None:
        """``opened``: the pair that the prompt has opened already (see ``opened_by``)."""
        self._grammar = grammar
        self._state: State = "start" if opened is None else "reasoning"
        self._repeatable = opened is not None
        self._pair = opened
        """The pair whose end is waited for: of reasoning, or around the answer."""
        self._thought = False
        self._held = ""
        self._known = 0

    @property
    def current(self) -> TagPair | None:
        """The pair of reasoning that is open."""
        return self._pair if self._state == "reasoning" else None

    @property
    def in_reasoning(self) -> bool:
        """True where text fed now, if it is no mark, is reasoning."""
        return self._state == "reasoning"

    @property
    def held(self) -> str:
        """Text that is not decided yet: a mark may come of it."""
        return self._held

    @property
    def closed(self) -> bool:
        """False inside the reasoning, and between channels as long as none with the answer has come."""
        return self._state == "answer" or (self._state == "start" and not (self._thought and self._grammar.repeats))

    def resume(self, text: str) -> None:
        """Go on after ``text``, the beginning of the reply that is known already and is not given out again."""
        self.feed(text)
        self._known = len(self._held)

    def feed(self, text: str) -> list[Segment]:
        """Segments that are decided after ``text``; may be empty while a mark is incomplete."""
        self._held += text
        return self._scan(final=False)

    def finish(self) -> list[Segment]:
        """The held back rest at the end of the text, where an incomplete mark is just text."""
        return self._scan(final=True)

    def _scan(self, *, final: bool) -> list[Segment]:
        """Take from the held text what is decided."""
        segments: list[Segment] = []
        while self._step(segments, final=final):
            pass
        return segments

    def _step(self, segments: list[Segment], *, final: bool) -> bool:
        """Up to the next mark; False if there is none in what is held."""
        buffer = self._held
        if self._state == "start":
            return self._at_start(segments, buffer, final=final)
        if self._repeatable and self._pair is not None:
            return self._after_prompt(segments, buffer, self._pair.open, final=final)
        mark = self._pair.close if self._pair is not None else ""
        start = buffer.find(mark) if mark else -1
        if start < 0:
            self._take(segments, len(buffer) if final or not mark else _possible_mark(buffer, mark))
            return False
        self._take(segments, start)
        self._take(segments, len(mark), "marker")
        self._leave(mark)
        return True

    def _after_prompt(self, segments: list[Segment], buffer: str, mark: str, *, final: bool) -> bool:
        rest = buffer.lstrip()
        if not final and len(rest) < len(mark) and mark.startswith(rest):
            return False
        self._repeatable = False
        if rest.startswith(mark):
            self._take(segments, len(buffer) - len(rest) + len(mark), "marker")
        return True

    def _at_start(self, segments: list[Segment], buffer: str, *, final: bool) -> bool:
        rest = buffer.lstrip()
        openings = self._openings()
        if not rest and not final and openings:
            return False
        if any(len(pair.open) > len(rest) and pair.open.startswith(rest) for pair in openings):
            if not final:
                return False  # a mark, or a longer one, may still come of it
            if self._thought and self._grammar.repeats:  # cut between two channels
                self._take(segments, len(buffer), "marker")
                return False
        found = max((pair for pair in openings if rest.startswith(pair.open)), key=lambda p: len(p.open), default=None)
        self._take(segments, len(buffer) - len(rest), "answer")
        if found is None:
            self._state = "answer" if rest else "start"
            return bool(rest)
        self._take(segments, len(found.open), "marker")
        self._state, self._pair = ("reasoning" if found in self._grammar.tags else "answer"), found
        return True

    def _openings(self) -> tuple[TagPair, ...]:
        thoughts = () if self._thought and not self._grammar.repeats else self._grammar.tags
        return (*thoughts, *self._grammar.answers)

    def _leave(self, mark: str) -> None:
        if self._state == "reasoning":
            self._thought = True
            # Where the mark that ends reasoning is the one that begins the answer, its end has to be seen as well.
            self._pair = next((pair for pair in self._grammar.answers if pair.open == mark), None)
            self._state = "start" if self._pair is None else "answer"
        else:
            self._pair = None

    def _take(self, segments: list[Segment], count: int, kind: SegmentKind | None = None) -> None:
        """Move ``count`` characters from what is held to the segments, but for those that are known already."""
        text, self._held = self._held[:count], self._held[count:]
        known, self._known = self._known, max(0, self._known - count)
        if text[known:]:
            segments.append(Segment(kind or ("reasoning" if self.in_reasoning else "answer"), text[known:]))


def split(text: str, grammar: ReasoningGrammar = DEFAULT_GRAMMAR, *, opened: TagPair | None = None) -> SplitText:
    """Split a finished text; the same rules as the incremental splitter."""
    splitter = ReasoningSplitter(grammar, opened=opened)
    segments = splitter.feed(text) + splitter.finish()
    return SplitText(
        reasoning="".join(s.text for s in segments if s.kind == "reasoning").strip(),
        answer="".join(s.text for s in segments if s.kind == "answer").strip(),
        closed=splitter.closed,
    )


def _possible_mark(buffer: str, mark: str) -> int:
    """Index from which the end of ``buffer`` is a proper beginning of ``mark``; its length if there is none."""
    for start in range(max(0, len(buffer) - len(mark) + 1), len(buffer)):
        if mark.startswith(buffer[start:]):
            return start
    return len(buffer)
