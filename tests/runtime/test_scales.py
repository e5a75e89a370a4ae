"""Scales supplied in float32: the graph's own results, and no memory for those that kernels do not read again."""

from __future__ import annotations

import errno
import json
import mmap
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import pytest
from bundle_files import copy_bundle, relist
from runtime_support import open_tiny
from widened_graphs import as_made_before, assert_equal, logits

from edgedistill.bundle.bit_planes import from_json
from edgedistill.bundle.bundle import MODEL, WIDENED, Bundle
from edgedistill.bundle.opening_memory import drops_scales, in_planes, opening_bytes
from edgedistill.errors import BudgetError, BundleError
from edgedistill.quantize.plan import parse_format
from edgedistill.runtime import loading, scales
from edgedistill.runtime.bit_planes import Widening
from edgedistill.runtime.scale_use import reads_scales
from edgedistill.system.huge_pages import filled_regions

if TYPE_CHECKING:
    from collections.abc import Callable

FORMATS = ["int4-b32", "int4-b16-sym-rtn-s8", "int8-b32-asym-rtn-s8", "int4-b32-asym-rtn-s8-acc1", "int2-b64"]
X86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="what kernels of x86-64 read")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="pages are given back on Linux")


@pytest.mark.parametrize("weight_format", FORMATS)
def test_logits_are_those_of_the_graph_by_itself(
    tiny_bundle: Callable[[str], Path], tmp_path: Path, weight_format: str
) -> None:
    path = tiny_bundle(weight_format)
    (graph,) = from_json((path / WIDENED).read_text())
    assert len(graph.scales) == 10  # five matrices in each of two layers; the embedding's rows are looked up
    assert_equal(open_tiny(path), open_tiny(as_made_before(path, tmp_path / "before")))


@LINUX
@pytest.mark.parametrize("weight_format", ["int4-b32", "int4-b32-asym-rtn-acc1"])
def test_what_kernels_do_not_read_again_is_given_back(
    tiny_bundle: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, weight_format: str
) -> None:
    made: list[np.ndarray] = []
    share = ort.OrtValue.from_dlpack

    def noted(array: np.ndarray) -> ort.OrtValue:
        made.append(array)
        return share(array)

    reads_scales(parse_format(weight_format), (64, 64))  # has an array of its own the first time
    monkeypatch.setattr(ort.OrtValue, "from_dlpack", noted)
    session = open_tiny(tiny_bundle(weight_format))
    expected = logits(session)
    assert len(made) == 10
    assert [bool(array.any()) for array in made] == [reads_scales(parse_format(weight_format), (64, 64))] * 10
    for array in made:
        if not array.any():
            array.fill(np.nan)
    for before, after in zip(expected, logits(session), strict=True):
        np.testing.assert_array_equal(after, before)


@X86
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("shape", [(64, 96), (64, 91), (384, 91)])
def test_kernels_that_read_scales_are_told_from_those_that_do_not(shape: tuple[int, int], threads: int) -> None:
    for name in ("int4-b32", "int4-b32-sym", "int4-b128", "int8-b64", "int2-b64"):
        fmt = parse_format(name)
        assert not reads_scales(fmt, shape, threads=threads), name
        assert drops_scales("layers.0.mlp.up", fmt), name
    for name in ("int4-b32-acc1", "int8-b64-acc1", "int2-b16"):
        fmt = parse_format(name)
        assert reads_scales(fmt, shape, threads=threads), name
        assert not drops_scales("layers.0.mlp.up", fmt), name


def test_scales_are_kept_where_it_cannot_be_tried(
    tiny_bundle: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = logits(open_tiny(tiny_bundle("int4-b32")))
    monkeypatch.setattr(scales, "reads_scales", lambda *_, **__: True)
    for kept, dropped in zip(logits(open_tiny(tiny_bundle("int4-b32"))), expected, strict=True):
        np.testing.assert_array_equal(kept, dropped)


class _Locked(mmap.mmap):
    """Of a process that keeps all of its memory in place (mlockall)."""

    def madvise(self, option: int, start: int = 0, length: int = 0) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")


@LINUX
def test_locked_memory_is_kept(tiny_bundle: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = logits(open_tiny(tiny_bundle("int4-b32")))
    monkeypatch.setattr(scales, "_mapping", lambda size: _Locked(-1, size))
    for kept, dropped in zip(logits(open_tiny(tiny_bundle("int4-b32"))), expected, strict=True):
        np.testing.assert_array_equal(kept, dropped)


@LINUX
def test_what_is_given_back_is_no_part_of_a_region_with_weights() -> None:
    size = mmap.PAGESIZE * 3
    around = [mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(8)]
    mapping = scales._mapping(size)
    around += [mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(8)]
    assert mapping is not None
    first = np.frombuffer(mapping, np.uint8).ctypes.data
    found = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    (region,) = [line for line in found if line[0].startswith(f"{first:x}-")]
    assert region[0] == f"{first:x}-{first + size:x}"
    smaps = Path("/proc/self/smaps").read_text()
    assert not any(start <= first < stop for start, stop in filled_regions(smaps))
    assert bytes(mapping[:]) == bytes(size)


def test_parts_of_a_graph_get_their_scales_alone(tiny_bundle: Callable[[str], Path]) -> None:
    path = tiny_bundle("int8-b32-asym-rtn-s8")
    wanted = from_json((path / WIDENED).read_text())[0].scales[3]
    found = Widening.in_directory(path).part(MODEL, [wanted.initializer])
    assert list(found) == [wanted.initializer]
    weights = (path / wanted.location).read_bytes()
    rows, blocks = wanted.initializer_shape
    codes = np.frombuffer(weights, np.uint8, rows * blocks, wanted.offsets[0]).reshape(rows, blocks)
    unit = np.frombuffer(weights, np.float32, rows, wanted.offsets[1])
    np.testing.assert_array_equal(found[wanted.initializer].numpy(), codes.astype(np.float32) * unit[:, None])


@pytest.mark.parametrize(
    ("key", "value"),
    [("offsets", [1 << 40]), ("offsets", [10**18 - 1]), ("shape", [1 << 31, 64]), ("shape", [1 << 31, 1 << 31])],
)
def test_scales_beyond_the_file_are_said_before_memory_is_taken(
    tiny_bundle: Callable[[str], Path], tmp_path: Path, key: str, value: list[int]
) -> None:
    path = copy_bundle(tiny_bundle("int4-b32"), tmp_path / "copy")
    table = json.loads((path / WIDENED).read_text())
    table["graphs"][0]["scales"][0][key] = value
    (path / WIDENED).write_text(json.dumps(table))
    relist(path)
    with pytest.raises(BundleError, match=r"weights.bin ends before layers\.0"):
        open_tiny(path)


def test_opening_is_refused_where_memory_is_short_for_widened_scales(
    tiny_bundle: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = (bundle := Bundle.open(tiny_bundle("int4-b32"))).manifest
    matrices = [w for w in manifest.weights if w.name.startswith("layers.") and len(w.shape) == 2]
    blocks = sum(w.shape[0] * w.format.blocks(w.shape[1]) for w in matrices)
    assert not any(in_planes(weight.format) for weight in manifest.weights)
    assert opening_bytes(manifest) - manifest.predicted["weights_private"] == 4 * blocks
    monkeypatch.setattr(loading, "available_memory", lambda: opening_bytes(manifest) - 1)
    with pytest.raises(BudgetError, match=r"in which its scales are widened; .*larger blocks"):
        loading.require_memory(bundle)
