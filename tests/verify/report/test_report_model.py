"""Reports as data: written, read back, checked against the published schema."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from report_support import make_report

from edgedistill.errors import VerifyError
from edgedistill.json_codec import encode
from edgedistill.renamed import RenamedWarning
from edgedistill.verify.metrics.procedure_score import ProcedureReport, ProcedureScore
from edgedistill.verify.report.html import html
from edgedistill.verify.report.json_schema import SCHEMA_PATH, schema_text
from edgedistill.verify.report.model import (
    FORM,
    NAMES,
    PairMetrics,
    PositionBin,
    PromptPair,
    TokenReport,
    VerifyReport,
    read_report,
    report_json,
)
from edgedistill.verify.report.tables import metric_rows
from edgedistill.verify.types import Estimate, Interval, RunSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def report() -> VerifyReport:
    return make_report()


@pytest.fixture(scope="module")
def audit() -> VerifyReport:
    return make_report(audit=True)


def test_the_schema_file_is_that_of_the_classes() -> None:
    assert SCHEMA_PATH.read_text() == schema_text(), "run: python -m edgedistill.verify.report.json_schema"


@pytest.mark.parametrize("name", ["report", "audit"])
def test_reports_validate_and_survive_a_round_trip(name: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(name)
    text = report_json(report)
    value = json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text()))
    assert not list(validator.iter_errors(value))
    assert report_json(VerifyReport.from_dict(value)) == text


def _bare(value: object) -> object:
    """Estimates as earlier reports had many of them: the number alone."""
    if isinstance(value, dict):
        return value["value"] if value.keys() == {"value", "interval"} else {k: _bare(v) for k, v in value.items()}
    return [_bare(entry) for entry in value] if isinstance(value, list) else value


@pytest.mark.parametrize("schema", [1, 2])
def test_earlier_reports_are_read(report: VerifyReport, schema: int) -> None:
    """In schema 1 the k of a suite were numbers alone, in schema 2 still those of a prompt, quantiles and others."""
    value = report.to_dict()
    value["schema_version"] = schema
    suite, tokens = value["bundle_result"], value["tokens"]
    if schema == 1:
        suite["pass_at"], suite["majority_at"] = _bare(suite["pass_at"]), _bare(suite["majority_at"])
    suite["form"]["token_quantiles"] = _bare(suite["form"]["token_quantiles"])
    suite["collapse"]["top_share"] = _bare(suite["collapse"]["top_share"])
    del suite["entropy_plug_in"], suite["entropy_miller_madow"], tokens["survival"]["median_interval"]
    tokens["forced"]["quantiles"] = _bare(tokens["forced"]["quantiles"])
    tokens["by_position"] = _bare(tokens["by_position"])
    for prompt in suite["prompts"]:
        for name in ("entropy_plug_in", "entropy_miller_madow", "loose", "pass_at", "majority_at", "mean_tokens"):
            prompt[name] = _bare(prompt[name])
        for name in ("unclosed", "mean_reasoning_tokens", "repetition", "unparsed_share", "truncated_share"):
            del prompt[name]
    for prompt in value["prompts"]:
        prompt["distance"], prompt["kl"] = _bare(prompt["distance"]), _bare(prompt["kl"])
        del prompt["flips"], prompt["top_agreement"]
    read = VerifyReport.from_dict(value)
    assert {k: e.value for k, e in read.bundle_result.pass_at.items()} == {
        k: e.value for k, e in report.bundle_result.pass_at.items()
    }
    assert (read.bundle_result.pass_at[1].interval is None) == (schema == 1)
    assert read.bundle_result.prompts[0].unclosed is None
    assert read.tokens.forced is not None
    assert report.tokens.forced is not None
    assert read.tokens.forced.quantiles["p99"] == Estimate(report.tokens.forced.quantiles["p99"].value)
    assert read.to_dict()["reference_result"] == value["reference_result"]
    assert html(read).count("<details>") == html(report).count("<details>")
    assert [row.label for row in metric_rows(read)] == [row.label for row in metric_rows(report)]


BARE = {
    "Collapse": {"permuted_bits", "gold_bits", "effective_gold", "gold_collision"},  # of the suite, or of chance
    "SuiteResult": {"all_equal_bound"},  # is a bound
    "DeviceComparison": {"mean_shared"},  # describes; nothing is inferred from it
}
"""Numbers of the report that are known exactly, or are bounds, and so need no interval."""


def test_every_number_that_is_estimated_has_room_for_an_interval() -> None:
    measured = (
        "Collapse", "SuiteResult", "PromptSummary", "FormSummary", "DivergenceSummary", "Diversity", "ProcedureScore",
        "ProcedureChange", "HallucinationVariance", "PerturbationCheck", "DeviceComparison",
    )  # fmt: skip
    kinds = {name: NAMES[name] for name in measured} | {
        kind.__name__: kind for kind in (PromptPair, PairMetrics, TokenReport, PositionBin)
    }
    for name, kind in kinds.items():
        bare = {f.name for f in dataclasses.fields(kind) if "float" in str(f.type)}
        assert bare == BARE.get(name, set()), name


def _estimates(value: object, path: str) -> Iterator[tuple[str, Estimate]]:
    if isinstance(value, Estimate):
        yield path, value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _estimates(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _estimates(entry, f"{path}.{key}")
    elif isinstance(value, tuple):
        for entry in value:
            yield from _estimates(entry, path)


# The largest of something; what does not vary and has no upper bound; positions that two prompts reach; one reply.
WITHOUT = re.compile(
    r"quantiles\.max|token_quantiles|reasoning_tokens|by_position|tokens\.path\.(kl|delta_entropy)|sweep\.entropies"
    r"|^report\.prompts\.(kl|kl_on_policy|top_agreement|delta_entropy)"
)


def test_every_estimate_of_a_report_has_its_interval(report: VerifyReport, audit: VerifyReport) -> None:
    for one in (report, audit):
        found = list(_estimates(one, "report"))
        assert len(found) > 100
        for path, estimate in found:
            interval = estimate.interval
            assert interval is not None or WITHOUT.search(path), path
            if interval is not None:
                assert interval.low <= estimate.value <= interval.high, (path, estimate)
                assert interval.method


def test_the_schema_refuses_what_is_no_report(report: VerifyReport) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text()))
    value = report.to_dict()
    value["gate"]["result"]["outcome"] = "perhaps"
    del value["suite"]["sha256"]
    assert len(list(validator.iter_errors(value))) >= 2


def test_numbers_that_are_not_finite() -> None:
    value = encode(Estimate(math.nan, Interval(-math.inf, math.inf, 0.95, "none")))
    assert value == {"value": None, "interval": {"low": None, "high": None, "level": 0.95, "method": "none"}}
    back = FORM.decode(Estimate, value, "report")
    assert math.isnan(back.value)
    assert back.interval is not None
    assert (back.interval.low, back.interval.high) == (-math.inf, math.inf)


def _change(value: dict[str, Any], path: str, new: object) -> None:
    *parents, last = path.split(".")
    found: Any = value
    for key in parents:
        found = found[int(key) if key.isdigit() else key]
    found[last] = new


@pytest.mark.parametrize(
    ("path", "new", "named"),
    [
        ("schema_version", 99, "schema 99"),
        ("schema_version", None, "no `schema_version`"),
        ("kind", "guess", "'verify', 'audit'"),
        ("suite.prompts", 1.5, "suite.prompts"),
        ("suite.prompts", True, "suite.prompts"),
        ("bundle_result.agreement", "3", "bundle_result.agreement"),
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


def test_the_procedure_of_an_earlier_report_is_read(audit: VerifyReport) -> None:
    number = Estimate(0.5, Interval(0.25, 0.75, 0.95, "bca"))
    score = ProcedureScore(
        number, number, number, number, number, number, number, number, number, decided_by={"majority": 3}
    )
    new = replace(audit, procedure=ProcedureReport("vote", 4, "majority", score))
    old = new.to_dict()
    old["mode"] = old.pop("procedure")
    old["mode"]["mode"] = old["mode"].pop("name")
    with pytest.warns(RenamedWarning, match="mode is called name now"):
        assert VerifyReport.from_dict(old) == new
