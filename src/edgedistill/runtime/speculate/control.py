"""How many tokens to guess, so that guessing gains time and never loses more than a fiftieth of it.

A run of w tokens (one that is certain, w - 1 guesses) takes longer than a step and yields 1 + a_1 + a_1 a_2 + ...
tokens, where a_i is the share of guesses like the i-th that were right so far. Shares are kept by the guess's
confidence; they are learnt from every step, guessed or not, since the first guess can be compared with what was drawn
in any case. Seconds of runs are measured as they happen. The width with the most tokens per second is taken.

Both are estimates. What bounds the loss is an account: seconds that guesses saved or lost are added up, and a run whose
likely loss the account does not cover is not made. Where steps are so short that looking for guesses itself takes a
few per cent, ``Watch`` ends the search for a while, over the end of a continuation too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgedistill.runtime.speculate.lookup import TOP_CONFIDENCE

WIDTHS = (2, 4, 8, 16)
"""Tokens of a run: few, since every width has arrays of its own; even, as exact runs have to be."""
MOST_DRAFTED = WIDTHS[-1] - 1
LOSS = 0.02
_ALLOWANCE = 1.5  # steps that may be lost before anything is known
_MARGIN = 1.03  # a gain smaller than this is within the noise of the estimates
_FURTHER_TOKEN = 0.3  # of a step, for a further token in a run, before one was measured
_FORGET = 0.97  # weight that a share keeps with every new observation: it looks back some thirty
_PATIENCE = 32  # steps without a guess that has a price, before one is tried again; up to eight times as many
_PRIOR = 3.0  # observations that the share before any is worth
SHORT_STEP = 0.002
"""Seconds; in a longer step a lookup of some ten microseconds is lost."""
AWAKE, ASLEEP = 16, 32
_COUNTED = 3  # steps gained or lost in sixteen, at most
_REMEMBER = 0.85  # of the gains before the last sixteen steps: a hundred steps back, and few replies in one


@dataclass(slots=True)
class Watch:
    """Ends the search for guesses for a while where steps are short and it gains nothing.

    Every ``AWAKE`` steps it looks at what was gained of late. Where that is nothing, no guess is looked for in
    ``ASLEEP`` steps, then in twice as many, up to eight times: sixteen steps in 272 may cost what they like.

    Attributes:
        asleep: Steps that are left of the pause.
    """

    asleep: int = 0
    _left: int = AWAKE
    _gained: float = 0.0
    _of_late: float = 0.0
    _pause: int = ASLEEP

    def after(self, step: float, gained: float) -> None:
        """A step was taken while awake; one without guesses takes ``step`` seconds, this one gained ``gained``."""
        self._left -= 1
        self._gained += gained
        if self._left:
            return
        # Bounded: a text that repeats itself gains a multiple of its steps, which shall not be spent where the next one
        # does not, and a process that was held up for long says nothing of guesses.
        most = _COUNTED * step
        self._of_late = _REMEMBER * self._of_late + max(-most, min(self._gained, most))
        if step >= SHORT_STEP or self._of_late > 0:
            self._pause = ASLEEP
        else:
            self.asleep = self._pause
            self._pause = min(2 * self._pause, 8 * ASLEEP)
        self._left, self._gained = AWAKE, 0.0


@dataclass(slots=True)
class StepCosts:
    """Seconds of runs by their width: a moving mean that no single outlier moves far.

    ``base``: width of a step without guesses (1, or 2 under exact numerics); ``watch``: of guesses from the text.
    """

    base: int
    watch: Watch = field(default_factory=Watch)
    _seconds: dict[int, float] = field(default_factory=dict)
    _runs: dict[int, int] = field(default_factory=dict)

    def record(self, width: int, seconds: float) -> None:
        """A run of ``width`` tokens took ``seconds``."""
        runs = self._runs[width] = self._runs.get(width, 0) + 1
        known = self._seconds.get(width)
        if known is None:
            self._seconds[width] = seconds
        elif runs == 2:
            self._seconds[width] = min(known, seconds)  # the first one also made the arrays of its shape
        else:
            self._seconds[width] = known + 0.2 * (min(seconds, 2 * known) - known)

    @property
    def known(self) -> bool:
        """Whether a step was measured often enough to compare with it."""
        return self._runs.get(self.base, 0) >= 2

    def of(self, width: int) -> float:
        """Seconds of a run; of one that was not measured yet, on the line through a step and the widest one below."""
        measured = self._seconds.get(width)
        if measured is not None:
            return measured
        step = self._seconds.get(self.base, 0.0)
        below = max((w for w in self._seconds if w < width), default=self.base)
        if below == self.base:
            return step * (1 + _FURTHER_TOKEN * (width - self.base))
        slope = max(0.0, self._seconds[below] - step) / (below - self.base)
        return self._seconds[below] + slope * (width - below)


class DraftControl:
    """Decides the width of every run of one continuation.

    Attributes:
        drafted, accepted: Guesses that were computed, and of those the ones that were right.
    """

    def __init__(self, costs: StepCosts, *, most: int = MOST_DRAFTED, prior: float | None = None) -> None:
        """``costs`` outlive a continuation; ``most`` guesses are made in a run; ``prior``: share of right guesses
        before any was seen, of whatever confidence.
        """
        self._costs = costs
        self._widths = [width for width in WIDTHS if width <= most + 1]
        # Before anything is seen: a guess after n tokens that stood together before is right in n / (n + 1.5).
        shares = [n / (n + 1.5) if prior is None else prior for n in range(TOP_CONFIDENCE + 1)]
        self._right = [_PRIOR * share for share in shares]
        self._seen = [_PRIOR] * len(shares)
        self._waited, self._patience = 0, _PATIENCE
        self._saved = 0.0
        self._spent = 0.0
        self.drafted = 0
        self.accepted = 0

    def guesses(self, confidence: int, room: int, price: float = 0.0) -> int:
        """How many tokens to guess; ``room``: the most that can be; ``price``: seconds that making a guess takes."""
        costs = self._costs
        if not costs.known or not self._widths or confidence == 0:
            return 0
        step = costs.of(costs.base)
        best, most = 0, _MARGIN
        expected = reach = 1.0
        guessed = 0
        for width in self._widths:
            if width > room + 1:
                break
            while guessed < width - 1:
                kind = min(confidence + guessed, TOP_CONFIDENCE)
                reach *= self._right[kind] / self._seen[kind]
                expected += reach
                guessed += 1
            seconds = costs.of(width) + price * guessed
            gain = expected * step / seconds
            if gain > most and self._covers(seconds - step):
                best, most = guessed, gain
        if best == 0 and room and not price and costs.base == 2:
            return 1  # a pair is computed in any case: its second token costs nothing
        return self._tried_again(best, room, price) if price else best

    def _tried_again(self, best: int, room: int, price: float) -> int:
        """``best``, or where guesses that cost something were not made for long: 1, to see whether they pay now."""
        self._waited += 1
        if best:
            self._waited, self._patience = 0, _PATIENCE
        elif room and self._waited > self._patience and self._covers(self._costs.of(WIDTHS[0]) + price):
            self._waited, self._patience = 0, min(2 * self._patience, 8 * _PATIENCE)
            return 1
        return best

    def _covers(self, loss: float) -> bool:
        step = self._costs.of(self._costs.base)
        return self._saved - loss >= -max(LOSS * self._spent, _ALLOWANCE * step)

    @property
    def saved(self) -> float:
        """Seconds that guesses have gained so far; below 0: lost."""
        return self._saved

    @property
    def step_seconds(self) -> float:
        """Seconds of a step without guesses."""
        return self._costs.of(self._costs.base)

    def record(self, confidence: int, guesses: int, right: int, seconds: float, overhead: float = 0.0) -> None:
        """A run with ``guesses`` took ``seconds``; the first ``right`` of them were what was drawn.

        ``overhead``: seconds in which guesses were looked for before it.

        A run without guesses: ``right`` says (0 or 1) whether the first one would have been.
        """
        costs = self._costs
        costs.record(guesses + 1 if guesses else costs.base, seconds)
        self._spent += seconds
        self._saved -= overhead
        if confidence:
            compared = max(1, min(right + 1, guesses))
            for index in range(compared):
                kind = min(confidence + index, TOP_CONFIDENCE)
                self._seen[kind] = 1 + _FORGET * self._seen[kind]
                self._right[kind] = (index < right) + _FORGET * self._right[kind]
        if guesses:
            self.drafted += guesses
            self.accepted += right
            self._saved += (right + 1) * costs.of(costs.base) - seconds
