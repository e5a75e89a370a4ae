"""Turns the samples of two models on the same prompts into the paired observations that the gate tests.

The gate tests means (or ratios of means) of bounded observations that are unbiased at any number of samples. An
observation comes from one pair (a sample of either model with the same index) or from two such pairs. The observations
of one prompt are kept as a distribution over *atoms*, the values that occur.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.stats.answer_counts import Codebook, coverage, tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgedistill.verify.types import Sample

    Codes = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

SIGNS = np.array([-1.0, 0.0, 1.0])
"""Atoms of a change between yes and no."""

AGREES = (np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0]))
"""Atoms of two pairs of samples: whether the two of the quantized model agree, and whether the reference's do."""

DISTANCES = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
"""Atoms of the distance of two pairs: 1[q1 = q2] + 1[p1 = p2] - 1[p1 = q2] - 1[q1 = p2]."""

_ROWS = 512


@dataclass(frozen=True, slots=True)
class Observations:
    """One quantity on all prompts.

    Attributes:
        top: float64 [atoms] or [prompts, atoms].
        weights: float64 [prompts, atoms]; of each prompt they sum to 1.
        count: Independent observations of each prompt.
        bottom: Like ``top``, where the quantity is a ratio of means.
    """

    top: Floats
    weights: Floats
    count: int
    bottom: Floats | None = None

    def means(self) -> tuple[Floats, Floats | None]:
        """Of each prompt, float64 [prompts]: of the top and of the bottom."""
        top = (self.weights * self.top).sum(axis=-1)
        return top, None if self.bottom is None else (self.weights * self.bottom).sum(axis=-1)

    def pooled(self) -> tuple[Floats, Floats | None, Floats]:
        """Top, bottom and weights, float64 [observations], of all prompts together."""
        if self.top.ndim == 1:
            return self.top, self.bottom, self.count * self.weights.sum(axis=0)
        bottom = None if self.bottom is None else self.bottom.ravel()
        return self.top.ravel(), bottom, self.count * self.weights.ravel()


@dataclass(frozen=True, slots=True)
class PerPrompt:
    """Numbers of one model, each float64 [prompts].

    ``accuracy`` is None without gold. ``garbage``: share of samples truncated or unparsed. ``tokens``: mean generated.
    ``coverage``: Good and Turing's estimate (Biometrika 1953) of the mass of the answers that were seen: 1 less the
    share of samples whose answer came once.
    """

    accuracy: Floats | None
    agreement: Floats
    garbage: Floats
    tokens: Floats
    coverage: Floats


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both models on the same prompts.

    Attributes:
        samples: The fewest samples of a prompt.
        limit: The most tokens that a reply may have.
        accuracy, garbage: Of pairs, over ``SIGNS``; the first is None without gold.
        agreement: Of two pairs, over ``AGREES``. ``distance``: over ``DISTANCES``.
        tokens: Of pairs: tokens of the quantized model (top) and of the reference (bottom).
    """

    prompts: tuple[str, ...]
    samples: int
    limit: int
    reference: PerPrompt
    quantized: PerPrompt
    accuracy: Observations | None
    garbage: Observations
    agreement: Observations
    distance: Observations
    tokens: Observations


def compare(
    reference: Mapping[str, Sequence[Sample]], quantized: Mapping[str, Sequence[Sample]], *, limit: int
) -> Comparison:
    """Pair two models by prompt (``answer_counts.by_prompt`` of each) and samples by their order.

    Args:
        limit: The most tokens that a reply may have; a longer one raises it.

    Raises:
        VerifyError: different prompts, fewer than 2 prompts, fewer than 2 samples, or different numbers of samples,
            or samples of other numbers.
    """
    _require_pairs(reference, quantized)
    prompts = tuple(reference)
    fewest = min(len(samples) for samples in reference.values())
    rows = [_Row(reference[prompt], quantized[prompt]) for prompt in prompts]
    scored = all(row.before.right is not None and row.after.right is not None for row in rows)
    pairs = [pair_atoms(row.before.codes, row.after.codes) for row in rows]
    agree, distance = (np.stack([pair[part] for pair in pairs]) for part in (0, 1))
    longest = max(int(max(row.before.tokens.max(), row.after.tokens.max())) for row in rows)

    def model(side: str) -> PerPrompt:
        models: list[_Model] = [getattr(row, side) for row in rows]
        right = np.array([math.nan if one.right is None else one.right.mean() for one in models])
        first = AGREES[0] if side == "after" else AGREES[1]
        return PerPrompt(
            right if scored else None,
            agree @ first,
            np.array([one.garbage.mean() for one in models]),
            np.array([one.tokens.mean() for one in models]),
            np.array([coverage(tally(one.codes)) for one in models]),
        )

    def changes(name: str) -> Observations:
        return Observations(SIGNS, np.stack([_signs(row, name) for row in rows]), fewest)

    return Comparison(
        prompts=prompts,
        samples=fewest,
        limit=max(limit, longest),
        reference=model("before"),
        quantized=model("after"),
        accuracy=changes("right") if scored else None,
        garbage=changes("garbage"),
        agreement=Observations(AGREES[0], agree, fewest // 2, AGREES[1]),
        distance=Observations(DISTANCES, distance, fewest // 2),
        tokens=_tokens(rows, fewest),
    )


def pair_atoms(before: Codes, after: Codes) -> tuple[Floats, Floats]:
    """How often each atom of ``AGREES`` (float64 [4]) and of ``DISTANCES`` (float64 [5]) occurs among all pairs of
    samples of different index, which are independent whatever noise the two models share.

    Args:
        before, after: int64 [samples], at least 2: codes of one codebook, below 0 for garbage, which agrees with
            nothing.
    """
    cells, counts = np.unique(np.stack([before, after], axis=1), axis=0, return_counts=True)
    p, q, size = cells[:, 0], cells[:, 1], counts.astype(np.float64)
    agree, distance = np.zeros(4), np.zeros(5)
    for start in range(0, len(cells), _ROWS):
        part = slice(start, start + _ROWS)
        a, b = _equal(q[part], q), _equal(p[part], p)
        h = 2 + a + b - _equal(p[part], q) - _equal(q[part], p)
        weight = size[part, None] * size
        weight[np.arange(len(weight)), start + np.arange(len(weight))] -= size[part]  # no sample with itself
        agree += np.bincount((2 * a + b).ravel(), weight.ravel(), 4)
        distance += np.bincount(h.ravel(), weight.ravel(), 5)
    return agree / agree.sum(), distance / distance.sum()


def _equal(left: Codes, right: Codes) -> Codes:
    return np.asarray((left[:, None] == right[None, :]) & (left[:, None] >= 0), np.int64)


class _Model:
    """One model's samples of a prompt as arrays."""

    def __init__(self, samples: Sequence[Sample], book: Codebook) -> None:
        self.codes = book.encode(samples)
        self.garbage = (self.codes < 0).astype(np.float64)
        correct = [sample.correct for sample in samples]
        self.right = None if None in correct else np.array(correct, np.float64)
        self.tokens = np.array([sample.tokens for sample in samples], np.float64)


