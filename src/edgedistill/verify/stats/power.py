"""How many prompts and samples a decision takes: Var(mean D) = (tau^2 + (s_f^2 + s_q^2 - 2 rho s_f s_q) / N) / P.

Buy prompts before samples: samples only shrink the second term. Normal approximations throughout; P < 30 is unsafe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.stats.special_functions import normal_cdf, normal_quantile

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

POWER = 0.8
MOST = 1_000_000
"""Beyond this many prompts or samples the answer is "not in practice" (None)."""


@dataclass(frozen=True, slots=True)
class Components:
    """Variance of a per-prompt difference: ``between`` prompts (tau^2), ``within`` per sample (divide by N)."""

    between: float
    within: float
    samples: int

    def variance(self, prompts: int, samples: int) -> float:
        """Var of the mean over ``prompts`` with ``samples`` each."""
        return (self.between + self.within / samples) / prompts


def components(differences: Floats, halves: Floats | None, samples: int) -> Components:
    """Split the variance of differences float64 [prompts].

    ``halves``, float64 [2, prompts], are the differences from either half of the samples; their difference has the
    variance 4 within / N, whatever the statistic. Without them all variance counts as between prompts.
    """
    total = float(differences.var(ddof=1)) if differences.size > 1 else 0.0
    if halves is None:
        return Components(total, 0.0, samples)
    within = samples / 4 * float(((halves[0] - halves[1]) ** 2).mean())
    within = min(within, total * samples)
    return Components(max(0.0, total - within / samples), within, samples)


def power_one_sided(distance: float, error: float, alpha: float) -> float:
    """Probability that a one-sided test at ``alpha`` shows a mean that lies ``distance`` on the right side of its
    limit.
    """
    if error <= 0:
        return 1.0 if distance > 0 else 0.0
    return normal_cdf(distance / error - normal_quantile(1 - alpha))


def power_equivalence(effect: float, margin: float, error: float, alpha: float) -> float:
    """Probability that TOST shows |mean| < margin when the mean is ``effect``."""
    if error <= 0:
        return 1.0 if abs(effect) < margin else 0.0
    z = normal_quantile(1 - alpha)
    return max(0.0, normal_cdf((margin - effect) / error - z) + normal_cdf((margin + effect) / error - z) - 1)


def power_curve(
    effects: npt.ArrayLike, margin: float, error: float, alpha: float, *, equivalence: bool
) -> tuple[float, ...]:
    """P(pass) at each true harm (for equivalence: at each true difference)."""
    values = np.asarray(effects, np.float64).tolist()
    if equivalence:
        return tuple(power_equivalence(effect, margin, error, alpha) for effect in values)
    return tuple(power_one_sided(margin - effect, error, alpha) for effect in values)


@dataclass(frozen=True, slots=True)
class Decider:
    """What would decide an endpoint at 80 % power if the truth is as observed: prompts *or* samples, in all and
    further.

    None: not in practice (more than a million, or samples alone cannot do it because prompts differ too much).
    """

    prompts: int | None
    further_prompts: int | None
    samples: int | None
    further_samples: int | None


def decider(parts: Components, distance: float, prompts: int, *, alpha: float, power: float = POWER) -> Decider:
    """Prompts at the present number of samples, or samples at the present number of prompts.

    Args:
        distance: |mean x| of the side that is undecided: how far the estimate lies from its margin, on either side of
            it.
    """
    if distance <= 0:
        return Decider(None, None, None, None)
    error = distance / (normal_quantile(1 - alpha) + normal_quantile(power))
    if error**2 == 0:  # a margin too small for floating point
        return Decider(None, None, None, None)
    wanted = parts.variance(1, parts.samples) / error**2
    total_prompts = math.ceil(wanted) if wanted <= MOST else None
    room = prompts * error**2 - parts.between
    total_samples = None
    if room > 0 and parts.within / room <= MOST:
        total_samples = max(parts.samples, math.ceil(parts.within / room))
    return Decider(
        total_prompts,
        None if total_prompts is None else max(1, total_prompts - prompts),
        total_samples,
        None if total_samples is None else max(1, total_samples - parts.samples),
    )


def smallest_effect(parts: Components, prompts: int, *, alpha: float, power: float = POWER) -> float:
    """The distance from a margin that this design shows with the wanted power."""
    error = math.sqrt(parts.variance(prompts, parts.samples))
    return (normal_quantile(1 - alpha) + normal_quantile(power)) * error
