"""JUnit XML: one case per endpoint, failures and errors where CI looks for them."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from report_support import make_report

from edgedistill.verify.report.ci import junit


def cases(text: str) -> dict[str, str]:
    root = ET.fromstring(text)
    found = {}
    for case in root.iter("testcase"):
        kinds = [child.tag for child in case]
        found[case.get("name", "")] = kinds[0] if kinds else "passed"
    suite = root.find("testsuite")
    assert suite is not None
    for element in (root, suite):
        assert element.get("tests") == str(len(found))
        assert element.get("failures") == str(list(found.values()).count("failure"))
        assert element.get("errors") == str(list(found.values()).count("error"))
    return found


def test_a_failing_run_has_failures_and_undecided_errors() -> None:
    report = make_report(accuracy=0.3)
    assert report.gate is not None
    found = cases(junit(report))
    for label, name in (("accuracy", "accuracy"), ("agreement C", "agreement"), ("length, typical ratio", "length")):
        outcome = next(row.outcome for row in report.gate.result.endpoints if row.name == name)
        assert found[label] == {"pass": "passed", "fail": "failure", "inconclusive": "error"}[outcome]
    assert found["accuracy"] == "failure"
    assert found["length, typical ratio"] == "passed"
    assert len(found) == 8


@pytest.mark.parametrize(("constant", "kind"), [("7", "failure"), (None, "passed")])
def test_an_audit_is_one_case(constant: str | None, kind: str) -> None:
    report = make_report(audit=True, constant=constant, accuracy=1.0)
    assert cases(junit(report)) == {"verdict": kind}


def test_characters_that_xml_cannot_hold() -> None:
    report = make_report(audit=True)
    odd = replace(report, bundle=replace(report.bundle, name='a\x00b\x1b[31m\ud800<&"'))
    text = junit(odd)
    text.encode("utf-8")
    root = ET.fromstring(text)
    values = [p.get("value", "") for p in root.iter("property") if p.get("name") == "bundle"]
    assert values[0].startswith('a\ufffdb\ufffd[31m\ufffd<&"')
