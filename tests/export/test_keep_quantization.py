"""A source that is quantized already is not rounded twice: the bundle stands for the very values of the source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoint_fixtures import CONFIG, qwen3_tensors, write_directory, write_safetensors
from gguf import GGMLQuantizationType as Kind
from gguf_fixtures import LLAMA, model_tensors, write_gguf

import edgedistill
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import UsageError
from edgedistill.export.plan import canonical
from edgedistill.quantize import dequantize_rows
from edgedistill.quantize.spec import array_specs

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.export.pipeline import ExportResult

SHAPE = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}


def quantized_gguf(path: Path, arch: str, kind: Kind, other: Kind | None = None) -> Path:
    """A model all of whose matrices are of ``kind``, its embedding of ``other``."""
    tensors = model_tensors(LLAMA | SHAPE, qk_norm=arch == "qwen3")
    kinds = {name: kind for name, array in tensors.items() if array.ndim == 2}
    kinds["model.embed_tokens.weight"] = other or kind
    write_gguf(path, arch, SHAPE, tensors=tensors, kinds=kinds)
    return path


def export(source: Path, out: Path, **options: Any) -> ExportResult:
    return edgedistill.export(source, out, **{"verify": False, "check": False} | options)


def assert_values_are_the_sources(source: Path, result: ExportResult, atol: float = 0.0) -> None:
    """Every matrix of the bundle against the rows that the checkpoint stands for."""
    import onnx_ir as ir

    weights = {entry.name: entry for entry in result.manifest.weights}
    graph = ir.load(result.path / "model.onnx").graph
    arrays = {name: value.const_value.numpy() for name, value in graph.initializers.items() if value.const_value}
    from edgedistill.architecture.families import build_spec
    from edgedistill.architecture.weights import logical_weights

    checked = 0
    with open_checkpoint(str(source)) as opened:
        checkpoint = canonical(opened)
        for weight in logical_weights(build_spec(checkpoint.config)):
            if not weight.is_matrix:
                continue
            fmt = weights[weight.name].format
            assert fmt.method == "kept"
            expected = np.concatenate(
                [checkpoint.tensors.read_rows(p, 0, checkpoint.tensors.info(p).shape[0]) for p in weight.parts]
            )
            specs = array_specs(weight.name, expected.shape, fmt)
            stored = {
                spec.name.removeprefix(f"{weight.name}."): found(arrays, spec.name).reshape(spec.shape)
                for spec in specs
            }
            np.testing.assert_allclose(dequantize_rows(stored, fmt, expected.shape[1]), expected, rtol=0, atol=atol)
            checked += 1
    assert checked > 4


def found(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The array of a weight; planes are seen as they lie in the file."""
    return next(array for key, array in arrays.items() if key == name or key.startswith(f"{name}."))


@pytest.mark.parametrize("arch", ["llama", "qwen3"])
@pytest.mark.parametrize(
    ("kind", "label", "atol"),
    [
        (Kind.Q4_0, "int4-b32-sym-kept", 0.0),
        (Kind.Q8_0, "int8-b32-sym-kept", 0.0),
        (Kind.Q5_0, "int5-b32-sym-kept", 0.0),
        (Kind.Q6_K, "int6-b16-sym-kept", 2e-4),
        (Kind.Q3_K, "int3-b16-sym-kept", 1e-4),
        (Kind.IQ4_NL, "int8-b32-sym-kept", 0.0),
        (Kind.IQ4_XS, "int8-b32-sym-kept", 2e-4),
        (Kind.TQ1_0, "int2-b256-sym-kept", 0.0),
        (Kind.TQ2_0, "int2-b256-sym-kept", 0.0),
        # Beside a minimum in each block; a step is 0.03, 0.015, 0.003 and 0.003 wide.
        (Kind.Q4_1, "int4-b32-asym-kept-offsets", 2e-3),
        (Kind.Q5_1, "int5-b32-asym-kept-offsets", 5e-4),
        (Kind.Q4_K, "int4-b32-asym-kept-offsets", 2e-4),
        (Kind.Q5_K, "int5-b32-asym-kept-offsets", 1e-4),
    ],
)
def test_gguf_blocks_keep_their_codes(arch: str, kind: Kind, label: str, atol: float, tmp_path: Path) -> None:
    source = quantized_gguf(tmp_path / "m.gguf", arch, kind)
    result = export(source, tmp_path / "out", keep_quantization=True)
    assert {e.format.label() for e in result.manifest.weights if e.format.method == "kept"} == {label}
    assert any("keep the quantization" in note for note in result.notes)
    assert_values_are_the_sources(source, result, atol)


