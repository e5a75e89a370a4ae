"""The report as JUnit XML: a test case per endpoint, for the test tabs of CI systems.

Fail is a failure, inconclusive an error: a job that looks at either does not take it for a pass.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from edgedistill.errors import EXIT_FAIL, EXIT_OK
from edgedistill.verify.report.tables import endpoint_rows, headline, metric_rows

if TYPE_CHECKING:
    from edgedistill.verify.report.model import VerifyReport

# What XML 1.0 cannot hold, escaped or not.
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
