"""Reading safetensors: exact values, and every kind of damage as one clear error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_fixtures import bf16_bits, qwen3_tensors, write_raw, write_safetensors, write_shards
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.checkpoint.safetensors import open_safetensors, open_safetensors_file, widen
from edgedistill.errors import CheckpointError, EdgedistillError, UnsupportedModelError


def values(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def test_float_types_are_read_exactly(tmp_path: Path) -> None:
    a = values(7, 5)
    tensors = {"f32": a, "f16": a.astype(np.float16), "bf16": bf16_bits(a), "vector": a[0]}
    write_safetensors(tmp_path / "model.safetensors", tensors, bf16={"bf16"})
    source = open_safetensors(tmp_path)
    assert set(source.names()) == set(tensors)
    assert source.info("bf16").dtype == "BF16"
    assert source.info("bf16").shape == (7, 5)
    np.testing.assert_array_equal(source.read_rows("f32", 0, 7), a)
    np.testing.assert_array_equal(source.read_rows("f32", 2, 5), a[2:5])
    np.testing.assert_array_equal(source.read_rows("f16", 6, 7), a.astype(np.float16).astype(np.float32)[6:7])
    np.testing.assert_array_equal(source.read_rows("vector", 1, 4), a[0, 1:4])
    assert source.read_rows("f32", 3, 3).shape == (0, 5)
    import torch

    expected = torch.from_numpy(bf16_bits(a).view(np.int16)).view(torch.bfloat16).float().numpy()
    got = source.read_rows("bf16", 0, 7)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)
    source.close()


def test_agrees_with_the_safetensors_package(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    tensors = {"a.weight": values(4, 3), "b": values(9).astype(np.float16)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    source = open_safetensors(tmp_path)
    for name, array in tensors.items():
        np.testing.assert_array_equal(source.read_rows(name, 0, len(array)), array.astype(np.float32))


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=64))
def test_widen_keeps_every_bit(bits: list[int]) -> None:
    raw = np.array(bits, np.uint16)
    np.testing.assert_array_equal(widen(raw).view(np.uint32), raw.astype(np.uint32) << 16)


def test_shards(tmp_path: Path) -> None:
    tensors = qwen3_tensors()
    write_shards(tmp_path, tensors)
    source = open_safetensors(tmp_path)
    assert [path.name[:11] for path in source.paths] == ["model-00001", "model-00002"]
    for name, array in tensors.items():
        np.testing.assert_array_equal(source.read_rows(name, 0, len(array)), array)


def test_missing_weights_name_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither model.safetensors"):
        open_safetensors(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="safe_serialization"):
        open_safetensors(tmp_path)
    (tmp_path / "m.gguf").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"m\.gguf"):
        open_safetensors(tmp_path)


@pytest.mark.parametrize("keep", [0, 3, 8, 60, -1, -40])
def test_truncated_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": values(8, 8)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"file has \d+ bytes|header claims"):
        open_safetensors(tmp_path)


def test_file_that_shrinks_after_opening(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": values(64, 64)})
    source = open_safetensors(tmp_path)
    os.truncate(path, 4096)
    with pytest.raises(CheckpointError, match="truncated"):
        source.read_rows("a", 0, 64)


def test_header_that_claims_terabytes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_raw(path, b"{}", b"", length=1 << 42)
    with pytest.raises(CheckpointError, match="header claims 4398046511104 bytes"):
        open_safetensors(tmp_path)
    entry = {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}
    write_raw(path, json.dumps({"a": entry}).encode(), b"\0" * 64)
    with pytest.raises(CheckpointError, match=r"its header describes 109951162\d+"):
        open_safetensors(tmp_path)


F32 = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "header",
    [
        b"not json at all!",
        b"[1, 2]",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a": 3}',
        json.dumps({"a\n\x1b[31m": F32}).encode(),
        b'{"a": {"dtype": "F32"}}',
        json.dumps({"a": F32 | {"data_offsets": [0, 12]}}).encode(),
        json.dumps({"a": F32 | {"data_offsets": [16, 0]}}).encode(),
        json.dumps({"a": F32 | {"data_offsets": [-16, 0]}}).encode(),
        json.dumps({"a": F32 | {"shape": [2.0, 2]}}).encode(),
        json.dumps({"a": F32 | {"shape": [-2, -2]}}).encode(),
        json.dumps({"a": F32 | {"shape": "22"}}).encode(),
        json.dumps({"a": F32 | {"shape": [True, 4]}}).encode(),
        json.dumps({"a": F32 | {"shape": None}}).encode(),
        json.dumps({"a": F32 | {"dtype": ["F32"]}}).encode(),
        json.dumps({"a": F32, "b": F32 | {"data_offsets": [8, 24]}}).encode(),
        b'{"a": ' + json.dumps(F32).encode() + b', "a": ' + json.dumps(F32).encode() + b"}",
    ],
)
def test_malformed_headers(tmp_path: Path, header: bytes) -> None:
    write_raw(tmp_path / "model.safetensors", header, b"\0" * 64)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        open_safetensors(tmp_path)


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 400), value=st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, position: int, value: int) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    write_safetensors(path, {"a": values(6, 6), "b": values(10)})
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content)
    try:
        source = open_safetensors_file(path)
        for name in source.names():
            info = source.info(name)
            assert source.read_rows(name, 0, info.shape[0]).shape == info.shape
    except EdgedistillError:
        pass


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "x\\y", 7, None])
def test_index_pointing_outside(tmp_path: Path, shard: Any) -> None:
    tensors = {"a": values(2, 2), "b": values(2)}
    write_shards(tmp_path, tensors, {"a": shard, "b": "model-00002-of-00002.safetensors"})
    with pytest.raises(CheckpointError, match="outside the directory"):
        open_safetensors(tmp_path)


def test_index_of_absent_things(tmp_path: Path) -> None:
    tensors = {"a": values(2, 2), "b": values(2)}
    write_shards(tmp_path, tensors, {"a": "model-00009-of-00009.safetensors"})
    with pytest.raises(CheckpointError, match=r"model-00009-of-00009.safetensors, which is missing"):
        open_safetensors(tmp_path)
    write_shards(tmp_path, tensors, {"a": "model-00002-of-00002.safetensors"})
    with pytest.raises(CheckpointError, match=r"tensor a in model-00002-of-00002.safetensors, which lacks it"):
        open_safetensors(tmp_path)
    for content in ("{", "[]", '{"weight_map": []}', "{}"):
        (tmp_path / "model.safetensors.index.json").write_text(content)
        with pytest.raises(CheckpointError, match="not a shard index"):
            open_safetensors(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path: Path, bad: float) -> None:
    a = values(6, 4)
    a[4, 2] = bad
    write_safetensors(tmp_path / "model.safetensors", {"layer.weight": a, "h": bf16_bits(a)}, bf16={"h"})
    source = open_safetensors(tmp_path)
    np.testing.assert_array_equal(source.read_rows("layer.weight", 0, 4), a[:4])
    with pytest.raises(CheckpointError, match=rf"layer.weight in model.safetensors holds {bad} at \[4, 2\]"):
        source.read_rows("layer.weight", 3, 6)
    with pytest.raises(CheckpointError, match=r"Tensor h .* \[4, 2\]"):
        source.read_rows("h", 0, 6)


def test_huge_finite_values_are_allowed(tmp_path: Path) -> None:
    a = np.full((4, 4), 3e38, np.float32)
    write_safetensors(tmp_path / "model.safetensors", {"a": a})
    np.testing.assert_array_equal(open_safetensors(tmp_path).read_rows("a", 0, 4), a)


def test_other_types_and_names(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"q.weight": np.zeros((4, 4), np.uint8)})
    source = open_safetensors(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"q.weight has type U8"):
        source.read_rows("q.weight", 0, 4)
    with pytest.raises(CheckpointError, match=r"no tensor q.weigth. The nearest name in it is q.weight"):
        source.info("q.weigth")


MEASURE = """
import resource, sys
from edgedistill.checkpoint.safetensors import open_safetensors
from pathlib import Path
source = open_safetensors(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = source.info("a").shape[0]
for start in range(0, rows, 1024):
    source.read_rows("a", start, min(rows, start + 1024))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A 256 MB tensor is read in 1 MB slices: the peak grows by some slices, not by the file."""
    header = json.dumps({"a": {"dtype": "BF16", "shape": [262144, 512], "data_offsets": [0, 1 << 28]}}).encode()
    path = tmp_path / "model.safetensors"
    write_raw(path, header, b"")
    os.truncate(path, 8 + len(header) + (1 << 28))
    grown = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(grown.stdout) < 32 * 1024  # kilobytes


def test_the_only_file_is_the_models_whatever_its_name(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float64).reshape(2, 3)
    write_safetensors(tmp_path / "model.fp16.safetensors", {"w": values})
    write_safetensors(tmp_path / "adapter_model.safetensors", {"other": values})
    source = open_safetensors(tmp_path)
    assert source.read_rows("w", 0, 2).tolist() == values.tolist()
    source.close()
    write_safetensors(tmp_path / "ema.safetensors", {"w": values})
    with pytest.raises(CheckpointError, match=r"neither.*model\.fp16\.safetensors.*call the file of the model"):
        open_safetensors(tmp_path)


def test_a_float64_that_float32_does_not_hold_is_refused(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"w": np.array([[1.0, 1e300]])})
    source = open_safetensors(tmp_path)
    with pytest.raises(CheckpointError, match="holds inf"):
        source.read_rows("w", 0, 1)
    source.close()
