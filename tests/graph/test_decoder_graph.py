"""Quantized graphs against float graphs of the same values, sharing of stored regions, and the shape of the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from parity_support import BASE, Decoder, Exported, export, random_tokens, save_random_model

from edgedistill.architecture.families import build_spec
from edgedistill.architecture.weights import logical_weights
from edgedistill.export.writer import StoredArray
from edgedistill.graph.builder import GraphBuilder
from edgedistill.graph.decoder import build_graph
from edgedistill.graph.weights import WeightEmitter
from edgedistill.quantize.plan import PlannedWeight, Rule
from edgedistill.quantize.spec import FLOAT32, ArraySpec, WeightFormat, array_specs

if TYPE_CHECKING:
    from pathlib import Path

# 72 and 88 are no multiples of any block size: every matrix ends in a padded block.
UNEVEN: dict[str, Any] = {"hidden_size": 72, "intermediate_size": 88}
FORMATS = [
    WeightFormat(bits=bits, block_size=block, symmetric=symmetric, method="rtn", accuracy_level=1)
    for bits in (4, 8)
    for block in (16, 32, 64, 128, 256)
    for symmetric in (True, False)
]


def checkpoint(directory: Path, model_type: str = "qwen3", **values: Any) -> Path:
    pytest.importorskip("transformers")
    save_random_model(directory, model_type, **values)
    return directory


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("uneven"), tie_word_embeddings=True, **UNEVEN)


def logits(exported: Exported) -> np.ndarray:
    """Logits of a prefill and of single steps, float32 [30, V]."""
    tokens = random_tokens(30)
    decoder = Decoder(exported, 1)
    parts = [decoder.step([tokens[:20]])[0], *(decoder.step([[token]])[0] for token in tokens[20:])]
    return np.concatenate(parts)


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.label())
def test_quantized_graph_equals_its_dequantized_weights(uneven: Path, tmp_path: Path, fmt: WeightFormat) -> None:
    found = logits(export(uneven, tmp_path / "q", fmt))
    expected = logits(export(uneven, tmp_path / "f", fmt, dequantize=True))
    assert np.abs(found - expected).max() < 2e-4
    exact = logits(export(uneven, tmp_path / "exact"))
    assert np.abs(found - exact).max() > 5e-3, "quantization changed nothing: it was not applied"


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [32, 128])
def test_quantized_activations_stay_close(tmp_path: Path, bits: int, block: int) -> None:
    """accuracy_level 4 rounds activations to int8 per block: near, but not the same."""
    source = checkpoint(tmp_path / "hf", "llama", attention_bias=True, mlp_bias=True)
    fmt = WeightFormat(bits=bits, block_size=block, symmetric=False, accuracy_level=4)
    found = logits(export(source, tmp_path / "q", fmt))
    expected = logits(export(source, tmp_path / "f", fmt, dequantize=True))
    error = np.sqrt(np.mean((found - expected) ** 2)) / expected.std()
    assert 1e-5 < error < 0.06


def test_biases_reach_quantized_matmuls(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "hf", "llama", attention_bias=True, mlp_bias=True, **UNEVEN)
    for symmetric in (True, False):
        fmt = WeightFormat(bits=4, block_size=32, symmetric=symmetric, method="rtn", accuracy_level=1)
        found = logits(export(source, tmp_path / f"q{symmetric}", fmt))
        expected = logits(export(source, tmp_path / f"f{symmetric}", fmt, dequantize=True))
        assert np.abs(found - expected).max() < 2e-4


def test_rules_mix_formats(uneven: Path, tmp_path: Path) -> None:
    """The tied embedding in 8 bits, one projection in float, the rest in 4."""
    four = WeightFormat(bits=4, block_size=32, method="rtn", accuracy_level=1)
    eight = WeightFormat(bits=8, block_size=64, symmetric=True, method="rtn", accuracy_level=1)
    rules = [Rule("lm_head", eight), Rule("layers.1.mlp.down", FLOAT32)]
    found = export(uneven, tmp_path / "q", four, rules=rules)
    expected = export(uneven, tmp_path / "f", four, rules=rules, dequantize=True)
    assert np.abs(logits(found) - logits(expected)).max() < 2e-4
    nodes = {node.name: node for node in onnx.load(found.path / "model.onnx", load_external_data=False).graph.node}
    assert nodes["layers.1.mlp.down.out"].op_type == "FusedMatMul"
    bits = {a.name: a.i for a in nodes["logits"].attribute}["bits"]
    assert bits == 8


def external_regions(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and length of every initializer stored outside the graph."""
    graph = onnx.load(path, load_external_data=False).graph
    found = {}
    for tensor in graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            assert entries["location"] == "weights.bin"
            found[tensor.name] = int(entries["offset"]), int(entries["length"])
    return found


