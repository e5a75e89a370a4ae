"""The report for GitHub Actions: a job summary in Markdown, and annotations (workflow commands)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.safe_text import visible
from edgedistill.verify.report.gate_text import samplers_text
from edgedistill.verify.report.prompt_tables import LOST_HEADERS, LOST_TITLE, lost_rows, lost_text
from edgedistill.verify.report.tables import (
    ENDPOINT_HEADERS,
    endpoint_rows,
    headline,
    metric_rows,
    path_text,
    settings_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.verify.report.model import VerifyReport

_MARKS = {"pass": "✅", "fail": "❌", "inconclusive": "❔"}
_COMMANDS = {"pass": "notice", "fail": "error", "inconclusive": "warning"}


def job_summary(report: VerifyReport) -> str:
    """Markdown for GITHUB_STEP_SUMMARY."""
    against = f" against `{_code(report.reference.name)}`" if report.reference is not None else ""
    lines = [
        f"## {headline(report)}: `{_code(report.bundle.name)}`{against} on {_cell(report.suite.name)}",
        "",
        *(f"> {_cell(one.sentence)}\n" for one in report.shipped),
        _cell(report.claim),
        "",
    ]
    if report.gate is not None:
        rows = [[*row[:-1], f"{_MARKS[row[-1]]} {row[-1]}"] for row in endpoint_rows(report)]
        lines += [_table(ENDPOINT_HEADERS, rows), ""]
        lines += [f"- {_cell(reason)}" for reason in report.gate.reasons]
        lines += ["", _cell(report.gate.power)]
        if report.gate.decide:
            lines += ["", f"**What would decide it:** {_cell(report.gate.decide)}"]
    else:
        lines.append(_cell(report.bundle_result.verdict_reason))
    if report.lost_most:
        lost = [_table(LOST_HEADERS, lost_rows(report)), "", _cell(lost_text(report))]
        lines += ["", f"<details><summary>{LOST_TITLE}</summary>", "", *lost, "", "</details>"]
    metrics = [(row.label, row.reference, row.bundle) for row in metric_rows(report)]
    lines += ["", "<details><summary>All metrics</summary>", "", _table(("metric", "reference", "bundle"), metrics)]
    told = " ".join([f"{settings_text(report)}.", path_text(report), samplers_text(report)])
    lines += ["", "</details>", "", _cell(told), ""]
    return "\n".join(lines)


def annotate(report: VerifyReport) -> list[str]:
    """Workflow commands, one line each: every endpoint that did not pass, then the outcome."""
    lines = [
        _command(row[-1], f"{row[0]}: {row[-1]}", f"{row[3] or f'{row[1]} to {row[2]}'}, margin {row[4]}")
        for row in endpoint_rows(report)
        if row[-1] != "pass"
    ]
    if report.gate is not None:
        text = " ".join([*report.gate.reasons, report.gate.decide]).strip()
        lines.append(_command(report.gate.result.outcome, f"edgedistill verify: {headline(report)}", text))
    else:
        outcome = {0: "pass", 1: "fail"}.get(report.exit_code, "inconclusive")
        text = report.bundle_result.verdict_reason
        lines.append(_command(outcome, f"edgedistill audit: {headline(report)}", text))
    return lines


def _command(outcome: str, title: str, message: str) -> str:
    escaped = _escape(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{_COMMANDS[outcome]} title={escaped}::{_escape(message)}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that neither ends a table's cell nor is taken for markup."""
    safe = visible(" ".join(text.split()), line=True)
    return safe.replace("<", "&lt;").replace("|", "\\|").replace("[", "\\[")


def _code(text: str) -> str:
    return visible(" ".join(text.split()), line=True).replace("`", "'")
