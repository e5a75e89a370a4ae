"""verify, audit, baseline and report as a user runs them, on a tiny bundle and its fp32 reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from cli_support import SUITE_PROMPTS as PROMPTS
from cli_support import edgedistill, here

from edgedistill.verify.report.model import read_report

SMALL = ("--samples", 4, "--no-store")


@pytest.fixture(scope="session")
def baseline(reference: Path, suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("baseline") / "tiny.baseline"
    done = edgedistill("baseline", "create", reference, "-o", path, "--suite", suite, *SMALL)
    assert done.code == 0, done.err
    assert f"{PROMPTS} prompts, 4 each" in done.out
    return path


@pytest.fixture(scope="session")
def verified(tiny_bundle_dir: Path, reference: Path, suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of one run."""
    out = tmp_path_factory.mktemp("reports")
    done = edgedistill("verify", tiny_bundle_dir, "--reference", reference, "--suite", suite, "--out", out, *SMALL)
    assert done.code in (0, 1, 3), done.err
    assert done.out.split()[0] == {0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE"}[done.code]
    assert "\x1b" not in done.out
    assert "would pass the hardest endpoint" in done.out
    return out


def test_all_reports_tell_the_same(verified: Path) -> None:
    report = read_report(verified / "report.json")
    assert report.gate is not None
    assert report.suite.prompts == PROMPTS
    assert report.sampler is not None
    assert report.sampler.reproduces
    assert report.tokens.forced is not None
    assert report.tokens.on_policy is not None
    assert report.tokens.path is not None
    assert report.gate.result.outcome.upper() in (verified / "report.html").read_text()
    cases = ET.parse(verified / "report.junit.xml").getroot().findall(".//testcase")
    assert len(cases) == len(report.gate.result.endpoints) + (report.gate.result.collapse is not None)


def test_a_bundle_against_itself_differs_in_nothing(tiny_bundle_dir: Path, suite: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    done = here(
        "verify", tiny_bundle_dir, "--reference", tiny_bundle_dir, "--suite", suite, "--fast", *SMALL, "--json",
        "--github", "--margin", "agreement=0.2", "--margin", "entropy_bits=0.6", GITHUB_STEP_SUMMARY=str(summary),
    )  # fmt: skip
    report = done.report
    assert report["pairs"]["length_ratio"]["value"] == 1.0
    assert report["tokens"]["parted"] == 0
    assert report["settings"]["margins"]["agreement"] == 0.2
    changes = {row["name"]: row["change"]["value"] for row in report["gate"]["result"]["endpoints"]}
    assert {value for name, value in changes.items() if name != "entropy"} == {0.0, 1.0}
    assert changes["entropy"] in (0.0, None)  # None: no two answers agree
    assert summary.read_text().startswith("## ")
    assert "::" in done.err


def test_a_baseline_takes_the_place_of_the_reference(
    tiny_bundle_dir: Path, reference: Path, suite: Path, baseline: Path
) -> None:
    common = ("--suite", suite, "--no-store", "--json")
    stored = here("verify", tiny_bundle_dir, "--baseline", baseline, *common).report
    drawn = here("verify", tiny_bundle_dir, "--reference", reference, "--samples", 4, *common).report
    assert stored["gate"]["result"]["endpoints"] == drawn["gate"]["result"]["endpoints"]
    assert stored["tokens"]["on_policy"] is None
    # The tail of a baseline is one token: a lower bound.
    assert 0 < stored["tokens"]["forced"]["kl"]["value"] <= drawn["tokens"]["forced"]["kl"]["value"] + 1e-9


def test_a_part_of_a_baseline_is_that_part_of_its_reference(
    tiny_bundle_dir: Path, reference: Path, suite: Path, baseline: Path
) -> None:
    common = ("--suite", suite, "--no-store", "--json", "--fast", "--prompts", 12, "--samples", 3)
    stored = here("verify", tiny_bundle_dir, "--baseline", baseline, *common).report
    drawn = here("verify", tiny_bundle_dir, "--reference", reference, *common).report
    assert (stored["suite"]["prompts"], stored["settings"]["samples"]) == (12, 3)
    assert stored["gate"]["result"]["endpoints"] == drawn["gate"]["result"]["endpoints"]
    told = here("verify", tiny_bundle_dir, "--baseline", baseline, "--suite", suite, "--no-store", "--thorough",
                "--prompts", 400)  # fmt: skip
    assert "asks for 128 samples per prompt (the baseline holds 4)" in told.out
    assert stored["bundle"]["sha256"] in told.out
    assert f"400 prompts were requested, and the suite `texts` has {PROMPTS}." in told.out


def test_a_baseline_of_fewer_prompts_than_were_asked_for_says_so(reference: Path, suite: Path, tmp_path: Path) -> None:
    options = ("-o", tmp_path / "x.baseline", "--suite", suite, *SMALL, "--prompts", PROMPTS + 1)
    assert (
        f"note: {PROMPTS + 1} prompts were requested, and the suite `texts` has {PROMPTS}."
        in here("baseline", "create", reference, *options).err
    )


def test_a_baseline_that_does_not_fit_is_refused(
    tiny_bundle_dir: Path, suite: Path, baseline: Path, tmp_path: Path
) -> None:
    def refused(*arguments: object) -> str:
        return here("verify", tiny_bundle_dir, "--no-store", *arguments).one_error()

    assert "suite" in refused("--baseline", baseline, "--suite", "arithmetic")
    assert "temperature" in refused("--baseline", baseline, "--suite", suite, "--temperature", 0.9)
    assert "samples" in refused("--baseline", baseline, "--suite", suite, "--samples", 64)
    data = bytearray(baseline.read_bytes())
    data[len(data) // 2] ^= 1
    tampered = tmp_path / "tampered.baseline"
    tampered.write_bytes(data)
    assert "altered" in refused("--baseline", tampered, "--suite", suite)
    assert "altered" in here("baseline", "check", tampered).one_error()
    assert "no baseline at" in refused("--baseline", tmp_path / "none.baseline", "--suite", suite)


def test_baseline_show_and_check(tiny_bundle_dir: Path, suite: Path, baseline: Path) -> None:
    shown = here("baseline", "show", baseline, "--json").json
    assert (shown["prompts"], shown["samples"]) == (PROMPTS, 4)
    assert "fits" in here("baseline", "check", baseline, "--bundle", tiny_bundle_dir, "--suite", suite).out
    again = here("baseline", "create", tiny_bundle_dir, "-o", baseline, "--suite", suite, *SMALL)
    assert "already exists" in again.one_error()
    assert "hf:NAME" in here("baseline", "create", "hf", "-o", "x.baseline").one_error()


def test_sequential_and_the_replay_that_is_gone(tiny_bundle_dir: Path, reference: Path, suite: Path) -> None:
    options = ("--reference", reference, "--suite", suite, *SMALL, "--fast", "--json")
    assert "--replay was removed" in here("verify", tiny_bundle_dir, *options, "--replay").one_error()
    stopped = here("verify", tiny_bundle_dir, *options, "--sequential").report
    assert stopped["gate"]["sequential"]["prompts"] <= PROMPTS
    assert stopped["gate"]["result"]["method"] == "betting"
    assert any("Not even a bundle" in note for note in stopped["notes"])


def test_an_audit_of_one_model_alone(
    tiny_bundle_dir: Path, suite: Path, reasoner: Callable[[str], Path], tmp_path: Path
) -> None:
    page = tmp_path / "audit.html"
    done = here("audit", tiny_bundle_dir, "--suite", suite, "--fast", *SMALL, "--html", page, "--json")
    report = done.report
    assert report["kind"] == "audit"
    assert report["gate"] is None
    assert report["bundle_extras"]["sweep"]["temperatures"] == [0.0, 0.3, 0.7, 1.0, 1.5]
    assert report["bundle_extras"]["diversity"]["texts"] == 4 * PROMPTS
    assert "Temperature sweep" in page.read_text()
    assert "temperature_sweep" in report["definitions"]
    again = here("audit", tiny_bundle_dir, "--suite", suite, "--fast", *SMALL)
    assert "the entropy with the temperature" in again.out or "entropy rises" in again.out
    at_zero = here("audit", reasoner("int4-b32"), "--prompts", 4, "--samples", 2, "--temperature", 0)
    assert "DETERMINISTIC-DECODING" in at_zero.out
    assert at_zero.code == 3


def test_a_run_that_was_killed_goes_on(tiny_bundle_dir: Path, suite: Path, tmp_path: Path) -> None:
    options = ("--suite", suite, "--fast", "--samples", 4, "--store", tmp_path / "store", "--json")
    first = here("audit", tiny_bundle_dir, *options).report
    for path in (tmp_path / "store").iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
    second = here("audit", tiny_bundle_dir, *options).report
    assert first["bundle_result"] == second["bundle_result"]
    assert first["bundle_extras"] == second["bundle_extras"]


def test_report_shows_and_compares(verified: Path, tmp_path: Path) -> None:
    one = verified / "report.json"
    page = tmp_path / "again.html"
    assert here("report", one, "--html", page).code == 0
    assert page.read_text() == (verified / "report.html").read_text()
    found = here("report", one, one, "--json").json
    assert found["moved"] == []
    assert f"moved on 0 of {PROMPTS}" in here("report", one, one).out
    assert found["bundles"] == ["tiny", "tiny"]
    renamed = tmp_path / "renamed.json"
    text = one.read_text().replace('"name": "tiny"', '"name": "other"')
    renamed.write_text(text)
    assert here("report", one, renamed).out.splitlines()[0].split() == ["metric", "tiny", "other"]
    again = tmp_path / "report.json"
    again.write_text(one.read_text())
    head = here("report", one, again).out.splitlines()[0]
    assert f"tiny ({one})" in head
    assert f"tiny ({again})" in head
    assert "one report" in here("report", one, one, "--html", page).one_error()


def test_references_that_do_not_fit(tiny_bundle_dir: Path, suite: Path, tmp_path: Path) -> None:
    options = ("--suite", suite, *SMALL)
    assert "exactly one of" in here("verify", tiny_bundle_dir, *options).one_error()
    missing = here("verify", tiny_bundle_dir, "--reference", tmp_path / "none", *options)
    assert "not found" in missing.one_error()
    no_answers = here("verify", tiny_bundle_dir, "--reference", tiny_bundle_dir, "--suite", suite,
                             "--samples", 2, "--no-store", "-n", 1, "--fast")  # fmt: skip
    assert "None of the" in no_answers.one_error()


def test_another_tokenizer_is_refused(
    tiny_bundle_dir: Path, tiny_checkpoint_dir: Path, suite: Path, tmp_path: Path
) -> None:
    import shutil

    from exporting import export

    other = tmp_path / "other"
    shutil.copytree(tiny_checkpoint_dir, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    (other / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1))
    reference = export(other, tmp_path / "bundle", profile="laptop-cpu").path
    done = here("verify", tiny_bundle_dir, "--reference", reference, "--suite", suite, *SMALL)
    assert "different tokenizers" in done.one_error()


def test_a_cluster_draws_the_same_samples(tiny_bundle_dir: Path, reference: Path, suite: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    from cluster_support import local_cluster

    options = ("--reference", reference, "--suite", suite, "--fast", *SMALL, "--json")
    alone = here("verify", tiny_bundle_dir, *options)
    with local_cluster(tmp_path) as started:
        started.start("one")
        started.start("two")
        there = here("verify", tiny_bundle_dir, *options, "--dask", started.file, "--compare-devices")
    assert there.code == alone.code, there.err
    assert there.report["devices"]["comparisons"][0]["parted"] == 0
    for part in ("bundle_result", "reference_result", "pairs", "gate", "tokens"):
        assert there.json[part] == alone.json[part]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--compare-devices",), "--dask ADDRESS"),
        (("--dask-bundle", "/x"), "--dask ADDRESS"),
        (("--dask", "no-such-file"), "No Dask scheduler answers"),
    ],
)
def test_a_cluster_that_is_no_cluster_is_one_line(
    tiny_bundle_dir: Path, suite: Path, arguments: tuple[str, ...], named: str
) -> None:
    pytest.importorskip("distributed")
    assert named in here("audit", tiny_bundle_dir, "--suite", suite, *SMALL, *arguments).one_error()


def test_a_mode_is_scored_like_a_model(tiny_bundle_dir: Path, reference: Path, suite: Path) -> None:
    options = (
        "--suite", suite, "--procedure", "vote", "--trajectories", 2, "--prompts", 8, "--samples", 2, "--no-store",
    )  # fmt: skip
    done = here("verify", tiny_bundle_dir, "--reference", reference, *options, "--json")
    assert done.code in (0, 1, 3), done.err
    assert done.report["procedure"]["name"] == "vote"
    assert done.json["procedure"]["reference"]["tokens"]["value"] > 0
    alone = here("audit", tiny_bundle_dir, *options)
    assert alone.code in (0, 1, 3), alone.err
    assert "tokens an answer" in alone.out
    assert "majority vote of 2 trajectories" in alone.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--procedure", "exact"), "--numerics exact"),
        (("--procedure", "vote", "--trajectories", 0), "expected 1 to 64"),
        (("--trajectories", 4), "--procedure vote"),
        (("--procedure", "single", "--vote", "majority"), "--procedure vote"),
        (("--procedure", "vote", "--dask", "x"), "one machine"),
    ],
)
def test_modes_that_make_no_sense_are_refused(tiny_bundle_dir: Path, reference: Path, options, message: str) -> None:
    assert message in here("verify", tiny_bundle_dir, "--reference", reference, *options).one_error()
