"""GitHub Actions: a summary that stays a table, commands that stay one line."""

from __future__ import annotations

import re
from dataclasses import replace

from report_support import make_report

from edgedistill.verify.report.ci import annotate, job_summary

COMMAND = re.compile(r"::(notice|warning|error) title=[^:,\n]*::[^\n]*")


def test_annotations_name_what_did_not_pass() -> None:
    report = make_report(accuracy=0.3)
    assert report.gate is not None
    lines = annotate(report)
    assert all(COMMAND.fullmatch(line) for line in lines)
    failed = [row.name for row in report.gate.result.endpoints if row.outcome == "fail"]
    assert (
        sum(line.startswith("::error") for line in lines)
        == len(failed) + (report.gate.result.collapse is not None and report.gate.result.collapse.outcome == "fail") + 1
    )
    assert "FAIL" in lines[-1]


def test_texts_cannot_start_another_command() -> None:
    report = make_report(accuracy=0.3)
    assert report.gate is not None
    gate = replace(report.gate, reasons=("bad\n::set-output name=a::b 100%\r|",))
    lines = annotate(replace(report, gate=gate))
    assert all(COMMAND.fullmatch(line) for line in lines)
    assert "%0A::set-output name=a::b 100%25%0D|" in lines[-1]


def test_an_audit_is_annotated_by_its_verdict() -> None:
    assert annotate(make_report(audit=True, constant="7"))[0].startswith("::error")
    assert annotate(make_report(audit=True, accuracy=1.0))[0].startswith("::notice")


def test_the_summary_is_markdown_whatever_names_say() -> None:
    report = make_report()
    name = "a|b`c\n| x"
    text = job_summary(replace(report, bundle=replace(report.bundle, name=name), claim="<b>bold</b>|x"))
    assert "&lt;b>bold" in text
    rows = [line for line in text.splitlines() if line.startswith("| accuracy ")]
    assert len(rows) == 2
    assert rows[0].count(" | ") == 5
    assert "What would decide it" in job_summary(make_report(prompts=10))
