"""Reads one JSON object or list that comes in pieces, and sees at once where it cannot become one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_PART_OF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")
_SCALAR = re.compile(r"[-+.0-9A-Za-z]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_PART_OF_NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:(?<=[0-9])[eE][+-]?[0-9]*)?)?")
_WORDS = ("true", "false", "null")
_MOST_DEPTH = 200

Want = Literal["value", "value or end", "key", "key or end", "colon", "comma or end"]


@dataclass(slots=True)
class Member:
    """A member of an object: ``text[start:end]`` is its value, which is not complete while ``end`` is None.

    ``owner``: number of the object among those that are looked at.
    """

    owner: int
    key: str
    start: int
    end: int | None = None


class JsonScan:
    """The value that begins at ``text[start]``, a bracket.

    Members are kept of the value itself, if it is an object, or of the objects in it, if it is a list.

    Attributes:
        text: All text so far.
        end: Where the value ends, once it is complete.
        broken: No text that follows could make it one.
        members: In their order.
        objects: Where each of these objects begins and ends (None: not yet).
    """

    def __init__(self, text: str = "", start: int = 0) -> None:
        self.text, self.broken = "", False
        self.members: list[Member] = []
        self.objects: list[tuple[int, int | None]] = []
        self._at = start
        self._want: Want = "value"
        self._stack: list[str] = []
        self._string: int | None = None
        self.end: int | None = None
        self.feed(text)

    def feed(self, text: str) -> None:
        """Go on with more text."""
        self.text += text
        while self._at < len(self.text) and not self.broken and self.end is None and self._step():
            pass

    @property
    def _level(self) -> int:
        """Depth of the objects whose members are kept."""
        return 2 if self._stack and self._stack[0] == "[" else 1

    def _step(self) -> bool:
        """One token; False where more text is needed."""
        if self._string is not None:
            return self._in_string()
        at = self._at = _end(_SPACE, self.text, self._at)
        if at >= len(self.text):
            return False
        char = self.text[at]
        match self._want:
            case "colon":
                self._move(char == ":", "value")
            case "comma or end" if char == ",":
                self._move(good=True, want="key" if self._stack[-1] == "{" else "value")
            case "key or end" | "comma or end" | "value or end" if char == {"{": "}", "[": "]"}[self._stack[-1]]:
                self._at += 1
                self._close()
            case "key" | "key or end":
                self._begin_string(good=char == '"')
            case "value" | "value or end":
                return self._value(char)
            case _:
                self.broken = True
        return not self.broken

    def _move(self, good: bool, want: Want) -> None:
        self.broken = not good
        self._at += 1
        self._want = want

    def _begin_string(self, *, good: bool) -> None:
        self.broken = not good
        self._string = self._at
        self._at += 1

    def _in_string(self) -> bool:
        text, at = self.text, _end(_PLAIN, self.text, self._at)
        while at < len(text) and text[at] == "\\":
            escape = _ESCAPE.match(text, at)
            if escape is None:
                self._at = at
                self.broken = _PART_OF_ESCAPE.fullmatch(text, at) is None
                return False
            at = _end(_PLAIN, text, escape.end())
        self._at = at
        if at >= len(text):
            return False
        if text[at] != '"':
            self.broken = True
            return False
        start, self._string = self._string or 0, None
        self._at = at + 1
        if self._want in ("key", "key or end"):
            if len(self._stack) == self._level:
                self.members.append(Member(len(self.objects) - 1, text[start + 1 : at], -1))
            self._want = "colon"
        else:
            self._done()
        return True

    def _value(self, char: str) -> bool:
        if self._stack and self._stack[-1] == "{" and len(self._stack) == self._level and self.members[-1].start < 0:
            self.members[-1].start = self._at
        if char in "{[":
            self.broken = len(self._stack) >= _MOST_DEPTH
            self._stack.append(char)
            if char == "{" and len(self._stack) == self._level:
                self.objects.append((self._at, None))
            self._at += 1
            self._want = "key or end" if char == "{" else "value or end"
        elif char == '"':
            self._begin_string(good=bool(self._stack))
        else:
            return self._scalar()
        return not self.broken

    def _scalar(self) -> bool:
        end = _end(_SCALAR, self.text, self._at)
        word = self.text[self._at : end]
        if end == len(self.text):  # more of it may come
            self.broken = not (_PART_OF_NUMBER.fullmatch(word) or any(full.startswith(word) for full in _WORDS))
            return False
        self.broken = not (self._stack and (word in _WORDS or _NUMBER.fullmatch(word)))
        if not self.broken:
            self._at = end
            self._done()
        return not self.broken

    def _close(self) -> None:
        if self._stack[-1] == "{" and len(self._stack) == self._level:
            self.objects[-1] = (self.objects[-1][0], self._at)
        self._stack.pop()
        self._done()

    def _done(self) -> None:
        """A value is complete."""
        if not self._stack:
            self.end = self._at
            return
        self._want = "comma or end"
        if self._stack[-1] == "{" and len(self._stack) == self._level:
            self.members[-1].end = self._at


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()
