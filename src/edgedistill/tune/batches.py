"""Which sequences an update sees: a function of seed and number, so that a run can resume anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]

_WINDOW = 8
"""Batches whose sequences are sorted by length together, so that little is padding."""


class Batches:
    """Sequences in batches of at most ``tokens`` tokens, padding included; every pass has an order of its own."""

    def __init__(self, sequences: Sequence[Ids], tokens: int, seed: int) -> None:
        self._sequences = sequences
        self._tokens = tokens
        self._seed = seed
        self._pass: list[list[int]] = []
        self._number = -1
        self._starts: list[int] = [0]

    def at(self, index: int) -> list[Ids]:
        """The batch of number ``index`` from 0, over as many passes as it takes."""
        while True:
            number = next((n for n, start in enumerate(self._starts) if start > index), None)
            if number is not None:
                break
            self._starts.append(self._starts[-1] + len(self._order(len(self._starts) - 1)))
        batch = self._order(number - 1)[index - self._starts[number - 1]]
        return [self._sequences[i] for i in batch]

    def _order(self, number: int) -> list[list[int]]:
        if number != self._number:
            generator = np.random.default_rng([self._seed, number])
            order = generator.permutation(len(self._sequences)).tolist()
            lengths = [len(sequence) for sequence in self._sequences]
            window = max(1, _WINDOW * self._tokens // max(1, sum(lengths) // len(lengths)))
            batches: list[list[int]] = []
            for start in range(0, len(order), window):
                batches += self._pack(sorted(order[start : start + window], key=lambda i: lengths[i]), lengths)
            self._pass = [batches[i] for i in generator.permutation(len(batches))]
            self._number = number
        return self._pass

    def _pack(self, ordered: list[int], lengths: list[int]) -> list[list[int]]:
        batches: list[list[int]] = [[]]
        for i in ordered:
            if batches[-1] and lengths[i] * (len(batches[-1]) + 1) > self._tokens:
                batches.append([])
            batches[-1].append(i)
        return batches
