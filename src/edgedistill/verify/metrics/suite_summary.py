"""Summarises the samples of one model on one suite: all reported numbers, for each prompt and over prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.accuracy import hallucination_variance, majority_at_k_estimate, pass_at_k_estimate
from edgedistill.verify.metrics.collapse import collapse_audit
from edgedistill.verify.metrics.collapse_verdict import verdict
from edgedistill.verify.metrics.consistency import (
    agreement,
    answer_entropy,
    class_entropies,
    majority_share,
)
from edgedistill.verify.metrics.copier import copies
from edgedistill.verify.metrics.lengths import form_summary
from edgedistill.verify.metrics.suite_entropy import suite_entropies
from edgedistill.verify.stats.answer_counts import Codebook, by_prompt, tally
from edgedistill.verify.stats.intervals import LEVEL, clopper_pearson_upper, prompt_mean, sample_mean, wilson
from edgedistill.verify.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from edgedistill.verify.metrics.accuracy import HallucinationVariance
    from edgedistill.verify.metrics.collapse import Collapse
    from edgedistill.verify.metrics.collapse_verdict import Thresholds, Verdict, Yardstick
    from edgedistill.verify.metrics.copier import Copies
    from edgedistill.verify.metrics.lengths import FormSummary
    from edgedistill.verify.types import Prompt, Sample, Suite

KS = (1, 4, 16, 64)


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """One prompt; intervals are over its samples.

    ``histogram``: answers and how often, most frequent first; ``unparsed`` and ``truncated`` samples besides, and
    ``unclosed``, whose reasoning was never closed; the same as shares in ``*_share``. ``accuracy``, ``loose`` (checks
    after loosening) and the k-dicts are None without gold; the dicts hold the k that the number of samples allows.
    Entropies in bits. ``repetition``: mean share of repeated 8-grams. Fields with a default are missing in older
    reports.
    """

    prompt_id: str
    samples: int
    histogram: tuple[tuple[str, int], ...]
    unparsed: int
    truncated: int
    majority_answer: str | None
    majority_share: Estimate
    agreement: Estimate
    entropy: Estimate
    entropy_plug_in: Estimate
    entropy_miller_madow: Estimate
    accuracy: Estimate | None
    loose: Estimate | None
    pass_at: dict[int, Estimate] | None
    majority_at: dict[int, Estimate] | None
    mean_tokens: Estimate
    mean_reasoning_tokens: Estimate | None = None
    unclosed: int | None = None
    repetition: Estimate | None = None
    unparsed_share: Estimate | None = None
    truncated_share: Estimate | None = None
    unclosed_share: Estimate | None = None


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """One model on one suite: means over prompts with intervals over prompts (see ``definitions``).

    ``all_equal_bound``: where every sample of every prompt gave its prompt's majority answer, the largest probability
    of another answer that the data allow on a prompt; else None. ``collapse`` and ``verdict`` are None where the suite
    does not allow the audit; ``verdict_reason`` then says why. ``copied``: answers that are copied from the prompt.
    """

    suite: str
    suite_sha256: str
    samples: int
    prompts: tuple[PromptSummary, ...]
    majority_share: Estimate
    agreement: Estimate
    entropy: Estimate
    accuracy: Estimate | None
    loose: Estimate | None
    pass_at: dict[int, Estimate]
    majority_at: dict[int, Estimate]
    form: FormSummary
    all_equal_bound: float | None
    hallucination: HallucinationVariance | None
    collapse: Collapse | None
    verdict: Verdict | None
    verdict_reason: str
    entropy_plug_in: Estimate | None = None
    entropy_miller_madow: Estimate | None = None
    copied: Copies | None = None


def summarise_suite(
    suite: Suite,
    samples: Iterable[Sample],
    *,
    deterministic: bool = False,
    thresholds: Thresholds | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> SuiteResult:
    """Summarise the samples of the suite's prompts; samples of its variants are left out.

    Args:
        deterministic: Decoding left no choice (temperature 0, or top_k 1).

    Raises:
        VerifyError: no samples of some prompt, fewer than 2 of one, or samples of a prompt that the suite does not
            have.
    """
    groups = by_prompt(samples)
    known = {prompt.id for prompt in (*suite.prompts, *suite.variants)}
    strange = [prompt_id for prompt_id in groups if prompt_id not in known]
    missing = [prompt.id for prompt in suite.prompts if prompt.id not in groups]
    if strange or missing:
        what, which = ("has samples but is no prompt", strange) if strange else ("has no samples", missing)
        raise VerifyError(f"Suite `{suite.name}`: `{which[0]}` {what}; expected samples of exactly its prompts.")
    groups = {prompt.id: groups[prompt.id] for prompt in suite.prompts}
    book = Codebook()
    codes = {prompt_id: book.encode(group) for prompt_id, group in groups.items()}
    rows = tuple(_prompt(prompt, groups[prompt.id], codes[prompt.id], book, level) for prompt in suite.prompts)

    def mean(values: Sequence[float], high: float) -> Estimate:
        return prompt_mean(values, low=0.0, high=high, level=level, seed=seed)

    fewest = min(row.samples for row in rows)
    entropies = suite_entropies([tally(codes[prompt.id]) for prompt in suite.prompts], level)
    scored = suite.has_gold
    accuracy = mean([row.accuracy.value for row in rows if row.accuracy], 1.0) if scored else None
    agree = mean([row.agreement.value for row in rows], 1.0)
    collapse, reason = _collapse(suite, groups, codes, book, level=level, seed=seed)
    copied = _copied(suite, groups, level, seed)
    word = None
    if collapse is not None or deterministic:
        ratio = Estimate(math.nan) if collapse is None else collapse.ratio
        word = verdict(
            agree,
            ratio,
            accuracy,
            deterministic=deterministic,
            texts=collapse.off_prompt_collision if collapse is not None and _has_texts(suite) else None,
            yardstick=_yardstick(suite),
            favourite=_favourite(suite, collapse, book),
            constant=_yardstick(suite) == "labels" and collapse is not None and collapse.top_share.value == 1,
            prompts=len(rows),
            copied=None if copied is None else (copied.place, copied.share),
            thresholds=thresholds,
        )
        reason = word.reason
    return SuiteResult(
        suite=suite.name,
        suite_sha256=suite.sha256,
        samples=fewest,
        prompts=rows,
        majority_share=mean([row.majority_share.value for row in rows], 1.0),
        agreement=agree,
        entropy=entropies.answers,
        accuracy=accuracy,
        loose=mean([row.loose.value for row in rows if row.loose], 1.0) if _has_checks(suite) else None,
        pass_at={k: mean(values, 1.0) for k, values in _over_prompts([row.pass_at for row in rows]).items()},
        majority_at={k: mean(values, 1.0) for k, values in _over_prompts([row.majority_at for row in rows]).items()},
        form=form_summary(groups, level=level, seed=seed),
        copied=copied,
        all_equal_bound=clopper_pearson_upper(0, fewest, level)
        if all(row.majority_share.value == 1 for row in rows)
        else None,
        hallucination=_hallucination(groups, level, seed) if scored and len(rows) > 1 else None,
        collapse=collapse,
        verdict=word,
        verdict_reason=reason,
        entropy_plug_in=entropies.plug_in,
        entropy_miller_madow=entropies.miller_madow,
    )


def _prompt(
    prompt: Prompt, group: Sequence[Sample], codes: npt.NDArray[np.int64], book: Codebook, level: float
) -> PromptSummary:
    counts = tally(codes)
    answers = book.answers()
    found, often = np.unique(codes[codes >= 0], return_counts=True)
    order = np.argsort(-often, kind="stable")
    histogram = tuple((answers[int(found[i])], int(often[i])) for i in order)
    total = counts.total

    def share(successes: int) -> Estimate:
        return Estimate(successes / total, wilson(successes, total, level))

    def mean(values: list[float], high: float) -> Estimate:
        return sample_mean(values, low=0.0, high=high, level=level)

    accuracy = loose = passes = votes = None
    if prompt.scored:
        right = sum(sample.correct is True for sample in group)
        accuracy = share(right)
        passes = {k: pass_at_k_estimate(right, total, k, level) for k in KS if k <= total}
    if prompt.answer is not None:
        code = book.answer_code(prompt.answer)
        at = np.flatnonzero(found == code)
        gold = int(at[0]) if at.size else -1
        cells = tuple(often.tolist())
        votes = {k: majority_at_k_estimate(cells, counts.garbage, gold, k, level) for k in KS if k <= total}
    if prompt.checks:
        loose = share(sum(sample.loose is True for sample in group))
    plug_in, miller_madow = class_entropies(counts, level)
    unclosed = sum(sample.unclosed for sample in group)
    return PromptSummary(
        prompt_id=prompt.id,
        samples=total,
        histogram=histogram,
        unparsed=counts.unparsed,
        truncated=counts.truncated,
        majority_answer=histogram[0][0] if histogram else None,
        majority_share=majority_share(counts, level),
        agreement=agreement(counts, level),
        entropy=answer_entropy(counts, level),
        entropy_plug_in=plug_in,
        entropy_miller_madow=miller_madow,
        accuracy=accuracy,
        loose=loose,
        pass_at=passes,
        majority_at=votes,
        mean_tokens=mean([sample.tokens for sample in group], math.inf),
        mean_reasoning_tokens=mean([sample.reasoning_tokens for sample in group], math.inf),
        unclosed=unclosed,
        repetition=mean([sample.repetition for sample in group], 1.0),
        unparsed_share=share(counts.unparsed),
        truncated_share=share(counts.truncated),
        unclosed_share=share(unclosed),
    )


def _collapse(
    suite: Suite,
    groups: Mapping[str, Sequence[Sample]],
    codes: Mapping[str, npt.NDArray[np.int64]],
    book: Codebook,
    *,
    level: float,
    seed: int,
) -> tuple[Collapse | None, str]:
    """The audit, or why there is none. If answers are results of checks, whole texts are compared instead."""
    rows, gold = list(codes.values()), None
    if _has_checks(suite):
        texts = Codebook()
        rows = [
            np.array([texts.answer_code(" ".join(s.text.casefold().split())) for s in group], np.int64)
            for group in groups.values()
        ]
    elif suite.has_gold:
        gold = [book.answer_code(prompt.answer or "") for prompt in suite.prompts]
    try:
        own = _yardstick(suite) == "labels"
        return collapse_audit(rows, gold, level=level, seed=seed, own_labels=own), ""
    except VerifyError as error:
        return None, str(error)


def _yardstick(suite: Suite) -> Yardstick:
    """What the information of answers is compared with: texts that follow instructions are not expected to coincide,
    labels are, and without gold answers a text may be one.
    """
    if _has_checks(suite):
        return "own"
    return "gold" if suite.has_gold else "labels"


def _favourite(suite: Suite, collapse: Collapse | None, book: Codebook) -> tuple[str, Estimate] | None:
    if any(prompt.answers or prompt.tolerance for prompt in suite.prompts):
        return None  # another answer than the gold one may be right
    if collapse is None or collapse.favourite is None or collapse.favourite_share is None:
        return None
    return book.answers()[collapse.favourite], collapse.favourite_share


def _copied(suite: Suite, groups: Mapping[str, Sequence[Sample]], level: float, seed: int) -> Copies | None:
    if any(prompt.checks or prompt.answers or prompt.tolerance or prompt.choices for prompt in suite.prompts):
        return None  # verdicts of checks are no copies, and more than one answer may be right
    return copies(suite.prompts, list(groups.values()), level=level, seed=seed)


def _has_texts(suite: Suite) -> bool:
    """Whether whole texts are what is compared, and nothing says which are right."""
    free = all(prompt.extract == "text" and not prompt.choices for prompt in suite.prompts)
    return _has_checks(suite) or (free and not suite.has_gold)


def _has_checks(suite: Suite) -> bool:
    return all(prompt.checks for prompt in suite.prompts)


def _hallucination(groups: Mapping[str, Sequence[Sample]], level: float, seed: int) -> HallucinationVariance:
    wrong = [sum(sample.correct is not True for sample in group) for group in groups.values()]
    garbage = [sum(sample.kind != "parsed" for sample in group) for group in groups.values()]
    return hallucination_variance(wrong, [len(group) for group in groups.values()], garbage, level=level, seed=seed)


def _over_prompts(rows: Sequence[dict[int, Estimate] | None]) -> dict[int, list[float]]:
    """Values of the prompts, for each k that all prompts have."""
    known = [row for row in rows if row is not None]
    shared = set.intersection(*(set(row) for row in known)) if known and len(known) == len(rows) else set()
    return {k: [row[k].value for row in known] for k in sorted(shared)}
