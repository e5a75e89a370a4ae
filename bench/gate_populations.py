"""Simulated populations of prompts that are difficult for a gate, and how often its tests reject at the true value.

A population is a list of kinds of prompts with their shares. A kind has the joint distribution of the answers of a
reference's sample and the quantized model's coupled sample, and of their lengths, so every endpoint has a true value. A
valid test at level alpha shows "above the true value" and "below the true value" with probability at most alpha. With
the margin at the true value, this is the probability of passing at the margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.metrics.paired import AGREES, DISTANCES, SIGNS
from edgedistill.verify.stats.betting import SEQUENTIAL_COUNT, log_capital, log_capital_path, stakes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

LIMIT = 2048.0
TYPICAL, LONG = 100.0, 2000.0


@dataclass(frozen=True)
class Kind:
    """Prompts of one kind.

    Attributes:
        share: Of the population.
        joint: float64 [answers, answers]: of the reference's answer and the quantized model's. Answer 0 is right, the
            last one is no answer.
        length: Mean tokens of the quantized model; the reference has ``TYPICAL``.
        spread: Of the logarithm of a length.
    """

    share: float
    joint: Floats
    length: float = TYPICAL
    spread: float = 0.0


def certain(before: int, after: int, *, moved: float = 1.0, answers: int = 4, flips: float = 0.0) -> Floats:
    """The reference always answers ``before``; the quantized model answers ``after`` with probability ``moved``.
    ``flips``: share of pairs that differ, in equal numbers in both directions.
    """
    joint = np.zeros((answers, answers))
    joint[before, after] += moved
    joint[before, before] += 1 - moved
    joint *= 1 - flips
    joint[before, 1] += flips / 2
    joint[1, before] += flips / 2
    return joint


def apart(p: Sequence[float] | Floats, q: Sequence[float] | Floats) -> Floats:
    """Two distributions without shared noise."""
    return np.outer(p, q)


def even(mass: float, answers: int = 4) -> list[float]:
    """Right with probability ``mass``, else one of the wrong answers; never none."""
    return [mass, *[(1 - mass) / (answers - 2)] * (answers - 2), 0.0]


def _difficult() -> list[Kind]:
    """Difficulty with a heavy tail: most of the possible loss is on a few prompts."""
    skill = 1 - np.linspace(0.01, 0.99, 30) ** 6
    return [Kind(1 / 30, apart(even(float(s)), even(float(s * s * s)))) for s in skill]


def _flat(seen: int, answers: int = 10) -> list[float]:
    return [1 / seen] * seen + [0.0] * (answers - seen)


STEADY = certain(0, 0, flips=0.05)
POPULATIONS: dict[str, list[Kind]] = {
    "rare total loss": [Kind(0.98, STEADY), Kind(0.02, certain(0, 1))],
    "rare half loss": [Kind(0.96, STEADY), Kind(0.04, certain(0, 1, moved=0.5))],
    "even loss": [Kind(1.0, certain(0, 1, moved=0.02, flips=0.04))],
    "even loss, no shared noise": [Kind(1.0, apart(even(0.8), even(0.78)))],
    "flips both ways": [Kind(0.95, STEADY), Kind(0.025, certain(0, 1)), Kind(0.025, certain(1, 0))],
    "inverted labels": [Kind(0.49, certain(0, 1)), Kind(0.49, certain(1, 0)), Kind(0.02, certain(0, 0))],
    "unanimous to spread": [Kind(0.95, certain(0, 0)), Kind(0.05, apart([1.0, 0, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0]))],
    "spread to unanimous": [Kind(0.9, STEADY), Kind(0.1, apart([1 / 3, 1 / 3, 1 / 3, 0], [1.0, 0, 0, 0]))],
    "saturated entropy": [Kind(1.0, apart(_flat(4), _flat(8)))],
    "rare entropy": [Kind(0.98, certain(0, 0, answers=10)), Kind(0.02, apart(_flat(1), _flat(8)))],
    "rare truncation": [Kind(0.98, STEADY), Kind(0.02, certain(0, 3))],
    "rare loops": [Kind(0.95, STEADY), Kind(0.05, STEADY, length=LONG)],
    "longer by a tenth": [Kind(1.0, STEADY, length=1.15 * TYPICAL, spread=0.6)],
    "reasoning disappears": [Kind(0.7, STEADY, spread=0.3), Kind(0.3, STEADY, length=TYPICAL / 10, spread=0.3)],
    "heavy-tailed difficulty": _difficult(),
    "unchanged": [Kind(0.6, certain(0, 0, flips=0.06)), Kind(0.4, certain(0, 0, flips=0.03))],
}

ENDPOINTS = ("accuracy", "distance", "agreement", "entropy", "length", "tokens", "garbage")


def _atoms(answers: int) -> tuple[list[Floats], list[Floats]]:
    """Over two pairs of samples, each a cell of the joint table: 0 or 1 for every atom of AGREES and of DISTANCES."""
    p, q = np.divmod(np.arange(answers * answers), answers)

    def same(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        equal: npt.NDArray[np.int64] = ((left[:, None] == right) & (left[:, None] < answers - 1)).astype(np.int64)
        return equal

    a, b = same(q, q), same(p, p)
    h = a + b - same(p, q) - same(q, p)
    agree = [((a == x) & (b == y)).astype(float) for x, y in zip(*AGREES, strict=True)]
    return agree, [(h == value).astype(float) for value in DISTANCES]


class Drawn:
    """Samples of both models of many repetitions, as distributions over the atoms of every endpoint.

    Each of the attributes is float64 [repetitions, prompts, atoms]; lengths [repetitions, prompts, samples].
    """

    def __init__(
        self, population: list[Kind], prompts: int, samples: int, repetitions: int, rng: np.random.Generator, *,
        fixed: bool,
    ) -> None:  # fmt: skip
        shares = np.array([kind.share for kind in population])
        if fixed:
            which = np.broadcast_to(assigned(shares, prompts), (repetitions, prompts))
        else:
            which = rng.choice(len(shares), size=(repetitions, prompts), p=shares / shares.sum())
        joints = np.stack([kind.joint for kind in population])
        answers = joints.shape[1]
        flat = joints.reshape(len(population), -1)
        counts = rng.multinomial(samples, flat[which]).astype(np.float64)
        p, q = np.divmod(np.arange(answers * answers), answers)
        self.samples = samples
        self.accuracy = self._signs(counts, (q == 0).astype(int) - (p == 0))
        self.garbage = self._signs(counts, (q == answers - 1).astype(int) - (p == answers - 1))
        agree, distance = _atoms(answers)
        pairs = samples * (samples - 1)
        self.agreement = np.stack([_pairs(counts, atom) / pairs for atom in agree], axis=-1)
        self.distance = np.stack([_pairs(counts, atom) / pairs for atom in distance], axis=-1)
        length = np.array([kind.length for kind in population])[which][..., None]
        spread = np.array([kind.spread for kind in population])[which][..., None]
        size = (repetitions, prompts, samples)
        if spread.any():
            self.before = np.minimum(TYPICAL * np.exp(spread * rng.normal(size=size) - spread**2 / 2), LIMIT)
            self.after = np.minimum(length * np.exp(spread * rng.normal(size=size) - spread**2 / 2), LIMIT)
        else:
            self.before, self.after = np.full(size, TYPICAL), np.broadcast_to(length, size).astype(np.float64)

    def _signs(self, counts: Floats, change: npt.NDArray[np.int64]) -> Floats:
        return np.stack([counts[..., change == sign].sum(axis=-1) / self.samples for sign in SIGNS], axis=-1)


def _pairs(counts: Floats, atom: Floats) -> Floats:
    """Ordered pairs of different samples with the atom; counts float64 [..., cells]."""
    pairs: Floats = ((counts @ atom) * counts).sum(axis=-1) - counts @ np.diag(atom)
    return pairs


def assigned(shares: Floats, prompts: int) -> npt.NDArray[np.int64]:
    """Kind of each of ``prompts`` fixed prompts, in proportion to the shares, with at least one of every kind."""
    counts = np.maximum(1, np.floor(shares * prompts + 1e-9)).astype(int)
    counts[shares.argmax()] += prompts - counts.sum()
    if counts.min() < 1:
        counts = np.bincount(np.arange(prompts) * len(shares) // prompts, minlength=len(shares))
    return np.repeat(np.arange(len(shares)), counts)


def truths(population: list[Kind], shares: Floats) -> dict[str, float]:
    """The true value of every endpoint's parameter (ratios for entropy and tokens)."""
    big = population
    joints = np.stack([kind.joint for kind in big])
    p, q = joints.sum(axis=2), joints.sum(axis=1)
    agree_p, agree_q = (p[:, :-1] ** 2).sum(axis=1), (q[:, :-1] ** 2).sum(axis=1)
    gap = ((p - q)[:, :-1] ** 2).sum(axis=1)
    shares = shares / shares.sum()
    before, after, relative = np.array([_lengths(kind) for kind in big]).T
    return {
        "accuracy": float(shares @ (q - p)[:, 0]),
        "distance": float(shares @ gap),
        "agreement": float(shares @ (agree_q - agree_p)),
        "entropy": float((shares @ agree_q) / (shares @ agree_p)),
        "length": float(shares @ relative),
        "tokens": float((shares @ after) / (shares @ before)),
        "garbage": float(shares @ (q - p)[:, -1]),
    }


