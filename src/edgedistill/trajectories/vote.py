"""Votes on the answers of trajectories: counts or weights, ties, and who had no vote."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.trajectories.options import VoteRule

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
class VoteResult:
    """The outcome of a vote.

    Attributes:
        rule: How it was counted.
        answer: The winner, None if nobody voted. Of tied answers, the one of the trajectory with the lowest number.
        tallies: All answers, heaviest first.
        tied: The answers that share the first place; empty if one is alone there.
        voters: Votes counted. ``unparsed``, ``truncated``, ``cancelled``, ``cut``: trajectories without a vote.
        dropped: Trajectories with an answer that a confidence vote left out.
    """

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

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "winner": self.winner}


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
