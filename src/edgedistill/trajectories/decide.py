"""Decides between finished trajectories: the vote, the model's pick among free-form replies, the deliberation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgedistill.errors import OutOfMemoryError
from edgedistill.runtime.sampling import NoiseKey
from edgedistill.trajectories.deliberate import PassPrompt, Serializer, load_prompt
from edgedistill.trajectories.result import DecidedBy, Stage, TrajectoryEvent
from edgedistill.trajectories.vote import most_similar, named_reply
from edgedistill.units import format_bytes

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from edgedistill.runtime.events import Generation
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.settings import GenerationSettings, Numerics
    from edgedistill.trajectories.memory import MemoryPlan
    from edgedistill.trajectories.options import TrajectoryOptions
    from edgedistill.trajectories.result import Trajectory
    from edgedistill.trajectories.vote import VoteResult

    Messages = Sequence[Mapping[str, Any]]
    Deciding = Generator[TrajectoryEvent, None, "Verdict"]

LEAST_REPLY = 256
"""Tokens that a pass may take at least, where the settings allow them; beyond it, twice the longest trajectory."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What stands in the end; see ``TrajectoryResult``."""

    decided_by: DecidedBy = "none"
    voted: int | None = None
    winner: int | None = None
    final: str | None = None
    selection: Generation | None = None
    deliberation: Generation | None = None
    notes: tuple[str, ...] = field(default=())

    def standing(self, trajectories: Sequence[Trajectory]) -> Generation | Trajectory | None:
        """Whose text stands: the deliberation's, the winner's, nobody's."""
        if self.decided_by == "deliberation" and self.deliberation is not None:
            return self.deliberation
        return None if self.winner is None else trajectories[self.winner]


