"""GGUF files that are damaged, cut or absurd: refused with what is wrong, never a crash."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from gguf_fixtures import LLAMA, finish, model_tensors, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.checkpoint.gguf.header import open_gguf
from edgedistill.checkpoint.gguf.tensors import GgufPart, GgufSource
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import CheckpointError, EdgedistillError, UnsupportedModelError

Q = GGMLQuantizationType


def source_of(path: Path) -> GgufSource:
    header, file = open_gguf(path)
    return GgufSource(file, {name: GgufPart(tensor) for name, tensor in header.tensors.items()})


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "m.gguf"
    write_gguf(path)
    return path.read_bytes()


def refuse(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises((CheckpointError, UnsupportedModelError), match=match):
        open_checkpoint(str(path))


@pytest.mark.parametrize("keep", [0, 2, 4, 7, 20, 24, 100, 2000, -1, -70000])
def test_truncated(tmp_path: Path, sound: bytes, keep: int) -> None:
    refuse(tmp_path, sound[:keep], r"starts with|the file ends at|file has \d+ bytes|can hold")


def test_wrong_magic_and_version(tmp_path: Path, sound: bytes) -> None:
    refuse(tmp_path, b"GGML" + sound[4:], "starts with b'GGML'")
    refuse(tmp_path, sound[:4] + struct.pack("<I", 1) + sound[8:], "GGUF version 1")
    refuse(tmp_path, sound[:4] + struct.pack(">I", 3) + sound[8:], "big-endian")


@pytest.mark.parametrize("count", [1 << 63, 1 << 40, 1 << 24])
def test_absurd_counts(tmp_path: Path, sound: bytes, count: int) -> None:
    refuse(tmp_path, sound[:8] + struct.pack("<Q", count) + sound[16:], f"{count} tensors, more than")
    refuse(tmp_path, sound[:16] + struct.pack("<Q", count) + sound[24:], f"{count} metadata values, more than")
    refuse(tmp_path, sound[:24] + struct.pack("<Q", count) + sound[32:], "header needs")  # length of the first key


def patched(sound: bytes, key: bytes, skip: int, value: bytes) -> bytes:
    """``sound`` with bytes replaced ``skip`` bytes after the end of the name ``key``."""
    at = sound.index(struct.pack("<Q", len(key)) + key) + 8 + len(key) + skip
    return sound[:at] + value + sound[at + len(value) :]


def test_damaged_metadata(tmp_path: Path, sound: bytes) -> None:
    tokens = b"tokenizer.ggml.tokens"
    refuse(tmp_path, patched(sound, tokens, 8, struct.pack("<Q", 1 << 50)), "strings in 'tokenizer.ggml.tokens'")
    refuse(tmp_path, patched(sound, tokens, 0, struct.pack("<I", 77)), "unknown value type 77")
    refuse(tmp_path, patched(sound, tokens, 4, struct.pack("<I", 9)), "nested type 9")
    refuse(tmp_path, patched(sound, tokens, 24, b"\xff\xff"), "not UTF-8")
    refuse(tmp_path, patched(sound, b"tokenizer.ggml.token_type", 8, struct.pack("<Q", 1 << 50)), "numbers in")
    other = sound.replace(b"llama.block_count", b"llama.block_kount")
    refuse(tmp_path, other, "llama.block_count is missing")
    refuse(tmp_path, sound.replace(b"llama.context_length", b"general.architecture"), "'general.architecture' twice")


def test_damaged_tensor_entries(tmp_path: Path, sound: bytes) -> None:
    name = b"blk.0.ffn_up.weight"  # rank u32, two sizes u64, type u32, offset u64
    refuse(tmp_path, patched(sound, name, 20, struct.pack("<I", 99)), "type number 99, which is not supported")
    refuse(tmp_path, patched(sound, name, 0, struct.pack("<I", 9)), "9 dimensions")
    refuse(tmp_path, patched(sound, name, 4, struct.pack("<Q", 0)), "of shape")
    refuse(tmp_path, patched(sound, name, 4, struct.pack("<Q", 1 << 61)), "of shape")
    refuse(tmp_path, patched(sound, name, 4, struct.pack("<Q", 1 << 50)), "needs bytes up to")
    refuse(tmp_path, patched(sound, name, 24, struct.pack("<Q", 1 << 62)), "needs bytes up to")
    refuse(tmp_path, patched(sound, name, 24, struct.pack("<Q", 7)), "multiple of 32")
    refuse(tmp_path, patched(sound, name, 4, struct.pack("<QQI", 33, 2, 8)), "multiple of 32 for Q8_0")
    refuse(tmp_path, sound.replace(b"blk.0.ffn_up.weight", b"blk.1.ffn_up.weight"), "'blk.1.ffn_up.weight' twice")
    refuse(tmp_path, sound.replace(b"blk.0.ffn_up.weight", b"blk.0.ffn_\x1bp.weight"), "unprintable name")
    refuse(tmp_path, sound.replace(b"blk.0.ffn_up.weight", b"blk.0.ffn_zz.weight"), "tensor blk.0.ffn_zz.weight")


def test_sparse_giant(tmp_path: Path) -> None:
    """Counts that a terabyte file could hold are still refused before anything is allocated."""
    path = tmp_path / "m.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 0, 1 << 38)
    path.write_bytes(head)
    os.truncate(path, 1 << 40)
    with pytest.raises(CheckpointError, match="numbers in 'k'"):
        open_gguf(path)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 38))
    os.truncate(path, 1 << 40)
    with pytest.raises(CheckpointError, match="a metadata value of"):
        open_gguf(path)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_changed_header_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "m.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_token_list(["a", "b"])
    writer.add_array("scores", [0.5, 1.5])
    writer.add_tensor("token_embd.weight", np.ones((4, 32), np.float32))
    writer.add_tensor("q", quantize(np.ones((2, 32), np.float32), Q.Q8_0), raw_dtype=Q.Q8_0)
    finish(writer)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        source = source_of(path)
        for name in source.names():
            source.read_rows(name, 0, source.info(name).shape[0])
    except EdgedistillError:
        pass


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_model_is_opened_or_refused(
    tmp_path_factory: pytest.TempPathFactory, sound: bytes, data: st.DataObject
) -> None:
    """Damage anywhere in the header of a whole model ends in one of the errors that users see, with one line."""
    end = len(sound) - sum(array.nbytes for array in model_tensors(LLAMA).values())
    path = tmp_path_factory.mktemp("fuzz") / "m.gguf"
    content = bytearray(sound)
    content[data.draw(st.integers(8, end))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        with open_checkpoint(str(path)) as checkpoint:
            for name in checkpoint.tensors.names():
                checkpoint.tensors.read_rows(name, 0, checkpoint.tensors.info(name).shape[0])
    except EdgedistillError as error:
        message = str(error)
    else:
        return
    assert message.isprintable()
