"""The interface of a model that the screens use, and its data classes. Tests use a scripted engine instead of a
model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypedDict, cast

from edgedistill.errors import GenerationError, UsageError
from edgedistill.runtime.settings import GenerationSettings, Numerics, check_numerics
from edgedistill.runtime.text.thinking import Effort  # noqa: TC001 (the form reads the types of settings)
from edgedistill.schema import Form, limits

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

    from edgedistill.runtime.tools.types import Tool, ToolCall, ToolChoiceArgument
    from edgedistill.trajectories import TrajectoryEvent, TrajectoryOptions, TrajectoryResult

ChunkKind = Literal["prefill", "reasoning", "answer", "marker"]
_OWN = ("thinking", "think_budget", "reasoning_effort", "trajectories", "parallel")
_FORM = Form(GenerationError, hint="Set them again in the sampling dialog.")


class _Stored(TypedDict, total=False):
    """Settings of a session as the database has them."""

    thinking: bool | None
    think_budget: Annotated[int, limits(low=0, high=1 << 30)]
    reasoning_effort: Effort | None
    mode: str
    numerics: str
    trajectories: Annotated[int, limits(low=1, high=1 << 10)]
    parallel: dict[str, Any]
    stop: list[str]
    speculate: str | int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a reply.

    ``reasoning``, ``answer`` and ``marker`` (a reasoning tag) carry text and the tokens it took; their texts joined are
    what the model wrote. ``prefill`` says that ``tokens`` of ``total`` prompt tokens are computed.
    """

    kind: ChunkKind
    text: str = ""
    tokens: int = 1
    total: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished reply.

    ``stats`` is the runtime's GenerationStats as a dict, ``tokens`` the generated ids, ``calls`` those of tools.
    """

    reasoning: str
    answer: str
    finish_reason: str
    stats: dict[str, Any] = field(default_factory=dict)
    tokens: tuple[int, ...] = ()
    note: str = ""
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a session is answered.

    Attributes:
        generation: Temperature and the like.
        thinking: Ask the template for reasoning or none; None leaves it to the template.
        think_budget: Reasoning tokens after which the reasoning is closed and the answer asked for; 0: no limit.
        reasoning_effort: How much reasoning to ask for, by the template's switch or as a budget; None: nothing said.
        numerics: Numerical path of the runtime.
        trajectories: How many of them are decoded together for a reply; 1: a plain reply.
        parallel: The other options of ``TrajectoryOptions``, such as ``vote`` and ``deliberate``.
    """

    generation: GenerationSettings = field(default_factory=GenerationSettings)
    thinking: bool | None = None
    think_budget: int = 0
    reasoning_effort: Effort | None = None
    numerics: Numerics = "fast"
    trajectories: int = 1
    parallel: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        own: dict[str, Any] = {"thinking": self.thinking, "think_budget": self.think_budget, "numerics": self.numerics}
        own["reasoning_effort"] = self.reasoning_effort
        own |= {"trajectories": self.trajectories, "parallel": dict(self.parallel)}
        return self.generation.to_dict() | own

    def trajectory_options(self) -> TrajectoryOptions | None:
        """What a parallel run is asked for; None for a plain reply. Raises UsageError for what makes no sense."""
        if self.trajectories == 1 and not self.parallel.get("deliberate"):
            return None
        from pathlib import Path

        from edgedistill.trajectories import TrajectoryOptions

        form = Form(UsageError, strict=True, names={"Path": Path}, readers={Path: Path})
        values = {name: str(value) if isinstance(value, Path) else value for name, value in self.parallel.items()}
        return form.decode(TrajectoryOptions, values | {"count": self.trajectories}, "the session's settings")

    def merged(self, values: dict[str, Any]) -> Sampling:
        """This with the settings of a stored session on top; raises GenerationError for values out of range."""
        values = _FORM.decode(cast("type[dict[str, Any]]", _Stored), values, "the session's settings")
        own = {k: v for k, v in values.items() if k in _OWN}
        names = GenerationSettings().to_dict()
        generation = {k: tuple(v) if k == "stop" else v for k, v in values.items() if k in names}
        made = replace(
            self,
            generation=self.generation.replace(**generation),
            # Sessions of earlier versions say ``mode``.
            numerics=check_numerics(str(values.get("numerics", values.get("mode", self.numerics)))),
            **own,
        )
        made.trajectory_options()
        return made


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be answered.

    Attributes:
        messages: As chat templates take them.
        sampling: How.
        continuing: The beginning of the reply to go on from.
        tools, tool_choice: What may be called, and whether it has to be.
    """

    messages: Sequence[dict[str, Any]]
    sampling: Sampling
    continuing: str = ""
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoiceArgument | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about a loaded bundle without running it. Sizes in bytes; 0 where unknown.

    ``predicted`` is the manifest's: ``ram_bytes``, ``kv_bytes`` and, where the exporter predicted them, ``decode_tps``
    and ``prefill_tps``.
    """

    bundle: str
    path: str = ""
    hash: str = ""
    model: str = ""
    profile: str = ""
    context_length: int = 0
    kv_bytes_per_token: int = 0
    kv_budget: int = 0
    ram_budget: int = 0
    predicted: dict[str, Any] = field(default_factory=dict)

    def about(self) -> dict[str, Any]:
        """What a stored reply says about its author."""
        return {
            "bundle": self.bundle, "hash": self.hash, "model": self.model, "profile": self.profile, "path": self.path,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """One of many samples: the canonical ``answer``, None where there is none; ``kind`` says why."""

    kind: Literal["parsed", "unparsed", "truncated"]
    answer: str | None
    text: str
    tokens: int


class Engine(Protocol):
    """A loaded model that answers conversations. One call at a time, except ``close`` after it."""

    @property
    def facts(self) -> Facts:
        """What it is."""
        ...

    @property
    def defaults(self) -> Sampling:
        """How it answers unless told otherwise."""
        ...

    def reply(self, request: Request, *, cancel: threading.Event, on_chunk: Callable[[Chunk], None]) -> Reply:
        """Answer; ``on_chunk`` is called in this thread. Setting ``cancel`` ends it early with what there is.

        Raises:
            EdgedistillError: What a user can cause, such as a prompt longer than the context.
        """
        ...

    def trajectories(
        self, request: Request, *, cancel: threading.Event, on_event: Callable[[TrajectoryEvent], None]
    ) -> TrajectoryResult:
        """Answer by ``request.sampling.trajectory_options()``; ``on_event`` is called in this thread.

        Raises:
            EdgedistillError: As ``reply``, and settings that leave no choice between trajectories.
        """
        ...

    def count(self, text: str) -> int:
        """How many tokens ``text`` takes."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of generated ids, tags included."""
        ...

    def samples(
        self, messages: Sequence[dict[str, Any]], count: int, sampling: Sampling, *, cancel: threading.Event
    ) -> Iterator[Answer]:
        """Independent samples of the reply to ``messages`` as they end; ends early when ``cancel`` is set."""
        ...

    def secure(self) -> bool | None:
        """Called when the system says that another program waits to change a file.

        None: not one of this model's. True: what is loaded has become independent of it. False: the memory does not
        suffice for that, and the other program waits until ``close``.
        """
        ...

    def memory(self) -> int:
        """Resident bytes of the process that runs the model."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...
