"""A bundle that answers by a procedure (a vote over K trajectories, a deliberation) as a model for verification.

One sample is one answer, whatever the number of trajectories behind it. Trajectory j of answer i is sample
``i * K + j`` of the procedure ``single``, so reference and bundle share their random numbers in every procedure.
Questions are answered one at a time, as in use, so that the seconds of an answer are meaningful.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgedistill.errors import VerifyError
from edgedistill.trajectories.early_stop import decided
from edgedistill.trajectories.run import solve
from edgedistill.verify.metrics.lengths import repetition_rate
from edgedistill.verify.sampling.answers import answer_of
from edgedistill.verify.sampling.protocol import SampledModel
from edgedistill.verify.suites.checks import follows
from edgedistill.verify.types import Drawn, Sample, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgedistill.runtime.batch.request import DrawSettings, Finish
    from edgedistill.trajectories.result import Trajectory, TrajectoryResult
    from edgedistill.verify.models.bundle import BundleModel
    from edgedistill.verify.sampling.protocol import Missing
    from edgedistill.verify.types import AnswerKind, Procedure, Prompt, Shipped


class ProcedureModel(SampledModel):
    """``bundle`` answering in ``procedure``; closed with it. See ``SampledModel``."""

    def __init__(self, bundle: BundleModel, procedure: Procedure) -> None:
        self.bundle = bundle
        self.procedure = procedure
        self.identity = bundle.identity

    @property
    def generation_defaults(self) -> dict[str, Any]:
        """The bundle's."""
        return self.bundle.generation_defaults

    @property
    def shipped(self) -> Shipped:
        """The bundle's."""
        return self.bundle.shipped

    @property
    def activity(self) -> str:
        """Label for progress."""
        return f"answers of {self.identity.name} ({self.procedure.label})"

    def draw_missing(self, missing: Sequence[Missing], settings: DrawSettings) -> Iterator[Drawn]:
        """See ``SampledModel``."""
        if likely := [prompt.id for prompt, _ in missing if prompt.extract == "likelihood"]:
            raise VerifyError(
                f"The choices of `{likely[0]}` are decided by likelihood, those of {self.procedure.name} by replies.",
                hint="Score them without --procedure.",
            )
        yield from (self._answer(prompt, index, settings) for prompt, indices in missing for index in indices)

    def _answer(self, prompt: Prompt, index: int, settings: DrawSettings) -> Drawn:
        options = self.procedure.options
        checked = prompt.extract == "checks"
        if checked:
            # The vote must not know whether a reply follows the rules, since that is tested: replies are free texts.
            options = replace(options, answers="free")

        def read(text: str) -> str | None:
            return answer_of(prompt, text)

        result = solve(
            self.bundle.model,
            [{"role": message.role, "content": message.content} for message in prompt.messages],
            options=options,
            settings=settings.generation,
            numerics=settings.numerics,
            thinking=settings.thinking,
            read=None if checked else read,
            prompt_id=prompt.id,
            first_index=index * options.count,
        )
        tokens = _final_tokens(result)
        sample = _sample(prompt, index, result, tokens)
        return Drawn(sample, tokens, _finish(result), _trial(prompt, result))

    def close(self) -> None:
        """Close the bundle."""
        self.bundle.close()


def _sample(prompt: Prompt, index: int, result: TrajectoryResult, tokens: tuple[int, ...]) -> Sample:
    """The answer as a sample, with the tokens of all trajectories and passes that led to it."""
    kind: AnswerKind = "parsed"
    answer, correct, loose = result.final, None, None
    if result.decided_by == "none" or not result.answer:
        kind = "truncated" if 2 * result.vote.truncated >= len(result.trajectories) else "unparsed"
        answer = None
    elif prompt.extract == "checks":
        correct, loose = follows(prompt.checks, result.answer)
        answer = "follows" if correct else "violates"
    elif answer is None:
        kind = "unparsed"
    if prompt.answer is not None:
        correct = answer == prompt.answer
    elif prompt.checks and kind != "parsed":
        correct = loose = False
    return Sample(
        prompt_id=prompt.id,
        index=index,
        kind=kind,
        answer=answer,
        text=result.answer,
        tokens=result.stats.trajectory_tokens + result.stats.pass_tokens,
        reasoning_tokens=sum(one.reasoning_tokens for one in result.trajectories)
        + sum(g.stats.reasoning_tokens for g in (result.selection, result.deliberation) if g is not None),
        unclosed=False,
        repetition=repetition_rate(tokens),
        correct=correct,
        loose=loose,
    )


def _trial(prompt: Prompt, result: TrajectoryResult) -> Trial:
    def right(one: Trajectory | None) -> bool:
        if one is None:
            return False
        if prompt.checks:
            return one.complete and follows(prompt.checks, one.answer)[0]
        return one.vote is not None and one.vote == prompt.answer

    free = prompt.extract == "checks"
    voted = None if result.voted is None else result.trajectories[result.voted]
    return Trial(
        correct=tuple(right(one) for one in result.trajectories) if prompt.scored else None,
        vote=right(voted) if prompt.scored else None,
        answered=sum(one.complete if free else one.kind == "answered" for one in result.trajectories),
        tied=bool(result.vote.tied),
        decided_by=result.decided_by,
        trajectory_tokens=result.stats.trajectory_tokens,
        pass_tokens=result.stats.pass_tokens,
        stopped_tokens=stopped_tokens(result.trajectories),
        seconds=result.stats.total_s,
    )


def stopped_tokens(trajectories: Sequence[Trajectory]) -> int:
    """Number of tokens if the trajectories were decoded in lockstep and stopped once the majority is certain."""
    finished: dict[int, str | None] = {}
    for one in sorted(trajectories, key=lambda trajectory: len(trajectory.tokens)):
        finished[one.index] = one.vote
        if decided("exact", finished, len(trajectories), 0.0):
            return sum(min(len(other.tokens), len(one.tokens)) for other in trajectories)
    return sum(len(one.tokens) for one in trajectories)


def _final_tokens(result: TrajectoryResult) -> tuple[int, ...]:
    """Tokens of the final text; for a single trajectory its tokens even without an answer."""
    if len(result.trajectories) == 1:
        return result.trajectories[0].tokens
    if result.decided_by == "deliberation" and result.deliberation is not None:
        return result.deliberation.tokens
    return () if result.winner is None else result.trajectories[result.winner].tokens


def _finish(result: TrajectoryResult) -> Finish:
    if result.decided_by != "none":
        return "stop"
    return "context" if all(one.finish == "context" for one in result.trajectories) else "length"
