"""How sure a model was of a trajectory, from the distributions its tokens were drawn from.

Token confidence is the negative mean log-probability of the k most likely tokens, C_i = -(1/k) sum_j log P_i(j): large
where one token leaves next to nothing to the others, small where many compete. A trajectory's is the mean over its last
tokens (tail), over its least confident window (lowest), or over all of it. Source: Fu et al., "Deep Think with
Confidence", arXiv 2508.15260. P is the model's own distribution: no temperature, no filter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgedistill.trajectories.options import Measure

TOP_TOKENS = 20
_BLOCKS = 4


def token_confidence(logits: npt.NDArray[np.float32], top: int = TOP_TOKENS) -> npt.NDArray[np.float64]:
    """C of each row: float64 [n] for logits float32 [n, V]; ``top`` is cut to V."""
    vocab = logits.shape[1]
    top = min(top, vocab)
    best = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - best).sum(axis=1, dtype=np.float64)) + best[:, 0]
    largest = np.array([_largest(row, top).mean(dtype=np.float64) for row in logits])
    return np.asarray(total - largest)


def trajectory_confidence(tokens: Sequence[float], measure: Measure, window: int) -> float:
    """The confidence of a trajectory from those of its tokens; NaN for none.

    A trajectory shorter than the window is one window.
    """
    values = np.asarray(tokens, dtype=np.float64)
    if not values.size:
        return float("nan")
    if measure == "mean":
        return float(values.mean())
    width = min(window, values.size)
    if measure == "tail":
        return float(values[-width:].mean())
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return float((sums[width:] - sums[:-width]).min() / width)


def _largest(row: npt.NDArray[np.float32], top: int) -> npt.NDArray[np.float32]:
    """The ``top`` largest entries of a row, in any order."""
    width = len(row) // (_BLOCKS * top)
    if width > 1:
        # The top-th largest of the maxima of blocks bounds the top-th largest entry from below, and is cheap to find.
        blocks = row[: len(row) // width * width].reshape(-1, width).max(axis=1)
        row = row[row >= np.partition(blocks, -top)[-top]]
    return np.asarray(np.partition(row, -top)[-top:])
