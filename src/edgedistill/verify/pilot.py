"""The pilot of a run: draws a few replies of both models to estimate how long the run takes and what it can show.

With a time budget it also chooses the size of the run. The replies are those that the run draws first, so they are
reused. Times are cautious: a small batch decodes fewer tokens per second than a full one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgedistill.errors import VerifyError
from edgedistill.units import format_seconds
from edgedistill.verify.models.endpoint import EndpointModel
from edgedistill.verify.options import spread
from edgedistill.verify.references.baseline import BaselineModel
from edgedistill.verify.report.build import require_answers
from edgedistill.verify.report.extras import ModelSamples
from edgedistill.verify.scoring import compare_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.verify.models.bundle import BundleModel
    from edgedistill.verify.options import Preset
    from edgedistill.verify.sampling.protocol import SampledModel
    from edgedistill.verify.stages import Run
    from edgedistill.verify.types import Drawn, Prompt

PROMPTS, SAMPLES = 4, 2
MORE_PROMPTS = 12
"""Further prompts if no reply to the first ones has an answer: the suite may only be hard."""

LEAST_REPLIES = 100
"""A run with fewer replies per model has no pilot, which would take about as long."""

SAMPLING_SHARE = 0.85
"""Share of a time budget for sampling; the rest is for scoring tokens."""

LAST_REPLY = 0.9
"""Share of a time budget after which replies that have not ended are given up."""

ENOUGH_PROMPTS = 30
MOST_SAMPLES = 256
LEAST = 2
"""Number of prompts, and of samples of each, of the smallest run."""

_USUAL = 8  # samples per prompt if the suite is large enough: more prompts tell more than more samples
_ROOM = 1.25  # a shortened limit of tokens, times the longest reply with an answer
_Z = 1.645 + 0.842  # a one-sided test at 5 % passes with 80 %


@dataclass(frozen=True, slots=True)
class Pilot:
    """What the replies of the pilot show.

    Attributes:
        reference_s, bundle_s: Seconds per reply; 0 for stored ones. ``scoring_s``: seconds to score one by both models.
        changed: Share of paired replies that differ, in being right or, without gold, in their answer; never 0 or 1,
            since a few replies cannot show that.
        gold: Whether ``changed`` is about being right.
        lengths: Tokens of the replies of both models. ``longest``: of those with an answer; 0 for none.
    """

    reference_s: float
    bundle_s: float
    scoring_s: float
    changed: float
    gold: bool
    lengths: tuple[int, ...]
    longest: int

    def seconds(self, prompts: int, samples: int, scored: int) -> float:
        """Estimated seconds of a run with ``prompts``, ``samples`` of each, and ``scored`` replies."""
        return prompts * samples * (self.reference_s + self.bundle_s) + scored * self.scoring_s

    def points(self, prompts: int, samples: int) -> float:
        """Smallest loss, in percentage points on these prompts, that the run can exclude for an unchanged model.

        At 80 % power, with the noise of sampling only: Var = changed / (P N). This normal approximation is for
        planning: the gate's tests hold for every distribution and need more samples.
        """
        return 100 * _Z * math.sqrt(self.changed / (prompts * samples))

    def share_of_tokens(self, limit: int) -> float:
        """Share of the tokens that remains if replies end after ``limit`` tokens."""
        return sum(min(length, limit) for length in self.lengths) / max(1, sum(self.lengths))


@dataclass(frozen=True, slots=True)
class Size:
    """Size of a run that fits a time budget; ``tokens`` is a shorter limit of replies, or None to keep the limit."""

    prompts: int
    samples: int
    tokens: int | None
    scored_prompts: int


def draw_pilot(
    run: Run, reference: SampledModel, bundle: BundleModel | EndpointModel, prompts: Sequence[Prompt]
) -> Pilot:
    """Draw and time the pilot; its replies are kept for the run.

    Raises:
        VerifyError: No reply of the reference has an answer.
    """
    asked = pilot_prompts(prompts)
    before, reference_s = _timed(run, reference, asked, reference=True)
    if not any(one.sample.kind == "parsed" for one in before):
        known = {prompt.id for prompt in asked}
        more = spread([prompt for prompt in prompts if prompt.id not in known], MORE_PROMPTS)
        further = _timed(run, reference, more, reference=True)[0] if more else []
        samples = ModelSamples(reference.identity, [*before, *further], shipped=reference.shipped)
        require_answers(samples, "the reference")
    after, bundle_s = _timed(run, bundle, asked, reference=False)
    pairs = list(zip(before, after, strict=True))
    gold = all(prompt.scored for prompt in prompts)
    differ = sum(a.sample.correct != b.sample.correct if gold else _answer(a) != _answer(b) for a, b in pairs)
    # Tokens as the gate counts them: a server's replies have a number of tokens and no ids.
    parsed = [one.sample.tokens for one in (*before, *after) if one.sample.kind == "parsed"]
    return Pilot(
        reference_s,
        bundle_s,
        _scoring(run, reference, bundle, asked[0], after[0]),
        (differ + 0.5) / (len(pairs) + 1),
        gold,
        tuple(one.sample.tokens for one in (*before, *after)),
        max(parsed, default=0),
    )


def pilot_prompts(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts whose first ``SAMPLES`` replies are the pilot."""
    return spread(prompts, PROMPTS)


