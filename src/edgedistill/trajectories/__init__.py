"""Several attempts at one question: K trajectories over one prefill, a vote, a pass that reads them all.

    >>> from edgedistill.trajectories import TrajectoryOptions, solve
    >>> result = solve(edgedistill.open_bundle("my-bundle"), "What is 17 * 23?", options=TrajectoryOptions(count=8))
    >>> result.answer, result.vote.tallies, result.stats.saved_tokens

Start at ``run.solve`` and ``run.stream`` (the events of a run as they happen); ``decode.Decoding`` decodes,
``vote.majority`` counts, ``early_stop.decided`` says when the rest cannot matter, ``memory.plan_run`` how many fit.

Never imports ``verify`` or ``export``; neither torch nor onnx is loaded by it.
"""

from edgedistill.trajectories.options import TrajectoryOptions
from edgedistill.trajectories.result import RunStats, Trajectory, TrajectoryEvent, TrajectoryResult
from edgedistill.trajectories.run import solve, stream
from edgedistill.trajectories.vote import VoteResult

__all__ = [
    "RunStats", "Trajectory", "TrajectoryEvent", "TrajectoryOptions", "TrajectoryResult", "VoteResult", "solve",
    "stream",
]  # fmt: skip
