"""Scores the answers of a procedure (several trajectories, a vote, a deliberation) and what quantization changed.

M@K is the accuracy of one trajectory, P@K that one of K is right, V@K that the vote is right, D@K that the answer after
the deliberation is right. All have intervals over prompts, as has the cost of an answer in tokens and seconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.stats.intervals import prompt_mean
from edgedistill.verify.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgedistill.verify.types import Drawn, Trial

    Groups = dict[str, list[tuple[Drawn, Trial]]]
    Value = Callable[[Drawn, Trial], float | None]


@dataclass(frozen=True, slots=True)
class ProcedureScore:
    """One model in one procedure; estimates over prompts, None where there are no gold answers or nothing to measure.

    Attributes:
        mean_at_k: M@K, accuracy of a single trajectory.
        pass_at_k: P@K, one of K is right: what a perfect judge of the trajectories could reach.
        vote_at_k: V@K, the vote is right (or the reply that was picked).
        deliberate_at_k: D@K, the answer after the deliberation is right, fallbacks to the vote included.
        tokens, pass_tokens: Of one answer, all trajectories and passes; of the passes alone.
        stopped_tokens: Of one answer if trajectories were cut off once the majority was certain.
        seconds: Of one answer.
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
    tied: Estimate
    decided_by: dict[str, int]


@dataclass(frozen=True, slots=True)
class ProcedureChange:
    """What quantization did to every way to answer: bundle less reference, paired by prompt.

    Both saw the same noise, so that an interval is about the difference alone and far narrower than those of the two
    scores. Accuracies as in ``ProcedureScore``, in shares; ``tokens`` of an answer.
    """

    mean_at_k: Estimate | None
    pass_at_k: Estimate | None
    vote_at_k: Estimate | None
    deliberate_at_k: Estimate | None
    tokens: Estimate | None


@dataclass(frozen=True, slots=True)
class ProcedureReport:
    """The procedure of a run and its scores; ``reference`` and ``change`` are None in an audit.

    ``name``: single, vote or deliberate. ``trajectories``: K. ``vote``: majority, confidence or universal.
    """

    name: str
    trajectories: int
    vote: str
    bundle: ProcedureScore
    reference: ProcedureScore | None = None
    change: ProcedureChange | None = None


def procedure_score(drawn: Sequence[Drawn], procedure: str, *, level: float, seed: int) -> ProcedureScore:
    """Score the answers of a procedure; all of them carry a ``Trial``.

    Raises:
        ValueError: An answer without one.
    """
    groups = _by_prompt(drawn)

    def mean(value: Value, high: float = np.inf) -> Estimate | None:
        """Mean over prompts of the prompt's mean; None where a value is missing."""
        values = _means(groups, value)
        return (
            None if values is None else prompt_mean(list(values.values()), low=0.0, high=high, level=level, seed=seed)
        )

    def cost(value: Callable[[Drawn, Trial], float]) -> Estimate:
        return mean(value) or Estimate(float("nan"))

    several = procedure != "single"
    return ProcedureScore(
        mean_at_k=mean(_single, 1.0),
        pass_at_k=mean(_any, 1.0) if several else None,
        vote_at_k=mean(_vote, 1.0) if several else None,
        deliberate_at_k=mean(_final, 1.0) if procedure == "deliberate" else None,
        tokens=cost(_tokens),
        pass_tokens=cost(lambda _, t: t.pass_tokens),
        stopped_tokens=cost(lambda _, t: t.stopped_tokens + t.pass_tokens),
        seconds=cost(lambda _, t: t.seconds),
        tied=mean(lambda _, t: float(t.tied), 1.0) or Estimate(float("nan")),
        decided_by=dict(Counter(trial.decided_by for group in groups.values() for _, trial in group)),
    )


def procedure_change(
    bundle: Sequence[Drawn], reference: Sequence[Drawn], procedure: str, *, level: float, seed: int
) -> ProcedureChange:
    """Bundle less reference, for the same procedure and the same prompts; all answers carry a ``Trial``.

    Raises:
        ValueError: An answer without one, or other prompts.
    """
    after, before = _by_prompt(bundle), _by_prompt(reference)
    if after.keys() != before.keys():
        raise ValueError("the answers are to different prompts")

    def change(value: Value, bound: float = 1.0) -> Estimate | None:
        after_means, before_means = _means(after, value), _means(before, value)
        if after_means is None or before_means is None:
            return None
        differences = [after_means[prompt_id] - before_means[prompt_id] for prompt_id in after_means]
        return prompt_mean(differences, low=-bound, high=bound, level=level, seed=seed)

    several = procedure != "single"
    return ProcedureChange(
        mean_at_k=change(_single),
        pass_at_k=change(_any) if several else None,
        vote_at_k=change(_vote) if several else None,
        deliberate_at_k=change(_final) if procedure == "deliberate" else None,
        tokens=change(_tokens, np.inf),
    )


def _single(_: Drawn, trial: Trial) -> float | None:
    return None if trial.correct is None else float(np.mean(trial.correct))


def _any(_: Drawn, trial: Trial) -> float | None:
    return None if trial.correct is None else float(any(trial.correct))


def _vote(_: Drawn, trial: Trial) -> float | None:
    return None if trial.vote is None else float(trial.vote)


def _final(drawn: Drawn, _: Trial) -> float | None:
    return None if drawn.sample.correct is None else float(drawn.sample.correct)


def _tokens(_: Drawn, trial: Trial) -> float:
    return trial.trajectory_tokens + trial.pass_tokens


def _by_prompt(drawn: Sequence[Drawn]) -> Groups:
    groups: Groups = {}
    for one in drawn:
        if one.trial is None:
            raise ValueError(f"answer {one.key} is no answer of a procedure")
        groups.setdefault(one.sample.prompt_id, []).append((one, one.trial))
    return groups


def _means(groups: Groups, value: Value) -> dict[str, float] | None:
    """Each prompt's mean; None where a value is missing."""
    found: dict[str, float] = {}
    for prompt_id, group in groups.items():
        values = [value(one, trial) for one, trial in group]
        if any(entry is None for entry in values):
            return None
        found[prompt_id] = float(np.mean(np.asarray(values, dtype=np.float64)))
    return found
