"""Votes on the answers of trajectories: counts or confidence as weights, ties, and choosing among free-form replies.

Token confidence is the negative mean log-probability of the k most likely tokens, C_i = -(1/k) sum_j log P_i(j): large
where one token leaves next to nothing to the others, small where many compete. A trajectory's is the mean over its last
tokens (tail), over its least confident window (lowest), or over all of it (Fu et al., "Deep Think with Confidence",
arXiv 2508.15260). P is the model's own distribution: no temperature, no filter.

Of free-form replies the model picks the most consistent one (Chen et al., "Universal Self-Consistency", arXiv
2311.17311), or the one with the highest mean similarity to the others is taken (Jain et al., arXiv 2307.06857).
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgedistill.json_codec import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgedistill.trajectories.options import Measure, VoteRule

Kind = Literal["answered", "unparsed", "truncated", "cancelled", "cut"]
"""What became of a trajectory: an answer; a complete reply without one; an end at a limit; ended by the user; cut off
because the vote was decided. Only the first has a vote.
"""

_CLOSE = 1e-9


@dataclass(frozen=True, slots=True)
class Ballot:
    """What a vote needs of one trajectory. ``confidence`` weighs it in a confidence vote; it must then be finite."""

    index: int
    kind: Kind
    answer: str | None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """One answer: its votes, their weight (equal to the votes unless weighted), and whose they are, best first."""

    answer: str
    votes: int
    weight: float
    trajectories: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VoteResult(Record):
    """The outcome of a vote.

    Attributes:
        rule: How it was counted.
        answer: The winner, None if nobody voted. Of tied answers, the one of the trajectory with the lowest number.
        tallies: All answers, heaviest first.
        tied: The answers that share the first place; empty if one is alone there.
        voters: Votes counted. ``unparsed``, ``truncated``, ``cancelled``, ``cut``: trajectories without a vote.
        dropped: Trajectories with an answer that a confidence vote left out.
    """

    DERIVED = ("winner",)

    rule: VoteRule
    answer: str | None
    tallies: tuple[Tally, ...]
    tied: tuple[str, ...]
    voters: int
    unparsed: int = 0
    truncated: int = 0
    cancelled: int = 0
    cut: int = 0
    dropped: tuple[int, ...] = ()

    @property
    def winner(self) -> int | None:
        """The trajectory that speaks for the winning answer: the first, or the most confident of a confidence vote."""
        return next((tally.trajectories[0] for tally in self.tallies if tally.answer == self.answer), None)

    @property
    def share(self) -> float:
        """The winner's share of the weight; NaN if nobody voted."""
        total = sum(tally.weight for tally in self.tallies)
        return next((tally.weight / total for tally in self.tallies if tally.answer == self.answer), math.nan)


def majority(ballots: Sequence[Ballot]) -> VoteResult:
    """One trajectory, one vote."""
    return _count("majority", ballots, [ballot for ballot in ballots if ballot.answer is not None], weighted=False)


def by_confidence(ballots: Sequence[Ballot], *, keep: float) -> VoteResult:
    """Votes weighted by confidence, of the share ``keep`` of voters with the highest (rounded, at least one).

    Fu et al., arXiv 2508.15260: V(a) = sum of the confidences of the kept trajectories that answer a.
    """
    voters = [ballot for ballot in ballots if ballot.answer is not None]
    ranked = sorted(voters, key=lambda ballot: (-(ballot.confidence or 0.0), ballot.index))
    kept = ranked[: max(1, round(keep * len(ranked)))]
    return _count("confidence", ballots, kept, weighted=True)


def _count(rule: VoteRule, ballots: Sequence[Ballot], voters: Sequence[Ballot], *, weighted: bool) -> VoteResult:
    groups: dict[str, list[Ballot]] = {}
    for ballot in sorted(voters, key=lambda b: (-(b.confidence or 0.0) if weighted else 0.0, b.index)):
        groups.setdefault(str(ballot.answer), []).append(ballot)

    def weight(group: Sequence[Ballot]) -> float:
        return math.fsum(ballot.confidence or 0.0 for ballot in group) if weighted else float(len(group))

    tallies = sorted(
        (Tally(answer, len(g), weight(g), tuple(b.index for b in g)) for answer, g in groups.items()),
        key=lambda tally: (-tally.weight, min(tally.trajectories)),
    )
    first = [t for t in tallies if t.weight >= tallies[0].weight * (1 - _CLOSE)]
    winner = min(first, key=lambda tally: min(tally.trajectories), default=None)
    kinds = Counter(ballot.kind for ballot in ballots)
    counted = {ballot.index for ballot in voters}
    return VoteResult(
        rule=rule,
        answer=None if winner is None else winner.answer,
        tallies=tuple(tallies),
        tied=tuple(tally.answer for tally in first) if len(first) > 1 else (),
        voters=len(voters),
        unparsed=kinds["unparsed"],
        truncated=kinds["truncated"],
        cancelled=kinds["cancelled"],
        cut=kinds["cut"],
        dropped=tuple(b.index for b in ballots if b.answer is not None and b.index not in counted),
    )


TOP_TOKENS = 20
_BLOCKS = 4


def token_confidence(logits: npt.NDArray[np.float32], top: int = TOP_TOKENS) -> npt.NDArray[np.float64]:
    """C of each row: float64 [n] for logits float32 [n, V]; ``top`` is cut to V."""
    vocab = logits.shape[1]
    top = min(top, vocab)
    best = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - best).sum(axis=1, dtype=np.float64)) + best[:, 0]
    largest = np.array([_largest(row, top).mean(dtype=np.float64) for row in logits])
    return np.asarray(total - largest)


def trajectory_confidence(tokens: Sequence[float], measure: Measure, window: int) -> float:
    """The confidence of a trajectory from those of its tokens; NaN for none.

    A trajectory shorter than the window is one window.
    """
    values = np.asarray(tokens, dtype=np.float64)
    if not values.size:
        return float("nan")
    if measure == "mean":
        return float(values.mean())
    width = min(window, values.size)
    if measure == "tail":
        return float(values[-width:].mean())
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return float((sums[width:] - sums[:-width]).min() / width)


def _largest(row: npt.NDArray[np.float32], top: int) -> npt.NDArray[np.float32]:
    """The ``top`` largest entries of a row, in any order."""
    width = len(row) // (_BLOCKS * top)
    if width > 1:
        # The top-th largest of the maxima of blocks bounds the top-th largest entry from below, and is cheap to find.
        blocks = row[: len(row) // width * width].reshape(-1, width).max(axis=1)
        row = row[row >= np.partition(blocks, -top)[-top]]
    return np.asarray(np.partition(row, -top)[-top:])


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
