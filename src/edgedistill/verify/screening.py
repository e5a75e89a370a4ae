"""Screening before long replies are drawn: the bundle gets the reference's reasoning and writes only the answer.

A bundle that gives other answers even after the reference's reasoning has failed. The reasoning is computed as a
prefill, and an answer has a few dozen tokens, so this takes a small part of the run. A screening can fail a bundle but
never pass one, since the bundle's own reasoning is not tested. The reasoning is computed on the path of a prefill; the
answer is decoded as deployed.
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
"""A run is screened by default if it has at least this many times the replies of its screening."""


class Screened(NamedTuple):
    """A screening that failed: the prompts, the reference's replies, and the bundle's with the same reasoning."""

    prompts: list[Prompt]
    reference_drawn: list[Drawn]
    bundle_drawn: list[Drawn]


def is_worth_it(options: VerifyOptions, prompts: int) -> bool:
    """Whether a run with ``prompts`` prompts is screened."""
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
    """Screen the bundle; the replies if it failed, None if it did not or too few replies have closed reasoning.

    The tests have the levels ``levels``, a part of alpha, so that screening and run together keep their error rate at
    alpha. A note about the outcome is added to the run.
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
            f"After the reference's reasoning on {len(chosen)} prompts, the bundle's answers were not shown to differ."
        )
        return None
    run.notes.append(
        f"Stopped by the screening: after the reference's own reasoning on {len(chosen)} prompts, the bundle's answers "
        "differ from the reference's. The numbers below are those of such replies; the bundle drew no complete reply."
    )
    return Screened(chosen, before, after)


def screened_plan(plan: Preset) -> Preset:
    """The plan with divergences on the reference's tokens only: the bundle has no replies of its own."""
    return replace(plan, on_policy=False, path_replies=0)


def as_screened(report: VerifyReport) -> VerifyReport:
    """The report without comparisons of whole replies per token, since both models have the same reasoning."""
    kept = ("forced", "llama_cpp", "by_position")
    return replace(report, tokens=TokenReport(**{name: getattr(report.tokens, name) for name in kept}))


def _beginnings(
    bundle: BundleModel, prompts: Sequence[Prompt], reference_drawn: Sequence[Drawn], *, thinking: bool | None
) -> dict[str, dict[SampleKey, tuple[int, ...]]]:
    """By prompt: the token ids of the reasoning in the reference's replies, with the tag that closes it."""
    encoded = {prompt.id: bundle.replies.encode(prompt, thinking) for prompt in prompts}
    found: dict[str, dict[SampleKey, tuple[int, ...]]] = {}
    for one in reference_drawn:
        end = bundle.replies.reasoning_end(one.token_ids, encoded[one.sample.prompt_id])
        if end is not None and end < len(one.token_ids):
            found.setdefault(one.sample.prompt_id, {})[one.key] = one.token_ids[:end]
    return found


def _groups(drawn: Sequence[Drawn]) -> Mapping[str, Sequence[Sample]]:
    return by_prompt(one.sample for one in drawn)
