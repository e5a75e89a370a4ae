"""How an answer is produced: one reply, the vote of several trajectories, or a pass that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgedistill.errors import UsageError
from edgedistill.trajectories.options import TrajectoryOptions

if TYPE_CHECKING:
    from edgedistill.trajectories.options import VoteRule

ProcedureName = Literal["single", "vote", "deliberate"]


@dataclass(frozen=True, slots=True)
class Procedure:
    """How an answer is reached.

    Attributes:
        name: ``single``: one trajectory; ``vote``: the vote of K; ``deliberate``: a pass that reads K.
        trajectories: K; 1 for single.
        vote: How they vote.
    """

    name: ProcedureName
    trajectories: int = 8
    vote: VoteRule = "majority"

    def __post_init__(self) -> None:
        if self.name not in ("single", "vote", "deliberate"):
            raise UsageError(f"There is no procedure {self.name!r}; expected single, vote or deliberate.")
        _ = self.options
        if self.name != "single" and self.trajectories < 2:
            raise UsageError(f"The procedure {self.name} needs at least 2 trajectories; found {self.trajectories}.")

    @property
    def options(self) -> TrajectoryOptions:
        """As the runs take them. Nothing is stopped early: M@K and P@K need every trajectory."""
        if self.name == "single":
            return TrajectoryOptions(count=1, early_stop="off")
        deliberate = self.name == "deliberate"
        return TrajectoryOptions(count=self.trajectories, vote=self.vote, deliberate=deliberate, early_stop="off")

    @property
    def label(self) -> str:
        """Tells the stored answers of different procedures apart."""
        return "single" if self.name == "single" else f"{self.name}-{self.trajectories}-{self.vote}"
