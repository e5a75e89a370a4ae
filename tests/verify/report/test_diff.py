"""Two reports side by side."""

from __future__ import annotations

from dataclasses import replace

from report_support import make_report

from edgedistill.verify.report.diff import diff


def test_a_report_does_not_differ_from_itself() -> None:
    report = make_report()
    found = diff(report, report)
    assert not found.warnings
    assert not found.moved
    assert found.common_prompts == 40
    assert all(row.first == row.second for row in found.metrics)


def test_moved_answers_and_outcomes_are_told() -> None:
    found = diff(make_report(accuracy=1.0), make_report(constant="7"))
    assert len(found.moved) == 39
    assert found.outcomes[1] == "FAIL"
    assert found.moved[0].second == "7"
    assert found.to_dict()["common_prompts"] == 40


def test_what_may_not_be_compared_is_said() -> None:
    report = make_report()
    other = replace(
        report,
        suite=replace(report.suite, sha256="2" * 64, prompts=3),
        bundle=replace(report.bundle, tokenizer_sha256="3" * 64),
        settings=replace(report.settings, temperature=1.0, samples=4),
    )
    warnings = " ".join(diff(report, other).warnings)
    for word in ("suites", "tokenizers", "temperature", "samples", "prompts"):
        assert word in warnings
