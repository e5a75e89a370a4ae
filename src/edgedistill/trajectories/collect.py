"""Trajectories as they grow: chosen tokens in; events, and in the end trajectories, out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.trajectories.result import Trajectory, TrajectoryEvent, TrajectoryFinish
from edgedistill.trajectories.vote import trajectory_confidence

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from edgedistill.runtime.events import Event
    from edgedistill.runtime.text.transcript import Transcript
    from edgedistill.trajectories.decode import Chosen
    from edgedistill.trajectories.options import TrajectoryOptions
    from edgedistill.trajectories.vote import Kind


class Growing:
    """The trajectories of one run.

    Args:
        transcripts: One for each, empty.
        options: How their confidence is measured, if it is.
        read: Takes the canonical answer from a reply without its reasoning.
    """

    def __init__(
        self, transcripts: Sequence[Transcript], options: TrajectoryOptions, read: Callable[[str], str | None]
    ) -> None:
        self._transcripts = transcripts
        self._confidences: list[list[float]] = [[] for _ in transcripts]
        self._options = options
        self._read = read
        self._ended: dict[int, Trajectory] = {}

    @property
    def votes(self) -> dict[int, str | None]:
        """Of those that have ended: number and vote, None for none."""
        return {index: trajectory.vote for index, trajectory in self._ended.items()}

    @property
    def ended(self) -> tuple[Trajectory, ...]:
        """Those that have ended, in order of their numbers."""
        return tuple(self._ended[index] for index in sorted(self._ended))

    def add(self, one: Chosen) -> Generator[TrajectoryEvent, None, bool]:
        """Take a token; the generator returns whether a stop string has ended the trajectory with it."""
        transcript = self._transcripts[one.index]
        self._confidences[one.index].append(one.confidence)
        yield from _texts(one.index, transcript.add(one.token))
        finish: TrajectoryFinish | None = one.finish
        stopped = transcript.stopped and finish != "stop"
        if stopped:
            finish = "stop_string"
        if finish is not None:
            yield from self._end(one.index, finish)
        return stopped

    def end_open(self, finish: TrajectoryFinish) -> Iterator[TrajectoryEvent]:
        """End all that have not ended."""
        for index in range(len(self._transcripts)):
            if index not in self._ended:
                yield from self._end(index, finish)

    def _end(self, index: int, finish: TrajectoryFinish) -> Iterator[TrajectoryEvent]:
        transcript = self._transcripts[index]
        yield from _texts(index, transcript.finish())
        answer = transcript.text("answer").strip()
        vote = None
        kind: Kind = "unparsed"
        if finish in ("length", "context"):
            kind = "truncated"
        elif finish == "cancelled":
            kind = "cancelled"
        elif finish == "cut":
            kind = "cut"
        elif transcript.closed:
            vote = self._read(answer)
            kind = "unparsed" if vote is None else "answered"
        sure = None
        if self._options.vote == "confidence":
            sure = trajectory_confidence(self._confidences[index], self._options.measure, self._options.window)
        trajectory = Trajectory(
            index=index,
            kind=kind,
            vote=vote,
            text=transcript.text(),
            reasoning=transcript.text("reasoning").strip(),
            answer=answer,
            tokens=tuple(transcript.tokens),
            reasoning_tokens=transcript.reasoning_tokens,
            finish=finish,
            confidence=sure if transcript.tokens else None,
        )
        self._ended[index] = trajectory
        yield TrajectoryEvent("finished", index, trajectory=trajectory)


def _texts(index: int, events: Sequence[Event]) -> Iterator[TrajectoryEvent]:
    for event in events:
        if event.kind in ("reasoning", "answer", "marker"):
            yield TrajectoryEvent(event.kind, index, event.text, event.tokens)
