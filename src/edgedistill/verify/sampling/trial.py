"""One answer of a mode (single, vote, deliberate) as data: what its trajectories came to, and what it cost.

Must not know: models, how an answer was found.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Trial:
    """What stands behind one answer.

    Attributes:
        correct: Whether each trajectory is right, in order; None without gold answers.
        vote: Whether the vote is right; None without gold answers. Equal to the answer's own in the mode ``vote``.
        answered: Trajectories that had a vote, or, where replies are free texts, that were complete.
        tied: Several answers shared the first place of the vote.
        decided_by: As in ``TrajectoryResult``.
        trajectory_tokens: Of all trajectories. ``pass_tokens``: of the passes after them.
        stopped_tokens: Of the trajectories, had they been cut off as soon as the majority was certain.
        seconds: From the question to the answer. ``joules``: None where the machine does not tell.
    """

    correct: tuple[bool, ...] | None
    vote: bool | None
    answered: int
    tied: bool
    decided_by: str
    trajectory_tokens: int
    pass_tokens: int
    stopped_tokens: int
    seconds: float
    joules: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "correct": None if self.correct is None else list(self.correct)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Trial:
        """Read ``to_dict``'s result back; raises TypeError for anything else."""
        correct = value.get("correct")
        return cls(**{**value, "correct": None if correct is None else tuple(correct)})