def _lengths(kind: Kind) -> tuple[float, float, float]:
    """Mean tokens of both and mean relative change, on a grid of both lengths."""
    if kind.spread == 0:
        return TYPICAL, kind.length, (kind.length - TYPICAL) / max(kind.length, TYPICAL)
    z = np.linspace(-6, 6, 2001)
    mass = np.exp(-(z**2) / 2)
    mass /= mass.sum()
    rise = np.exp(kind.spread * z - kind.spread**2 / 2)
    before, after = np.minimum(TYPICAL * rise, LIMIT), np.minimum(kind.length * rise, LIMIT)
    change = (after[None, :] - before[:, None]) / np.maximum(after[None, :], before[:, None])
    return float(mass @ before), float(mass @ after), float(mass @ change @ mass)


@dataclass(frozen=True)
class _Bet:
    """What is bet on: observations whose mean at the truth is ``theta`` (or whose ratio is), and their bounds."""

    top: Floats
    weights: Floats | None
    low: float
    high: float
    bottom: Floats | None = None
    most: float = 1.0


def _observed(drawn: Drawn, name: str, *, fixed: bool) -> _Bet:
    samples, pairs = drawn.samples, drawn.samples // 2
    if name in ("length", "tokens"):
        top: Floats = drawn.after
        bottom: Floats | None = drawn.before
        if name == "length":
            top, bottom = (top - drawn.before) / np.maximum(np.maximum(top, drawn.before), 1e-9), None
        if fixed:
            top, bottom = top.reshape(len(top), -1), None if bottom is None else bottom.reshape(len(top), -1)
        else:
            top, bottom = top.mean(axis=-1), None if bottom is None else bottom.mean(axis=-1)
        return _Bet(top, None, -1.0, 1.0) if bottom is None else _Bet(top, None, 0.0, LIMIT, bottom, LIMIT)
    weights = getattr(drawn, "agreement" if name == "entropy" else name)
    values = {"distance": DISTANCES, "agreement": AGREES[0] - AGREES[1], "entropy": AGREES[0]}.get(name, SIGNS)
    bound = 2.0 if name == "distance" else 1.0
    under = AGREES[1] if name == "entropy" else None
    low = 0.0 if under is not None else -bound
    if not fixed:
        return _Bet(weights @ values, None, low, bound, None if under is None else weights @ under)
    count = samples if name in ("accuracy", "garbage") else pairs
    return _Bet(values, count * weights.sum(axis=1), low, bound, under)


