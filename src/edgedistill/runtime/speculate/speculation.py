"""The guesses of one continuation: where they come from, how many pay, and what became of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from edgedistill.runtime.speculate.control import MOST_DRAFTED, DraftControl, StepCosts
from edgedistill.runtime.speculate.draft_model import PRIOR, DraftModel
from edgedistill.runtime.speculate.lookup import PromptLookup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgedistill.runtime.settings import GenerationSettings, Numerics

__all__ = ["DraftControl", "Drafter", "Speculation", "StepCosts", "speculation"]


SHORT_STEP = 0.002
"""Seconds; in a longer step a lookup of some ten microseconds is lost."""
AWAKE, ASLEEP = 16, 32


class Drafter(Protocol):
    """Guesses how a sequence goes on."""

    @property
    def seconds_per_guess(self) -> float:
        """What a guess costs; 0: next to nothing, so that one is made in every step to learn from."""
        ...

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens of the sequence."""
        ...

    def confidence(self) -> int:
        """How sure the next guess is, up to ``lookup.TOP_CONFIDENCE``; 0: there is none."""
        ...

    def propose(self, count: int) -> list[int]:
        """Guess the next ``count`` tokens or fewer, but one; called after ``confidence``, and not where that is 0."""
        ...


class Speculation:
    """Guesses for one continuation, used in turn: ``extend``, ``guesses``, run, ``done``."""

    def __init__(self, drafter: Drafter, control: DraftControl, clock: Callable[[], float] = time.perf_counter) -> None:
        self._drafter = drafter
        self._control = control
        self._clock = clock
        self._begun = 0.0
        self._overhead = 0.0
        self._confidence = 0
        self._expected = -1
        self._asleep = 0
        self._missed: list[int] = []
        self._watch = _Watch(control)

    @property
    def drafted(self) -> int:
        """Tokens that were guessed and computed."""
        return self._control.drafted

    @property
    def accepted(self) -> int:
        """Those of them that the sampler drew."""
        return self._control.accepted

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens of the sequence: the prompt, then what was drawn."""
        if self._missed:
            self._missed += tokens
        else:
            self._drafter.extend(tokens)

    def guesses(self, room: int) -> list[int]:
        """The tokens to compute after the one that is certain, at most ``room``; often none. Starts the clock."""
        if self._asleep:
            return []
        if self._missed:
            self._drafter.extend(self._missed)
            self._missed = []
        begun = self._clock()
        proposal: list[int] = []
        self._confidence = self._drafter.confidence()
        if self._confidence:
            price = self._drafter.seconds_per_guess
            count = self._control.guesses(self._confidence, room, price)
            if count or not price:
                proposal = self._drafter.propose(max(1, count))
                self._expected = proposal[0]
                del proposal[count:]
            else:
                self._confidence = 0  # nothing was guessed that could be compared with what is drawn
        self._begun = self._clock()
        self._overhead = self._begun - begun
        return proposal

    def done(self, guesses: int, drawn: Sequence[int]) -> None:
        """The run is over: the sampler drew ``drawn``, of which all but the last were guessed."""
        if self._asleep:
            self._asleep -= 1
            self._missed += drawn
            return
        seconds = self._clock() - self._begun
        right = len(drawn) - 1
        if guesses == 0:
            right = int(self._confidence > 0 and drawn[0] == self._expected)
        self._control.record(self._confidence, guesses, right, seconds, self._overhead)
        self._drafter.extend(drawn)
        self._asleep = self._watch.sleep()


class _Watch:
    """Says when to stop looking for guesses for a while: where steps are so short that looking costs a few per cent.

    After ``AWAKE`` steps that gained nothing it is for ``ASLEEP`` steps, then for twice as many, up to eight times.
    """

    def __init__(self, control: DraftControl) -> None:
        self._control = control
        self._left = AWAKE
        self._before = control.saved
        self._pause = ASLEEP

    def sleep(self) -> int:
        """After every step: for how many not to look; mostly 0."""
        self._left -= 1
        if self._left:
            return 0
        self._left = AWAKE
        step = self._control.step_seconds
        gained, self._before = self._control.saved - self._before, self._control.saved
        if step >= SHORT_STEP or gained > 0.02 * AWAKE * step:
            self._pause = ASLEEP
            return 0
        pause = self._pause
        self._pause = min(2 * pause, 8 * ASLEEP)
        return pause


def speculation(
    settings: GenerationSettings,
    numerics: Numerics,
    costs: dict[Numerics, StepCosts],
    draft: DraftModel | None = None,
) -> Speculation | None:
    """The guesses that ``settings.speculate`` asks for, of ``draft`` or from the text; ``costs`` of earlier
    continuations are used and kept.
    """
    wanted = settings.speculate
    if wanted == "off" or (wanted == "identical" and numerics != "exact"):
        return None
    most = wanted if isinstance(wanted, int) else MOST_DRAFTED
    known = costs.setdefault(numerics, StepCosts(2 if numerics == "exact" else 1))
    if draft is not None:
        return Speculation(draft, DraftControl(known, most=most, prior=PRIOR))
    return Speculation(PromptLookup(), DraftControl(known, most=most))
