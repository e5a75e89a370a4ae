"""Finds the first difference of two replies: a token if both models share a vocabulary, else a character."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Parting:
    """The first difference of two replies.

    Attributes:
        token: Index of the first token that differs, None where tokens cannot be compared or all are equal.
        common: The text up to there, equal in both.
        first, second: The text of each from there on.
        first_token, second_token: The text of the token that differs; empty at the end of a reply.
    """

    token: int | None
    common: str
    first: str
    second: str
    first_token: str = ""
    second_token: str = ""

    @property
    def equal(self) -> bool:
        """Whether the replies are the same to the end."""
        return not self.first and not self.second


def part_tokens(first: Sequence[int], second: Sequence[int], decode: Callable[[Sequence[int]], str]) -> Parting:
    """Compare token by token; ``decode`` gives the text of ids of the common tokenizer."""
    count = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
    common, one, two = decode(first[:count]), decode(first), decode(second)
    if count == len(first) == len(second):
        return Parting(None, one, "", "")
    # A token may end within a character: what is common is what both texts have, whatever the decoder made of the rest.
    common = common.rstrip("\ufffd")
    shared = len(common) if one.startswith(common) and two.startswith(common) else len(_common(one, two))
    after = [decode(ids[: count + 1])[shared:] for ids in (first, second)]
    return Parting(count, one[:shared], one[shared:], two[shared:], after[0], after[1])


def part_texts(first: str, second: str) -> Parting:
    """Compare character by character, for replies in different tokens."""
    shared = len(_common(first, second))
    return Parting(
        None, first[:shared], first[shared:], second[shared:], first[shared : shared + 1], second[shared : shared + 1]
    )


def _common(first: str, second: str) -> str:
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
