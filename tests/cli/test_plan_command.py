"""``edgedistill plan`` as a user runs it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from cli_support import edgedistill, here

from edgedistill.planning import kernels, room

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_table_and_json(tmp_path: Path) -> None:
    shown = edgedistill("plan", "tiny-reasoner", "--format", "int4-b32,fp32", "--no-measure", home=tmp_path)
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["int4-b32", "fp32"]
    assert "not timed on this machine yet" in shown.out
    found = here(
        "plan", "tiny-reasoner", "--profile", "laptop-cpu,raspberry-pi-5", "--context", "512,1024", "--no-measure",
        "--json", home=tmp_path,
    ).json  # fmt: skip
    assert [row["profile"] for row in found["rows"]] == ["laptop-cpu", "raspberry-pi-5"]
    assert set(found["rows"][0]["memory"]) == {"512", "1024"}
    assert found["rows"][0]["ceiling_tps"] is None
    assert found["rows"][1]["ceiling_tps"] > 0
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_what_does_not_fit_says_what_would(tmp_path: Path) -> None:
    profile = tmp_path / "small.toml"
    profile.write_text('extends = "laptop-cpu"\ndescription = "small"\n[target]\nram_gb = 0.101\n')
    shown = here("plan", "tiny-reasoner", "--profile", profile, "--no-measure", home=tmp_path)
    assert shown.code == 0, shown.err
    assert "does not fit: profile." in shown.out
    assert "--context" in shown.out


def test_no_room_to_time_anything_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: found._replace(free=4096))
    assert "--no-measure" in here("plan", "tiny-reasoner", home=tmp_path).one_error()
    assert here("plan", "tiny-reasoner", "--no-measure", home=tmp_path).code == 0


def test_a_less_sure_timing_is_said(tiny_checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "SECONDS", 0.0)
    monkeypatch.setattr(room, "LEAST_BYTES", 1 << 15)
    found = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: found._replace(free=1 << 19))
    shown = here("plan", tiny_checkpoint_dir, home=tmp_path)
    assert shown.code == 0, shown.err
    assert "less sure" in shown.out
    assert "fewer than the model has" in shown.out


def test_bad_input_is_one_line() -> None:
    assert "Did you mean int4-b32?" in here("plan", "tiny-reasoner", "--format", "int4-b33").one_error()
    assert "16 to 2048" in here("plan", "tiny-reasoner", "--context", "4096").one_error()
    assert "exclude" in here("plan", "tiny-reasoner", "--no-measure", "--remeasure").one_error()
    assert "laptop-cpu" in here("plan", "tiny-reasoner", "--profile", "laptop-cp").one_error()
    assert "below 1" in here("plan", "tiny-reasoner", "--context", "0").one_error()