def test_the_default_keeps_what_is_as_wide_as_the_profile_asks(tmp_path: Path) -> None:
    source = quantized_gguf(tmp_path / "m.gguf", "llama", Kind.Q4_0, Kind.Q8_0)
    kept = export(source, tmp_path / "kept")
    assert {e.format.label() for e in kept.manifest.weights if e.name.startswith("layers.") and e.format.bits == 4} == {
        "int4-b32-sym-kept"
    }
    (row,) = edgedistill.plan(source, measure=False).rows
    assert row.bits_per_weight == pytest.approx(kept.manifest.bits_per_weight)
    anew = export(source, tmp_path / "anew", keep_quantization=False)
    assert not any(e.format.method == "kept" for e in anew.manifest.weights)
    asked = export(source, tmp_path / "asked", format="int4-b64")  # a format by name is a wish
    assert not any(e.format.method == "kept" for e in asked.manifest.weights)
    wide = quantized_gguf(tmp_path / "wide.gguf", "llama", Kind.Q8_0)
    narrow = export(wide, tmp_path / "narrow")  # 8 bits of the source where the profile wants 4
    assert all(e.format.method != "kept" for e in narrow.manifest.weights if ".mlp." in e.name)


@pytest.mark.parametrize("kind", [Kind.Q2_K, Kind.IQ2_XXS, Kind.IQ2_S, Kind.IQ3_S])
def test_kinds_that_do_not_stay_are_quantized_anew_and_say_so(kind: Kind, tmp_path: Path) -> None:
    """With as many bits as the profile asks for, which are as many or more."""
    result = export(quantized_gguf(tmp_path / "m.gguf", "qwen3", kind), tmp_path / "out", calibrate=False)
    formats = [entry.format for entry in result.manifest.weights if ".mlp." in entry.name]
    assert all(fmt.method != "kept" and fmt.bits >= 4 for fmt in formats)
    matrices = sum(not entry.format.is_float for entry in result.manifest.weights)
    why = f", {matrices} of them because their blocks or their order of columns"
    assert f"{matrices} quantized matrices of the source are rounded a second time{why}" in " ".join(result.notes)


def test_values_at_unequal_distances_stay_where_the_profile_wants_eight_bits(tmp_path: Path) -> None:
    result = export(quantized_gguf(tmp_path / "m.gguf", "qwen3", Kind.IQ4_XS), tmp_path / "out", calibrate=False)
    formats = {entry.name: entry.format for entry in result.manifest.weights if not entry.format.is_float}
    assert formats["layers.0.mlp.gate"].bits == 4
    assert {fmt.label() for fmt in formats.values() if fmt.bits == 8} == {"int8-b32-sym-kept"}
    assert "6 quantized matrices of the source are rounded a second time." in " ".join(result.notes)


def test_a_bundle_with_kept_codes_answers(tmp_path: Path) -> None:
    source = quantized_gguf(tmp_path / "m.gguf", "llama", Kind.Q4_K, Kind.Q5_1)
    result = export(source, tmp_path / "out", keep_quantization=True, check=True)
    assert result.manifest.check["tokens"]


