"""Compares two reports: what changed between two runs, and warnings if they are not comparable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedistill.json_codec import Record
from edgedistill.verify.report.tables import headline, metric_rows

if TYPE_CHECKING:
    from edgedistill.verify.report.model import VerifyReport


@dataclass(frozen=True, slots=True)
class PromptMove:
    """The most frequent answer of a prompt in either run, and the share it had."""

    prompt: str
    first: str | None
    second: str | None
    first_share: float
    second_share: float


@dataclass(frozen=True, slots=True)
class MetricPair:
    """A metric of two bundles, as text."""

    metric: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class ReportDiff(Record):
    """Two reports side by side; ``bundles``: their names.

    ``moved``: prompts whose most frequent answer differs, in the order of the suite. ``warnings``: why the comparison
    may mislead, in sentences.
    """

    bundles: tuple[str, str]
    outcomes: tuple[str, str]
    metrics: tuple[MetricPair, ...]
    moved: tuple[PromptMove, ...]
    common_prompts: int
    warnings: tuple[str, ...]


def diff(first: VerifyReport, second: VerifyReport) -> ReportDiff:
    """Compare the bundles of two reports."""
    left = {row.label: row.bundle for row in metric_rows(first)}
    right = {row.label: row.bundle for row in metric_rows(second)}
    labels = list(dict.fromkeys([*left, *right]))
    before = {row.prompt_id: row for row in first.bundle_result.prompts}
    common = [(before[row.prompt_id], row) for row in second.bundle_result.prompts if row.prompt_id in before]
    moved = [
        PromptMove(
            old.prompt_id,
            old.majority_answer,
            new.majority_answer,
            old.majority_share.value,
            new.majority_share.value,
        )
        for old, new in common
        if old.majority_answer != new.majority_answer
    ]
    return ReportDiff(
        bundles=(first.bundle.name, second.bundle.name),
        outcomes=(headline(first), headline(second)),
        metrics=tuple(MetricPair(label, left.get(label, ""), right.get(label, "")) for label in labels),
        moved=tuple(moved),
        common_prompts=len(common),
        warnings=tuple(_warnings(first, second)),
    )


def _warnings(first: VerifyReport, second: VerifyReport) -> list[str]:
    found = []
    if first.suite.sha256 != second.suite.sha256:
        found.append(f"The suites differ: {first.suite.name} and {second.suite.name}, or another version of it.")
    if first.bundle.tokenizer_sha256 != second.bundle.tokenizer_sha256:
        found.append("The tokenizers differ, so numbers per token do not compare.")
    a, b = first.settings, second.settings
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens", "numerics"):
        if getattr(a, name) != getattr(b, name):
            found.append(f"{name} differs: {getattr(a, name)} and {getattr(b, name)}.")
    if a.samples != b.samples:
        found.append(f"The number of samples differs ({a.samples} and {b.samples}), which moves the bias of entropies.")
    if first.suite.prompts != second.suite.prompts:
        found.append(f"The number of prompts differs: {first.suite.prompts} and {second.suite.prompts}.")
    return found
