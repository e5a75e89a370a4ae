"""Splits a prompt into chunks of two tokens or more, since a single token takes other kernels than several."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt


def chunk_bounds(count: int, chunk: int) -> Iterator[tuple[int, int]]:
    """Cut ``count`` tokens into chunks of at most ``chunk`` (>= 2), none of a single token unless ``count`` is 1."""
    if chunk < 2:
        raise ValueError(f"expected chunks of at least 2 tokens, found {chunk}")
    start = 0
    while start < count:
        stop = min(start + chunk, count)
        if count - stop == 1:
            # One token would remain: leave it a neighbour, or take it in where the chunk is only two wide.
            stop = stop - 1 if stop - start > 2 else count
        yield start, stop
        start = stop


def score_slices(mask: npt.NDArray[np.bool_], chunk: int, most: int) -> Iterator[tuple[int, int]]:
    """Column ranges of at most ``chunk`` columns and ``most`` wanted positions per row, at least 2 columns each."""
    for start, stop in chunk_bounds(mask.shape[1], max(2, chunk)):
        seen = mask[:, start:stop].sum(axis=1).max()
        pieces = max(1, -(-int(seen) // most)) if seen else 1
        if pieces == 1:
            yield start, stop
        else:
            yield from ((start + a, start + b) for a, b in chunk_bounds(stop - start, most))
