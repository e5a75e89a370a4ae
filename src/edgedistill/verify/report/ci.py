"""Writes the report for CI systems: job summary and annotations of GitHub Actions, JUnit XML with a case per endpoint.

In JUnit XML, fail is a failure and inconclusive an error, so that neither counts as passed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from edgedistill.errors import EXIT_FAIL, EXIT_OK
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
    """Workflow commands of GitHub Actions, one line each, for every endpoint that did not pass and for the outcome."""
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
    """``text`` escaped, so that it neither ends a table's cell nor is read as markup."""
    safe = visible(" ".join(text.split()), line=True)
    return safe.replace("<", "&lt;").replace("|", "\\|").replace("[", "\\[")


def _code(text: str) -> str:
    return visible(" ".join(text.split()), line=True).replace("`", "'")


# Characters that XML 1.0 cannot contain, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: VerifyReport) -> str:
    """XML text; one suite named after the bundle and the suite of prompts."""
    name = f"edgedistill.{report.kind}.{report.suite.name}"
    cases = [_case(name, row[0], row[-1], f"{row[3] or row[2]} (margin {row[4]})") for row in endpoint_rows(report)]
    if report.gate is None:
        verdict = report.bundle_result.verdict
        outcome = {EXIT_OK: "pass", EXIT_FAIL: "fail"}.get(report.exit_code, "inconclusive")
        reason = report.bundle_result.verdict_reason if verdict is None else verdict.reason
        cases.append(_case(name, "verdict", outcome, f"{headline(report)}: {reason}"))
    failures = sum(case.find("failure") is not None for case in cases)
    errors = sum(case.find("error") is not None for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": str(errors)}
    root = ET.Element("testsuites", {"name": "edgedistill", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": name, "timestamp": report.created[:19], "skipped": "0", **counts})
    properties = ET.SubElement(suite, "properties")
    facts = [
        ("bundle", f"{report.bundle.name} {report.bundle.sha256}"),
        ("reference", "" if report.reference is None else f"{report.reference.name} {report.reference.sha256}"),
        ("suite", f"{report.suite.name} {report.suite.sha256}"),
        *((row.label, row.bundle) for row in metric_rows(report)),
    ]
    for key, value in facts:
        ET.SubElement(properties, "property", {"name": key, "value": value})
    suite.extend(cases)
    if report.gate is not None:
        out = ET.SubElement(suite, "system-out")
        out.text = "\n".join([*report.gate.reasons, report.gate.power, report.gate.decide]).strip()
    ET.indent(root)
    return _clean('<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n")


def _case(suite: str, name: str, outcome: str, message: str) -> ET.Element:
    case = ET.Element("testcase", {"classname": suite, "name": name, "time": "0"})
    if outcome != "pass":
        kind = "failure" if outcome == "fail" else "error"
        ET.SubElement(case, kind, {"message": message, "type": outcome}).text = message
    return case


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
