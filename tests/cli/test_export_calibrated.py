"""``export --calibrate`` and ``--calibration`` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cli_support import Result, edgedistill, here

from edgedistill.bundle.manifest import Manifest
from edgedistill.traces.traces import Traces

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def export(tmp_path: Path, cache: Path, *options: str, run: Callable[..., Result] = here) -> Result:
    return run("export", "tiny-reasoner", "-o", tmp_path / "out", "--no-verify", *options, EDGEDISTILL_CACHE=str(cache))


def manifest(tmp_path: Path) -> Manifest:
    return Manifest.from_json((tmp_path / "out" / "manifest.json").read_text())


@pytest.mark.slow
def test_own_traces_are_drawn_once(tmp_path: Path, cache: Path) -> None:
    first = export(tmp_path, cache, "--calibrate", "--calibration-tokens", "1024", run=edgedistill)
    assert first.code == 0, first.err
    assert "calibrated" in first.out
    made = manifest(tmp_path)
    assert made.calibration["origin"] == "self-generated, seed 0, and built-in texts"
    assert 900 <= made.calibration["tokens"] <= 1300
    methods = {w.name: w.format.method for w in made.weights if not w.format.is_float}
    assert methods["layers.0.mlp.down"] == "gptq"
    assert methods["embed"] == "search"
    stored = list((cache / "traces").glob("source-*.jsonl"))
    assert len(stored) == 1
    again = export(tmp_path, cache, "--calibrate", "--calibration-tokens", "1024", "--force", "--json")
    assert again.code == 0, again.err
    assert again.json["path"]
    assert manifest(tmp_path).calibration["sha256"] == made.calibration["sha256"]
    shown = here("inspect", tmp_path / "out")
    assert "gptq" in shown.out
    assert "calibration" in shown.out


def test_text_of_ones_own(tmp_path: Path, cache: Path) -> None:
    text = tmp_path / "mine.jsonl"
    text.write_text("\n".join(json.dumps({"prompt": f"What is {n} + 5?", "reply": f"{n + 5}"}) for n in range(60)))
    done = export(tmp_path, cache, "--calibration", str(text), "--format", "int4-b64")
    assert done.code == 0, done.err
    assert manifest(tmp_path).calibration["origin"] == "mine.jsonl"


@pytest.mark.slow
def test_formats_under_a_budget(tmp_path: Path, cache: Path) -> None:
    some = ("--calibration-tokens", "512", "--sensitivity", "estimated")
    done = export(tmp_path, cache, "--bits-per-weight", "5.5", *some)
    assert done.code == 0, done.err
    assert "predicted KL" in done.out
    assert manifest(tmp_path).bits_per_weight <= 5.5
    shown = here("inspect", tmp_path / "out").out
    assert "chosen under" in shown
    assert "by estimated sensitivity" in shown
    assert manifest(tmp_path).choice["sensitivity"] == "estimated"
    small = export(tmp_path, cache, "--max-size", "100kB", *some, "--force")
    assert "Allow --bits-per-weight" in small.one_error()
    assert (tmp_path / "out" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--calibration", "missing.txt"), "no calibration file"),
        (("--calibrate", "--calibration-tokens", "7"), "expected at least 256"),
        (("--calibration-tokens", "1000"), "without calibration"),
        (("--calibrate", "--format", "fp32"), "has no effect"),
        (("--calibrate", "--exporter", "optimum"), "quantizes without them"),
        (("--max-size", "banana"), "is not a size"),
        (("--max-size", "0"), "expected more than 0"),
        (("--bits-per-weight", "5", "--format", "int4"), "exclude each other"),
        (("--bits-per-weight", "5", "--block-size", "32"), "exclude each other"),
        (("--bits-per-weight", "5", "--exporter", "optimum"), "quantizes without them"),
        (("--bits-per-weight", "-1"), "expected more than 0"),
        (("--bits-per-weight", "nan"), "expected more than 0, and finite"),
        (("--bits-per-weight", "inf"), "expected more than 0, and finite"),
        (("--max-kl", "1e999"), "expected more than 0, and finite"),
        (("--sensitivity", "estimated"), "without a budget"),
        (("--bits-per-weight", "5", "--max-kl", "0.1"), "not allowed with"),
    ],
)
def test_bad_calibration(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    done = export(tmp_path, tmp_path / "cache", *options)
    assert message in done.one_error()
    assert not list(tmp_path.glob("*out*"))
    assert not (tmp_path / "cache").exists()  # refused before any work


def test_files_that_do_not_do(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "short.txt").write_text("Hello.")
    done = export(tmp_path, cache, "--calibration", str(tmp_path / "short.txt"))
    assert "expected at least 256" in done.one_error()
    other = Traces((np.arange(300),), (0,), "0" * 64, "another model")
    other.save(tmp_path / "other.jsonl")
    done = export(tmp_path, cache, "--calibration", str(tmp_path / "other.jsonl"), "--max-kl", "0.1")
    assert "tokens of another tokenizer" in done.one_error()
    assert not list(tmp_path.glob("*out*"))
