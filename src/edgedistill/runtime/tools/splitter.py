"""Finds calls of tools in the text of an answer, piece by piece.

What begins with the mark of a form is held back until it is a call or certainly none; the arguments of a call are given
out as they come where their form allows it. Nothing is lost: the texts of all pieces in order are the text. A call
counts only if it is well formed, complete and names a tool that was offered; anything else is text, as is a mark in
quotes. A form without a mark counts only where calls are all that the answer is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgedistill.runtime.tools.patterns import skip_space
from edgedistill.runtime.tools.readers import Growing, reading_of
from edgedistill.runtime.tools.types import ToolCall, ToolCallDelta, new_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.catalog.tool_formats import ToolFormat
    from edgedistill.runtime.tools.readers import Reading
    from edgedistill.runtime.tools.types import Tool

_QUOTES = "`\"'"


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of the answer; text of calls (``marker``), which is not shown; or news of a call, without text."""

    kind: Literal["answer", "marker", "tool_call"]
    text: str = ""
    call: ToolCallDelta | None = None


class ToolSplitter:
    """Feed it the text of an answer as it comes and finish it once.

    Attributes:
        calls: The complete ones.
        notes: What could not be read as a call, in sentences.
    """

    def __init__(self, formats: Sequence[ToolFormat], tools: Sequence[Tool]) -> None:
        """``formats``: how this model writes calls. ``tools``: what may be called."""
        self._marked = [one for one in formats if one.open]
        self._bare = [one for one in formats if not one.open]
        self._tools = {tool.name: tool for tool in tools}
        self._held = ""
        self._before = ""
        """The character before what is held."""
        self._block: _Block | None = None
        self._count = 0
        self.calls: list[ToolCall] = []
        self.notes: list[str] = []

    def feed(self, text: str) -> list[Piece]:
        """What is decided after ``text``."""
        return self._advance(text, final=False)

    def finish(self) -> list[Piece]:
        """The rest, once no more text comes."""
        return self._advance("", final=True)

    def _advance(self, text: str, *, final: bool) -> list[Piece]:
        pieces: list[Piece] = []
        self._held += text
        going = True
        while going:
            going = self._text(pieces, final=final) if self._block is None else self._in_block(pieces, final=final)
        return pieces

    def _text(self, pieces: list[Piece], *, final: bool) -> bool:
        """Text up to the next mark; False where more is needed."""
        held = self._held
        if self._bare and held.strip():
            body = held.lstrip()
            if body[0] in "{[" and not self._before.strip():
                self._begin(self._bare.pop(0), pieces, len(held) - len(body), 0)
                return True
            self._bare = []
        found = [
            (at, -len(mark), one) for one in self._marked for mark in one.opens
            if (at := unquoted(held, mark, self._before)) >= 0
        ]  # fmt: skip
        if found:
            at, length, one = min(found, key=lambda item: item[:2])
            self._begin(one, pieces, at, -length)
            return True
        marks = [mark for one in self._marked for mark in one.opens]
        end = len(held) if final else min((_possible(held, mark) for mark in marks), default=len(held))
        self._give(pieces, end, final=final)
        return False

    def _give(self, pieces: list[Piece], end: int, *, final: bool = False) -> None:
        """Text of the answer up to ``end``; white space at its end waits for what follows."""
        text = self._held[:end]
        shown = text if final else text.rstrip()
        kind: Literal["answer", "marker"] = "marker" if self.calls and not text.strip() else "answer"
        if shown:
            pieces.append(Piece(kind, shown))
            self._before = shown[-1]
        self._held = self._held[len(shown) :]

    def _begin(self, one: ToolFormat, pieces: list[Piece], at: int, length: int) -> None:
        """A block of calls begins at ``at`` with a mark of so many characters."""
        before = len(self._held)
        self._give(pieces, at)
        begun = at + length - (before - len(self._held))
        self._block = _Block(one, self._tools)
        self._block.raw, self._held = self._held[:begun], self._held[begun:]

    def _in_block(self, pieces: list[Piece], *, final: bool) -> bool:
        block = self._block
        if block is None:
            return False
        news = block.feed(self._held, final=final)
        self._held = ""
        held_back = not block.format.open  # certain only once the text has ended
        if not held_back:
            self._report(pieces, block, news)
        if block.state == "open":
            return False
        rest = block.text[block.used :]
        if held_back and (block.state == "broken" or rest.strip()):
            self._block, self._held = None, block.raw + block.text
            if block.all_calls and block.reason:
                self.notes.append(_note(block.reason))
            return True
        if held_back:
            self._report(pieces, block, block.all_calls)
        self._leave(pieces, block)
        return not final or bool(self._held)

    def _report(self, pieces: list[Piece], block: _Block, news: list[tuple[int, Growing]]) -> None:
        """News of calls as deltas."""
        for number, call in news:
            if number == len(block.ids):
                block.ids.append(new_id())
                block.given.append(0)
            delta = call.arguments[block.given[number] :]
            block.given[number] = len(call.arguments)
            key = block.ids[number]
            pieces.append(
                Piece("tool_call", call=ToolCallDelta(self._count + number, key, call.name, delta, call.done))
            )
            if call.done:
                self.calls.append(ToolCall(key, call.name, call.arguments))

    def _leave(self, pieces: list[Piece], block: _Block) -> None:
        """The block has ended: its text, and what was no call in it."""
        self._block = None
        done = sum(call.done for _, call in block.all_calls)
        for number in range(done, len(block.ids)):
            name = block.all_calls[number][1].name
            pieces.append(
                Piece("tool_call", call=ToolCallDelta(self._count + number, block.ids[number], name, withdrawn=True))
            )
        self._count += len(block.ids)
        if block.reason:
            self.notes.append(_note(block.reason))
        taken = block.used if block.state == "closed" else block.kept
        if taken or block.state == "closed":
            pieces.append(Piece("marker", block.raw + block.text[:taken]))
            self._before, self._held = "", block.text[taken:]
        else:
            pieces.append(Piece("answer", block.raw))
            self._before, self._held = block.raw[-1:], block.text


