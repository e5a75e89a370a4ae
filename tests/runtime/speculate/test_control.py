"""What guessing may cost and gain, against a clock that a model of costs moves: no time is measured here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from edgedistill.runtime.speculate.control import MOST_DRAFTED, DraftControl, StepCosts
from edgedistill.runtime.speculate.lookup import TOP_CONFIDENCE
from edgedistill.runtime.speculate.speculation import Speculation

Cost = Callable[[int], float]
MEASURED = {1: 1.0, 2: 1.15, 4: 1.53, 8: 2.37, 16: 3.75}  # in steps; SmolLM2-135M in int4-b32, two threads


class Oracle:
    """Knows the text and is wrong as often as ``wrong`` says; always as sure as ``confidence``."""

    seconds_per_guess = 0.0
    decoder = None

    def __init__(self, wrong: Callable[[int], bool], sure: int) -> None:
        self._wrong, self._sure = wrong, sure
        self._at = 0

    def extend(self, tokens: Sequence[int]) -> None:
        self._at += len(tokens)

    def confidence(self) -> int:
        return self._sure

    def propose(self, count: int) -> list[int]:
        return [-1 if self._wrong(place) else place for place in range(self._at, self._at + count)]


def _seconds(tokens: int, cost: Cost, oracle: Oracle, *, base: int = 1, most: int = MOST_DRAFTED) -> float:
    """Time to write the text 0, 1, 2, ...; without guesses it is ``tokens * cost(base)``."""
    now = [0.0]
    control = DraftControl(StepCosts(base), most=most)
    loop = Speculation(oracle, control, clock=lambda: now[0])
    written = 0
    while written < tokens:
        guesses = loop.guesses(tokens - written - 1)
        now[0] += cost(len(guesses) + 1 if guesses else base)
        right = next((i for i, guess in enumerate(guesses) if guess != written + i), len(guesses))
        drawn = list(range(written, written + right + 1))
        loop.done(len(guesses), drawn)
        written += len(drawn)
    assert control.accepted <= control.drafted
    return now[0]


def _flat(width: int) -> float:
    return 1.0 if width == 1 else 1.02


def _steep(width: int) -> float:
    return 1.0 + 1.1 * (width - 1)


def _noisy(seed: int) -> Cost:
    rng = np.random.default_rng(seed)
    return lambda width: float(MEASURED[width] * rng.lognormal(0.0, 0.15) * (4.0 if rng.random() < 0.02 else 1.0))


@pytest.mark.parametrize("sure", [1, 3, TOP_CONFIDENCE])
@pytest.mark.parametrize("cost", [MEASURED.__getitem__, _flat, _steep])
@pytest.mark.parametrize("tokens", [60, 400, 3000])
def test_guesses_that_are_never_right_cost_three_per_cent_at_most(sure: int, cost: Cost, tokens: int) -> None:
    assert _seconds(tokens, cost, Oracle(lambda _place: True, sure)) * 0.97 <= tokens * cost(1)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_guesses_that_are_right_at_random_never_cost_more(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    wrong = (rng.random(4000) > share).tolist()
    assert _seconds(2000, MEASURED.__getitem__, Oracle(wrong.__getitem__, 3)) * 0.97 <= 2000


@pytest.mark.parametrize("cost", [MEASURED.__getitem__, _flat])
@pytest.mark.parametrize("base", [1, 2])
def test_where_steps_are_short_looking_for_guesses_is_not_what_takes_the_time(cost: Cost, base: int) -> None:
    """Every look at the clock stands for what is done between two of them: a per cent and a half of a step."""
    now, step = [0.0], 0.0003
    overhead = 0.015 * step

    def clock() -> float:
        now[0] += overhead
        return now[0]

    oracle = Oracle(lambda _place: True, 2)
    loop = Speculation(oracle, DraftControl(StepCosts(base)), clock=clock)
    for place in range(1500):
        guesses = loop.guesses(100)
        now[0] += step * cost(len(guesses) + 1 if guesses else base)
        loop.done(len(guesses), [place])
    assert now[0] * 0.97 <= 1500 * step * cost(base)


def _short_replies(right: float, overhead: float, base: int) -> float:
    """What 100 replies of 40 tokens take under one ``StepCosts``, in steps; a look at the clock takes ``overhead``."""
    now, step = [0.0], 0.0003

    def clock() -> float:
        now[0] += overhead * step
        return now[0]

    wrong = (np.random.default_rng(5).random(4100) >= right).tolist()
    costs = StepCosts(base)
    for _ in range(100):
        oracle = Oracle(wrong.__getitem__, 2)
        loop = Speculation(oracle, DraftControl(costs), costs.watch, clock=clock)
        loop.extend(range(0))
        written = 0
        while written < 40:
            guesses = loop.guesses(40 - written - 1)
            now[0] += step * MEASURED[len(guesses) + 1 if guesses else base]
            hits = next((i for i, guess in enumerate(guesses) if guess != written + i), len(guesses))
            loop.done(len(guesses), list(range(written, written + hits + 1)))
            written += hits + 1
    return now[0] / step / (4000 * MEASURED[base])


def test_what_gained_nothing_in_short_replies_is_left_alone_in_the_next() -> None:
    for right in (0.0, 0.15):
        assert _short_replies(right, 0.02, 1) * 0.97 <= 1


def test_what_gains_a_little_in_short_replies_goes_on() -> None:
    assert _short_replies(0.3, 0.01, 2) < 0.9


def test_it_wakes_up_where_guesses_pay() -> None:
    now, step = [0.0], 0.0003
    oracle = Oracle(lambda place: place < 1000, TOP_CONFIDENCE)
    loop = Speculation(oracle, DraftControl(StepCosts(1)), clock=lambda: now[0])
    written = 0
    while written < 4000:
        guesses = loop.guesses(100)
        now[0] += step * MEASURED[len(guesses) + 1]
        right = next((i for i, guess in enumerate(guesses) if guess != written + i), len(guesses))
        loop.done(len(guesses), list(range(written, written + right + 1)))
        written += right + 1
    assert now[0] < step * (1030 + 1000)


def _changing(places: Iterator[bool]) -> Callable[[int], bool]:
    known: list[bool] = []

    def wrong(place: int) -> bool:
        while len(known) <= place:
            known.append(next(places))
        return known[place]

    return wrong


def test_a_text_that_stops_repeating_keeps_what_was_gained() -> None:
    def places() -> Iterator[bool]:
        while True:
            yield from [False] * 200
            yield from [True] * 200

    spent = _seconds(4000, MEASURED.__getitem__, Oracle(_changing(places()), TOP_CONFIDENCE))
    assert spent < 0.75 * 4000


def test_guesses_that_are_always_right_gain_what_the_costs_allow() -> None:
    spent = _seconds(1000, MEASURED.__getitem__, Oracle(lambda _place: False, TOP_CONFIDENCE))
    best = 3.75 / 16
    assert spent < 1.15 * best * 1000


def test_a_noisy_clock_neither_hides_the_gain_nor_makes_a_loss() -> None:
    for seed in range(5):
        right = _seconds(600, _noisy(seed), Oracle(lambda _place: False, TOP_CONFIDENCE))
        plain = sum(map(_noisy(seed), [1] * 600))
        assert right < 0.5 * plain
        rng = np.random.default_rng(seed)
        wrong = (rng.random(4000) > 0.3).tolist()
        assert (
            _seconds(2000, _noisy(seed), Oracle(wrong.__getitem__, 3)) < sum(map(_noisy(seed + 100), [1] * 2000)) * 1.05
        )


def test_runs_that_cost_what_their_tokens_cost_are_not_guessed_for() -> None:
    drafted = DraftControl(StepCosts(1))
    for _ in range(50):
        guesses = drafted.guesses(TOP_CONFIDENCE, 100)
        drafted.record(TOP_CONFIDENCE, guesses, guesses or 1, _steep(guesses + 1))
    assert drafted.drafted <= 4  # once with one guess, once with three: then the costs are known


def test_the_second_token_of_a_pair_is_always_guessed() -> None:
    control = DraftControl(StepCosts(2))
    control.record(0, 0, 0, 1.0)
    control.record(0, 0, 0, 1.0)
    for _ in range(100):
        guesses = control.guesses(1, 100)
        assert guesses == 1 or control.drafted < 10
        control.record(1, guesses, 0, MEASURED[guesses + 1] / MEASURED[2])
    assert control.guesses(1, 0) == 0
    assert control.guesses(0, 100) == 0


def test_no_more_is_guessed_than_asked_for() -> None:
    for most, widest in ((1, 1), (2, 1), (3, 3), (6, 3), (15, 15)):
        control = DraftControl(StepCosts(1), most=most)
        seen = set()
        for _ in range(60):
            guesses = control.guesses(TOP_CONFIDENCE, 100)
            seen.add(guesses)
            control.record(TOP_CONFIDENCE, guesses, guesses or 1, MEASURED[guesses + 1])
        assert max(seen) == widest


def test_costs_between_and_beyond_what_was_measured() -> None:
    costs = StepCosts(1)
    assert not costs.known
    costs.record(1, 3.0)  # the first run of a width also makes its arrays
    costs.record(1, 1.0)
    assert costs.known
    assert costs.of(1) == 1.0
    assert costs.of(4) == pytest.approx(1.9)
    costs.record(4, 2.0)
    assert costs.of(16) == pytest.approx(2.0 + 12 / 3)
    costs.record(1, 1e9)
    assert costs.of(1) == pytest.approx(1.2)
