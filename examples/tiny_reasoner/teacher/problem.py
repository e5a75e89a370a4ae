"""What the teacher hands out: one problem with its reasoning, and the rule that keeps train and held-out apart.

Knows nothing of chat templates or tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "heldout"]

IN_RANGE_BANDS = ("one-step", "two-step", "three-step")
"""Bands the model is meant to get right. `stretch` and `hard` lie beyond, `outside` has no numeric answer."""

BANDS = (*IN_RANGE_BANDS, "stretch", "hard", "outside")
HELDOUT_SHARE = 10  # percent


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, the teacher's reasoning, the reply that follows it, and the bare answer (None outside the field)."""

    family: str
    band: str
    key: str
    question: str
    reasoning: str
    reply: str
    answer: str | None


def split_of(key: str) -> Split:
    """Return the side a problem key belongs to.

    The key holds the numbers and the operations, not the words or their order, so a held-out problem is never posed
    in training, whatever the phrasing or the order. (Its single steps do occur inside other problems.)
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return "heldout" if int.from_bytes(digest, "big") % 100 < HELDOUT_SHARE else "train"


def phrases(name: str) -> tuple[str, ...]:
    """Return the lines of `phrases/<name>.txt`."""
    path = Path(__file__).parent / "phrases" / f"{name}.txt"
    return tuple(path.read_text(encoding="utf-8").splitlines())