@pytest.mark.parametrize("fmt", [FLOAT32, WeightFormat(bits=4, symmetric=False), WeightFormat(bits=8, symmetric=True)])
@pytest.mark.parametrize("file", ["model.onnx", "model-genai.onnx"])
def test_a_tied_embedding_is_stored_once(uneven: Path, tmp_path: Path, fmt: WeightFormat, file: str) -> None:
    exported = export(uneven, tmp_path / "out", fmt)
    regions = external_regions(exported.path / file)
    embedding = {name: region for name, region in regions.items() if name.startswith("embed")}
    stored = {a.offset: a.spec.nbytes for name, a in exported.layout.arrays.items() if name.startswith("embed")}
    assert dict(embedding.values()) == stored
    if not fmt.is_float:
        assert embedding["embed.q"] == embedding["embed.rows"]
    # Nothing else is stored twice, nothing is missing, and both graphs use all there is.
    others = [region for name, region in regions.items() if not name.startswith("embed")]
    assert len(set(others)) == len(others)
    assert {offset for offset, _ in regions.values()} == {a.offset for a in exported.layout.arrays.values()}
    size = (exported.path / "weights.bin").stat().st_size
    assert size == exported.layout.size
    assert all(offset + length <= size for offset, length in regions.values())


def test_an_untied_embedding_and_its_head_are_apart(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "hf", "qwen3", tie_word_embeddings=False)
    fmt = WeightFormat(bits=4, block_size=16, method="rtn", accuracy_level=1)
    found = export(source, tmp_path / "q", fmt)
    regions = external_regions(found.path / "model.onnx")
    assert regions["embed.rows"] != regions["lm_head.q"]
    expected = export(source, tmp_path / "f", fmt, dequantize=True)
    assert np.abs(logits(found) - logits(expected)).max() < 2e-4


def test_the_graph_holds_no_weights_and_uses_fused_operators(uneven: Path, tmp_path: Path) -> None:
    exported = export(uneven, tmp_path / "out", WeightFormat(bits=4))
    for file in ("model.onnx", "model-genai.onnx"):
        assert (exported.path / file).stat().st_size < 40_000
        model = onnx.load(exported.path / file, load_external_data=False)
        count: dict[str, int] = {}
        for node in model.graph.node:
            count[node.op_type] = count.get(node.op_type, 0) + 1
        assert count["GroupQueryAttention"] == 3
        assert count["MatMulNBits"] == 3 * 5 + 1
        assert count["SkipSimplifiedLayerNormalization"] == 6
        assert count["SimplifiedLayerNormalization"] == 1 + 2 * 3
        assert count["GatherBlockQuantized"] == 1
        assert "Transpose" not in count
        properties = {p.key: p.value for p in model.metadata_props}
        assert properties["edgedistill.context_length"] == "96"


def test_signature_of_inputs_and_outputs(uneven: Path, tmp_path: Path) -> None:
    exported = export(uneven, tmp_path / "out")
    session = Decoder(exported, 1).session
    inputs = {i.name: (i.type, i.shape) for i in session.get_inputs()}
    assert list(inputs)[:5] == [
        "input_ids",
        "seqlens_k",
        "query_seqlens",
        "total_sequence_length",
        "logit_index",
    ]
    assert inputs["input_ids"] == ("tensor(int64)", ["batch", "sequence"])
    assert inputs["total_sequence_length"] == ("tensor(int32)", [])
    assert inputs["past_key_values.2.value"] == ("tensor(float)", ["batch", 2, "capacity", 16])
    outputs = {o.name: (o.type, o.shape) for o in session.get_outputs()}
    assert outputs["logits"] == ("tensor(float)", ["batch", "logits", 67])
    assert outputs["present.0.key"] == ("tensor(float)", ["batch", 2, "capacity", 16])
    assert len(inputs) == 5 + 6
    assert len(outputs) == 1 + 6


def test_building_reads_no_weights() -> None:
    """An 8B-shaped graph is built from shapes alone, in no time and without a weights file."""
    spec = build_spec(
        BASE
        | {
            "model_type": "qwen3",
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
        }
    )
    fmt = WeightFormat(bits=4, block_size=32)
    plan, stored, offset = {}, {}, 0
    for weight in logical_weights(spec):
        n, *k = weight.shape
        arrays = array_specs(weight.name, (n, k[0]), fmt) if k else (ArraySpec(weight.name, "float32", (n,)),)
        plan[weight.name] = PlannedWeight(weight.name, weight.shape, fmt, arrays)
        for array in arrays:
            stored[array.name] = StoredArray(array, "nowhere.bin", offset)
            offset += array.nbytes
    model = build_graph(spec, WeightEmitter(plan, stored), signature="edgedistill", context_length=4096)
    assert offset > 4e9
    assert len(list(model.graph)) > 36 * 10


def test_a_view_of_another_size_is_refused() -> None:
    stored = StoredArray(ArraySpec("w", "float32", (4, 4)), "weights.bin", 0)
    with pytest.raises(ValueError, match="cannot be seen as"):
        GraphBuilder().external("w", stored, (4, 5))
