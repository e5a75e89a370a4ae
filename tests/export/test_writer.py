"""Streaming writer: bytes as planned, resume trusts only what its digests prove, layout is aligned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.architecture.spec import LogicalWeight
from edgedistill.checkpoint.types import TensorInfo
from edgedistill.errors import CheckpointError, OutputError
from edgedistill.export import writer as module
from edgedistill.export.writer import Job, WeightsWriter, plan_layout, slices
from edgedistill.progress import NullProgress
from edgedistill.quantize import dequantize_rows, quantize_rows
from edgedistill.quantize.spec import FLOAT32, ArraySpec, WeightFormat, array_specs


class MemorySource:
    """A TensorSource over arrays that counts what was read."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays
        self.reads: list[str] = []
        self.fail_on: str | None = None

    def names(self) -> list[str]:
        return list(self.arrays)

    def info(self, name: str) -> TensorInfo:
        return TensorInfo(name, self.arrays[name].shape, "F32")

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        if name == self.fail_on:
            raise CheckpointError("NaN found")
        self.reads.append(name)
        return self.arrays[name][start:stop].copy()

    def close(self) -> None:
        pass


INT4 = WeightFormat(bits=4, block_size=32, symmetric=False, method="rtn")


@pytest.fixture
def source() -> MemorySource:
    rng = np.random.default_rng(0)
    shapes = {"q": (48, 64), "k": (16, 64), "v": (16, 64), "norm": (64,)}
    return MemorySource({name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})


WEIGHTS = [
    LogicalWeight("attn.qkv", "linear", (80, 64), ("q", "k", "v")),
    LogicalWeight("norm", "norm", (64,), ("norm",), offset=1.0),
]
JOBS = [Job(WEIGHTS[0], INT4), Job(WEIGHTS[1], FLOAT32)]
LAYOUT = plan_layout([*array_specs("attn.qkv", (80, 64), INT4), ArraySpec("norm", "float32", (64,))], "weights.bin")


def read(path: Path, name: str) -> np.ndarray:
    stored = LAYOUT.arrays[name]
    flat = np.fromfile(path, stored.spec.dtype, int(np.prod(stored.spec.shape)), offset=stored.offset)
    return flat.reshape(stored.spec.shape)


def write(path: Path, source: MemorySource, *, resume: bool = False) -> int:
    target = WeightsWriter(path, LAYOUT, resume=resume)
    try:
        return target.write_weights(JOBS, source, threads=2, progress=NullProgress())
    finally:
        target.close()


@pytest.mark.parametrize("fails", [RuntimeError("can't start new thread"), MemoryError()])
def test_threads_that_cannot_be_started_make_an_export_slower_only(
    tmp_path: Path, source: MemorySource, monkeypatch: pytest.MonkeyPatch, fails: Exception
) -> None:
    monkeypatch.setattr(module, "SLICE_ELEMENTS", 64 * 7)
    write(tmp_path / "with.bin", source)

    def start(*_: object) -> int:
        raise fails

    monkeypatch.setattr("_thread.start_new_thread", start)
    write(tmp_path / "without.bin", source)
    assert (tmp_path / "without.bin").read_bytes() == (tmp_path / "with.bin").read_bytes()


def test_stacked_parts_and_offset(tmp_path: Path, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE_ELEMENTS", 64 * 7)  # many slices, none a divisor of the parts
    path = tmp_path / "weights.bin"
    write(path, source)
    whole = np.concatenate([source.arrays[n] for n in "qkv"])
    arrays = {s: read(path, f"attn.qkv.{s}") for s in ("q", "scales", "zero_points")}
    expected = quantize_rows(whole, INT4)
    for suffix, array in arrays.items():
        np.testing.assert_array_equal(array, expected[suffix])
    assert np.abs(dequantize_rows(arrays, INT4, 64) - whole).max() < 0.5
    np.testing.assert_array_equal(read(path, "norm"), source.arrays["norm"] + 1)


def test_resume_reads_only_what_is_missing(tmp_path: Path, source: MemorySource) -> None:
    path = tmp_path / "weights.bin"
    source.fail_on = "norm"
    with pytest.raises(CheckpointError):
        write(path, source)
    source.fail_on = None
    source.reads.clear()
    assert write(path, source, resume=True) == 1
    assert set(source.reads) == {"norm"}


def test_resume_does_not_trust_damaged_bytes(tmp_path: Path, source: MemorySource) -> None:
    path = tmp_path / "weights.bin"
    write(path, source)
    good = path.read_bytes()
    bad = bytearray(good)
    bad[5] ^= 0xFF
    path.write_bytes(bad)
    assert write(path, source, resume=True) == 1  # the norm only
    assert path.read_bytes() == good


def test_torn_journal_line_is_ignored(tmp_path: Path, source: MemorySource) -> None:
    path = tmp_path / "weights.bin"
    write(path, source)
    journal = tmp_path / ".journal"
    lines = journal.read_text().splitlines()
    journal.write_text(lines[0] + "\n" + lines[1][:20])
    assert write(path, source, resume=True) == 1


def test_full_disk_is_one_clear_error(source: MemorySource) -> None:
    with pytest.raises(OutputError, match="disk is full"):
        write(Path("/dev/full"), source)


def test_wrong_shape_is_a_bug_not_a_file(tmp_path: Path) -> None:
    target = WeightsWriter(tmp_path / "w", LAYOUT, resume=False)
    with pytest.raises(ValueError, match="planned"):
        target.write_array("norm", np.zeros(64, np.float64))
    with pytest.raises(ValueError, match="rows"):
        target.write_array("norm", np.zeros(64, np.float32), row=1)
    target.close()


@given(
    rows=st.lists(st.integers(1, 500), min_size=1, max_size=4), width=st.integers(1, 300), limit=st.integers(1, 9000)
)
def test_slices_cover_every_row_once(rows: list[int], width: int, limit: int) -> None:
    arrays = {f"p{i}": np.zeros((n, width), np.float32) for i, n in enumerate(rows)}
    weight = LogicalWeight("w", "linear", (sum(rows), width), tuple(arrays))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SLICE_ELEMENTS", limit)
        cut = list(slices(weight, MemorySource(arrays)))
    covered = [r for piece in cut for r in range(piece.row, piece.row + piece.stop - piece.start)]
    assert covered == list(range(sum(rows)))
    assert all((p.stop - p.start) * width <= max(limit, width) for p in cut)


@given(st.lists(st.tuples(st.integers(1, 70000), st.integers(1, 40)), min_size=1, max_size=12))
def test_layout_is_aligned_and_disjoint(shapes: list[tuple[int, int]]) -> None:
    specs = [ArraySpec(f"a{i}", "float32", shape) for i, shape in enumerate(shapes)]
    layout = plan_layout(specs, "weights.bin")
    end = 0
    for stored in layout.arrays.values():
        assert stored.offset >= end
        assert stored.offset % (4096 if stored.spec.nbytes >= 1 << 20 else 64) == 0
        end = stored.offset + stored.spec.nbytes
    assert layout.size == end