def rejected(
    drawn: Drawn, name: str, theta: float, *, fixed: bool, above: bool, alpha: float, sequential: bool = False
) -> npt.NDArray[np.bool_]:
    """In which repetitions the test shows the parameter to lie above (below) ``theta``; bool [repetitions]."""
    bet = _observed(drawn, name, fixed=fixed)
    if bet.bottom is None:
        x, bound = bet.top - theta, (theta - bet.low if above else bet.high - theta)
    else:
        x, bound = bet.top - theta * bet.bottom, (theta * bet.most if above else bet.high)
    x = x if above else -x
    repetitions = len(drawn.accuracy)
    if bound <= 1e-12:
        return np.zeros(repetitions, bool)
    if sequential:
        logs = log_capital_path(x, bound, stakes(SEQUENTIAL_COUNT)).max(axis=-1)
    elif bet.weights is not None:
        count = float(bet.weights[0].sum())
        table = np.log1p(np.maximum(np.multiply.outer(stakes(count) / bound, x), -1 + 1e-12))
        steps = bet.weights @ table.T
        top = steps.max(axis=-1)
        logs = top + np.log(np.exp(steps - top[:, None]).mean(axis=-1))
    else:
        logs = log_capital(x, bound, stakes(x.shape[-1]))
    return np.asarray(logs >= math.log(1 / alpha))


