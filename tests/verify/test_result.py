"""Reports as data: written, read back, checked against the published schema."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import jsonschema
import pytest
from report_support import make_report

from edgedistill.errors import VerifyError
from edgedistill.verify.codec import decode, encode
from edgedistill.verify.result import NAMES, RunSettings, VerifyReport, read_report, report_json
from edgedistill.verify.schema import SCHEMA_PATH, schema_text
from edgedistill.verify.types import Estimate, Interval

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def report() -> VerifyReport:
    return make_report()


@pytest.fixture(scope="module")
def audit() -> VerifyReport:
    return make_report(audit=True)


def test_the_schema_file_is_that_of_the_classes() -> None:
    assert SCHEMA_PATH.read_text() == schema_text(), "run: python -m edgedistill.verify.schema"


@pytest.mark.parametrize("name", ["report", "audit"])
def test_reports_validate_and_survive_a_round_trip(name: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(name)
    text = report_json(report)
    value = json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text()))
    assert not list(validator.iter_errors(value))
    assert report_json(VerifyReport.from_dict(value)) == text


def test_reports_of_schema_1_are_read(report: VerifyReport) -> None:
    value = report.to_dict()
    value["schema_version"] = 1
    for name in ("pass_at", "majority_at"):
        found = value["bundle_result"][name]
        value["bundle_result"][name] = {k: estimate["value"] for k, estimate in found.items()}
    for prompt in value["bundle_result"]["prompts"]:
        del prompt["unclosed"], prompt["mean_reasoning_tokens"], prompt["repetition"]
    read = VerifyReport.from_dict(value)
    assert {k: e.value for k, e in read.bundle_result.pass_at.items()} == {
        k: e.value for k, e in report.bundle_result.pass_at.items()
    }
    assert read.bundle_result.pass_at[1].interval is None
    assert read.bundle_result.prompts[0].unclosed is None
    assert read.to_dict()["reference_result"] == value["reference_result"]


def test_the_schema_refuses_what_is_no_report(report: VerifyReport) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text()))
    value = report.to_dict()
    value["gate"]["result"]["outcome"] = "perhaps"
    del value["suite"]["sha256"]
    assert len(list(validator.iter_errors(value))) >= 2


def test_numbers_that_are_not_finite() -> None:
    value = encode(Estimate(math.nan, Interval(-math.inf, math.inf, 0.95, "none")))
    assert value == {"value": None, "interval": {"low": None, "high": None, "level": 0.95, "method": "none"}}
    back = decode(Estimate, value, NAMES)
    assert math.isnan(back.value)
    assert back.interval is not None
    assert (back.interval.low, back.interval.high) == (-math.inf, math.inf)


def _change(value: dict, path: str, new: object) -> None:
    *parents, last = path.split(".")
    for key in parents:
        value = value[int(key) if key.isdigit() else key]
    value[last] = new


@pytest.mark.parametrize(
    ("path", "new", "named"),
    [
        ("schema_version", 99, "schema 99"),
        ("schema_version", None, "no `schema_version`"),
        ("kind", "guess", "verify, audit"),
        ("suite.prompts", 1.5, "suite.prompts"),
        ("suite.prompts", True, "suite.prompts"),
        ("bundle_result.agreement", 3, "bundle_result.agreement"),
        ("prompts.0.tags", "easy", "prompts[0].tags"),
        ("bundle_result.pass_at", {"many": 1.0}, "pass_at"),
    ],
)
def test_a_field_that_does_not_fit_is_named(report: VerifyReport, path: str, new: object, named: str) -> None:
    value = report.to_dict()
    _change(value, path, new)
    with pytest.raises(VerifyError) as refused:
        VerifyReport.from_dict(value)
    assert named in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"schema_version": 1}', "[" * 100_000])
def test_files_that_are_no_reports(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(VerifyError, match=r"report\.json"):
        read_report(path)
    with pytest.raises(VerifyError, match="cannot be read"):
        read_report(tmp_path / "missing.json")


def test_deterministic_settings() -> None:
    def settings(temperature: float, top_k: int) -> RunSettings:
        return RunSettings("custom", 2, temperature, 1.0, top_k, 0.0, 1.0, 8, 0)

    assert settings(0.0, 0).deterministic
    assert settings(1.0, 1).deterministic
    assert not settings(1.0, 0).deterministic
