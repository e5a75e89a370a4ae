"""Two models on the same prompts: per-prompt numbers, paired, from which the gate decides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.consistency import agreement_value, entropy_value
from edgedistill.verify.stats.answer_counts import Codebook, tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgedistill.verify.types import Sample

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PerPrompt:
    """Numbers of one model, each float64 [prompts].

    ``accuracy`` is None without gold. ``entropy``: bits, in [0, log2 N]. ``garbage``: share of samples truncated or
    unparsed. ``tokens``: mean generated.
    """

    accuracy: Floats | None
    agreement: Floats
    entropy: Floats
    garbage: Floats
    tokens: Floats


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both models on the same prompts.

    ``halves``: the same numbers from the samples of even and of odd index, which tell the noise of sampling from the
    variation between prompts; None with fewer than 4 samples a prompt. ``samples``: the fewest samples of a prompt.
    """

    prompts: tuple[str, ...]
    samples: int
    reference: PerPrompt
    quantized: PerPrompt
    halves: tuple[tuple[PerPrompt, PerPrompt], tuple[PerPrompt, PerPrompt]] | None


def per_prompt(groups: Mapping[str, Sequence[Sample]]) -> PerPrompt:
    """Numbers of one model from the samples of each prompt (at least 2; order of the mapping)."""
    rows: dict[str, list[float]] = {name: [] for name in ("accuracy", "agreement", "entropy", "garbage", "tokens")}
    for samples in groups.values():
        counts = tally(Codebook().encode(samples))
        correct = [sample.correct for sample in samples]
        rows["accuracy"].append(math.nan if None in correct else float(np.mean(np.array(correct, np.float64))))
        rows["agreement"].append(agreement_value(counts))
        rows["entropy"].append(entropy_value(counts))
        rows["garbage"].append(counts.garbage / counts.total)
        rows["tokens"].append(float(np.mean([sample.tokens for sample in samples])))
    arrays = {name: np.array(values, np.float64) for name, values in rows.items()}
    scored = not np.isnan(arrays["accuracy"]).any()
    return PerPrompt(
        arrays["accuracy"] if scored else None,
        arrays["agreement"],
        arrays["entropy"],
        arrays["garbage"],
        arrays["tokens"],
    )


def compare(reference: Mapping[str, Sequence[Sample]], quantized: Mapping[str, Sequence[Sample]]) -> Comparison:
    """Pair two models by prompt (``counts.by_prompt`` of each).

    Entropy and unequal sample sizes: both models must have the same samples of a prompt, because the entropy of garbage
    and the bias of any entropy depend on their number.

    Raises:
        VerifyError: different prompts, fewer than 2 prompts, fewer than 2 samples, or different numbers of samples.
    """
    if set(reference) != set(quantized):
        odd = sorted(set(reference) ^ set(quantized))
        raise VerifyError(
            f"{len(odd)} prompt(s) were sampled from one model only, first `{odd[0]}`; expected the same prompts."
        )
    prompts = tuple(reference)
    if len(prompts) < 2:
        raise VerifyError(
            f"found {len(prompts)} prompt(s); a verdict on a suite needs at least 2, and 30 to be safe.",
            hint="Use a suite with more prompts.",
        )
    for prompt in prompts:
        n, m = len(reference[prompt]), len(quantized[prompt])
        if n != m or n < 2:
            raise VerifyError(
                f"prompt `{prompt}` has {n} sample(s) of the reference and {m} of the quantized model; expected "
                "the same number, at least 2.",
                hint="Use --samples 16 or more.",
            )
    ours = {prompt: quantized[prompt] for prompt in prompts}
    fewest = min(len(samples) for samples in reference.values())
    halves = None
    if fewest >= 4:
        halves = (
            (per_prompt(_half(reference, 0)), per_prompt(_half(ours, 0))),
            (per_prompt(_half(reference, 1)), per_prompt(_half(ours, 1))),
        )
    return Comparison(prompts, fewest, per_prompt(reference), per_prompt(ours), halves)


def _half(groups: Mapping[str, Sequence[Sample]], odd: int) -> dict[str, Sequence[Sample]]:
    return {prompt: samples[odd::2] for prompt, samples in groups.items()}
