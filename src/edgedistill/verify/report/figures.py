"""Draws the plots of a report as SVG, each with a title and a sentence on how to read it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgedistill.svg_plots import Axes, Bar, Series, bars, chart
from edgedistill.verify.report.gate_text import LABELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgedistill.verify.metrics.collapse import Collapse
    from edgedistill.verify.metrics.suite_summary import PromptSummary, SuiteResult
    from edgedistill.verify.report.model import PromptPair, VerifyReport
    from edgedistill.verify.types import Estimate

MOST_HISTOGRAMS = 60
_MOST_ANSWERS = 8


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot: ``section`` groups plots of a kind; ``note`` says how to read it."""

    section: str
    title: str
    svg: str
    note: str


def figures(report: VerifyReport) -> list[Figure]:
    """All plots that the report has data for, answer histograms excepted."""
    made = [*_entropy(report), *_by_position(report), *_survival(report), *_collapse(report), *_sweep(report)]
    return [figure for figure in (*made, *_power(report)) if figure.svg]


def histograms(report: VerifyReport) -> list[tuple[PromptPair, str]]:
    """Answer histograms of the prompts that changed most (in an audit: of the highest entropy), at most
    ``MOST_HISTOGRAMS``.
    """
    before = {} if report.reference_result is None else {p.prompt_id: p for p in report.reference_result.prompts}
    after = {p.prompt_id: p for p in report.bundle_result.prompts}

    def changed(prompt: PromptPair) -> float:
        if prompt.distance is not None:
            return -prompt.distance.value
        return -after[prompt.prompt_id].entropy.value

    ordered = sorted(report.prompts, key=changed)[:MOST_HISTOGRAMS]
    return [(prompt, _histogram(after[prompt.prompt_id], before.get(prompt.prompt_id), prompt)) for prompt in ordered]


def _histogram(after: PromptSummary, before: PromptSummary | None, prompt: PromptPair) -> str:
    bundle_counts, reference_counts = _counts(after), {} if before is None else _counts(before)
    names = sorted(
        bundle_counts | reference_counts,
        key=lambda name: -max(bundle_counts.get(name, 0.0), reference_counts.get(name, 0.0)),
    )
    shown = names[:_MOST_ANSWERS]
    rest = names[_MOST_ANSWERS:]
    if rest:
        bundle_counts["other answers"] = sum(bundle_counts.get(name, 0.0) for name in rest)
        reference_counts["other answers"] = sum(reference_counts.get(name, 0.0) for name in rest)
        shown.append("other answers")
    rows = []
    for name in shown:
        models = (
            [("bundle", bundle_counts)]
            if before is None
            else [("reference", reference_counts), ("bundle", bundle_counts)]
        )
        values = [Bar(who, counts.get(name, 0.0), f"{100 * counts.get(name, 0.0):.0f} %") for who, counts in models]
        rows.append((f"{name} (gold)" if name == prompt.gold else name, values))
    return bars(rows, top=1.0, label=f"Answers to {prompt.prompt_id}")


def _counts(summary: PromptSummary) -> dict[str, float]:
    counts = {answer: often / summary.samples for answer, often in summary.histogram}
    if summary.unparsed:
        counts["[unparsed]"] = summary.unparsed / summary.samples
    if summary.truncated:
        counts["[truncated]"] = summary.truncated / summary.samples
    return counts


def _entropy(report: VerifyReport) -> Iterator[Figure]:
    after, title = report.bundle_result.prompts, "Answer entropy per prompt"
    if report.reference_result is None:
        rows = sorted(after, key=lambda p: p.entropy.value)
        points = [(float(i + 1), p.entropy.value) for i, p in enumerate(rows)]
        low, high = _ends([p.entropy for p in rows])
        names = [f"{p.prompt_id}: {p.entropy.value:.3f} bits" for p in rows]
        dots = Series("bundle", "bundle", points, "dots", low, high, names)
        note = "A dot per prompt, in order of its entropy; the upper ends are what unseen answers could still add."
        yield Figure("consistency", title, chart([dots], Axes("prompt (by entropy)", "bits")), note)
        return
    before = {p.prompt_id: p.entropy.value for p in report.reference_result.prompts}
    pairs = [(before[p.prompt_id], p.entropy.value) for p in after]
    names = [f"{p.prompt_id}: {before[p.prompt_id]:.3f} → {p.entropy.value:.3f} bits" for p in after]
    top = 1.05 * max([0.1, *(value for pair in pairs for value in pair)])
    diagonal = Series("unchanged", "limit", [(0.0, 0.0), (top, top)])
    axes = Axes("reference, bits", "bundle, bits", (0.0, top), (0.0, top))
    cloud = Series("prompt", "bundle", pairs, "dots", titles=names)
    note = "A dot per prompt. Above the line the bundle spreads its answers more than the reference, below it less."
    yield Figure("consistency", title, chart([diagonal, cloud], axes, width=380, height=360), note)


