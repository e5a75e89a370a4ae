"""Metrics of one model beyond the prompts of a suite: variants of prompts, other temperatures, variety of texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.metrics.diversity import diversity
from edgedistill.verify.metrics.perturbations import perturbation_check, temperature_sweep
from edgedistill.verify.metrics.second_opinion import second_opinion
from edgedistill.verify.report.model import AuditExtras
from edgedistill.verify.stats.answer_counts import Codebook, by_prompt, tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgedistill.verify.metrics.perturbations import PerturbationCheck
    from edgedistill.verify.metrics.second_opinion import Opinion
    from edgedistill.verify.types import Drawn, ModelIdentity, Prompt, RunSettings, Sample, Shipped, Suite


@dataclass(frozen=True, slots=True)
class ModelSamples:
    """Samples of one model.

    Attributes:
        identity: Of the model.
        drawn, variants, sweep: Replies to the prompts, to their variants, and to the prompts by temperature.
        opinion: Another program's judgement on which answers are equal.
        settings: Sampling settings; None: the run's.
        shipped: Template, end tokens and sampling defaults of the model; None if not known.
    """

    identity: ModelIdentity
    drawn: Sequence[Drawn]
    variants: Sequence[Drawn] = ()
    sweep: Mapping[float, Sequence[Drawn]] = field(default_factory=dict)
    opinion: Opinion | None = None
    settings: RunSettings | None = None
    shipped: Shipped | None = None

    @property
    def samples(self) -> list[Sample]:
        """The replies to the prompts, without token ids."""
        return [drawn.sample for drawn in self.drawn]


def audit_extras(asked: Suite, model: ModelSamples, settings: RunSettings) -> AuditExtras:
    """Compute the metrics of variants, of other temperatures and of the texts.

    Args:
        asked: The prompts that were sampled, and their variants.
        model: Their samples.
        settings: Of the run.
    """
    groups = by_prompt(model.samples)
    varied = None
    if model.variants:
        varied = _perturbations(asked, groups, by_prompt([drawn.sample for drawn in model.variants]), settings)
    swept = None
    if len(model.sweep) > 1:
        counts = {
            temperature: [
                tally(Codebook().encode(group))
                for _, group in sorted(by_prompt([drawn.sample for drawn in drawn_at]).items())
            ]
            for temperature, drawn_at in model.sweep.items()
        }
        swept = temperature_sweep(counts, alpha=1 - settings.level, level=settings.level)
    various = None
    if not asked.has_gold or any(prompt.checks for prompt in asked.prompts):
        texts = [sample.text for sample in model.samples]
        prompts = [sample.prompt_id for sample in model.samples]
        various = diversity(texts, prompts, level=settings.level)
    opinion = None
    if model.opinion is not None:
        golds = {prompt.id: prompt.answer for prompt in asked.prompts}
        opinion = second_opinion(groups, golds, model.opinion, level=settings.level, seed=settings.seed)
    return AuditExtras(varied, swept, various, opinion)


def _perturbations(
    asked: Suite,
    groups: Mapping[str, Sequence[Sample]],
    variants: Mapping[str, Sequence[Sample]],
    settings: RunSettings,
) -> PerturbationCheck:
    book = Codebook()

    def codes(prompt: Prompt, group: Sequence[Sample]) -> npt.NDArray[np.int64]:
        if not prompt.checks:
            return book.encode(group)
        # "follows" is the same answer for every prompt, so the texts are compared.
        return np.array([book.answer_code(" ".join(sample.text.casefold().split())) for sample in group], np.int64)

    def varied(kind: str) -> dict[str | None, Prompt]:
        return {v.variant_of: v for v in asked.variants if v.variant == kind and v.id in variants}

    own = [codes(prompt, groups[prompt.id]) for prompt in asked.prompts]
    paraphrases, changed, empty = varied("paraphrase"), varied("changed-number"), varied("empty")

    def of(found: dict[str | None, Prompt]) -> list[npt.NDArray[np.int64] | None]:
        picked = [found.get(prompt.id) for prompt in asked.prompts]
        return [None if variant is None else codes(variant, variants[variant.id]) for variant in picked]

    gold = [
        None if v is None or v.answer is None else book.answer_code(v.answer)
        for v in (changed.get(prompt.id) for prompt in asked.prompts)
    ]
    nothing = next(iter(empty.values()), None)
    return perturbation_check(
        own,
        of(paraphrases),
        of(changed),
        None if nothing is None else codes(nothing, variants[nothing.id]),
        gold,
        level=settings.level,
    )
