"""How far the answer distributions of two models lie apart on one prompt.

Must not know: answers as text, prompts, which model is the reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError

if TYPE_CHECKING:
    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]


def distribution_distance(p: Codes, q: Codes, *, coupled: bool) -> float:
    """D = C_q + C_p - 2 X, unbiased for sum_a (p_a - q_a)^2; may come out below 0 where the two are equal.

    X = sum_a n_a m_a / (N M). Coupled samples share their noise, so a pair of equal index agrees more than two
    independent draws would: these pairs are left out, X = (sum_a n_a m_a - #{i: p_i = q_i}) / (N (N - 1)).
    Garbage agrees with nothing.

    Args:
        p, q: int64 [samples]: answer codes of one codebook, below 0 for garbage; in order of the index if coupled.
        coupled: Whether equal positions share their noise; then both must have the same length.

    Raises:
        VerifyError: fewer than 2 samples, or coupled samples of different number.
    """
    if min(p.size, q.size) < 2 or (coupled and p.size != q.size):
        raise VerifyError(
            f"found {p.size} and {q.size} samples; the distance needs 2 of each, and pairs of them where coupled."
        )
    kinds = int(max(p.max(), q.max())) + 1
    n, m = _counts(p, kinds), _counts(q, kinds)
    agree_p = float((n * (n - 1)).sum()) / (p.size * (p.size - 1))
    agree_q = float((m * (m - 1)).sum()) / (q.size * (q.size - 1))
    cross = float((n * m).sum())
    if coupled:
        same = int(((p == q) & (p >= 0)).sum())
        return agree_p + agree_q - 2 * (cross - same) / (p.size * (p.size - 1))
    return agree_p + agree_q - 2 * cross / (p.size * q.size)


def _counts(codes: Codes, kinds: int) -> npt.NDArray[np.float64]:
    return np.bincount(codes[codes >= 0], minlength=max(kinds, 1)).astype(np.float64)
