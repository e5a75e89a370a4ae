"""The table of families says what the tests show: neither more nor less."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest
from cli_support import here
from family_cases import CASES, LEVELS, NEWER

from edgedistill.architecture.families import FAMILIES
from edgedistill.architecture.levels import family_levels

AGAIN = "run: make families"
ROWS = {row.model_type: row for row in family_levels()}


def test_every_family_has_a_case_and_every_case_a_record() -> None:
    covered = {model_type for model_type, _ in CASES.values()}
    assert covered == set(FAMILIES)
    assert set(json.loads(LEVELS.read_text())) == covered, AGAIN
    for family in covered:
        majors = {version.partition(".")[0] for version in ROWS[family].logits_equal}
        assert majors == ({"5"} if family in NEWER else {"4", "5"}), f"{family}: {AGAIN}"


def test_the_text_parts_of_multimodal_models() -> None:
    pytest.importorskip("transformers")
    wrapped: Any = import_module("test_parity_wrapped")

    expected = {wrapped.recorded({"kind": kind})[::2] for kind in wrapped.CASES}
    assert {(name, kind) for name, row in ROWS.items() for kind in row.inside} == expected, AGAIN


def test_gguf_files() -> None:
    pytest.importorskip("transformers")
    gguf: Any = import_module("test_parity_gguf")

    expected = {
        gguf.recorded({"arch": arch, "case": case})[::2] for arch, cases in gguf.FILES.items() for case in cases
    }
    assert {(name, arch) for name, row in ROWS.items() for arch in row.gguf_equal} == expected, AGAIN
    assert all(set(row.gguf_equal) == set(row.gguf) for row in ROWS.values())


def test_the_command_prints_the_table() -> None:
    lines = here("families").out.splitlines()
    assert lines[0].split()[:2] == ["family", "level"]
    assert [line.split()[0] for line in lines[1:]] == sorted(FAMILIES)
    assert next(line for line in lines if line.startswith("llama ")).split()[1:3] == ["real", "weights"]
    entries = here("families", "gemma", "--json").json
    assert {entry["model_type"] for entry in entries} == {
        "gemma",
        "gemma2",
        "gemma3_text",
        "gemma3n_text",
        "gemma4_text",
    }
    assert next(e for e in entries if e["model_type"] == "gemma3_text")["gguf"] == ["gemma3"]
    assert "optimum" in here("families", "gpt_neox").one_error()


def test_a_refusal_names_the_command(tmp_path_factory: pytest.TempPathFactory) -> None:
    from checkpoint_fixtures import write_directory

    directory = tmp_path_factory.mktemp("unknown") / "model"
    write_directory(directory, model_type="gpt_unheard_of")
    refusal = here("export", directory, "-o", directory.parent / "out", "--exporter", "own").one_error()
    assert "edgedistill families" in refusal