@dataclass(frozen=True, slots=True)
class Task:
    """What one run is to do.

    Attributes:
        settings: With a seed.
        read: Takes the canonical answer from a reply.
        prompt: Of the deliberation; None without one.
        free_form: Replies may be texts without an answer that can be compared.
        sample: (prompt id, first index) of the trajectories' noise; that of the passes is derived from it.
    """

    model: Model
    options: TrajectoryOptions
    settings: GenerationSettings
    numerics: Numerics
    thinking: bool | None
    cancel: threading.Event | None
    read: Callable[[str], str | None]
    prompt: PassPrompt | None
    free_form: bool
    sample: tuple[str | int, int]

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` is set."""
        return self.cancel is not None and self.cancel.is_set()


class Passes:
    """The passes of one run; ``plan`` bounds their context."""

    def __init__(self, task: Task, plan: MemoryPlan) -> None:
        self._task, self._plan = task, plan
        self._notes: list[str] = []

    def decide(self, messages: Messages | None, trajectories: Sequence[Trajectory], vote: VoteResult) -> Deciding:
        """Events of the passes that are made; the generator returns the ``Verdict``.

        Args:
            messages: The conversation; None for a raw prompt, which allows no passes.
        """
        verdict = yield from self._voted(messages, trajectories, vote)
        if self._task.prompt is not None and messages is not None and not self._task.cancelled:
            verdict = yield from self._deliberated(messages, trajectories, vote, verdict)
        return replace(verdict, notes=tuple(self._notes))

    # ---- the vote -------------------------------------------------------------------------------------------

    def _voted(self, messages: Messages | None, trajectories: Sequence[Trajectory], vote: VoteResult) -> Deciding:
        complete = [one for one in trajectories if one.complete]
        free_form = self._task.free_form and 2 * vote.voters < len(complete)
        if (self._task.options.vote != "universal" and not free_form) or not complete:
            if vote.answer is None:
                return Verdict()
            rule: DecidedBy = "confidence" if vote.rule == "confidence" else "majority"
            return _voted_for(rule, vote.winner, vote.answer)
        if len(complete) == 1:
            return _voted_for("universal", complete[0].index, self._task.read(complete[0].answer))
        # A deliberation reads all replies anyway: no pick by the model before it.
        if messages is None or self._task.cancelled or self._task.prompt is not None:
            return self._similar(complete)
        return (yield from self._picked(messages, trajectories, complete))

    def _picked(
        self, messages: Messages, trajectories: Sequence[Trajectory], complete: Sequence[Trajectory]
    ) -> Deciding:
        generation, order = yield from self._pass(
            "selection", load_prompt(None, "select.jinja"), messages, complete, reasoning=False
        )
        number = None if generation is None else named_reply(generation.answer, len(order))
        if number is None:
            if generation is not None:
                yield from self._note("The model named no reply: the one most like the others stands.")
            return replace(self._similar(complete), selection=generation)
        index = order[number - 1]
        verdict = _voted_for("universal", index, self._task.read(trajectories[index].answer))
        return replace(verdict, selection=generation)

    def _similar(self, complete: Sequence[Trajectory]) -> Verdict:
        one = complete[most_similar([trajectory.answer for trajectory in complete])]
        return _voted_for("similarity", one.index, self._task.read(one.answer))

    # ---- the deliberation -----------------------------------------------------------------------------------

    def _deliberated(
        self, messages: Messages, trajectories: Sequence[Trajectory], vote: VoteResult, verdict: Verdict
    ) -> Deciding:
        complete = [one for one in trajectories if one.complete]
        if len(complete) < 2 or self._task.prompt is None:
            count = "one trajectory is" if complete else "no trajectory is"
            yield from self._note(f"There was nothing to deliberate on ({count} complete): the vote stands.")
            return verdict
        generation, _ = yield from self._pass("deliberation", self._task.prompt, messages, complete, vote=vote)
        if generation is None:
            return verdict
        verdict = replace(verdict, deliberation=generation)
        final = self._task.read(generation.answer)
        if generation.finish_reason not in ("stop", "stop_string"):
            how = "was stopped" if generation.finish_reason == "cancelled" else "ran out of tokens"
            yield from self._note(f"The deliberation {how}: the vote stands.")
            return verdict
        if not generation.answer or not generation.reasoning_closed or (final is None and vote.answer is not None):
            yield from self._note("The deliberation came to no answer: the vote stands.")
            return verdict
        return replace(verdict, decided_by="deliberation", winner=None, final=final)

    # ---- one pass -------------------------------------------------------------------------------------------

    def _pass(
        self,
        stage: Stage,
        prompt: PassPrompt,
        messages: Messages,
        complete: Sequence[Trajectory],
        *,
        vote: VoteResult | None = None,
        reasoning: bool = True,
    ) -> Generator[TrajectoryEvent, None, tuple[Generation | None, tuple[int, ...]]]:
        """Returns the generation and the order in which trajectories were shown; (None, ()) if it has no room."""
        context = self._plan.pass_tokens
        reply = self._task.options.deliberation_tokens or max(LEAST_REPLY, 2 * max(len(one.tokens) for one in complete))
        reply = min(reply, self._task.settings.max_new_tokens, context // 2)
        serializer = Serializer(messages, self._tokens, self._task.model.tokenizer)
        seed = NoiseKey.of(
            self._task.settings.seed or 0, prompt=f"{stage} {self._task.sample[0]}", sample=self._task.sample[1]
        ).state
        shown = serializer.fit(prompt, complete, room=context - reply, seed=seed, vote=vote, reasoning=reasoning)
        stands = "the vote stands" if stage == "deliberation" else "the reply most like the others stands"
        if shown is None:
            yield from self._note(
                f"{self._context} cannot hold {len(complete)} trajectories and a {stage} of {reply}: "
                f"{stands}. Fewer trajectories or a lower --max-new-tokens may fit."
            )
            return None, ()
        if shown.pruned:
            yield from self._note(f"The trajectories were cut to fit the {stage} ({shown.tokens} tokens).")
        yield TrajectoryEvent("stage", stage=stage)
        generation: Generation | None = None
        try:
            for event in self._task.model.stream(
                shown.messages,
                settings=self._task.settings.replace(seed=seed, max_new_tokens=reply),
                numerics=self._task.numerics,
                thinking=self._task.thinking,
                cancel=self._task.cancel,
            ):
                if event.kind in ("reasoning", "answer", "marker"):
                    yield TrajectoryEvent(event.kind, None, event.text, event.tokens, stage=stage)
                elif event.kind == "prefill":
                    yield TrajectoryEvent("prefill", done=event.done, total=event.total, stage=stage)
                generation = event.generation or generation
        except (OutOfMemoryError, MemoryError):
            yield from self._note(f"The memory ran out in the {stage}: {stands}.")
            return None, ()
        return generation, shown.order

    def _tokens(self, messages: list[dict[str, Any]]) -> int:
        return len(self._task.model.encode(self._task.model.render(messages, thinking=self._task.thinking)))

    @property
    def _context(self) -> str:
        """What a pass has to fit into, in words."""
        tokens, limit = self._plan.pass_tokens, self._task.model.bundle.manifest.model.context_length
        if tokens < limit:
            left = f"{format_bytes(self._plan.budget_bytes)} {self._plan.source}"
            return f"A context of {tokens} tokens, all that {left} allow,"
        return f"The context of {tokens} tokens"

    def _note(self, text: str) -> Iterator[TrajectoryEvent]:
        self._notes.append(text)
        yield TrajectoryEvent("note", text=text)


def _voted_for(rule: DecidedBy, index: int | None, final: str | None) -> Verdict:
    return Verdict(rule, voted=index, winner=index, final=final)
