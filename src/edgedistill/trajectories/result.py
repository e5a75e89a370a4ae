"""Events of a parallel run, and the record of a finished one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgedistill import notebook
from edgedistill.json_codec import Record

if TYPE_CHECKING:
    from edgedistill.runtime.events import Generation
    from edgedistill.trajectories.vote import Kind, VoteResult

EventKind = Literal["prefill", "start", "reasoning", "answer", "marker", "finished", "vote", "stage", "note", "done"]
Stage = Literal["selection", "deliberation"]
DecidedBy = Literal["majority", "confidence", "universal", "similarity", "deliberation", "none"]
TrajectoryFinish = Literal["stop", "stop_string", "length", "context", "cancelled", "cut"]


@dataclass(frozen=True, slots=True)
class Trajectory(Record):
    """One continuation, complete or not.

    Attributes:
        index: Its number, from 0; with the seed it names its noise.
        kind: What became of it (``vote.Kind``).
        vote: Canonical answer; None unless ``kind`` is "answered".
        text: Everything, reasoning tags included. ``reasoning``, ``answer``: split, stripped of outer white space.
        tokens: Generated ids. ``reasoning_tokens``: how many of them were reasoning.
        finish: ``stop``, ``stop_string``, ``length``, ``context``, ``cancelled`` (by the user, or memory ran out) or
            ``cut`` (the vote was decided).
        confidence: By the measure asked for; None where it was not.
    """

    index: int
    kind: Kind
    vote: str | None
    text: str
    reasoning: str
    answer: str
    tokens: tuple[int, ...]
    reasoning_tokens: int
    finish: TrajectoryFinish
    confidence: float | None = None

    @property
    def complete(self) -> bool:
        """Whether it ended by itself and says something beside its reasoning."""
        return self.kind in ("answered", "unparsed") and bool(self.answer)


@dataclass(frozen=True, slots=True)
class RunStats(Record):
    """Counts, seconds and bytes of a run.

    Attributes:
        prompt_tokens: Of the question, computed once (``cached_tokens`` of them were in the cache already).
        trajectory_tokens: Generated over all trajectories. ``pass_tokens``: by the selection and the deliberation.
        saved_tokens: What the trajectories that were cut off would still have taken, estimated from the lengths of the
            others (``early_stop.saved_tokens``).
        rows: Trajectories decoded at a time.
        ttft_s: To the first token. ``prefill_s``, ``decode_s``: of the trajectories. ``pass_s``: of the later passes.
        total_s: All of it.
        kv_bytes: Largest KV cache. ``peak_rss_bytes``: of the process so far.
        seed: The one that all noise comes from.
    """

    DERIVED = ("decode_tps",)

    prompt_tokens: int
    cached_tokens: int
    trajectory_tokens: int
    pass_tokens: int
    saved_tokens: int
    rows: int
    ttft_s: float
    prefill_s: float
    decode_s: float
    pass_s: float
    total_s: float
    kv_bytes: int
    peak_rss_bytes: int
    seed: int

    @property
    def decode_tps(self) -> float:
        """Tokens per second over all trajectories."""
        return self.trajectory_tokens / self.decode_s if self.decode_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class TrajectoryResult(Record):
    """A finished run.

    Attributes:
        answer, reasoning: The text that stands: of the winning trajectory or of the deliberation; empty if none won.
        final: Its canonical answer; None for free-form replies. decided_by: What chose it: the vote, ``universal``
        (the model picked a reply), ``similarity`` (it named none, and
            the reply most like the others stands), ``deliberation``, or ``none``.
        winner: Number of the trajectory that it is; None after a deliberation.
        voted: Number of the trajectory that the vote, or the choice among free-form replies, came out for.
        vote: How the trajectories voted, whatever decided in the end.
        trajectories: All, in order of their numbers.
        selection, deliberation: The further passes; None where there was none.
        notes: Sentences for the user: fallbacks, limits.
        cancelled: Ended by the user; what there was is kept.
    """

    answer: str
    reasoning: str
    final: str | None
    decided_by: DecidedBy
    winner: int | None
    voted: int | None
    vote: VoteResult
    trajectories: tuple[Trajectory, ...]
    selection: Generation | None
    deliberation: Generation | None
    notes: tuple[str, ...]
    cancelled: bool
    stats: RunStats

    def _repr_html_(self) -> str:
        rows = [(str(one.index), one.vote or one.kind, str(len(one.tokens)), one.finish) for one in self.trajectories]
        votes = notebook.table(("trajectory", "vote", "tokens", "ended by"), rows)
        decided = notebook.text(f"{self.final or 'no single answer'}, decided by {self.decided_by}")
        return notebook.folded("reasoning", self.reasoning) + notebook.text(self.answer) + decided + votes


@dataclass(frozen=True, slots=True)
class TrajectoryEvent:
    """One thing that happened.

    - ``prefill``: ``done`` of ``total`` prompt tokens are computed.
    - ``start``: ``total`` trajectories begin.
    - ``reasoning``, ``answer``, ``marker`` (a reasoning tag): ``text`` of trajectory ``index`` and the ``tokens`` it
      took; ``index`` is None for the text of the pass named by the last ``stage``.
    - ``finished``: ``trajectory``, complete or cut off.
    - ``vote``: ``vote``, once all trajectories have ended.
    - ``stage``: a further pass begins: ``stage`` is selection or deliberation.
    - ``note``: ``text`` for the user.
    - ``done``: the last event, with ``result``.
    """

    kind: EventKind
    index: int | None = None
    text: str = ""
    tokens: int = 0
    done: int = 0
    total: int = 0
    stage: Stage | None = None
    trajectory: Trajectory | None = None
    vote: VoteResult | None = None
    result: TrajectoryResult | None = None
