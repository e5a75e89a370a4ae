"""Computes the report from the samples of a run; it needs neither models nor files."""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.gate.decide import collapse_endpoint, decide
from edgedistill.verify.metrics.accuracy import flips
from edgedistill.verify.metrics.answer_distance import distance_estimate
from edgedistill.verify.metrics.lengths import length_ratio
from edgedistill.verify.metrics.lost_prompts import lost_prompts
from edgedistill.verify.metrics.paired import compare
from edgedistill.verify.metrics.suite_summary import summarise_suite
from edgedistill.verify.report.definitions import DEFINITIONS
from edgedistill.verify.report.extras import ModelSamples, audit_extras
from edgedistill.verify.report.gate_text import gate_report
from edgedistill.verify.report.model import (
    GateReport,
    PairMetrics,
    PromptPair,
    SuiteInfo,
    TokenReport,
    VerifyReport,
)
from edgedistill.verify.report.tokens import by_prompt_id, prompt_tokens, token_report
from edgedistill.verify.stats.answer_counts import Codebook, by_prompt, paired
from edgedistill.verify.stats.intervals import prompt_mean, wilson
from edgedistill.verify.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgedistill.verify.gate.decide import Levels
    from edgedistill.verify.gate.endpoints import Margins
    from edgedistill.verify.gate.sequential import SequentialState
    from edgedistill.verify.metrics.lost_prompts import LostPrompt
    from edgedistill.verify.metrics.suite_summary import SuiteResult
    from edgedistill.verify.report.tokens import PromptDivergences
    from edgedistill.verify.stats.sampler_audit import SamplerAudit
    from edgedistill.verify.types import RunSettings, Sample, Suite


_QUESTION_CHARACTERS = 400
_MUCH_GARBAGE = 0.5


@dataclass(frozen=True, slots=True)
class Provenance:
    """Time, package versions and machine of a report."""

    created: str
    versions: Mapping[str, str]
    machine: Mapping[str, str]

    @classmethod
    def here(cls) -> Provenance:
        """The present time, and the versions and hardware of this machine."""
        from edgedistill.system.hardware import detect

        found: dict[str, str] = {}
        for package in ("edgedistill", "onnxruntime", "numpy"):
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                continue
        found["python"] = platform.python_version()
        return cls(datetime.now(UTC).isoformat(timespec="seconds"), found, detect(probe=False).details)


def analyse(
    suite: Suite,
    settings: RunSettings,
    bundle: ModelSamples,
    reference: ModelSamples | None = None,
    *,
    margins: Margins | None = None,
    provenance: Provenance,
    divergences: Sequence[PromptDivergences] = (),
    sampler: SamplerAudit | None = None,
    sequential: SequentialState | None = None,
    levels: Levels | None = None,
    notes: Sequence[str] = (),
) -> VerifyReport:
    """Compute a report; deterministic.

    Args:
        suite: As loaded; only prompts with samples of the bundle are used.
        settings: Of the run.
        bundle: The bundle's samples.
        reference: The reference's samples; None: an audit of the bundle alone.
        margins: Of the gate; needed with a reference.
        provenance: Of the report.
        divergences: Token scores, one entry per scored prompt.
        sampler: The audit of the sampler.
        sequential: The state in which a sequential run stopped.
        levels: Levels of the gate's tests, if the run could have ended earlier.
        notes: Sentences that go into the report.

    Raises:
        VerifyError: Too few samples or prompts, no answer in any reply, or samples that do not match.
    """
    asked = asked_suite(suite, bundle.samples)
    own = by_prompt(bundle.samples)
    reference_samples = by_prompt(reference.samples) if reference is not None else None
    if reference is not None:
        require_answers(reference, "the reference")
    else:
        require_answers(bundle, "the bundle")
    result = _summary(asked, bundle, settings)
    before = None if reference is None else _summary(asked, reference, settings)
    of_reference = None if reference is None or reference.settings is None else reference.settings
    gate = pairs = None
    lost: tuple[LostPrompt, ...] = ()
    if reference is not None and reference_samples is not None and before is not None:
        if margins is None:
            raise VerifyError("A comparison with a reference needs margins.")
        pairs = _pair_metrics(reference_samples, own, settings)
        gate = _gate(reference_samples, own, (before, result), margins, settings, of_reference, sequential, levels)
        right = {prompt.id: prompt.answer for prompt in asked.prompts}
        lost = lost_prompts(before.prompts, result.prompts, reference_samples, own, right, level=settings.level)
    found_notes = [*notes, *_warnings(result, before, bundle, reference)]
    extras = audit_extras(asked, bundle, settings)
    return VerifyReport(
        kind="audit" if reference is None else "verify",
        created=provenance.created,
        versions=dict(provenance.versions),
        machine=dict(provenance.machine),
        bundle=bundle.identity,
        reference=None if reference is None else reference.identity,
        suite=SuiteInfo(
            suite.name, suite.sha256, len(asked.prompts), len(suite.prompts), len(asked.variants), suite.has_gold
        ),
        settings=settings,
        reference_settings=None if of_reference == settings else of_reference,
        sampler=sampler,
        claim=claim(result, deterministic=settings.deterministic),
        bundle_result=result,
        reference_result=before,
        prompts=_prompt_pairs(asked, own, reference_samples, divergences, settings),
        pairs=pairs,
        bundle_extras=extras,
        reference_extras=None if reference is None else audit_extras(asked, reference, settings),
        tokens=TokenReport()
        if reference is None and not divergences
        else token_report(
            divergences,
            () if reference is None else reference.drawn,
            bundle.drawn,
            coupled=settings.coupled,
            level=settings.level,
            seed=settings.seed,
        ),
        gate=gate,
        definitions=dict(DEFINITIONS),
        notes=tuple(found_notes),
        lost_most=lost,
    )


