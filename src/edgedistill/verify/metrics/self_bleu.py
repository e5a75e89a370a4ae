"""Self-BLEU: the mean BLEU of each text against all others (Zhu et al., arXiv 1802.01886), as sacrebleu scores it.

sacrebleu tokenizes and scores; the matches are counted here, because the jackknife asks for the same texts against many
sets of others.

Must not know: prompts, models.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

ORDER = 4


class SelfBleu:
    """Counts of the n-grams of texts that hold at least one word, from which any part of them can be scored.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        try:
            from sacrebleu.metrics.bleu import BLEU
            from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
        except ImportError as error:
            raise MissingExtraError(
                "self-BLEU needs sacrebleu, which is not installed.", hint="pip install 'edgedistill[verify]'"
            ) from error
        self._compute, tokenizer = BLEU.compute_bleu, Tokenizer13a()
        self._words = [tokenizer(text.rstrip()).split() for text in texts]
        self._grams = [_counts(words) for words in self._words]
        # Of each n-gram who has it how often, the most often first.
        self._owners: dict[tuple[str, ...], list[tuple[int, int]]] = {}
        for owner, counts in enumerate(self._grams):
            for gram, count in counts.items():
                self._owners.setdefault(gram, []).append((count, owner))
        for owners in self._owners.values():
            owners.sort(reverse=True)

    def score(self, kept: npt.NDArray[np.bool_] | None = None) -> float:
        """Mean BLEU, 0 to 100, of the texts of the mask ``kept`` (all) against each other; NaN for fewer than two."""
        chosen = np.flatnonzero(np.ones(len(self._words), np.bool_) if kept is None else kept)
        if chosen.size < 2:
            return math.nan
        inside = set(chosen.tolist())
        return float(np.mean([self._one(text, inside) for text in chosen.tolist()]))

    def _one(self, text: int, inside: set[int]) -> float:
        correct, total = [0] * ORDER, [0] * ORDER
        for gram, count in self._grams[text].items():
            most = next((n for n, owner in self._owners[gram] if owner != text and owner in inside), 0)
            total[len(gram) - 1] += count
            correct[len(gram) - 1] += min(count, most)
        length = len(self._words[text])
        # The closest length of a reference, the shorter of ties.
        closest = min(
            (len(self._words[other]) for other in inside if other != text), key=lambda n: (abs(n - length), n)
        )
        return float(self._compute(correct, total, length, closest, smooth_method="exp", effective_order=True).score)


def _counts(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for n in range(1, ORDER + 1) for i in range(len(words) - n + 1))
