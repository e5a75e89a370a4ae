"""How long work reports progress without knowing who draws it."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

Unit = Literal["bytes", "items", "tokens"]


class Progress(Protocol):
    """Receiver of progress: stages follow one another, each with a total in its unit."""

    def begin(self, stage: str, total: int, unit: Unit) -> None:
        """A stage starts; ``total`` of 0 means unknown."""
        ...

    def advance(self, amount: int) -> None:
        """``amount`` more units of the present stage are done."""
        ...

    def end(self) -> None:
        """The present stage is finished."""
        ...


@runtime_checkable
class TakesNotes(Protocol):
    """A receiver that also shows sentences between stages."""

    def note(self, sentence: str) -> None:
        """A sentence for whoever waits."""
        ...


def say(progress: Progress, sentence: str) -> None:
    """Show a sentence where the receiver takes any."""
    if isinstance(progress, TakesNotes):
        progress.note(sentence)


class NullProgress:
    """Swallows progress: the default of the Python API."""

    def begin(self, stage: str, total: int, unit: Unit) -> None:
        """Ignore."""

    def advance(self, amount: int) -> None:
        """Ignore."""

    def end(self) -> None:
        """Ignore."""
