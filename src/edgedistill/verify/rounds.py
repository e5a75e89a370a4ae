"""Draws the replies of a run in rounds, so that it can fail early and a time budget can end it between two rounds.

The reference and the bundle take turns, so that after every round both have the same prompts. Two rules keep the error
rates of the whole run at alpha:

- **Failing early.** The tests of failure at all looks (the screening is one) share alpha: half of it goes to the looks
  before the last in equal parts, the other half to the last (Bonferroni). Stopping on fail does not make a pass more
  likely.
- **Passing at the end of a budget.** Without a time budget only the whole run may pass, at alpha. With one, the run may
  end after any round, for reasons related to the replies (long ones take longer): a fifth of alpha is for the rounds
  before the last, in equal parts, and four fifths for the whole run. This holds whatever ended the run.

An interrupted round is left out, since the replies that were complete by then are the short ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from edgedistill.verify.gate.decide import Levels, decide
from edgedistill.verify.metrics.paired import compare
from edgedistill.verify.report.gate_text import LABELS
from edgedistill.verify.sampling.deadline import TimeUpError
from edgedistill.verify.screening import SAMPLES, is_worth_it, screen
from edgedistill.verify.stats.answer_counts import by_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.verify.gate.decide import GateResult
    from edgedistill.verify.gate.endpoints import Margins
    from edgedistill.verify.options import VerifyOptions
    from edgedistill.verify.sampling.protocol import SampledModel
    from edgedistill.verify.screening import Screened
    from edgedistill.verify.stages import Run
    from edgedistill.verify.types import Drawn, Prompt

FIRST = 4
"""Samples per prompt before the first look, and in a screening."""

PARTS = 4
"""Largest number of rounds of a run with a time budget."""

LEAST_REPLIES = 16
"""Smallest number of replies per model and round: fewer would leave rows of a batch empty."""


class Round(NamedTuple):
    """State after a round: ``samples`` of each of the first ``prompts`` prompts."""

    prompts: int
    samples: int


@dataclass(slots=True)
class Drawing:
    """Replies of both models.

    Attributes:
        prompts, reference_drawn, bundle_drawn: The prompts that are used, and the replies to them.
        samples: Number per prompt.
        levels: Levels of the tests for the verdict on them.
        failed: The screening, if it failed; the replies are those of the screening then.
        ended: Why the run ended early, in a sentence; empty if it did not.
    """

    prompts: list[Prompt]
    reference_drawn: list[Drawn] = field(default_factory=list)
    bundle_drawn: list[Drawn] = field(default_factory=list)
    samples: int = 0
    levels: Levels = Levels()  # noqa: RUF009  (frozen)
    failed: Screened | None = None
    ended: str = ""


def schedule(prompts: int, samples: int, *, budget: bool) -> list[Round]:
    """The rounds of a run: all prompts with an increasing number of samples, or an increasing number of prompts if a
    time budget leaves only few samples of each.
    """
    if not budget:
        sizes, size = [], FIRST
        while 2 * size <= samples:
            sizes += [size] if prompts * size >= 2 * LEAST_REPLIES else []
            size *= 2
        return [Round(prompts, size) for size in (*sizes, samples)]
    parts = max(1, min(PARTS, prompts * samples // LEAST_REPLIES))
    if samples >= 2 * FIRST:
        parts = min(parts, samples // FIRST)
        return [Round(prompts, samples * (part + 1) // parts) for part in range(parts)]
    parts = max(1, min(parts, prompts // 2))
    return [Round(prompts * (part + 1) // parts, samples) for part in range(parts)]


def in_turns(prompts: Sequence[Prompt], parts: int) -> list[Prompt]:
    """The same prompts in an order in which the first n are spread over the suite, for every n."""
    return [prompt for part in range(parts) for prompt in prompts[part::parts]]


def levels_of(alpha: float, *, looks: int, ends: int) -> tuple[Levels, Levels]:
    """Levels of every look before the last, and of the last (see the module).

    Args:
        alpha: Of the whole run.
        looks: Number of tests of failure before the last.
        ends: Number of points before the last at which a time budget may end the run.
    """
    early = Levels(within=0.2 * alpha / max(1, ends), beyond=0.5 * alpha / max(1, looks))
    return early, Levels(within=0.8 * alpha if ends else alpha, beyond=0.5 * alpha if looks else alpha)


def draw_in_rounds(
    run: Run,
    reference: SampledModel,
    bundle: SampledModel,
    prompts: Sequence[Prompt],
    margins: Margins,
    options: VerifyOptions,
    pilot: Sequence[Prompt] = (),
) -> Drawing:
    """Draw until a look fails, the time is up, or all replies are drawn.

    Args:
        run: Draws and stores replies.
        reference, bundle: The models.
        prompts: Of the run.
        margins: Of the gate.
        options: Of the run.
        pilot: Prompts with two samples of both models already, which are compared if no round ends in time.

    Raises:
        TimeUpError: The time was up, and there is no pilot.
    """
    budget = run.deadline is not None
    rounds = schedule(len(prompts), options.n_samples, budget=budget)
    order = list(prompts) if rounds[0].prompts == len(prompts) else in_turns(prompts, len(rounds))
    screened = is_worth_it(options, len(prompts)) and rounds[0].samples >= SAMPLES
    early = len(rounds) - 1 + (1 if screened else 0)
    stops = len(rounds) - 1 + (1 if pilot else 0) if budget else 0
    before_last, last = levels_of(options.alpha, looks=early, ends=stops)
    drawing, out_of_time = Drawing(list(pilot), samples=2, levels=before_last), False
    for number, (count, samples) in enumerate(rounds, start=1):
        asked = order[:count]
        try:
            reference_drawn = run.draw(reference, asked, samples=samples, reference=True)
            if screened and number == 1:
                failed = screen(run, bundle, asked, reference_drawn, margins, options, before_last)
                if failed is not None:
                    return Drawing(
                        failed.prompts, failed.reference_drawn, failed.bundle_drawn, SAMPLES, before_last, failed
                    )
            bundle_drawn = run.draw(bundle, asked, samples=samples)
        except TimeUpError:
            out_of_time = True
            break
        whole = number == len(rounds)
        drawing = Drawing(asked, reference_drawn, bundle_drawn, samples, last if whole else before_last)
        if not whole:
            found = _look(run, drawing, margins, options)
            if found.outcome == "fail":
                shown = " and ".join(LABELS[row.name] for row in found.endpoints if row.outcome == "fail")
                drawing.ended = (
                    f"Stopped after {_amount(drawing, len(prompts), options.n_samples)}: the bundle was shown to be "
                    f"beyond its margin in {shown}."
                )
                break
    if out_of_time:
        if not drawing.prompts:
            raise TimeUpError(
                "inconclusive: the time budget ended before both models had replied to any prompt.",
                hint="Give more --time-budget, a smaller --max-new-tokens, or a --baseline made on another machine.",
            )
        if not drawing.reference_drawn:  # no round ended: the replies of the pilot are left
            drawing.reference_drawn = run.draw(reference, drawing.prompts, samples=2, reference=True)
            drawing.bundle_drawn = run.draw(bundle, drawing.prompts, samples=2)
        drawing.ended = _out_of_time(drawing, _look(run, drawing, margins, options), len(prompts), options.n_samples)
    return drawing


def _look(run: Run, drawing: Drawing, margins: Margins, options: VerifyOptions) -> GateResult:
    before, after = (by_prompt(one.sample for one in part) for part in (drawing.reference_drawn, drawing.bundle_drawn))
    comparison = compare(before, after, limit=run.limit)
    return decide(comparison, margins, alpha=options.alpha, estimand=options.about, levels=drawing.levels)


def _amount(drawing: Drawing, prompts: int, samples: int) -> str:
    many = f"{drawing.samples} samples" if drawing.samples == samples else f"{drawing.samples} of {samples} samples"
    count = len(drawing.prompts)
    each = f"{count} prompts" if count == prompts else f"{count} of {prompts} prompts"
    return f"{many} of each of {each}"


def _out_of_time(drawing: Drawing, found: GateResult, prompts: int, samples: int) -> str:
    """Sentences on which endpoints were decided when the time was up, and which were not."""
    parts = []
    for outcome, words in (("fail", "shown to be beyond its margin"), ("pass", "shown to be within its margin")):
        if names := [LABELS[row.name] for row in found.endpoints if row.outcome == outcome]:
            parts.append(f"{words}: {', '.join(names)}")
    if names := [LABELS[row.name] for row in found.endpoints if row.outcome == "inconclusive"]:
        parts.append(f"not decided: {', '.join(names)}")
    return f"The time budget ended after {_amount(drawing, prompts, samples)}. By then {'; '.join(parts)}."


def as_drawn(options: VerifyOptions, drawing: Drawing) -> VerifyOptions:
    """The options of a run that ended early."""
    return replace(options, prompts=len(drawing.prompts), samples=drawing.samples)
