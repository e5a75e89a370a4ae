"""Metrics of length and form of replies: tokens, truncation, unclosed reasoning, repetition."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.stats.cluster_intervals import cluster_quantiles
from edgedistill.verify.stats.intervals import LEVEL, cluster_interval, prompt_mean, weighted_ratio
from edgedistill.verify.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgedistill.verify.types import Sample

NGRAM = 8


def repetition_rate(tokens: Sequence[int], n: int = NGRAM) -> float:
    """Share of n-grams that occurred before in the same reply: 1 - different / all; 0 for fewer than n + 1 tokens."""
    grams = len(tokens) - n + 1
    if grams < 2:
        return 0.0
    return 1.0 - len({tuple(tokens[i : i + n]) for i in range(grams)}) / grams


@dataclass(frozen=True, slots=True)
class FormSummary:
    """Means over prompts of the per-prompt means, with intervals over prompts, and quantiles over samples.

    Attributes:
        tokens, reasoning_tokens: Generated tokens, and those of them inside the reasoning.
        token_quantiles: p50, p90, p99 and the maximum of generated tokens over all samples; the last without an
            interval.
        truncated, unparsed, unclosed: Rates; truncated and unparsed are disjoint.
        repetition: Mean share of repeated 8-grams.
    """

    tokens: Estimate
    reasoning_tokens: Estimate
    token_quantiles: tuple[Estimate, Estimate, Estimate, Estimate]
    truncated: Estimate
    unparsed: Estimate
    unclosed: Estimate
    repetition: Estimate


def form_summary(groups: Mapping[str, Sequence[Sample]], *, level: float = LEVEL, seed: int = 0) -> FormSummary:
    """Summarise the samples of each prompt (``answer_counts.by_prompt``); at least one sample in all."""

    def rate(values: list[float], high: float) -> Estimate:
        return prompt_mean(values, low=0.0, high=high, level=level, seed=seed)

    def mean(name: str) -> list[float]:
        return [float(np.mean([getattr(sample, name) for sample in samples])) for samples in groups.values()]

    def share(kind: str) -> list[float]:
        return [float(np.mean([sample.kind == kind for sample in samples])) for samples in groups.values()]

    every = [np.array([sample.tokens for sample in samples], np.float64) for samples in groups.values()]
    p50, p90, p99, longest = cluster_quantiles(every, [0.5, 0.9, 0.99, 1.0], level=level, low=0.0, high=math.inf)
    return FormSummary(
        tokens=rate(mean("tokens"), math.inf),
        reasoning_tokens=rate(mean("reasoning_tokens"), math.inf),
        token_quantiles=(p50, p90, p99, longest),
        truncated=rate(share("truncated"), 1.0),
        unparsed=rate(share("unparsed"), 1.0),
        unclosed=rate(mean("unclosed"), 1.0),
        repetition=rate(mean("repetition"), 1.0),
    )


def length_ratio(
    reference: Sequence[float], other: Sequence[float], *, level: float = LEVEL, seed: int = 0
) -> Estimate:
    """Mean tokens of the other model over the reference's, paired by prompt: sum of means over sum of means.

    Args:
        reference, other: [prompts]: mean generated tokens per prompt, in the same order.
    """
    values = np.stack([np.asarray(other, np.float64), np.asarray(reference, np.float64)], axis=1)
    bottom = float(values[:, 1].sum())
    if bottom <= 0:
        return Estimate(math.nan)
    interval = cluster_interval(values, weighted_ratio, level=level, seed=seed)
    return Estimate(float(values[:, 0].sum()) / bottom, interval)