def choose(pilot: Pilot, budget: float, *, prompts: int, samples: int, limit: int | None, plan: Preset) -> Size:
    """The largest run that fits ``budget`` seconds: more prompts before more samples, shorter replies only if needed.

    Args:
        pilot: The measured times.
        budget: In seconds.
        prompts, samples: Largest numbers.
        limit: Limit of tokens of a reply; None if it may not be changed.
        plan: The preset, for the replies that are scored.

    Raises:
        VerifyError: Not even the smallest run fits.
    """
    each = pilot.reference_s + pilot.bundle_s
    replies = int(SAMPLING_SHARE * budget / max(each, 1e-9))
    wanted = min(ENOUGH_PROMPTS, prompts) * min(4, samples)
    tokens = None
    if replies < wanted and limit is not None and 0 < math.ceil(_ROOM * pilot.longest) < limit:
        tokens = math.ceil(_ROOM * pilot.longest)
        replies = int(SAMPLING_SHARE * budget / max(each * pilot.share_of_tokens(tokens), 1e-9))
    if replies < LEAST * LEAST:
        raise VerifyError(
            f"A reply of both models takes about {format_seconds(each)} here, so that no run fits into "
            f"{format_seconds(budget)}; expected {LEAST} prompts with {LEAST} samples at least.",
            hint="Give more --time-budget, a smaller --max-new-tokens, or a --baseline made on another machine.",
        )
    enough = min(ENOUGH_PROMPTS, prompts)
    per_prompt = next((n for n in (_USUAL, 4) if n <= samples and replies // n >= enough), min(LEAST, samples))
    count = max(LEAST, min(prompts, replies // per_prompt))
    per_prompt = max(LEAST, min(samples, replies // count))
    scored = plan.scored_prompts
    if pilot.scoring_s > 0:
        scored = min(scored, int((1 - SAMPLING_SHARE) * budget / (pilot.scoring_s * scored_replies(plan, 1))))
    return Size(count, per_prompt, tokens, min(scored, count))


def scored_replies(plan: Preset, prompts: int) -> int:
    """Number of replies scored on ``prompts`` prompts: the reference's and, if ``on_policy``, the bundle's."""
    return prompts * plan.scored_samples * (2 if plan.on_policy else 1)


def plan_text(pilot: Pilot, prompts: int, samples: int, plan: Preset) -> str:
    """Sentences on how long the run takes and what it can show, and on a shorter run if that would show enough."""
    scored = scored_replies(plan, min(plan.scored_prompts, prompts))
    whole, points = pilot.seconds(prompts, samples, scored), pilot.points(prompts, samples)
    what = "accuracy" if pilot.gold else "the share of equal answers"
    text = (
        f"Plan: {prompts} prompts, {samples} samples of each, about {roughly(whole)}; can show {what} to about "
        f"{points:.1f} points on these prompts if nothing was lost."
    )
    for target in (3.0, 5.0):
        replies = math.ceil(pilot.changed * (100 * _Z / target) ** 2)
        part = replies / (prompts * samples)
        if points < target and part < 0.5:
            return f"{text} {roughly(part * whole)} would do for {target:g} points (--time-budget)."
    return text


def roughly(seconds: float) -> str:
    """A rounded duration: ``40 s``, ``25 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = math.ceil(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(5 * round(minutes / 5), 60)
    return f"{hours} h {rest:02d} min" if rest else f"{hours} h"


def _timed(run: Run, model: SampledModel, prompts: Sequence[Prompt], *, reference: bool) -> tuple[list[Drawn], float]:
    """Replies, and seconds per reply. All are drawn again, since a stored reply of an earlier run would take no
    time."""
    began = run.clock()
    drawn = run.draw_anew(model, prompts, SAMPLES, reference=reference)
    return drawn, 0.0 if isinstance(model, BaselineModel) else (run.clock() - began) / len(drawn)


def _scoring(
    run: Run, reference: SampledModel, bundle: BundleModel | EndpointModel, prompt: Prompt, drawn: Drawn
) -> float:
    """Seconds to score a reply of the usual length by both models; by the bundle alone against a baseline."""
    if isinstance(bundle, EndpointModel) or isinstance(reference, EndpointModel) or not drawn.token_ids:
        return 0.0
    models = (bundle, bundle) if not reference.can_score else (reference, bundle)
    began = run.clock()
    compare_on(*models, prompt, [drawn.token_ids], thinking=run.thinking)
    took = run.clock() - began
    return took if reference.can_score else took / 2


def _answer(drawn: Drawn) -> tuple[str, str | None]:
    return drawn.sample.kind, drawn.sample.answer


def within(plan: Preset, size: Size) -> Preset:
    """The plan with no more scoring than the size allows."""
    paths = min(plan.path_replies, size.scored_prompts)
    return replace(plan, scored_prompts=size.scored_prompts, path_replies=paths)
