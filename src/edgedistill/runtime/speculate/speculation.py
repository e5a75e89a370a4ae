"""The guesses of one continuation: where they come from, how many pay, and what became of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from edgedistill.runtime.speculate.control import MOST_DRAFTED, DraftControl, StepCosts, Watch
from edgedistill.runtime.speculate.draft_model import PRIOR, DraftModel, Interruptible
from edgedistill.runtime.speculate.lookup import PromptLookup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgedistill.runtime.settings import GenerationSettings, Numerics

__all__ = ["DraftControl", "Drafter", "Speculation", "StepCosts", "speculation"]


class Drafter(Protocol):
    """Guesses how a sequence goes on."""

    @property
    def seconds_per_guess(self) -> float:
        """What a guess costs; 0: next to nothing, so that one is made in every step to learn from."""
        ...

    @property
    def decoder(self) -> Interruptible | None:
        """Whose runs ``extend`` may take long for: those of a second model; None: there is none."""
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

    def __init__(
        self,
        drafter: Drafter,
        control: DraftControl,
        watch: Watch | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``watch``: one that outlives the continuation; None: of its own."""
        self._drafter = drafter
        self._control = control
        self._watch = Watch() if watch is None else watch
        self._clock = clock
        self._begun = 0.0
        self._overhead = 0.0
        self._confidence = 0
        self._expected = -1
        self._missed: list[int] = []

    @property
    def decoder(self) -> Interruptible | None:
        """Of the drafter, which computes the prompt in ``extend``; None: it computes nothing."""
        return self._drafter.decoder

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
        if self._watch.asleep or self._missed:
            self._missed += tokens
        else:
            self._drafter.extend(tokens)

    def guesses(self, room: int) -> list[int]:
        """The tokens to compute after the one that is certain, at most ``room``; often none. Starts the clock."""
        if self._watch.asleep:
            return []
        begun = self._clock()
        if self._missed:
            self._drafter.extend(self._missed)
            self._missed = []
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
        self._overhead += self._begun - begun
        return proposal

    def done(self, guesses: int, drawn: Sequence[int]) -> None:
        """The run is over: the sampler drew ``drawn``, of which all but the last were guessed."""
        watch, control = self._watch, self._control
        if watch.asleep:
            watch.asleep -= 1
            self._missed += drawn
            return
        ended = self._clock()
        right = len(drawn) - 1
        if guesses == 0:
            right = int(self._confidence > 0 and drawn[0] == self._expected)
        before = control.saved
        control.record(self._confidence, guesses, right, ended - self._begun, self._overhead)
        watch.after(control.step_seconds, control.saved - before)
        self._drafter.extend(drawn)
        self._overhead = self._clock() - ended  # what was done here belongs to the next step


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
    return Speculation(PromptLookup(), DraftControl(known, most=most), known.watch)