class _Block:
    """Calls that follow each other after one mark.

    Attributes:
        raw: The mark, with the white space before it.
        text: What came after it.
        state: ``closed`` at ``text[used]``; ``broken``: what follows ``text[kept]`` is no call, for ``reason``.
        all_calls: With their numbers, as far as they are known.
        ids, given: Of the calls that were reported: how much of the arguments.
    """

    def __init__(self, one: ToolFormat, tools: dict[str, Tool]) -> None:
        self.format = one
        self._tools = tools
        self.raw = ""
        self.text = ""
        self.state: Literal["open", "closed", "broken"] = "open"
        self.used = self.kept = 0
        self.reason = ""
        self.all_calls: list[tuple[int, Growing]] = []
        self.ids: list[str] = []
        self.given: list[int] = []
        self._at = 0
        self._read = 0
        """How many calls were complete before the reading that goes on."""
        self._readings: list[Reading] = []

    def feed(self, text: str, *, final: bool) -> list[tuple[int, Growing]]:
        """Go on with more text; the calls that have grown."""
        self.text += text
        before = {number: (len(call.arguments), call.done) for number, call in self.all_calls}
        while self.state == "open" and self._step(final=final):
            pass
        return [
            (number, call) for number, call in self.all_calls
            if before.get(number) != (len(call.arguments), call.done)
        ]  # fmt: skip

    def _step(self, *, final: bool) -> bool:
        """Begin or go on with a reading; False where more text is needed."""
        if not self._readings and not self._next(final=final):
            return False
        whys = []
        for reading in list(self._readings):
            reading.feed(self.text[self._at + len(reading.text) :], final=final)
            if reading.broken:
                whys.append(reading)
                self._readings.remove(reading)
        lead = next((reading for reading in self._readings if reading.calls), None)
        if lead is None:
            lead = next((reading for reading in whys if reading.calls), None)
        if lead is not None:
            self.all_calls[self._read :] = [(self._read + n, call) for n, call in enumerate(lead.calls)]
        if not self._readings:
            self._end(whys, lead)
            return False
        if lead is not None and lead.end is not None:
            self._at += lead.end
            self._read = len(self.all_calls)
            self.kept = self._at
            self._readings = []
            return True
        if final:
            self._end([], lead, cut=True)
        return False

    def _next(self, *, final: bool) -> bool:
        """Look for the next call or the end."""
        text, close = self.text, self.format.close
        at = skip_space(text, self._at)
        while self.all_calls and text[at : at + 1] in (",", ";"):
            at = skip_space(text, at + 1)
        if close and text.startswith(close, at) and self.all_calls:
            self.state, self.used = "closed", at + len(close)
        elif at == len(text):
            if final:
                self._end([], None, cut=not self.all_calls)
        elif close and close.startswith(text[at:]) and not final:
            pass
        else:
            self._at = at
            self._readings = [reading_of(body, self._tools, close) for body in self.format.bodies]
            return True
        return False

    def _end(self, whys: list[Reading], lead: Reading | None, *, cut: bool = False) -> None:
        """No more calls come of this: what was complete stays."""
        if lead is not None:
            self.kept = self._at + lead.kept if lead.kept else self.kept
        if self.all_calls and lead is None:
            self.state, self.used = "closed", self.kept
        else:
            self.state = "broken"
        named = [reading.broken for reading in whys if reading.broken.startswith("names")]
        begun = lead is not None or self.text[self._at :].lstrip()[:1] in ("[", "{")
        if named:
            self.reason = named[0]
        elif self.state == "broken" and begun:
            self.reason = "is cut off" if cut else "is malformed"


def _note(reason: str) -> str:
    return f"The reply has a tool call that {reason}: it is given as text."


def unquoted(text: str, mark: str, before: str) -> int:
    """Where ``mark`` stands in ``text`` without a quote before it; -1 if nowhere. ``before``: the character before."""
    at = text.find(mark)
    while at >= 0 and (text[at - 1] if at else before) in _QUOTES and (at or before):
        at = text.find(mark, at + 1)
    return at


def _possible(text: str, mark: str) -> int:
    """Index from which the end of ``text`` is a proper beginning of ``mark``; its length if there is none."""
    for start in range(max(0, len(text) - len(mark) + 1), len(text)):
        if mark.startswith(text[start:]):
            return start
    return len(text)
