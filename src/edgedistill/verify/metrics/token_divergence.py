"""Compares the logits of two models per token: entropies, Kullback-Leibler divergence, agreement of the top choice.

KL(reference || quantized) on the reference's own samples is called teacher-forced, KL(quantized || reference) on the
quantized model's samples on-policy. KL is reported as a warning, not as the verdict: when it is small it does not
predict task results (arXiv 2606.19558).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.stats.cluster_intervals import cluster_quantiles, cluster_share
from edgedistill.verify.stats.intervals import LEVEL, cluster_interval, weighted_ratio
from edgedistill.verify.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Logits = npt.NDArray[np.floating]

LLAMA_CPP_WINDOW = 512
_LLAMA_CPP_FLOOR = -16.0
_ROWS = 1 << 22  # values of a chunk: 32 MB of float64


@dataclass(frozen=True, slots=True)
class TokenDivergence:
    """Per position, float64 [positions]: entropies in bits, KL in nats; and whether the top choices agree, bool.

    ``kl`` is KL(p || q) for ``divergence(p, q)``; ``kl_llama_cpp`` leaves out tokens with ln p <= -16, as llama.cpp
    does.
    """

    entropy_p: Floats
    entropy_q: Floats
    kl: Floats
    kl_llama_cpp: Floats
    top_agrees: npt.NDArray[np.bool_]


def log_softmax(logits: Logits) -> Floats:
    """Log probabilities float64 [..., V] of logits [..., V]; minus infinity stays minus infinity."""
    values = logits.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return values


def divergence(p: Logits, q: Logits) -> TokenDivergence:
    """Compare two models on the same positions, exactly over the whole vocabulary.

    Args:
        p, q: Logits [positions, V] of any float type; rows must hold at least one finite value and no NaN.

    Raises:
        VerifyError: shapes that differ, NaN, or a row without a finite value.
    """
    if p.shape != q.shape or p.ndim != 2:
        raise VerifyError(
            f"Found logits of the shapes {p.shape} and {q.shape}; expected the same positions and vocabulary.",
            hint="Compare bundles of the same tokenizer.",
        )
    step = max(1, _ROWS // max(1, p.shape[1]))
    parts = [_divergence(p[at : at + step], q[at : at + step]) for at in range(0, len(p), step)]
    if not parts:
        empty = np.empty(0)
        return TokenDivergence(empty, empty, empty, empty, np.empty(0, np.bool_))
    return concatenate(parts)


def concatenate(parts: Sequence[TokenDivergence]) -> TokenDivergence:
    """Join positions; at least one part."""
    return TokenDivergence(
        np.concatenate([part.entropy_p for part in parts]),
        np.concatenate([part.entropy_q for part in parts]),
        np.concatenate([part.kl for part in parts]),
        np.concatenate([part.kl_llama_cpp for part in parts]),
        np.concatenate([part.top_agrees for part in parts]),
    )


def _divergence(p: Logits, q: Logits) -> TokenDivergence:
    for logits in (p, q):
        if np.isnan(logits).any() or not np.isfinite(logits.max(axis=-1)).all():
            raise VerifyError("Found logits that are NaN or not finite; the model's arithmetic is broken.")
    log_p, log_q = log_softmax(p), log_softmax(q)
    prob_p, prob_q = np.exp(log_p), np.exp(log_q)
    with np.errstate(invalid="ignore"):
        terms = np.where(prob_p > 0, prob_p * (log_p - log_q), 0.0)
        entropy_p = -np.where(prob_p > 0, prob_p * log_p, 0.0).sum(axis=-1) / math.log(2)
        entropy_q = -np.where(prob_q > 0, prob_q * log_q, 0.0).sum(axis=-1) / math.log(2)
    return TokenDivergence(
        entropy_p=entropy_p,
        entropy_q=entropy_q,
        kl=np.maximum(terms.sum(axis=-1), 0.0),
        kl_llama_cpp=np.where(log_p > _LLAMA_CPP_FLOOR, terms, 0.0).sum(axis=-1),
        top_agrees=p.argmax(axis=-1) == q.argmax(axis=-1),
    )


def llama_cpp_positions(count: int, window: int = LLAMA_CPP_WINDOW) -> npt.NDArray[np.bool_]:
    """Which of ``count`` positions llama.cpp's perplexity tool scores: the second half of each whole window."""
    at = np.arange(count)
    return np.asarray((at % window >= window // 2) & (at < count // window * window))


@dataclass(frozen=True, slots=True)
class DivergenceSummary:
    """Mean and quantiles of KL in nats over positions, top-1 agreement, mean entropy in bits of p and of q, and its
    change.

    All have an interval over prompts, except for the largest KL ("max"). ``infinite``: number of positions where q
    gives no probability to a token that p may choose; all other numbers leave these positions out.
    """

    positions: int
    infinite: int
    kl: Estimate
    quantiles: dict[str, Estimate]
    top_agreement: Estimate
    entropy_p: Estimate
    entropy_q: Estimate
    delta_entropy: Estimate


QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def summarise(prompts: Sequence[TokenDivergence], *, level: float = LEVEL, seed: int = 0) -> DivergenceSummary:
    """Summarise the positions of all prompts (one entry each, at least one position in all).

    Every position has the same weight in means; their intervals resample prompts, because positions of one prompt are
    not independent.

    Raises:
        VerifyError: No position has a finite divergence.
    """
    finite = [np.isfinite(prompt.kl) for prompt in prompts]
    if not any(kept.any() for kept in finite):
        raise VerifyError("Found no position with a finite divergence; the two vocabularies do not match.")

    def mean(of: Sequence[npt.NDArray[np.floating]]) -> Estimate:
        return position_mean([values[kept] for values, kept in zip(of, finite, strict=True)], level=level, seed=seed)

    agrees = [float(prompt.top_agrees[kept].sum()) for prompt, kept in zip(prompts, finite, strict=True)]
    quantiles = cluster_quantiles(
        [prompt.kl[kept] for prompt, kept in zip(prompts, finite, strict=True)],
        list(QUANTILES.values()),
        level=level,
        low=0.0,
        high=math.inf,
    )
    return DivergenceSummary(
        positions=sum(kept.size for kept in finite),
        infinite=sum(int((~kept).sum()) for kept in finite),
        kl=mean([prompt.kl for prompt in prompts]),
        quantiles=dict(zip(QUANTILES, quantiles, strict=True)),
        top_agreement=cluster_share(agrees, [float(kept.sum()) for kept in finite], level),
        entropy_p=mean([prompt.entropy_p for prompt in prompts]),
        entropy_q=mean([prompt.entropy_q for prompt in prompts]),
        delta_entropy=mean([prompt.entropy_q - prompt.entropy_p for prompt in prompts]),
    )


def position_mean(prompts: Sequence[npt.NDArray[np.floating]], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """Mean over the positions of all prompts, each weighing the same; the interval resamples prompts.

    Args:
        prompts: float [positions] of each, finite.

    Returns:
        NaN without positions.
    """
    sums = np.array([[float(values.sum()), float(values.size)] for values in prompts if values.size])
    if not sums.size:
        return Estimate(math.nan)
    value = float(sums[:, 0].sum() / sums[:, 1].sum())
    return Estimate(value, cluster_interval(sums, weighted_ratio, level=level, seed=seed))


def exposure_index(
    teacher_forced: Sequence[TokenDivergence],
    on_policy: Sequence[TokenDivergence],
    *,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """Mean on-policy KL over mean teacher-forced KL. Above 1, the models differ more after the quantized model's own
    text.

    Args:
        teacher_forced: Per prompt, ``divergence(reference, quantized)`` on the reference's samples.
        on_policy: Per prompt, in the same order, ``divergence(quantized, reference)`` on the quantized model's samples.
    """
    rows = []
    for forced, own in zip(teacher_forced, on_policy, strict=True):
        a, b = forced.kl[np.isfinite(forced.kl)], own.kl[np.isfinite(own.kl)]
        rows.append([float(b.sum()), float(b.size), float(a.sum()), float(a.size)])
    values = np.array(rows)
    value = float(_exposure(np.ones((1, len(values))), values)[0])
    return Estimate(value, cluster_interval(values, _exposure, level=level, seed=seed))


def _exposure(weights: Floats, values: Floats) -> Floats:
    own_sum, own_n, forced_sum, forced_n = (weights @ values).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((own_sum / own_n) / (forced_sum / forced_n))
