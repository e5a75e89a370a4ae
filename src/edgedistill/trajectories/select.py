"""Choosing one of several free-form replies: what the model says when it is shown them, or which is most like the
others.

Sources: Chen et al., "Universal Self-Consistency", arXiv 2311.17311 (the model picks the most consistent reply);
Jain et al., arXiv 2307.06857 (the reply with the highest mean similarity to the others, without the model).
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMED = re.compile(r"\b(?:reply|response|number|option)\s*(?:number|no\.?|#)?\s*[:#]?\s*\**(\d{1,3})\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])(\d{1,3})(?![\w]|\.\d)")
_WORD = re.compile(r"\w+")


def named_reply(text: str, count: int) -> int | None:
    """The number (from 1) of the reply that ``text`` names; None if it names none, or several different ones.

    "Reply 3" counts before a bare "3". Numbers outside 1 to ``count`` are ignored.
    """
    for pattern in (_NAMED, _NUMBER):
        found = {int(number) for number in pattern.findall(text) if 1 <= int(number) <= count}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def most_similar(texts: Sequence[str]) -> int:
    """Index of the text with the highest mean similarity to the others; of equals the first.

    Similarity: Jaccard index of the sets of words and of pairs of neighbouring words, case folded.
    """
    sets = [_features(text) for text in texts]
    scores = [
        sum(len(one & other) / max(1, len(one | other)) for at, other in enumerate(sets) if at != index)
        for index, one in enumerate(sets)
    ]
    return max(range(len(texts)), key=lambda index: (scores[index], -index))


def _features(text: str) -> set[tuple[str, ...]]:
    words = [word.casefold() for word in _WORD.findall(text)]
    return {(word,) for word in words} | set(itertools.pairwise(words))
