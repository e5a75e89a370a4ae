"""The contents of ``\\boxed{...}``."""

from __future__ import annotations

import re

_BOXED = re.compile(r"\\f?boxed\s*\{")
_BRACES = re.compile(r"\\f?boxed\s*\{|\\.|[{}]", re.DOTALL)


def boxed_spans(text: str) -> list[tuple[int, int, int]]:
    """(start, start of the content, end of it) of every balanced ``\\boxed{...}`` in order; nested ones count once,
    as the outer.
    """
    open_braces: list[tuple[int, int] | None] = []
    spans: list[tuple[int, int, int]] = []
    for found in _BRACES.finditer(text):
        sign = found.group()
        if sign == "}":
            box = open_braces.pop() if open_braces else None
            if box is not None:
                while spans and spans[-1][0] > box[0]:
                    spans.pop()
                spans.append((*box, found.start()))
        elif sign == "{":
            open_braces.append(None)
        elif _BOXED.fullmatch(sign):
            open_braces.append((found.start(), found.end()))
    return spans


def boxed_contents(text: str) -> list[str]:
    """The contents of ``boxed_spans``."""
    return [text[a:b] for _, a, b in boxed_spans(text)]
