"""Screening before long replies are drawn: the bundle is given the reference's reasoning and writes only the answer.

A bundle that cannot even read its answer off the reasoning of the reference has failed. Reading a trace is a prefill,
and an answer is some dozen tokens, so that this costs a small part of the run. It can fail a bundle, never pass one:
what a bundle thinks by itself is not seen. The prefix is computed on the path of a prefill, the answer is decoded as
deployed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from edgedistill.verify.gate.decide import decide
from edgedistill.verify.metrics.paired import compare
from edgedistill.verify.models.bundle import BundleModel
from edgedistill.verify.options import spread
from edgedistill.verify.report.model import TokenReport
from edgedistill.verify.stats.answer_counts import by_prompt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgedistill.runtime.batch.request import SampleKey
    from edgedistill.verify.gate.decide import Levels
    from edgedistill.verify.gate.endpoints import Margins
    from edgedistill.verify.options import Preset, VerifyOptions
    from edgedistill.verify.report.model import VerifyReport
    from edgedistill.verify.sampling.protocol import SampledModel
    from edgedistill.verify.stages import Run
    from edgedistill.verify.types import Drawn, Prompt, Sample

PROMPTS, SAMPLES = 40, 4
SMALL_PART = 10
"""A run with so many times more replies than its screening has one unless it was asked for none."""


class Screened(NamedTuple):
    """A screening that failed: the prompts, the reference's replies, and the bundle's with the same reasoning."""

    prompts: list[Prompt]
    reference_drawn: list[Drawn]
    bundle_drawn: list[Drawn]


def is_worth_it(options: VerifyOptions, prompts: int) -> bool:
    """Whether a run of so many prompts is screened."""
    if options.screen is not None:
        return options.screen
    return prompts * options.n_samples >= SMALL_PART * min(PROMPTS, prompts) * SAMPLES


def screen(
    run: Run,
    bundle: SampledModel,
    prompts: Sequence[Prompt],
    reference_drawn: Sequence[Drawn],
    margins: Margins,
    options: VerifyOptions,
    levels: Levels,
) -> Screened | None:
    """What failed; None where nothing did, or where too few replies of the reference have reasoning that ends.

    Tested at ``levels``, a part of alpha, so that the screening and the run together err no more often than alpha.
    """
    if not isinstance(bundle, BundleModel) or bundle.session is None:
        return None
    begun = _beginnings(bundle, prompts, reference_drawn, thinking=run.thinking)
    chosen = [prompt for prompt in prompts if len(begun.get(prompt.id, ())) >= SAMPLES]
    chosen = spread(chosen, PROMPTS)
    if len(chosen) < 2:
        return None
    keys = {key: begun[prompt.id][key] for prompt in chosen for key in list(begun[prompt.id])[:SAMPLES]}
    before = [one for one in reference_drawn if one.key in keys]
    after = run.answer(bundle, chosen, keys)
    comparison = compare(_groups(before), _groups(after), limit=run.limit)
    found = decide(comparison, margins, alpha=options.alpha, estimand=options.about, levels=levels)
    if found.outcome != "fail":
        run.notes.append(
            f"Given the reference's reasoning on {len(chosen)} prompts, the bundle's answers were not shown to differ."
        )
        return None
    run.notes.append(
        f"Stopped by the screening: given the reference's own reasoning on {len(chosen)} prompts, the bundle's answers "
        "are not the reference's. The numbers below are those of such replies; none was drawn from the bundle alone."
    )
    return Screened(chosen, before, after)


def screened_plan(plan: Preset) -> Preset:
    """Divergences on the reference's tokens only: the bundle has no replies of its own."""
    return replace(plan, on_policy=False, path_replies=0)


def as_screened(report: VerifyReport) -> VerifyReport:
    """The report without what compares whole replies token by token: their reasoning is the same one."""
    kept = ("forced", "llama_cpp", "by_position")
    return replace(report, tokens=TokenReport(**{name: getattr(report.tokens, name) for name in kept}))


def _beginnings(
    bundle: BundleModel, prompts: Sequence[Prompt], reference_drawn: Sequence[Drawn], *, thinking: bool | None
) -> dict[str, dict[SampleKey, tuple[int, ...]]]:
    """By prompt the reasoning of the reference's replies, up to the tag that closes it."""
    encoded = {prompt.id: bundle.replies.encode(prompt, thinking) for prompt in prompts}
    found: dict[str, dict[SampleKey, tuple[int, ...]]] = {}
    for one in reference_drawn:
        end = bundle.replies.reasoning_end(one.token_ids, encoded[one.sample.prompt_id])
        if end is not None and end < len(one.token_ids):
            found.setdefault(one.sample.prompt_id, {})[one.key] = one.token_ids[:end]
    return found


def _groups(drawn: Sequence[Drawn]) -> Mapping[str, Sequence[Sample]]:
    return by_prompt(one.sample for one in drawn)
