"""Data classes of a run: identity of a model, procedure of its answers, sampling settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edgedistill.errors import UsageError
from edgedistill.trajectories.options import TrajectoryOptions

if TYPE_CHECKING:
    from edgedistill.trajectories.options import VoteRule

ModelKind = Literal["bundle", "hf", "baseline", "endpoint"]


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Identity of a model: ``kind`` is bundle, hf (the original in PyTorch), baseline (samples stored earlier) or
    endpoint (a server, of which hashes and vocabulary are not known).

    ``sha256`` is of everything that an answer depends on (of a bundle: ``Bundle.identity``; of an original: its
    weights), ``tokenizer_sha256`` of tokenizer.json; ``details`` is for people (family, bits, ...).
    """

    kind: ModelKind
    name: str
    sha256: str
    tokenizer_sha256: str
    vocab_size: int
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How replies were drawn.

    Attributes:
        preset: fast, default, thorough or custom.
        samples: Per prompt and model. ``seed``: of the random numbers.
        numerics: Kernels of the runtime.
        coupled: Whether both models were sampled with the same random numbers.
        estimand: What the gate's verdict is about: these prompts (suite) or prompts like these (population).
        level: Coverage of the intervals. ``margins``: limits by name; empty in an audit.
    """

    preset: str
    samples: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    max_new_tokens: int
    seed: int
    numerics: Literal["fast", "exact"] = "fast"
    coupled: bool = True
    sequential: bool = False
    level: float = 0.95
    margins: dict[str, float] = field(default_factory=dict)
    estimand: Literal["suite", "population"] = "suite"

    @property
    def deterministic(self) -> bool:
        """Whether decoding is greedy, so that consistency has no meaning."""
        return self.temperature == 0.0 or self.top_k == 1


@dataclass(frozen=True, slots=True)
class Shipped:
    """What a model ships beside its weights that changes replies.

    Attributes:
        template: Source of the chat template; None without one.
        end_tokens: Texts of the tokens that end a reply.
        turn_ends: Texts of the special tokens with which the template ends turns.
        generation: The model's own sampling settings, by their names in ``DrawSettings``.
    """

    template: str | None
    end_tokens: tuple[str, ...]
    turn_ends: tuple[str, ...] = ()
    generation: dict[str, float] = field(default_factory=dict)

    def missing_ends(self, other: Shipped | None = None) -> tuple[str, ...]:
        """Tokens that end turns in this model's template, or replies of ``other``, but not this model's replies."""
        wanted = (*self.turn_ends, *(() if other is None else other.end_tokens))
        return tuple(dict.fromkeys(token for token in wanted if token not in self.end_tokens))


@dataclass(frozen=True, slots=True)
class ShippedDifference:
    """One difference: ``what`` is end tokens, chat template or the name of a setting; ``sentence`` describes it."""

    what: str
    reference: str
    bundle: str
    sentence: str


ProcedureName = Literal["single", "vote", "deliberate"]


@dataclass(frozen=True, slots=True)
class Procedure:
    """How an answer is made.

    Attributes:
        name: ``single``: by one trajectory; ``vote``: by a vote of K; ``deliberate``: by a pass that reads K of them.
        trajectories: K; has no effect for ``single``.
        vote: Rule of the vote.
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
        """The options of the trajectories; without early stop, since M@K and P@K need all trajectories."""
        if self.name == "single":
            return TrajectoryOptions(count=1, early_stop="off")
        deliberate = self.name == "deliberate"
        return TrajectoryOptions(count=self.trajectories, vote=self.vote, deliberate=deliberate, early_stop="off")

    @property
    def label(self) -> str:
        """Name that distinguishes the stored answers of procedures."""
        return "single" if self.name == "single" else f"{self.name}-{self.trajectories}-{self.vote}"
