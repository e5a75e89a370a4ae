"""How varied texts are: distinct n-grams, self-BLEU, the Vendi score.

Sources: distinct-n: Li et al., arXiv 1510.03055; self-BLEU: Zhu et al., arXiv 1802.01886, by sacrebleu; Vendi score:
Friedman and Dieng, arXiv 2210.02410: exp of the entropy of the eigenvalues of a similarity matrix, here the cosine of
counts of word 1- to 3-grams: the effective number of different texts.

Must not know: prompts, models, which text belongs to which prompt.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

MOST_TEXTS = 256
"""Larger collections are thinned out evenly: the cost grows with the square (Vendi) of the number of texts."""

MOST_BLEU = 48

_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Diversity:
    """``distinct``: share of different 1-, 2- and 3-grams. ``self_bleu``: 0 to 100, high where texts repeat each other;
    NaN if it was not computed. ``vendi``: between 1 and ``texts``.
    """

    texts: int
    distinct: tuple[float, float, float]
    self_bleu: float
    vendi: float


def diversity(texts: Sequence[str], *, bleu: bool = True) -> Diversity:
    """Measure a collection of texts, thinned evenly to at most MOST_TEXTS.

    Raises:
        MissingExtraError: ``bleu`` is asked for and sacrebleu is not installed.
    """
    texts = _thin(texts, MOST_TEXTS)
    return Diversity(
        texts=len(texts),
        distinct=(distinct_n(texts, 1), distinct_n(texts, 2), distinct_n(texts, 3)),
        self_bleu=self_bleu(texts) if bleu else math.nan,
        vendi=vendi_score(texts),
    )


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams of the texts; NaN if there is none."""
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU of each text against all others, over at most MOST_BLEU texts; NaN for fewer than two.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    texts = _thin([text for text in texts if text.strip()], MOST_BLEU)
    if len(texts) < 2:
        return math.nan
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise MissingExtraError(
            "self-BLEU needs sacrebleu, which is not installed.", hint="pip install 'edgedistill[verify]'"
        ) from error
    metric = BLEU(effective_order=True)
    scores = [
        metric.sentence_score(text, [other for at, other in enumerate(texts) if at != index]).score
        for index, text in enumerate(texts)
    ]
    return float(np.mean(scores))


def vendi_score(texts: Sequence[str]) -> float:
    """The effective number of different texts: 1 where all are the same, their number where none share an n-gram."""
    if not texts:
        return math.nan
    kernel = similarity(texts) / len(texts)
    values = np.linalg.eigvalsh(kernel)
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


def _thin(texts: Sequence[str], most: int) -> Sequence[str]:
    return texts if len(texts) <= most else [texts[int(i)] for i in np.linspace(0, len(texts) - 1, most)]
