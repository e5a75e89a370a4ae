"""The paired sign-flip test: is the mean of per-prompt differences above or below zero?

Under the null hypothesis a difference is as likely as its negative. All 2^P flips are enumerated for few prompts, else
a fixed number is drawn and the observed one counted with them, which keeps the test valid (Phipson and Smyth, 2010).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

EXACT_UP_TO = 14
FLIPS = 4999
_ROWS = 1 << 21


@dataclass(frozen=True, slots=True)
class SignFlip:
    """One-sided p-values: ``greater`` small says mean > 0, ``less`` small says mean < 0. ``exact``: all flips
    counted.
    """

    greater: float
    less: float
    exact: bool


def sign_flip(differences: npt.ArrayLike, *, flips: int = FLIPS, seed: int = 0) -> SignFlip:
    """Test the mean of ``differences``, float64 [prompts], at least one; zeros count as they are."""
    d = np.asarray(differences, np.float64)
    observed = float(d.sum())
    slack = 1e-12 * float(np.abs(d).sum())  # equal sums may differ in the last bits
    if d.size <= EXACT_UP_TO:
        patterns = (np.arange(1 << d.size)[:, None] >> np.arange(d.size)) & 1
        sums = (1 - 2 * patterns) @ d
        greater, less = float((sums >= observed - slack).mean()), float((sums <= observed + slack).mean())
        return SignFlip(greater, less, True)
    rng = np.random.default_rng(seed)
    above = below = 1  # the observed one
    step = max(1, _ROWS // d.size)
    for start in range(0, flips, step):
        rows = min(step, flips - start)
        sums = (1 - 2 * rng.integers(0, 2, size=(rows, d.size), dtype=np.int8)) @ d
        above += int((sums >= observed - slack).sum())
        below += int((sums <= observed + slack).sum())
    return SignFlip(above / (flips + 1), below / (flips + 1), False)