def _by_position(report: VerifyReport) -> Iterator[Figure]:
    lines = []
    bins = report.tokens.by_position
    curves: tuple[tuple[str, Literal["reference", "bundle"], list[tuple[int, Estimate | None]]], ...] = (
        ("teacher-forced", "reference", [(b.start, b.forced) for b in bins]),
        ("on-policy", "bundle", [(b.start, b.on_policy) for b in bins]),
    )
    for name, colour, means in curves:
        known = [(float(start), mean) for start, mean in means if mean is not None]
        if known:
            low, high = _ends([mean for _, mean in known])
            lines.append(Series(name, colour, [(start, mean.value) for start, mean in known], "step", low, high))
    svg = chart(lines, Axes("position in the reply", "KL, nats", log_y=True)) if lines else ""
    note = (
        "Teacher-forced: on the reference's replies. On-policy: on the bundle's own; above it, errors feed themselves."
    )
    yield Figure("tokens", "KL by position", svg, note)


def _ends(values: Sequence[Estimate]) -> tuple[list[float], list[float]]:
    """Ends of the band around a curve; the curve itself where a value has no interval."""
    return (
        [value.value if value.interval is None else value.interval.low for value in values],
        [value.value if value.interval is None else value.interval.high for value in values],
    )


def _survival(report: VerifyReport) -> Iterator[Figure]:
    curve = report.tokens.survival
    if curve is None or not curve.positions:
        return
    points = [(0.0, 1.0), *zip(map(float, curve.positions), curve.survival, strict=True)]
    series = Series("still equal", "bundle", points, "step", (1.0, *curve.low), (1.0, *curve.high))
    axes = Axes("position in the reply", "pairs still equal", (0.0, float(max(1, *curve.positions))), (0.0, 1.0))
    note = (
        f"{report.tokens.parted} of {report.tokens.coupled_pairs} pairs that share their noise diverged; pairs that "
        "ended equal are censored (Kaplan and Meier)."
    )
    yield Figure("tokens", "Survival until the first divergence", chart([series], axes), note)


def _collapse(report: VerifyReport) -> Iterator[Figure]:
    models: list[tuple[str, SuiteResult]] = [("bundle", report.bundle_result)]
    if report.reference_result is not None:
        models.insert(0, ("reference", report.reference_result))
    rows: list[tuple[str, list[Bar]]] = []
    fields: tuple[tuple[str, Callable[[Collapse], Estimate]], ...] = (
        ("information / H(gold)", lambda c: c.ratio),
        ("most frequent answer", lambda c: c.top_share),
        ("off-prompt collision", lambda c: c.off_prompt_collision),
        ("effective answers / gold", lambda c: c.effective_answers.scaled(1 / c.effective_gold)),
        ("without an answer", lambda c: c.garbage),
    )
    found = [(name, result.collapse) for name, result in models if result.collapse is not None]
    for label, value in fields:
        if found:
            rows.append((label, [_bar(name, value(collapse)) for name, collapse in found]))
    varied = report.bundle_extras.perturbations
    if varied is not None:
        for label, share in (
            ("paraphrase keeps", varied.paraphrase_keeps),
            ("changed number changes", varied.changed_number_changes),
            ("empty prompt gives", varied.empty_gives),
        ):
            if math.isfinite(share.value):
                rows.append((label, [_bar("bundle", share)]))
    note = (
        "A sound model has an information ratio near 1 and few collisions. A collapsed one has a ratio near 0 and one "
        "answer for everything, however consistent it is."
    )
    yield Figure("collapse", "Collapse panel", bars(rows, top=1.0, label="Collapse audit"), note)


def _bar(style: str, estimate: Estimate) -> Bar:
    text, found = f"{estimate.value:.3f}", estimate.interval
    if found is None:
        return Bar(style, estimate.value, text)
    return Bar(style, estimate.value, text, found.low, found.high)


def _sweep(report: VerifyReport) -> Iterator[Figure]:
    sweep = report.bundle_extras.sweep
    if sweep is None:
        return
    values = sweep.entropies
    points = list(zip(sweep.temperatures, (e.value for e in values), strict=True))
    low, high = _ends(values)
    axes = Axes("temperature", "mean answer entropy, bits")
    svg = chart([Series("bundle", "bundle", points, "dots", low, high)], axes)
    yield Figure("collapse", "Temperature sweep", svg, sweep.sentence)


def _power(report: VerifyReport) -> Iterator[Figure]:
    if report.gate is None:
        return
    margins = {row.name: row.margin for row in report.gate.result.endpoints}
    for curve in report.gate.curves:
        points = list(zip(curve.effects, curve.power, strict=True))
        axes = Axes("true change", "P(pass)", y_limits=(0.0, 1.0), marks=((margins[curve.endpoint], "margin"),))
        svg = chart([Series("power", "bundle", points)], axes, width=340, height=220)
        note = "Probability to pass if the truth is this much worse, with the prompts and samples of this run."
        yield Figure("power", f"Power: {LABELS[curve.endpoint]}", svg, note)
