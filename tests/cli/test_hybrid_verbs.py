"""Models with recurrent layers through what plans, measures and compares: plan, a budget of bits, compare, selftest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli_support import here
from shared import made_once

from edgedistill.bundle.bundle import Bundle
from edgedistill.runtime.state import with_copies

if TYPE_CHECKING:
    from pathlib import Path

BITS = 6.0
BUDGET = ("--context", 256, "--bits-per-weight", BITS, "--calibration-tokens", 512, "--no-check", "--no-verify")
"""Few tokens: what is drawn of the model's own replies, measured and solved for grows with them."""


@pytest.fixture(scope="module")
def sized(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of so many bits a weight, by the measured effect of each matrix."""

    def make(out: Path) -> Path:
        done = here("export", source, "-o", out, *BUDGET)
        assert done.code == 0, done.err
        return out

    return made_once(tmp_path_factory, f"bundles/{source.name}-sized", make)


def test_plan_counts_states(source: Path, sized: Path) -> None:
    states = Bundle.open(sized).manifest.model.state_bytes
    assert states > 0
    rows = here("plan", source, "--format", "int4-b32,fp32", "--context", 512, "--no-measure", "--json").json["rows"]
    assert [row["name"] for row in rows] == ["int4-b32", "fp32"]
    small, large = (row["memory"]["512"] for row in rows)
    assert small["file_bytes"] < large["file_bytes"]
    assert small["kv_bytes"] == 512 * rows[0]["kv_bytes_per_token"] + with_copies(states)


def test_a_budget_chooses_formats_by_the_measured_effect(sized: Path) -> None:
    manifest = Bundle.open(sized).manifest
    assert manifest.bits_per_weight <= BITS
    recurrent = [w for w in manifest.weights if w.name.split(".")[2:3] in (["conv"], ["delta"], ["mamba"])]
    chosen = {w.format.label() for w in manifest.weights if not w.format.is_float}
    assert len(chosen) > 1
    assert any(not w.format.is_float for w in recurrent)
    assert here("inspect", sized, "--verify").code == 0


def test_a_budget_by_estimated_effects(source: Path, tmp_path: Path) -> None:
    assert here("export", source, "-o", tmp_path / "out", *BUDGET, "--sensitivity", "estimated").code == 0
    assert Bundle.open(tmp_path / "out").manifest.bits_per_weight <= BITS


def test_compare_orders_formats(source: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Ann has three apples and buys four of the other. " * 40)
    done = here(
        "compare", source, "--format", "int8-b64,int2", "--context", 256, "--tokens", tmp_path / "text.txt",
        "--max-tokens", 64, "--decode-tokens", 8, "--rounds", 1, "--prompt-tokens", 16, "--new-tokens", 4, "--json",
        home=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = {row["name"]: row for row in done.json["rows"]}
    assert rows["int8-b64"]["scoring"]["kl"] < rows["int2"]["scoring"]["kl"]


def test_selftest_passes(sized: Path) -> None:
    assert here("selftest", sized).code == 0
