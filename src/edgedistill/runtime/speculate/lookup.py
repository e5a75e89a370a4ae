"""Guesses from the text itself: what followed its last tokens where they stood before (prompt lookup decoding).

Replies quote: a summary its text, a corrected program the program, a calculation the numbers of its task. No second
model is needed, and a lookup takes microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TOP_CONFIDENCE = 8
_GRAMS = (4, 2, 1)


class PromptLookup:
    """The tokens of one sequence, prompt and reply, with the last place of every run of 1, 2 and 4 of them."""

    seconds_per_guess = 0.0
    decoder = None

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._following: tuple[dict[tuple[int, ...], int], ...] = tuple({} for _ in _GRAMS)
        self._at = 0

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens of the sequence."""
        known = self._tokens
        for token in tokens:
            end = len(known)
            # A run is entered when the token after it is known, so that the end of the text never finds itself.
            for size, following in zip(_GRAMS, self._following, strict=True):
                if end >= size:
                    following[tuple(known[end - size :])] = end
            known.append(token)

    def confidence(self) -> int:
        """How many of the last tokens stood together before, 0 to ``TOP_CONFIDENCE``; 0: there is no guess."""
        known, end = self._tokens, len(self._tokens)
        for size, following in zip(_GRAMS, self._following, strict=True):
            at = following.get(tuple(known[end - size :])) if end >= size else None
            if at is not None:
                self._at = at
                longer = size
                while longer < TOP_CONFIDENCE and at > longer and known[at - longer - 1] == known[end - longer - 1]:
                    longer += 1
                return longer
        return 0

    def propose(self, count: int) -> list[int]:
        """The ``count`` tokens that followed at the place that ``confidence`` found; past the end it repeats itself."""
        known = self._tokens
        found = known[self._at : self._at + count]
        period = len(found)
        while len(found) < count:
            found.append(found[len(found) - period])
        return found
