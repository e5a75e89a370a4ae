"""Reading GGUF tensors: exact in any slice, names and values as Hugging Face has them, damage refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize
from gguf_fixtures import LLAMA, finish, model_tensors, write_gguf

from edgedistill.checkpoint.gguf.header import open_gguf
from edgedistill.checkpoint.gguf.tensors import GgufPart, GgufSource
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import CheckpointError, UnsupportedModelError

Q = GGMLQuantizationType
QUANTIZED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
             "IQ3_XXS", "IQ3_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_S", "IQ1_M", "TQ1_0", "TQ2_0"]  # fmt: skip


def random_blocks(kind: GGMLQuantizationType, rows: int, columns: int, seed: int = 0) -> np.ndarray:
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
