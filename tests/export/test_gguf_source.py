"""Reading GGUF tensors: exact in any slice, names and values as Hugging Face has them, damage refused."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize
from gguf_fixtures import LLAMA, finish, model_tensors, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.errors import CheckpointError, EdgedistillError, UnsupportedModelError
from edgedistill.export.checkpoint import open_checkpoint
from edgedistill.export.gguf_header import open_gguf
from edgedistill.export.gguf_source import GgufPart, GgufSource

Q = GGMLQuantizationType
QUANTIZED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
             "IQ3_XXS", "IQ3_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_S", "IQ1_M", "TQ1_0", "TQ2_0"]  # fmt: skip


def random_blocks(kind: Q, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random bytes as blocks of ``kind``; blocks whose scales are not finite are cleared."""
    block, size = GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(seed).integers(0, 256, (rows * columns // block, size), dtype=np.uint8)
    with np.errstate(all="ignore"):
        bad = ~np.isfinite(dequantize(raw, kind)).all(axis=1)
    raw[bad] = 0
    assert bad.mean() < 0.5
    return raw.reshape(rows, columns // block * size)


def source_of(path: Path) -> GgufSource:
    header, file = open_gguf(path)
    return GgufSource(file, {name: GgufPart(tensor) for name, tensor in header.tensors.items()})


@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_types_are_exact_in_any_slice(tmp_path: Path, kind: str) -> None:
    rows, columns = 21, 512
    raw = random_blocks(Q[kind], rows, columns)
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("before", np.ones(5, np.float32))
    writer.add_tensor("w", raw, raw_dtype=Q[kind])
    finish(writer)
    expected = dequantize(raw, Q[kind])
    source = source_of(tmp_path / "m.gguf")
    assert source.info("w").dtype == kind
    assert source.info("w").shape == (rows, columns)
    for start, stop in ((0, rows), (3, 4), (7, 20), (20, 21), (5, 5)):
        np.testing.assert_array_equal(source.read_rows("w", start, stop), expected[start:stop])


def reference_block(kind: str, raw: bytes) -> list[float]:
    """Blocks of 32 written out from their definition (ggml-common.h, ggml-quants.c), one value at a time."""
    scale = float(np.frombuffer(raw[:2], "<f2")[0])
    if kind == "Q8_0":
        return [scale * v for v in struct.unpack("32b", raw[2:])]
    at = 4 if kind.endswith("1") else 2
    least = float(np.frombuffer(raw[2:4], "<f2")[0]) if kind.endswith("1") else None
    fifth = int.from_bytes(raw[at : at + 4], "little") if kind.startswith("Q5") else 0
    nibbles = raw[-16:]
    values = []
    for i in range(32):
        q = nibbles[i] & 15 if i < 16 else nibbles[i - 16] >> 4
        q |= (fifth >> i & 1) << 4
        middle = 16 if kind.startswith("Q5") else 8
        values.append(scale * (q - middle) if least is None else scale * q + least)
    return values


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_simple_types_against_their_definition(tmp_path: Path, kind: str) -> None:
    raw = random_blocks(Q[kind], 4, 64, seed=1)
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("w", raw, raw_dtype=Q[kind])
    finish(writer)
    blocks = raw.reshape(-1, GGML_QUANT_SIZES[Q[kind]][1])
    expected = np.array([reference_block(kind, block.tobytes()) for block in blocks]).reshape(4, 64)
    np.testing.assert_allclose(source_of(tmp_path / "m.gguf").read_rows("w", 0, 4), expected, rtol=1e-6, atol=1e-7)


def test_float_types_and_vectors(tmp_path: Path) -> None:
    a = np.random.default_rng(2).normal(0, 1, (6, 32)).astype(np.float32)
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("f32", a)
    writer.add_tensor("f16", a.astype(np.float16))
    writer.add_tensor("bf16", quantize(a, Q.BF16), raw_dtype=Q.BF16)
    writer.add_tensor("v16", a[0].astype(np.float16))
    finish(writer)
    source = source_of(tmp_path / "m.gguf")
    np.testing.assert_array_equal(source.read_rows("f32", 2, 6), a[2:6])
    np.testing.assert_array_equal(source.read_rows("f16", 0, 6), a.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(source.read_rows("bf16", 1, 3), dequantize(quantize(a, Q.BF16), Q.BF16)[1:3])
    np.testing.assert_array_equal(source.read_rows("v16", 5, 9), a[0, 5:9].astype(np.float16).astype(np.float32))


def test_large_tensors_are_dequantized_in_groups(tmp_path: Path) -> None:
    raw = random_blocks(Q.Q8_0, 3000, 512)
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("w", raw, raw_dtype=Q.Q8_0)
    finish(writer)
    got = source_of(tmp_path / "m.gguf").read_rows("w", 100, 2950)
    np.testing.assert_array_equal(got, dequantize(raw[100:2950], Q.Q8_0))


def test_types_without_dequantization(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("i", np.ones((2, 32), np.int32))
    finish(writer)
    with pytest.raises(UnsupportedModelError, match="Tensor i has type I32"):
        source_of(tmp_path / "m.gguf").read_rows("i", 0, 2)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    raw = random_blocks(Q.Q8_0, 4, 64)
    raw[2, :2] = np.array([np.inf], np.float16).view(np.uint8)
    raw[2, 2] = 1
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("w", raw, raw_dtype=Q.Q8_0)
    finish(writer)
    with pytest.raises(CheckpointError, match=r"Tensor w in m.gguf holds .* at \[2, 0\]"):
        source_of(tmp_path / "m.gguf").read_rows("w", 1, 4)


@pytest.mark.parametrize("arch", ["llama", "smollm3", "qwen2", "qwen3"])
def test_tensors_come_out_as_hugging_face_has_them(tmp_path: Path, arch: str) -> None:
    biases = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj") if arch in ("qwen2", "llama") else ()
    tensors = model_tensors(LLAMA, qk_norm=arch == "qwen3", untied=arch == "llama", biases=biases)
    write_gguf(tmp_path / "m.gguf", arch, tensors=tensors)
    with open_checkpoint(str(tmp_path / "m.gguf")) as checkpoint:
        assert set(checkpoint.tensors.names()) == set(tensors)
        for name, array in tensors.items():
            assert checkpoint.tensors.info(name).shape == array.shape
            np.testing.assert_array_equal(checkpoint.tensors.read_rows(name, 0, len(array)), array)
        for start, stop in ((0, 1), (5, 23), (16, 32), (31, 64)):
            name = "model.layers.1.self_attn.q_proj.weight"
            np.testing.assert_array_equal(checkpoint.tensors.read_rows(name, start, stop), tensors[name][start:stop])


@pytest.mark.parametrize("arch", ["gemma2", "gemma3"])
def test_gemma_norms_lose_the_one_that_the_converter_added(tmp_path: Path, arch: str) -> None:
    tensors = model_tensors(LLAMA, gemma=True)
    if arch == "gemma2":
        tensors = {name: array for name, array in tensors.items() if "q_norm" not in name and "k_norm" not in name}
    write_gguf(tmp_path / "m.gguf", arch, tensors=tensors)
    with open_checkpoint(str(tmp_path / "m.gguf")) as checkpoint:
        assert set(checkpoint.tensors.names()) == set(tensors)
        for name, array in tensors.items():
            got = checkpoint.tensors.read_rows(name, 0, len(array))
            np.testing.assert_allclose(got, array, rtol=0, atol=1.2e-7 if "norm" in name else 0)


def test_mixed_types_in_one_file(tmp_path: Path) -> None:
    tensors = model_tensors(LLAMA)
    kinds = {
        "model.embed_tokens.weight": Q.Q8_0,
        "model.layers.0.self_attn.q_proj.weight": Q.Q4_0,
        "model.layers.0.self_attn.k_proj.weight": Q.Q5_1,
        "model.layers.1.mlp.down_proj.weight": Q.F16,
        "model.layers.1.mlp.up_proj.weight": Q.BF16,
    }
    write_gguf(tmp_path / "m.gguf", tensors=tensors, kinds=kinds)
    with open_checkpoint(str(tmp_path / "m.gguf")) as checkpoint:
        for name, array in tensors.items():
            kind = kinds.get(name, Q.F32)
            assert checkpoint.tensors.info(name).dtype == kind.name
            expected = dequantize(quantize(array, kind), kind)  # permuting rows and quantizing rows commute
            np.testing.assert_array_equal(checkpoint.tensors.read_rows(name, 0, len(array)), expected)


def test_agrees_with_transformers(tmp_path: Path) -> None:
    """transformers' own GGUF reader gives the same weights and, apart from its precision, the same config."""
    transformers = pytest.importorskip("transformers")
    tensors = model_tensors(LLAMA, untied=True)
    write_gguf(tmp_path / "m.gguf", tensors=tensors, metadata={"rope.dimension_count": 16})
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf")
    state = model.state_dict()
    with open_checkpoint(str(tmp_path / "m.gguf")) as checkpoint:
        assert set(state) == set(checkpoint.tensors.names())
        for name in checkpoint.tensors.names():
            rows = checkpoint.tensors.info(name).shape[0]
            np.testing.assert_array_equal(checkpoint.tensors.read_rows(name, 0, rows), state[name].float().numpy())
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads", "head_dim"):
            assert checkpoint.config[key] == getattr(model.config, key)


def header_end(path: Path) -> int:
    return int(GGUFReader(path).data_offset)


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
    refuse(tmp_path, patched(sound, name, 20, struct.pack("<I", 99)), "type number 99, which is not known")
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
