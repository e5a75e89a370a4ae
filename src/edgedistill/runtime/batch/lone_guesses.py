"""Guesses of the tokens of a sequence that runs alone in a live batch; beside others a step computes several anyhow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.runtime.batch.live_sequence import LiveSequence
    from edgedistill.runtime.speculate.speculation import Speculation


class LoneGuesses:
    """Guesses for one sequence at a time; for another one they start anew."""

    def __init__(self) -> None:
        self._one: LiveSequence | None = None
        self._speculation: Speculation | None = None
        self._known = 0

    def of(self, one: LiveSequence, room: int) -> list[int]:
        """Up to ``room`` tokens that may follow the next one; often none."""
        if one is not self._one:
            self._one, self._known = one, 0
            self._speculation = None if one.guessing is None else one.guessing()
            if self._speculation is not None:
                self._speculation.extend(one.prompt)
        if self._speculation is None:
            return []
        self._speculation.extend(one.transcript.tokens[self._known :])  # what came while others ran beside it, too
        self._known = len(one.transcript.tokens)
        return self._speculation.guesses(room)

    def done(self, one: LiveSequence, guesses: int, drawn: Sequence[int]) -> None:
        """The step of ``one`` with so many ``guesses`` is over: ``drawn`` came of it."""
        if self._speculation is not None and one is self._one:
            self._speculation.done(guesses, drawn)
            self._known += len(drawn)
