"""Where disk or memory are short, kernels are timed over fewer weights, which is said, or not at all."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from exporting import export

from edgedistill import plan
from edgedistill.bundle import own_directory
from edgedistill.errors import BudgetError, OutputError
from edgedistill.estimate.speed import WORKING_SETS, MatrixCase
from edgedistill.estimate.timings import Machine, Timings
from edgedistill.planning import kernels, measure, room
from edgedistill.planning.room import Room, copies_in, has_room, wanted_copies, weight_bytes
from edgedistill.quantize.plan import parse_format

if TYPE_CHECKING:
    from collections.abc import Callable

PLENTY = 1 << 40
MIB = 1 << 20
LARGE = MatrixCase(parse_format("fp32"), 1024, 1024, 1, WORKING_SETS[-1])
PROMPT = MatrixCase(parse_format("fp32"), 4096, 4096, 256, WORKING_SETS[-1])
PLANES = MatrixCase(parse_format("int3-b64"), 1024, 1024, 1, WORKING_SETS[-1])
SMALL = MatrixCase(parse_format("int4-b32"), 128, 128, 1, WORKING_SETS[0])


def free(disk: int = PLENTY, memory: int = PLENTY) -> Room:
    return Room(Path("/tmp"), disk, memory)


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what is free; timings are quick and kept in the test's directory."""
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "SECONDS", 0.0)
    monkeypatch.setattr(kernels, "REPEATS", 1)
    monkeypatch.setattr(measure, "memory_bandwidth", lambda *_: 10.0)

    def to(**bytes_free: int) -> None:
        monkeypatch.setattr(Room, "now", lambda: free(**bytes_free))

    return to


def test_the_weights_take_a_part_of_what_is_free() -> None:
    for case in (LARGE, PROMPT, SMALL):
        assert copies_in(case, free()) == wanted_copies(case)
        assert has_room(case, free())
    assert wanted_copies(LARGE) * weight_bytes(LARGE) == 512 * MIB
    for little in (free(disk=200 * MIB), free(memory=500 * MIB), free(disk=200 * MIB, memory=500 * MIB)):
        assert not has_room(LARGE, little)
        taken = copies_in(LARGE, little) * weight_bytes(LARGE)
        assert room.LEAST_BYTES <= taken < 512 * MIB
        assert taken <= little.disk * 3 // 4
        assert 2 * taken <= little.memory // 2  # in a file that may be in memory, and packed
        assert copies_in(SMALL, little) == wanted_copies(SMALL)
    # Codes in planes are there once more, in the kernel's width, while a session opens.
    assert copies_in(PLANES, free(memory=800 * MIB)) * 1.4 * MIB < 400 * MIB
    assert copies_in(PROMPT, free(disk=100 * MIB)) == 1


def test_too_few_weights_are_not_timed_at_all() -> None:
    with pytest.raises(OutputError, match=r"takes 85.3 MiB in /tmp .*; 80.0 MiB are free.*TMPDIR.*--no-measure"):
        copies_in(LARGE, free(disk=80 * MIB))
    with pytest.raises(BudgetError, match=r"takes 256 MiB of memory.*; 200 MiB are available.*--no-measure"):
        copies_in(LARGE, free(memory=200 * MIB))
    with pytest.raises(OutputError, match="0 B are free"):
        copies_in(SMALL, free(disk=0))


def test_a_timing_over_fewer_weights_is_said_and_done_again_once_there_is_room(
    tiny_checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: Callable[..., None]
) -> None:
    monkeypatch.setattr(room, "LEAST_BYTES", 1 << 15)
    calls: list[int] = []
    real = kernels.time_matrix

    def timed(case: MatrixCase, *arguments: object) -> float:
        calls.append(case.tokens)
        return real(case, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(kernels, "time_matrix", timed)
    short(disk=MIB // 2)
    report = plan(tiny_checkpoint_dir)
    assert report.rows[0].speed is not None
    assert report.timed_over_bytes is not None
    assert report.timed_over_bytes <= MIB // 2
    assert report.to_dict()["timed_over_bytes"] == report.timed_over_bytes
    assert Timings.load(Machine.here()).over
    # Known now, and no better as long as there is no room; what is exported meanwhile says so as well.
    calls.clear()
    assert plan(tiny_checkpoint_dir).timed_over_bytes == report.timed_over_bytes
    assert calls == []
    made = export(tiny_checkpoint_dir, tmp_path / "b", check=False)
    assert made.manifest.predicted["speed"]["timed_over_bytes"] == report.timed_over_bytes
    short()
    assert plan(tiny_checkpoint_dir).timed_over_bytes is None
    assert set(calls) == {1}
    assert Timings.load(Machine.here()).over == {}
    made = export(tiny_checkpoint_dir, tmp_path / "c", check=False)
    assert "timed_over_bytes" not in made.manifest.predicted["speed"]


def test_a_disk_that_somebody_else_fills_meanwhile_is_refused_too(
    tiny_checkpoint_dir: Path, monkeypatch: pytest.MonkeyPatch, short: Callable[..., None]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    short()
    monkeypatch.setattr(kernels, "_write_random", full)
    with pytest.raises(OutputError, match=r"got full.*TMPDIR"):
        plan(tiny_checkpoint_dir)


def test_timings_leave_nothing_behind(
    tiny_checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: Callable[..., None]
) -> None:
    folder = tmp_path / "temporary"
    killed = folder / "edgedistill-timing-killed"
    folder.mkdir()
    own_directory.make(killed)
    (killed / "weights.bin").write_bytes(b"x")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    short()
    plan(tiny_checkpoint_dir)
    assert list(folder.iterdir()) == []
