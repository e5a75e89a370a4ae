"""The fallback exporter on architectures that the own graph builder does not know, and its error messages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from parity_support import random_tokens, reference_logits, save_random_model

from edgedistill.checkpoint.safetensors import open_safetensors
from edgedistill.checkpoint.types import Checkpoint, SourceInfo, SpecialTokens
from edgedistill.errors import CheckpointError, MissingExtraError, UnsupportedModelError
from edgedistill.export.optimum import trace as fallback
from edgedistill.export.optimum.quantize_onnx import quantize_graph
from edgedistill.progress import NullProgress
from edgedistill.quantize.plan import Rule
from edgedistill.quantize.spec import FLOAT32, WeightFormat

if TYPE_CHECKING:
    from pathlib import Path

needs_optimum = pytest.mark.skipif(not fallback.is_available(), reason="the extra optimum is not installed")

COMMON = {"num_hidden_layers": 2, "num_key_value_heads": None, "head_dim": 12}
CASES: dict[str, dict[str, Any]] = {
    "gpt_neox": COMMON | {"tie_word_embeddings": False},
    "opt": COMMON | {"ffn_dim": 80, "word_embed_proj_dim": 48},
    "gpt2": COMMON,
    "bloom": COMMON,
    "phi3": COMMON | {"num_key_value_heads": 2},
}
EXACT = WeightFormat(bits=8, block_size=16, symmetric=False, method="rtn", accuracy_level=1, scale_bits=32)
FOUR = WeightFormat(bits=4, block_size=32, symmetric=True, method="rtn", accuracy_level=1, scale_bits=32)


def open_directory(directory: Path, **config: Any) -> Checkpoint:
    """The checkpoint without its tokenizer, which the fallback exporter does not look at."""
    return Checkpoint(
        config=json.loads((directory / "config.json").read_text()) | config,
        tensors=open_safetensors(directory),
        tokenizer_json=b"{}",
        chat_template=None,
        special_tokens=SpecialTokens(None, None, None, None, None, (2,), False),
        generation_config={},
        source=SourceInfo("directory", directory.name),
        weight_files=(),
    )


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    directory = tmp_path_factory.mktemp(request.param)
    return directory, save_random_model(directory, request.param, **CASES[request.param])


def run(directory: Path, info: fallback.OptimumExport, tokens: list[int]) -> np.ndarray:
    """Logits float32 [S, V]: half of the tokens at once, the rest one by one."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(directory / "model.onnx"), options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    shape = (1, info.num_key_value_heads, 0, info.head_dim)
    kinds = [f"{i}.{kind}" for i in range(info.num_hidden_layers) for kind in ("key", "value")]
    past = {f"past_key_values.{kind}": np.zeros(shape, dtype=np.float32) for kind in kinds}
    found, position = [], 0
    half = len(tokens) // 2
    for chunk in (tokens[:half], *([token] for token in tokens[half:])):
        feeds: dict[str, np.ndarray] = {
            "input_ids": np.array([chunk], dtype=np.int64),
            "attention_mask": np.ones((1, position + len(chunk)), dtype=np.int64),
            "position_ids": np.arange(position, position + len(chunk), dtype=np.int64)[None],
        }
        feeds = {name: value for name, value in feeds.items() if name in wanted} | past
        assert set(feeds) == wanted
        logits, *present = session.run(["logits", *(f"present.{kind}" for kind in kinds)], feeds)
        past = dict(zip(past, present, strict=True))
        position += len(chunk)
        found.append(logits[0])
    return np.concatenate(found)


def export(directory: Path, out: Path, default: WeightFormat, rules: tuple[Rule, ...] = ()) -> fallback.OptimumExport:
    out.mkdir()
    with open_directory(directory) as checkpoint:
        return fallback.export_with_optimum(checkpoint, out, default=default, rules=rules, allow_unused=True)