TESTS = ("suite", "population", "population, sequential")


def rates(
    name: str, prompts: int, samples: int, repetitions: int, seed: int, alpha: float = 0.05
) -> Iterator[tuple[str, str, float]]:
    """(test, endpoint, share of repetitions in which it shows what is not true), the larger of both sides.

    An endpoint on which the population does nothing at all is left out.
    """
    population = POPULATIONS[name]
    rng = np.random.default_rng(seed)
    shares = np.array([kind.share for kind in population])
    for fixed in (True, False):
        drawn = Drawn(population, prompts, samples, repetitions, rng, fixed=fixed)
        held = np.bincount(assigned(shares, prompts), minlength=len(shares)).astype(float) if fixed else shares
        for endpoint, truth in truths(population, held).items():
            unchanged = 1.0 if endpoint in ("entropy", "tokens") else 0.0
            if abs(truth - unchanged) < 1e-9 and name != "unchanged":
                continue
            for test in TESTS[:1] if fixed else TESTS[1:]:
                wrong = [
                    rejected(
                        drawn, endpoint, truth, fixed=fixed, above=above, alpha=alpha, sequential="seq" in test
                    ).mean()
                    for above in (True, False)
                ]
                yield test, endpoint, float(max(wrong))


def power(prompts: int, samples: int, repetitions: int, seed: int, alpha: float = 0.05) -> dict[str, float]:
    """P(pass) of the unchanged model at the default margins, all endpoints together, for each test."""
    from edgedistill.verify.gate.endpoints import Margins

    margins = Margins()
    ratio = 2.0**margins.entropy_bits
    limits = {
        "accuracy": [(-margins.accuracy, True)],
        "distance": [(margins.distance, False)],
        "agreement": [(-margins.agreement, True), (margins.agreement, False)],
        "entropy": [(1 / ratio, True), (ratio, False)],
        "length": [(1 - 1 / margins.length_ratio, False)],
        "tokens": [(margins.length_ratio, False)],
        "garbage": [(margins.truncation, False)],
    }
    found = {}
    rng = np.random.default_rng(seed)
    for fixed in (True, False):
        drawn = Drawn(POPULATIONS["unchanged"], prompts, samples, repetitions, rng, fixed=fixed)
        for test in TESTS[:1] if fixed else TESTS[1:]:
            passes = np.ones(repetitions, bool)
            for endpoint, sides in limits.items():
                for theta, above in sides:
                    passes &= rejected(
                        drawn, endpoint, theta, fixed=fixed, above=above, alpha=alpha, sequential="seq" in test
                    )
            found[test] = float(passes.mean())
    return found
