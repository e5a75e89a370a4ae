"""A short turn of ``make torture``: an export and a baseline survive kills and disk faults; its checks can fail."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

if not hasattr(os, "fork"):
    pytest.skip("needs fork", allow_module_level=True)


@pytest.fixture(scope="module")
def torture() -> Iterator[ModuleType]:
    sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
    import torture

    yield torture
    sys.path.pop(0)


def test_exports_survive_kills_and_disk_faults(
    torture: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # restored afterwards: the script sets it
    (tmp_path / "root").mkdir()
    tallies = torture.torture(2.0, 1, ["export"], root=tmp_path / "root")
    tally = tallies["export"]
    assert tally.wrong == []
    assert min(tally.kills, tally.faults) >= 1
    assert f"| export | {tally.kills} | {tally.faults} |" in torture.table(tallies)


def test_saved_sessions_survive_kills_and_disk_faults(torture: ModuleType, tmp_path: Path) -> None:
    tallies = {}
    database = tmp_path / "sessions.db"
    operation = torture.Operation(
        "sessions", (str(database),), database, torture.sessions_are_whole, torture.write_sessions
    )
    for kill_after in (0.1, 0.2, 0.3):
        code, said = torture.run(operation.command, tmp_path, kill_after=kill_after, program=operation.program)
        tallies[kill_after] = torture.verdict(operation, {}, code, said)
    fault = torture.failing_change(3, 28, tmp_path)
    code, said = torture.run(operation.command, tmp_path, prepare=fault, program=operation.program)
    assert [*tallies.values(), torture.verdict(operation, {}, code, said)] == [None] * 4
    code, said = torture.run(operation.command, tmp_path, program=operation.program)
    assert code == 0, said


def test_damage_would_be_noticed(torture: ModuleType, tiny_bundle_dir: Path, tmp_path: Path) -> None:
    import shutil

    from edgedistill.bundle.bundle import Bundle

    made = shutil.copytree(tiny_bundle_dir, tmp_path / "bundle")
    operation = torture.Operation("x", (), made, lambda path: Bundle.open(path, check="full"))
    note = tmp_path / "notes.txt"
    note.write_bytes(b"precious")
    users = {note: b"precious"}
    assert torture.verdict(operation, users, 0, "") is None
    assert "a traceback" in torture.verdict(operation, users, 2, "Traceback (most recent call last):\nX")
    assert "exit code 70" in torture.verdict(operation, users, 70, "")
    (made / "weights.bin").write_bytes(b"")
    assert "weights.bin" in torture.verdict(operation, users, 0, "")
    note.unlink()
    assert "notes.txt" in torture.verdict(operation, users, 0, "")