@needs_optimum
def test_float_equals_transformers(case: tuple[Path, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory, model = case
    info = export(directory, tmp_path / "out", FLOAT32)
    tokens = random_tokens(24)
    expected = reference_logits(model, tokens)
    assert np.abs(run(tmp_path / "out", info, tokens) - expected).max() < 1e-4
    assert expected.std() > 0.3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.onnx", "weights.bin"]
    assert (info.num_hidden_layers, info.vocab_size) == (2, 67)
    assert info.planned.parameters >= model.num_parameters() - 67
    assert info.kv_bytes_per_token() == 2 * 2 * info.num_key_value_heads * info.head_dim * 4
    assert capfd.readouterr().out == ""


@needs_optimum
def test_every_product_is_quantized(case: tuple[Path, Any], tmp_path: Path) -> None:
    directory, model = case
    info = export(directory, tmp_path / "out", EXACT)
    graph = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False).graph
    types = [node.op_type for node in graph.node]
    assert types.count("MatMulNBits") == len([p for p in info.planned.weights if not p.format.is_float]) - (
        "GatherBlockQuantized" in types and not model.config.tie_word_embeddings
    )
    assert "Gemm" not in types
    assert types.count("MatMulNBits") >= 2 * 4 + 1
    tokens = random_tokens(24)
    found, exact = run(tmp_path / "out", info, tokens), reference_logits(model, tokens)
    # 8 bits in blocks of 16, activations in float: close to the float model, and not equal to it.
    assert 1e-4 < np.sqrt(np.mean((found - exact) ** 2)) / exact.std() < 0.03


@needs_optimum
def test_rules_reach_parts_of_the_model(tmp_path: Path) -> None:
    """A model tied in 8 bits, attention left in float, the rest in 4 bits with padded blocks."""
    save_random_model(tmp_path / "hf", "opt", **CASES["opt"])
    info = export(tmp_path / "hf", tmp_path / "out", FOUR, (Rule("lm_head", EXACT), Rule("*.self_attn.*", FLOAT32)))
    formats = {weight.weight_name: weight.format for weight in info.planned.weights}
    assert formats["model.decoder.embed_tokens"] == EXACT
    assert formats["decoder.layers.1.self_attn.q_proj"] == FLOAT32
    assert formats["model.decoder.layers.1.fc1"] == FOUR
    assert formats["model.decoder.embed_positions.weight"] == FLOAT32
    graph = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False).graph
    names = [tensor.name for tensor in graph.initializer]
    assert len(names) == len(set(names))
    assert not [name for name in names if name == "model.decoder.embed_tokens.weight"]
    assert np.isfinite(run(tmp_path / "out", info, random_tokens(20))).all()


@needs_optimum
def test_half_precision_checkpoints_are_widened(tmp_path: Path) -> None:
    import torch
    import transformers

    save_random_model(tmp_path / "hf", "gpt_neox", **CASES["gpt_neox"]).bfloat16().save_pretrained(tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", torch_dtype=torch.float32)
    info = export(tmp_path / "hf", tmp_path / "out", FLOAT32)
    tokens = random_tokens(20)
    assert np.abs(run(tmp_path / "out", info, tokens) - reference_logits(model, tokens)).max() < 1e-4


@needs_optimum
@pytest.mark.parametrize("scaling", [{"rope_type": "spiral"}, {"rope_type": "yarn", "factor": "two"}])
def test_rope_parameters_that_transformers_rejects(scaling: dict[str, Any], tmp_path: Path) -> None:
    save_random_model(tmp_path / "model", "gpt_neox", **CASES["gpt_neox"])
    (tmp_path / "out").mkdir()
    with (
        open_directory(tmp_path / "model", rope_scaling=scaling) as checkpoint,
        pytest.raises(UnsupportedModelError, match="transformers refuses the config of this gpt_neox model"),
    ):
        fallback.export_with_optimum(checkpoint, tmp_path / "out", default=FLOAT32, allow_unused=True)
    assert list((tmp_path / "out").iterdir()) == []


@needs_optimum
@pytest.mark.parametrize("model_type", ["rwkv", "bert", "made_up", None])
def test_architectures_that_nobody_knows(model_type: str | None) -> None:
    message = f"Neither the native exporter nor optimum-onnx.*type '{model_type}'"
    with pytest.raises(UnsupportedModelError, match=message):
        fallback.check_supported({"model_type": model_type})


@needs_optimum
def test_a_refusal_says_what_is_known_of_a_type_without_a_family() -> None:
    for model_type, why in (("phimoe", "masks logits"), ("minicpm3", "attention is latent")):
        with pytest.raises(UnsupportedModelError, match=f"type '{model_type}': .*{why}"):
            fallback.check_supported({"model_type": model_type})


def test_weights_of_three_dimensions_are_refused() -> None:
    tensor = ir.tensor(np.zeros((2, 3, 4), np.float32), name="mlp.experts")
    experts = ir.Value(
        name=tensor.name, shape=ir.Shape([2, 3, 4]), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    ids = ir.Value(name="input_ids")
    graph = ir.Graph([ids], [ids], nodes=[], initializers=[experts], opset_imports={"": 21})
    model = ir.Model(graph, ir_version=10)
    with pytest.raises(UnsupportedModelError, match=r"mlp\.experts has the shape \[2, 3, 4\]"):
        quantize_graph(model, FLOAT32, (), vocab_size=5, progress=NullProgress())


@needs_optimum
def test_incomplete_and_contradicting_checkpoints(tmp_path: Path) -> None:
    save_random_model(tmp_path / "hf", "gpt_neox", **CASES["gpt_neox"])
    for config, message in (
        ({"num_hidden_layers": 3}, r"lacks \d+ tensors, such as 'gpt_neox.layers.2"),
        ({"intermediate_size": 96}, r"do not fit config.json"),
    ):
        with open_directory(tmp_path / "hf", **config) as checkpoint, pytest.raises(CheckpointError, match=message):
            fallback.export_with_optimum(checkpoint, tmp_path, default=FLOAT32, allow_unused=True)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "is_available", lambda: False)
    with pytest.raises(MissingExtraError, match=r"optimum-onnx, which is not installed.*the extra 'optimum'"):
        fallback.check_supported({"model_type": "gpt_neox"})
