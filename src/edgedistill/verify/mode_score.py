"""What the answers of a mode come to: M@K, P@K, V@K, D@K with intervals over prompts, and what an answer cost.

Must not know: models, how answers were made, how a report is shown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.intervals import prompt_mean
from edgedistill.verify.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgedistill.verify.run_settings import Drawn
    from edgedistill.verify.trial import Trial


@dataclass(frozen=True, slots=True)
class ModeScore:
    """One model in one mode; estimates over prompts, None where there are no gold answers or nothing to measure.

    Attributes:
        mean_at_k: M@K, accuracy of a single trajectory.
        pass_at_k: P@K, one of K is right: what a perfect judge of the trajectories could reach.
        vote_at_k: V@K, the vote is right (or the reply that was picked).
        deliberate_at_k: D@K, the answer after the deliberation is right, fallbacks to the vote included.
        tokens, pass_tokens: Of one answer, all trajectories and passes; of the passes alone.
        stopped_tokens: Of one answer if trajectories were cut off once the majority was certain.
        seconds, joules: Of one answer.
        tied: Share of answers whose vote was tied.
        decided_by: Number of answers by what decided them.
    """

    mean_at_k: Estimate | None
    pass_at_k: Estimate | None
    vote_at_k: Estimate | None
    deliberate_at_k: Estimate | None
    tokens: Estimate
    pass_tokens: Estimate
    stopped_tokens: Estimate
    seconds: Estimate
    joules: Estimate | None
    tied: Estimate
    decided_by: dict[str, int]


@dataclass(frozen=True, slots=True)
class ModeReport:
    """The mode of a run and what it came to; ``reference`` is None in an audit.

    ``mode``: single, vote or deliberate. ``trajectories``: K. ``vote``: majority, confidence or universal.
    """

    mode: str
    trajectories: int
    vote: str
    bundle: ModeScore
    reference: ModeScore | None = None


def mode_score(drawn: Sequence[Drawn], mode: str, *, level: float, seed: int) -> ModeScore:
    """Score the answers of a mode; all of them carry a ``Trial``.

    Raises:
        ValueError: An answer without one.
    """
    groups: dict[str, list[tuple[Drawn, Trial]]] = {}
    for one in drawn:
        if one.trial is None:
            raise ValueError(f"answer {one.key} is no answer of a mode")
        groups.setdefault(one.sample.prompt_id, []).append((one, one.trial))

    def mean(value: Callable[[Drawn, Trial], float | None], high: float = np.inf) -> Estimate | None:
        """Mean over prompts of the prompt's mean; None where a value is missing."""
        rows = [[value(one, trial) for one, trial in group] for group in groups.values()]
        if any(entry is None for row in rows for entry in row):
            return None
        values = [float(np.mean(np.asarray(row, dtype=np.float64))) for row in rows]
        return prompt_mean(values, low=0.0, high=high, level=level, seed=seed)

    def cost(value: Callable[[Drawn, Trial], float]) -> Estimate:
        return mean(value) or Estimate(float("nan"))

    several = mode != "single"
    return ModeScore(
        mean_at_k=mean(lambda _, t: None if t.correct is None else float(np.mean(t.correct)), 1.0),
        pass_at_k=mean(lambda _, t: None if t.correct is None else float(any(t.correct)), 1.0) if several else None,
        vote_at_k=mean(lambda _, t: None if t.vote is None else float(t.vote), 1.0) if several else None,
        deliberate_at_k=mean(lambda d, _: None if d.sample.correct is None else float(d.sample.correct), 1.0)
        if mode == "deliberate"
        else None,
        tokens=cost(lambda _, t: t.trajectory_tokens + t.pass_tokens),
        pass_tokens=cost(lambda _, t: t.pass_tokens),
        stopped_tokens=cost(lambda _, t: t.stopped_tokens + t.pass_tokens),
        seconds=cost(lambda _, t: t.seconds),
        joules=mean(lambda _, t: t.joules),
        tied=mean(lambda _, t: float(t.tied), 1.0) or Estimate(float("nan")),
        decided_by=dict(Counter(trial.decided_by for group in groups.values() for _, trial in group)),
    )