def asked_suite(suite: Suite, samples: Sequence[Sample]) -> Suite:
    """The part of a suite that was sampled: the prompts with samples, and the variants of these."""
    ids = {sample.prompt_id for sample in samples}
    prompts = tuple(prompt for prompt in suite.prompts if prompt.id in ids)
    variants = tuple(v for v in suite.variants if v.variant_of is None or v.variant_of in ids)
    return replace(suite, prompts=prompts, variants=variants)


def claim(result: SuiteResult, *, deterministic: bool) -> str:
    """How far the samples support a claim such as "100 % self-consistency, 0.00 bits", in sentences."""
    if deterministic:
        return "Decoding was deterministic: equal answers say nothing about the model, and consistency is not scored."
    unanimous = sum(row.majority_share.value == 1.0 for row in result.prompts)
    entropies = [row.entropy.interval.high for row in result.prompts if row.entropy.interval is not None]
    most = max(entropies, default=math.inf)
    count = len(result.prompts)
    if result.all_equal_bound is not None:
        return (
            f"All {result.samples} samples of each of the {count} prompts gave one answer. For any one prompt that "
            f"supports a probability of at least {1 - result.all_equal_bound:.4f} for this answer (95 % confidence) "
            f"and an answer entropy of at most {most:.3f} bits, not 100 % and 0.00 bits."
        )
    top = f"at most {most:.3f} bits on the worst prompt"
    if math.isinf(most):
        top = "on the worst prompt these samples set no upper bound"
    return (
        f"On {unanimous} of {count} prompts all samples gave one answer. Mean majority share "
        f"{100 * result.majority_share.value:.1f} %, mean answer entropy {result.entropy.value:.3f} bits; {top}."
    )


def _warnings(
    result: SuiteResult, before: SuiteResult | None, bundle: ModelSamples, reference: ModelSamples | None
) -> list[str]:
    """Sentences on what limits the meaning of the numbers."""
    found = []
    for who, one, samples in (("reference", before, reference), ("bundle", result, bundle)):
        if one is None or samples is None:
            continue
        without = one.form.truncated.value + one.form.unparsed.value
        if without > _MUCH_GARBAGE:
            cut = 100 * one.form.truncated.value
            found.append(
                f"Note: {100 * without:.0f} % of the {who}'s replies have no answer ({cut:.0f} % truncated); agreement "
                f"and entropy say little then. {_end_hint(samples, reference) or 'A larger --max-new-tokens may help.'}"
            )
    return found


def _summary(asked: Suite, model: ModelSamples, settings: RunSettings) -> SuiteResult:
    deterministic = (model.settings or settings).deterministic
    return summarise_suite(asked, model.samples, deterministic=deterministic, level=settings.level, seed=settings.seed)


def _end_hint(model: ModelSamples, reference: ModelSamples | None) -> str:
    """A sentence if the model's template ends turns with a token that does not end its replies: then raising the limit
    of tokens does not help.
    """
    if model.shipped is None:
        return ""
    known = None if reference is None or reference is model else reference.shipped
    missing = model.shipped.missing_ends(known)
    if not missing:
        return ""
    named = ", ".join(f"`{token}`" for token in missing)
    return f"It lacks the end token {named}: name it in eos_token_id of generation_config.json and export again."


def require_answers(model: ModelSamples, who: str) -> None:
    """Raises VerifyError for a reference (or an audited model) without a single answer: nothing can be measured."""
    samples = model.samples
    if any(sample.kind == "parsed" for sample in samples):
        return
    truncated = sum(sample.kind == "truncated" for sample in samples)
    raise VerifyError(
        f"None of the {len(samples)} replies of {who} has an answer ({truncated} truncated, "
        f"{len(samples) - truncated} unparsed); expected some.",
        hint=(_end_hint(model, None) if truncated else "")
        or "Raise --max-new-tokens, or set `extract` in the suite to how this model states its answers.",
    )


