"""Measures how varied texts are, by distinct n-grams and the Vendi score.

Sources: distinct-n: Li et al., arXiv 1510.03055; Vendi score: Friedman and Dieng, arXiv 2210.02410, the exponential of
the entropy of the eigenvalues of a similarity matrix (here the cosine of counts of word 1- to 3-grams), which is the
effective number of different texts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.stats.cluster_intervals import each_left_out, jackknife_interval
from edgedistill.verify.stats.intervals import LEVEL
from edgedistill.verify.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import numpy.typing as npt

    Kept = npt.NDArray[np.bool_]

MOST_TEXTS = 256
"""Larger collections are thinned out evenly: the cost grows with the square (Vendi) of the number of texts."""

_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Diversity:
    """``distinct``: share of different 1-, 2- and 3-grams. ``vendi``: between 1 and ``texts``.

    All depend on how many texts there are, so they compare at equal numbers only. Their jackknife intervals over
    prompts are of what as many texts from as many other prompts of this kind would show in the mean; none where leaving
    out prompts changes nothing, or there is one prompt.
    """

    texts: int
    distinct: tuple[Estimate, Estimate, Estimate]
    vendi: Estimate


def diversity(texts: Sequence[str], prompts: Sequence[str] | None = None, *, level: float = LEVEL) -> Diversity:
    """Measure a collection of texts, thinned evenly to at most MOST_TEXTS.

    Args:
        prompts: Of each text what it answers; None: each text stands for itself.
    """
    names = [str(i) for i in range(len(texts))] if prompts is None else prompts
    rows = _thin(range(len(texts)), MOST_TEXTS)
    texts, owners = [texts[i] for i in rows], np.array([names[i] for i in rows])
    if not texts:
        nothing = Estimate(math.nan)
        return Diversity(0, (nothing, nothing, nothing), nothing)

    def estimate(of: Callable[[Kept], float], labels: npt.NDArray[np.str_], low: float, high: float) -> Estimate:
        value = of(np.ones(labels.size, np.bool_))
        return Estimate(value, jackknife_interval(value, each_left_out(of, labels), low=low, high=high, level=level))

    grams = [[_grams(text, n) for text in texts] for n in (1, 2, 3)]
    kernel = similarity(texts)

    def distinct(n: int) -> Estimate:
        rows = grams[n - 1]
        return estimate(lambda kept: _distinct([rows[i] for i in np.flatnonzero(kept)]), owners, 0.0, 1.0)

    return Diversity(
        texts=len(texts),
        distinct=(distinct(1), distinct(2), distinct(3)),
        vendi=estimate(lambda kept: _vendi(kernel[np.ix_(kept, kept)]), owners, 1.0, float(len(texts))),
    )


def _distinct(grams: Sequence[Sequence[tuple[str, ...]]]) -> float:
    """Different n-grams over all n-grams of the texts; NaN if there is none."""
    total = sum(map(len, grams))
    return len({gram for text in grams for gram in text}) / total if total else math.nan


def _vendi(kernel: npt.NDArray[np.float64]) -> float:
    """The effective number of different texts: 1 where all are the same, their number where none share an n-gram."""
    values = np.linalg.eigvalsh(kernel / len(kernel))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def similarity(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Cosine similarity of the counts of 1- to 3-grams, float64 [texts, texts]; empty texts equal each other only."""
    counts = [Counter(gram for n in (1, 2, 3) for gram in _grams(text, n)) or Counter({("",): 1}) for text in texts]
    index: dict[tuple[str, ...], int] = {}
    for counter in counts:
        for gram in counter:
            index.setdefault(gram, len(index))
    norms = [math.sqrt(sum(c * c for c in counter.values())) for counter in counts]
    # Sparse rows, multiplied through an inverted index: a dense matrix of n-grams would be large.
    postings: list[list[tuple[int, float]]] = [[] for _ in index]
    for row, counter in enumerate(counts):
        for gram, count in counter.items():
            postings[index[gram]].append((row, count / norms[row]))
    matrix = np.zeros((len(texts), len(texts)))
    for posting in postings:
        rows = np.array([row for row, _ in posting])
        weights = np.array([weight for _, weight in posting])
        matrix[np.ix_(rows, rows)] += weights[:, None] * weights[None, :]
    return matrix


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    tokens = _TOKEN.findall(text.casefold())
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _thin(texts: Sequence[Any], most: int) -> Sequence[Any]:
    return texts if len(texts) <= most else [texts[int(i)] for i in np.linspace(0, len(texts) - 1, most)]
