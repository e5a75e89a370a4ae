"""Decides the size of a run after its pilot, and tells the user how long it takes and what it can show at best."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from edgedistill.errors import VerifyError
from edgedistill.progress import say
from edgedistill.verify.gate.reach import out_of_reach
from edgedistill.verify.options import spread
from edgedistill.verify.pilot import (
    LEAST_REPLIES,
    MOST_SAMPLES,
    PROMPTS,
    SAMPLES,
    Size,
    choose,
    draw_pilot,
    plan_text,
    roughly,
    within,
)
from edgedistill.verify.population import usual_length, with_enough
from edgedistill.verify.references.baseline import BaselineModel
from edgedistill.verify.rounds import levels_of
from edgedistill.verify.sampling.deadline import TimeUpError

if TYPE_CHECKING:
    from edgedistill.progress import Progress
    from edgedistill.verify.gate.endpoints import Margins
    from edgedistill.verify.models.bundle import BundleModel
    from edgedistill.verify.models.endpoint import EndpointModel
    from edgedistill.verify.options import VerifyOptions
    from edgedistill.verify.sampling.protocol import SampledModel
    from edgedistill.verify.stages import Run
    from edgedistill.verify.types import Prompt


def planned(
    run: Run,
    reference: SampledModel,
    bundle: BundleModel | EndpointModel,
    prompts: list[Prompt],
    options: VerifyOptions,
    margins: Margins,
    began: float,
    progress: Progress,
) -> tuple[Run, VerifyOptions, list[Prompt]]:
    """The run after its pilot, with its options and prompts.

    Its duration and power are reported. With a time budget it is made small enough; for a verdict about prompts like
    these it gets as many prompts as such a verdict needs, if the suite can generate them.

    Args:
        began: When the time budget began, in seconds on the run's clock.

    Raises:
        TimeUpError: The time budget ended in the pilot.
        VerifyError: No reply of the reference has an answer.
    """
    if options.time_budget is None and len(prompts) * options.n_samples < LEAST_REPLIES:
        _warn(run, prompts, options, margins, options.alpha, 1.0)
        return run, options, prompts
    try:
        pilot = draw_pilot(run, reference, bundle, prompts)
    except TimeUpError as error:
        raise TimeUpError(
            f"inconclusive: the time budget of {roughly(options.time_budget or 0)} ended in the pilot, before both "
            "models had replied twice to a few prompts; nothing was compared.",
            hint="Give more --time-budget, a smaller --max-new-tokens, or a --baseline made on another machine.",
        ) from error
    plan, alpha = options.plan, options.alpha
    if options.time_budget is not None:
        alpha = levels_of(alpha, looks=0, ends=1)[1].within
        left = options.time_budget - (run.clock() - began)
        stored = reference.baseline.samples if isinstance(reference, BaselineModel) else None
        most = stored or MOST_SAMPLES
        limit = None if stored or options.max_new_tokens is not None else run.limit
        try:
            size = choose(pilot, left, prompts=len(prompts), samples=most, limit=limit, plan=plan)
        except VerifyError as error:  # the replies of the pilot can be reported all the same
            run.notes.append(error.message)
            size = Size(min(PROMPTS, len(prompts)), SAMPLES, None, 0)
        plan, prompts = within(plan, size), spread(prompts, size.prompts)
        chosen = replace(options, time_budget=None, prompts=size.prompts, samples=size.samples)
        run = run.resized(chosen, plan, limit=size.tokens)
        shorter = "" if size.tokens is None else f" of at most {size.tokens} tokens"
        run.notes.append(
            f"A pilot of {len(pilot.lengths)} replies chose {size.prompts} prompts with {size.samples} samples each"
            f"{shorter} for a time budget of {roughly(options.time_budget)}."
        )
        options = chosen
    length = usual_length(pilot.lengths, run.limit)
    if not isinstance(reference, BaselineModel):
        more = with_enough(run.suite, prompts, margins, options, length=length)
        if more is not None:
            prompts, run = list(more.suite.prompts), run.resized(options, plan, suite=more.suite)
            run.notes.append(more.sentence)
            say(progress, more.sentence)
    say(progress, plan_text(pilot, len(prompts), options.n_samples, plan))
    _warn(run, prompts, options, margins, alpha, length)
    return run, options, prompts


def _warn(
    run: Run, prompts: list[Prompt], options: VerifyOptions, margins: Margins, alpha: float, length: float
) -> None:
    """Warn before a long run that no bundle could pass."""
    sentence = out_of_reach(
        len(prompts),
        margins,
        options.n_samples,
        estimand=options.about,
        alpha=alpha,
        gold=run.suite.has_gold,
        sequential=options.sequential,
        length=length,
    )
    if sentence:
        warnings.warn(sentence, stacklevel=4)
        run.notes.append(sentence)
