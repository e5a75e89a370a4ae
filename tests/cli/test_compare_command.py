"""``edgedistill compare`` as a user runs it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from cli_support import edgedistill, here

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_formats_of_the_built_in_model(tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = edgedistill(
        "compare", "tiny-reasoner", "--format", "int8-b64,int2", "--max-tokens", 96, "--decode-tokens", 32,
        "--rounds", 1, "--new-tokens", 8, "--out", out, home=tmp_path,
    )  # fmt: skip
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["format", "int2", "int8-b64", "fp32"]
    found = json.loads((out / "compare.json").read_text())
    small, tiny = found["rows"][1], found["rows"][2]
    assert small["scoring"]["kl"] < tiny["scoring"]["kl"]
    assert small["scoring"]["top1"] > tiny["scoring"]["top1"]
    assert small["bits_per_weight"] > tiny["bits_per_weight"]
    assert small["decode_tps"]["median"] > 0
    assert found["rows"][0]["dominated_by"] == []
    if sys.platform != "darwin":
        reference = found["rows"][0]["private_bytes"]["median"]
        assert reference > small["private_bytes"]["median"] > small["private_predicted_bytes"] > 0
    assert (out / "compare.html").read_text().startswith("<!doctype html>")
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "cache").rglob("weights.bin"))


def test_memory_stands_beside_the_file(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("Two trains leave at nine and meet at noon. " * 9)
    shown = here(
        "compare", tiny_checkpoint_dir, "--format", "int8-b64,int8-b16", "--max-tokens", 24, "--decode-tokens", 8,
        "--rounds", 0, "--context", 256, "--tokens", own, "--out", tmp_path / "out",
    )  # fmt: skip
    assert shown.code == 0, shown.err
    head, *rows = (line.split("  ") for line in shown.out.splitlines()[:4])
    columns = [name.strip() for name in head if name.strip()]
    assert columns[2:5] == ["file", "private memory", "KL mean"]
    assert columns[-2:] == ["peak memory", "best by"]
    assert all("~" in "".join(row) for row in rows), "no process was started that could have measured it"
    assert "predicted, of the weights alone" in shown.out
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.index("Size and divergence") < page.index("Memory and divergence")


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert "Did you mean int4-b32?" in here("compare", "tiny-reasoner", "--format", "int4-b33").one_error()
    assert "empty" in here("compare", "tiny-reasoner", "--format", ",").one_error()
    assert "is a file" in here("compare", "tiny-reasoner", "--out", file).one_error()
    assert "--rounds is -1" in here("compare", "tiny-reasoner", "--rounds", -1).one_error()
