"""Tables of prompts as text: the prompts with the largest losses, and all numbers of one prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.verify.report.tables import MetricRow, bits, nats, number, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.verify.metrics.lost_prompts import AnswerShare
    from edgedistill.verify.metrics.suite_summary import PromptSummary
    from edgedistill.verify.report.model import PromptPair, VerifyReport

LOST_TITLE = "Prompts that lost most"
LOST_HEADERS = ("prompt", "gold", "reference", "bundle", "lost", "more than noise")
_ANSWER_CHARACTERS = 40


def lost_rows(report: VerifyReport) -> list[tuple[str, ...]]:
    """Rows under ``LOST_HEADERS``: the majority answer of either model with its share, worst first."""
    return [
        (
            row.prompt_id,
            "-" if row.gold is None else _cut(row.gold),
            _answer(row.reference),
            _answer(row.bundle),
            f"{100 * (row.before.value - row.after.value):.0f} points",
            "yes" if row.beyond_noise else "not shown",
        )
        for row in report.lost_most
    ]


def lost_text(report: VerifyReport) -> str:
    """Two sentences that explain the rows; empty without rows."""
    if not report.lost_most:
        return ""
    what = "right samples" if report.suite.gold else "the answer that the reference mostly gives"
    sure = sum(row.beyond_noise for row in report.lost_most)
    return (
        f"Lost: decrease of the share of {what}. {sure} of these {len(report.lost_most)} lost more than sampling alone "
        f"explains on any of the {report.suite.prompts} prompts (sign test, Bonferroni)."
    )


def _answer(mostly: AnswerShare) -> str:
    text = "no answer" if mostly.answer is None else _cut(mostly.answer)
    return f"{text} ({100 * mostly.share.value:.0f} %)"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _ANSWER_CHARACTERS else line[: _ANSWER_CHARACTERS - 1] + "…"


def prompt_rows(report: VerifyReport, prompt_id: str) -> list[MetricRow]:
    """All numbers of a prompt; intervals are over its samples, those of divergences over its replies.

    Raises:
        StopIteration: There is no such prompt.
    """
    bundle = next(row for row in report.bundle_result.prompts if row.prompt_id == prompt_id)
    before: dict[tuple[str, str], str] = {}
    if report.reference_result is not None:
        rows = (row for row in report.reference_result.prompts if row.prompt_id == prompt_id)
        before = dict(_model(next(rows)))
    made = [(label, before.get(label, ""), text) for label, text in _model(bundle)]
    pair = next(row for row in report.prompts if row.prompt_id == prompt_id)
    made += [(label, "", text) for label, text in _pair(pair)]
    return [
        MetricRow(key, label, left, right, report.definitions.get(key, ""))
        for (key, label), left, right in made
        if left or right
    ]


def _model(row: PromptSummary) -> Iterator[tuple[tuple[str, str], str]]:
    yield ("accuracy", "accuracy"), percent(row.accuracy)
    yield ("accuracy", "accuracy, loose checks"), percent(row.loose)
    for k, value in (row.pass_at or {}).items():
        yield ("pass_at_k", f"pass@{k}"), percent(value)
    for k, value in (row.majority_at or {}).items():
        yield ("majority_at_k", f"maj@{k}"), percent(value)
    yield ("majority_share", "majority share"), percent(row.majority_share)
    yield ("agreement", "agreement C"), number(row.agreement)
    yield ("entropy", "answer entropy"), bits(row.entropy)
    yield ("entropy_plug_in", "... plug-in"), bits(row.entropy_plug_in)
    yield ("entropy_miller_madow", "... Miller-Madow"), bits(row.entropy_miller_madow)
    yield ("length", "tokens a reply"), number(row.mean_tokens, 1)
    yield ("length", "reasoning tokens"), number(row.mean_reasoning_tokens, 1)
    yield ("truncated", "truncated"), percent(row.truncated_share)
    yield ("unparsed", "unparsed"), percent(row.unparsed_share)
    yield ("unclosed", "reasoning not closed"), percent(row.unclosed_share)
    yield ("repetition", "repetition"), percent(row.repetition)


def _pair(pair: PromptPair) -> Iterator[tuple[tuple[str, str], str]]:
    yield ("distance", "distance of answers"), number(pair.distance, 4)
    yield ("flips", "flips"), percent(pair.flips)
    yield ("kl_teacher_forced", "KL, teacher-forced"), nats(pair.kl)
    yield ("kl_on_policy", "KL, on-policy"), nats(pair.kl_on_policy)
    yield ("top_agreement", "top-1 agreement"), percent(pair.top_agreement)
    yield ("delta_entropy", "change of token entropy"), bits(pair.delta_entropy)