class _Row:
    """Both models' samples of a prompt."""

    def __init__(self, before: Sequence[Sample], after: Sequence[Sample]) -> None:
        book = Codebook()
        self.before, self.after = _Model(before, book), _Model(after, book)


def _signs(row: _Row, name: str) -> Floats:
    change = getattr(row.after, name) - getattr(row.before, name)
    return np.asarray([(change == sign).mean() for sign in SIGNS], np.float64)


def _tokens(rows: Sequence[_Row], fewest: int) -> Observations:
    """Prompts may have different numbers of samples: short rows are filled with entries of weight 0."""
    most = max(row.before.tokens.size for row in rows)
    top, bottom, weights = (np.zeros((len(rows), most)) for _ in range(3))
    for index, row in enumerate(rows):
        count = row.before.tokens.size
        top[index, :count], bottom[index, :count], weights[index, :count] = (
            row.after.tokens,
            row.before.tokens,
            1 / count,
        )
    return Observations(top, weights, fewest, bottom)


def _require_pairs(reference: Mapping[str, Sequence[Sample]], quantized: Mapping[str, Sequence[Sample]]) -> None:
    if set(reference) != set(quantized):
        odd = sorted(set(reference) ^ set(quantized))
        raise VerifyError(
            f"{len(odd)} prompt(s) were sampled from one model only, first `{odd[0]}`; expected the same prompts."
        )
    if len(reference) < 2:
        raise VerifyError(
            f"Found {len(reference)} prompt(s); a verdict on a suite needs at least 2.",
            hint="Use a suite with more prompts.",
        )
    for prompt in reference:
        n, m = len(reference[prompt]), len(quantized[prompt])
        if n != m or n < 2:
            raise VerifyError(
                f"Prompt `{prompt}` has {n} sample(s) of the reference and {m} of the quantized model; expected "
                "the same number, at least 2.",
                hint="Use --samples 16 or more.",
            )
        if [one.index for one in reference[prompt]] != [one.index for one in quantized[prompt]]:
            raise VerifyError(
                f"The samples of prompt `{prompt}` have other numbers in the reference than in the quantized model; "
                "expected the same ones in the same order, since samples of one number share their noise."
            )