def _gate(
    reference_samples: Mapping[str, Sequence[Sample]],
    own: Mapping[str, Sequence[Sample]],
    results: tuple[SuiteResult, SuiteResult],
    margins: Margins,
    settings: RunSettings,
    of_reference: RunSettings | None,
    sequential: SequentialState | None,
    levels: Levels | None,
) -> GateReport:
    limit = max(settings.max_new_tokens, (of_reference or settings).max_new_tokens)
    comparison = compare(reference_samples, own, limit=limit)
    before, after = results[0].verdict, results[1].verdict
    decision = decide(
        comparison,
        margins,
        verdicts=None if before is None or after is None else (before, after),
        alpha=1 - settings.level,
        estimand="population" if sequential is not None else settings.estimand,
        sequential=sequential is not None,
        levels=levels,
    )
    deterministic = settings.deterministic or (of_reference or settings).deterministic
    return gate_report(decision, comparison, margins, sequential=sequential, deterministic=deterministic)


def _distance(reference_samples: Sequence[Sample], own: Sequence[Sample], settings: RunSettings) -> Estimate:
    left, right = paired(reference_samples, own)
    book = Codebook()
    return distance_estimate(book.encode(left), book.encode(right), coupled=settings.coupled, level=settings.level)


def _flips(reference_samples: Sequence[Sample], own: Sequence[Sample]) -> tuple[int, int, int] | None:
    left, right = paired(reference_samples, own)
    if any(sample.correct is None for sample in (*left, *right)):
        return None
    found = flips([sample.correct is True for sample in left], [sample.correct is True for sample in right])
    return found.pairs, found.lost, found.gained


def _pair_metrics(
    reference_samples: Mapping[str, Sequence[Sample]], own: Mapping[str, Sequence[Sample]], settings: RunSettings
) -> PairMetrics:
    if set(reference_samples) != set(own):
        compare(reference_samples, own, limit=settings.max_new_tokens)  # says which prompt is missing
    level, seed = settings.level, settings.seed
    distances = [_distance(reference_samples[p], own[p], settings).value for p in reference_samples]
    # Uncoupled pairs differ by noise even if the models are the same.
    turned = [_flips(reference_samples[p], own[p]) if settings.coupled else None for p in reference_samples]
    known = [counts for counts in turned if counts is not None and counts[0]]

    def rate(parts: Sequence[float]) -> Estimate | None:
        complete = len(known) == len(turned) and known
        return prompt_mean(parts, low=0.0, high=1.0, level=level, seed=seed) if complete else None

    def tokens(groups: Mapping[str, Sequence[Sample]]) -> list[float]:
        return [float(np.mean([sample.tokens for sample in groups[p]])) for p in reference_samples]

    return PairMetrics(
        distance=prompt_mean(distances, low=min(0.0, *distances), high=2.0, level=level, seed=seed),
        flips=rate([(lost + gained) / n for n, lost, gained in known]),
        lost=rate([lost / n for n, lost, _ in known]),
        gained=rate([gained / n for n, _, gained in known]),
        length_ratio=length_ratio(tokens(reference_samples), tokens(own), level=level, seed=seed),
    )


def _prompt_pairs(
    asked: Suite,
    own: Mapping[str, Sequence[Sample]],
    reference_samples: Mapping[str, Sequence[Sample]] | None,
    divergences: Sequence[PromptDivergences],
    settings: RunSettings,
) -> tuple[PromptPair, ...]:
    scored = by_prompt_id(divergences)
    rows = []
    for prompt in asked.prompts:
        question = prompt.messages[-1].content
        if len(question) > _QUESTION_CHARACTERS:
            question = question[:_QUESTION_CHARACTERS] + "…"
        row = PromptPair(prompt.id, question, prompt.tags, prompt.answer)
        if reference_samples is not None:
            row = replace(row, distance=_distance(reference_samples[prompt.id], own[prompt.id], settings))
            turned = _flips(reference_samples[prompt.id], own[prompt.id]) if settings.coupled else None
            if turned is not None and turned[0]:
                pairs, lost, gained = turned
                changed = Estimate((lost + gained) / pairs, wilson(lost + gained, pairs, settings.level))
                row = replace(row, pairs=pairs, lost=lost, gained=gained, flips=changed)
            if prompt.id in scored:
                tokens = prompt_tokens(scored[prompt.id], settings.level)
                row = replace(
                    row,
                    kl=tokens.kl,
                    kl_on_policy=tokens.kl_on_policy,
                    top_agreement=tokens.top_agreement,
                    delta_entropy=tokens.delta_entropy,
                )
        rows.append(row)
    return tuple(rows)


def collapse_is_open(
    suite: Suite,
    reference: Sequence[Sample],
    quantized: Sequence[Sample],
    *,
    deterministic: bool,
    level: float,
    seed: int,
) -> bool:
    """Whether the gate would be inconclusive about the collapse verdict on these samples of both models."""
    asked = asked_suite(suite, reference)
    verdicts = [
        summarise_suite(asked, samples, deterministic=deterministic, level=level, seed=seed).verdict
        for samples in (reference, quantized)
    ]
    before, after = verdicts
    if before is None or after is None:
        return False
    return collapse_endpoint(before, after).outcome == "inconclusive"
