"""Parallel reasoning: several trajectories of one model on one question, a vote, one pass that reads them.

    >>> from edgedistill.trajectories import TrajectoryOptions, solve
    >>> result = solve(edgedistill.open_bundle("my-bundle"), "What is 17 * 23?", options=TrajectoryOptions(count=8))
    >>> result.answer, result.vote.tallies, result.stats.saved_tokens

``stream`` gives the events of a run as they happen (see ``run``); nothing here loads torch or onnx.

Must not know: verification, terminals.
"""

from edgedistill.trajectories.options import TrajectoryOptions
from edgedistill.trajectories.result import RunStats, Trajectory, TrajectoryEvent, TrajectoryResult
from edgedistill.trajectories.run import solve, stream
from edgedistill.trajectories.vote import VoteResult

__all__ = [
    "RunStats",
    "Trajectory",
    "TrajectoryEvent",
    "TrajectoryOptions",
    "TrajectoryResult",
    "VoteResult",
    "solve",
    "stream",
]