@pytest.mark.parametrize("layout", ["awq", "gptq"])
def test_awq_and_gptq_keep_their_codes(layout: str, tmp_path: Path) -> None:
    """Groups of 128 with zero points, packed as the projects pack them."""
    values = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
    tensors = qwen3_tensors(CONFIG | values)
    rng = np.random.default_rng(0)
    stored: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        if array.ndim != 2 or "embed" in name:
            stored[name] = array
            continue
        n, k = array.shape
        module = name.removesuffix(".weight")
        codes = rng.integers(0, 16, (k, n)).astype(np.int64)
        zeros = rng.integers(1, 15, (k // 128, n)).astype(np.int64)
        stored[f"{module}.scales"] = rng.uniform(1e-3, 1e-2, (k // 128, n)).astype(np.float16)
        if layout == "awq":
            stored[f"{module}.qweight"] = packed(codes, 1, (0, 2, 4, 6, 1, 3, 5, 7))
            stored[f"{module}.qzeros"] = packed(zeros, 1, (0, 2, 4, 6, 1, 3, 5, 7))
        else:
            stored[f"{module}.qweight"] = packed(codes, 0)
            stored[f"{module}.qzeros"] = packed(zeros - 1, 1)
            stored[f"{module}.g_idx"] = (np.arange(k) // 128).astype(np.int32)
    quantization = {"quant_method": layout, "bits": 4, "group_size": 128, "version": "gemm"}
    source = write_directory(tmp_path / layout, **values, quantization_config=quantization)
    write_safetensors(source / "model.safetensors", stored)
    result = export(source, tmp_path / "out", keep_quantization=True)
    kept = [e for e in result.manifest.weights if e.format.method == "kept"]
    assert {e.format.label() for e in kept} == {"int4-b128-asym-kept"}
    assert len(kept) == 2 * 5
    import onnx_ir as ir

    initializers = ir.load(result.path / "model.onnx").graph.initializers
    arrays = {name: value.const_value.numpy() for name, value in initializers.items() if value.const_value}
    with open_checkpoint(str(source)) as checkpoint:
        rows = checkpoint.tensors.read_rows("model.layers.0.mlp.down_proj.weight", 0, 128)
    entry = next(e for e in kept if e.name == "layers.0.mlp.down")
    specs = array_specs(entry.name, rows.shape, entry.format)
    found_arrays = {s.name.rpartition(".")[2]: found(arrays, s.name).reshape(s.shape) for s in specs}
    np.testing.assert_array_equal(dequantize_rows(found_arrays, entry.format, rows.shape[1]), rows)
    if layout == "gptq":  # columns in another order: the groups do not lie side by side
        stored = {k: np.ascontiguousarray(v[::-1]) if k.endswith("g_idx") else v for k, v in stored.items()}
        write_safetensors(source / "model.safetensors", stored)
        other = export(source, tmp_path / "other", keep_quantization=True)
        assert not any(e.format.method == "kept" for e in other.manifest.weights if e.name.endswith("mlp.down"))
        assert "2 quantized matrices of the source are rounded a second time, 2 of them because" in " ".join(
            other.notes
        )


def packed(codes: np.ndarray, axis: int, order: tuple[int, ...] = tuple(range(8))) -> np.ndarray:
    """Eight 4-bit codes along ``axis`` in an int32, in ``order``."""
    moved = np.moveaxis(codes, axis, -1)
    groups = moved.reshape(*moved.shape[:-1], -1, 8)
    words = sum(groups[..., column].astype(np.uint32) << np.uint32(4 * place) for place, column in enumerate(order))
    return np.ascontiguousarray(np.moveaxis(words.astype(np.uint32).view(np.int32), -1, axis))


def test_what_cannot_be_kept(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no matrix whose quantization can be kept"):
        export(tiny_checkpoint_dir, tmp_path / "a", keep_quantization=True)
    with pytest.raises(UsageError, match="cannot keep its quantization as int4-b32-asym-kept"):
        export(tiny_checkpoint_dir, tmp_path / "b", format="int4-kept")
    with pytest.raises(UsageError, match="calibration, which quantizes anew"):
        export(tiny_checkpoint_dir, tmp_path / "c", keep_quantization=True, calibrate=True)
    export(tiny_checkpoint_dir, tmp_path / "d", keep_quantization=False)


@pytest.mark.parametrize(("down", "kept"), [(Kind.Q4_0, 9), (Kind.Q8_0, 5)])
def test_experts_keep_their_codes_where_one_kernel_takes_both(tmp_path: Path, down: Kind, kept: int) -> None:
    """All experts of a matrix lie in one tensor of a GGUF file; gate and up become neighbouring rows."""
    metadata = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 256}
    rng = np.random.default_rng(0)
    tensors = {n: a for n, a in model_tensors(LLAMA | SHAPE, qk_norm=True).items() if ".mlp." not in n}
    kinds = {name: Kind.Q4_0 for name, array in tensors.items() if array.ndim == 2}
    for layer in range(2):
        mlp = f"model.layers.{layer}.mlp"
        tensors[f"{mlp}.gate.weight"] = rng.normal(0, 0.5, (4, 256)).astype(np.float32)
        for which in ("gate", "up", "down"):
            name = f"{mlp}.experts.{which}_proj.weight"
            tensors[name] = rng.normal(0, 0.2, (4, 256, 256)).astype(np.float32)
            kinds[name] = down if which == "down" else Kind.Q4_0
    write_gguf(tmp_path / "model.gguf", "qwen3moe", SHAPE, tensors=tensors, kinds=kinds, metadata=metadata)
    result = export(tmp_path / "model.gguf", tmp_path / "b", keep_quantization=True)
    methods = [entry.format.method for entry in result.manifest.weights if len(entry.shape) == 2]
    assert methods.count("kept") == kept
    if kept == 9:
        assert_values_are_the_sources(tmp_path / "model.gguf", result)
