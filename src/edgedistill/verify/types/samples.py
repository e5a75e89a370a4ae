"""Data classes of a drawn reply: the sample for the statistics, its tokens, and the trajectories behind an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgedistill.errors import VerifyError
from edgedistill.json_codec import encode
from edgedistill.runtime.batch.request import Finish, SampleKey  # noqa: TC001 # read at run time
from edgedistill.schema import Form, limits
from edgedistill.verify.types.prompts import AnswerKind  # noqa: TC001 # read at run time


@dataclass(frozen=True, slots=True)
class Sample:
    """One generated reply, reduced to what statistics need.

    Attributes:
        prompt_id, index: The prompt, and the number of this sample, from 0. Coupled samples of two models with equal
            prompt and index were drawn with the same random numbers.
        kind: "truncated" if the reply ran into the token limit (whatever its text), "unparsed" if no answer could be
            read, else "parsed".
        answer: Canonical answer; None unless parsed.
        text: The reply without its reasoning.
        tokens: Generated tokens, reasoning included.
        reasoning_tokens: Of those, the ones inside the reasoning.
        unclosed: The reasoning was opened and never closed.
        repetition: Share of repeated 8-grams among the tokens (``lengths.repetition_rate``).
        correct: Whether the answer is the gold answer (or all checks hold); None without gold. Garbage is not correct.
        loose: For checks: whether all hold after loosening (see ``checks.follows``).
    """

    prompt_id: str
    index: int
    kind: AnswerKind
    answer: str | None
    text: str
    tokens: int
    reasoning_tokens: int
    unclosed: bool
    repetition: float
    correct: bool | None
    loose: bool | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """The trajectories behind one answer of a procedure.

    Attributes:
        correct: Whether each trajectory is right, in order; None without gold answers.
        vote: Whether the vote is right; None without gold answers. In the procedure ``vote`` this is the answer's own.
        answered: Number of trajectories that had a vote or, if replies are free texts, that were complete.
        tied: Whether several answers shared the first place of the vote.
        decided_by: As in ``TrajectoryResult``.
        trajectory_tokens: Tokens of all trajectories. ``pass_tokens``: of the passes after them.
        stopped_tokens: Tokens of the trajectories if they had been stopped once the majority was certain.
        seconds: From the question to the answer.
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


@dataclass(frozen=True, slots=True)
class Drawn:
    """One reply: its sample, its token ids (with the end-of-sequence token), and why it ended.

    ``trial`` is set for answers of a procedure (``ProcedureModel``): the trajectories behind the reply.
    """

    sample: Sample
    token_ids: tuple[int, ...]
    finish: Finish
    trial: Trial | None = None

    @property
    def key(self) -> SampleKey:
        """(prompt id, index)."""
        return self.sample.prompt_id, self.sample.index

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        value = {"sample": encode(self.sample), "tokens": list(self.token_ids), "finish": self.finish}
        return value if self.trial is None else {**value, "trial": encode(self.trial)}

    @classmethod
    def from_dict(cls, value: Any, source: str = "sample") -> Drawn:
        """Read the result of ``to_dict``; raises VerifyError for anything else."""
        record = _FORM.decode(_Record, value, source)
        return cls(record.sample, record.tokens, record.finish, record.trial)


@dataclass(frozen=True, slots=True)
class _Record:
    """The form of ``Drawn`` in a file."""

    sample: Sample
    tokens: tuple[int, ...] = field(metadata=limits(low=0, high=1 << 32))
    finish: Finish
    trial: Trial | None = None

    def __post_init__(self) -> None:
        if (self.sample.kind == "parsed") != (self.sample.answer is not None):
            raise ValueError(f"its kind is {self.sample.kind!r}, its answer {self.sample.answer!r}")


_FORM = Form(VerifyError, surrogates=True)
