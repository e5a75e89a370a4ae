"""Options of a parallel run, checked before anything is decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from edgedistill.answers.extract import AnswerRule
from edgedistill.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

VoteRule = Literal["majority", "confidence", "universal"]
StopRule = Literal["exact", "sequential", "off"]
Measure = Literal["tail", "lowest", "mean"]
AnswerForm = Literal[AnswerRule, "free"]
"""Where the answer of a reply is looked for (``answers.extract``); ``free``: the reply itself is the answer."""

MOST_TRAJECTORIES = 64
DEFAULT_TEMPERATURE = 0.7
"""Where the bundle decodes greedily by itself: equal trajectories would be no vote."""


@dataclass(frozen=True, slots=True)
class TrajectoryOptions:
    """How many trajectories, how they are voted on, when the rest is cut off, and whether one more pass reads them.

    Attributes:
        count: Trajectories, 1 to 64.
        vote: ``majority``; ``confidence``: votes weighted by how sure the model was of its tokens (see ``confidence``);
            ``universal``: the model is shown the replies and picks the most consistent one. Free-form replies, in which
            no answer can be found, are always picked in that last way.
        deliberate: One further generation reads the trajectories, compares them and answers.
        early_stop: ``exact``: the rest is cut off once it cannot change the majority; ``sequential``: once it is
            unlikely to, at ``error_rate``; ``off``. None: exact for a plain majority, off for everything else.
        error_rate: Of ``sequential``: how often the verdict may differ from that of all trajectories. answers: Where
        the answer of a reply is looked for. measure, window: Confidence of a trajectory: over its last ``window``
        tokens, its least confident ``window`` in a
            row, or all of it.
        keep: Share of the voters, most confident first, that a confidence vote counts.
        prompt: File that replaces the deliberation prompt (``templates/deliberate.jinja``).
        deliberation_tokens: Most tokens of the deliberation; None: as many as of a trajectory.

    Raises:
        UsageError: A value out of range, or two that exclude each other.
    """

    count: int = 8
    vote: VoteRule = "majority"
    deliberate: bool = False
    early_stop: StopRule | None = None
    error_rate: float = 0.05
    answers: AnswerForm = "auto"
    measure: Measure = "tail"
    window: int = 32
    keep: float = 0.9
    prompt: Path | None = None
    deliberation_tokens: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or not 1 <= self.count <= MOST_TRAJECTORIES:
            raise UsageError(
                f"The number of trajectories is {self.count}; expected 1 to {MOST_TRAJECTORIES}.", hint="8 is usual."
            )
        _one_of("The vote", self.vote, VoteRule)
        _one_of("The rule for answers", self.answers, (*get_args(AnswerRule), "free"))
        _one_of("The measure of confidence", self.measure, Measure)
        if self.early_stop is not None:
            _one_of("The early stop", self.early_stop, StopRule)
        _share("The error rate", self.error_rate, below=0.5)
        _share("The share of trajectories to keep", self.keep, below=1.0, closed=True)
        for name, value in (
            ("The window of tokens", self.window),
            ("The deliberation's length", self.deliberation_tokens),
        ):
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; expected at least 1.")
        if self.early_stop not in (None, "off") and self.vote != "majority":
            raise UsageError(
                f"Early stop {self.early_stop!r} needs the counts of a majority vote; the vote is {self.vote!r}.",
                hint="Drop one of the two.",
            )
        if self.prompt is not None and not self.deliberate:
            raise UsageError(
                "A deliberation prompt was given without deliberation.", hint="Add --procedure deliberate."
            )

    @property
    def stop_rule(self) -> StopRule:
        """The rule in effect."""
        if self.early_stop is not None:
            return self.early_stop
        return "exact" if self.vote == "majority" and not self.deliberate and self.answers != "free" else "off"


def _one_of(name: str, value: object, known: object) -> None:
    names = known if isinstance(known, tuple) else get_args(known)
    if value not in names:
        raise UsageError(f"{name} is {value!r}; expected one of {', '.join(names)}.")


def _share(name: str, value: float, *, below: float, closed: bool = False) -> None:
    if not (math.isfinite(value) and value > 0 and (value <= below if closed else value < below)):
        raise UsageError(
            f"{name} is {value:g}; expected more than 0 and {'at most' if closed else 'less than'} {below:g}."
        )
