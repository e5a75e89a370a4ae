"""RoPE parameters and tables against transformers' own, and bad parameters."""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from family_cases import CASES
from parity_support import CONTEXT, Decoder, export, random_tokens, reference_logits, save_random_model

from edgedistill.architecture.families import build_spec
from edgedistill.architecture.rope import distinct_ropes, rope_spec
from edgedistill.architecture.spec import RopeSpec
from edgedistill.errors import CheckpointError, UnsupportedModelError
from edgedistill.graph.attention import rope_tables
from edgedistill.graph.builder import GraphBuilder

if TYPE_CHECKING:
    from pathlib import Path

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
KINDS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": LLAMA3 | {"original_max_position_embeddings": 32},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24},
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 24,
        "mscale": 1.3,
        "mscale_all_dim": 0.7,
    },
    "yarn-no-truncate": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 24,
        "truncate": False,
        "beta_fast": 8,
    },
}


def plain(params: dict[str, Any], head_dim: int = 16) -> RopeSpec:
    return rope_spec(params, head_dim=head_dim, theta=10000.0, max_position_embeddings=CONTEXT)


@pytest.mark.next
@pytest.mark.parametrize("kind", KINDS)
def test_frequencies_equal_transformers(kind: str, tmp_path: Any) -> None:
    pytest.importorskip("transformers")
    model = save_random_model(tmp_path, "llama", rope=KINDS[kind], rope_theta=20000.0, head_dim=64)
    rotary = model.model.rotary_emb
    found = rope_spec(KINDS[kind], head_dim=64, theta=20000.0, max_position_embeddings=CONTEXT)
    np.testing.assert_allclose(found.inv_freq, rotary.inv_freq.numpy(), rtol=1e-7)
    assert found.attention_scaling == pytest.approx(rotary.attention_scaling)
    assert found.kind == KINDS[kind]["rope_type"]


def test_the_older_spelling_of_the_kind() -> None:
    assert plain({"type": "linear", "factor": 4.0}) == plain({"rope_type": "linear", "factor": 4.0})


def test_theta_inside_the_parameters_wins() -> None:
    inside = rope_spec({"rope_theta": 500.0}, head_dim=16, theta=10000.0, max_position_embeddings=CONTEXT)
    outside = rope_spec({}, head_dim=16, theta=500.0, max_position_embeddings=CONTEXT)
    assert inside == outside
    assert inside.inv_freq[1] == pytest.approx(500.0 ** (-2 / 16))


def test_frequency_factors_divide() -> None:
    factors = [1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 8.0, 8.0]
    found = plain({"rope_type": "freq_factors", "freq_factors": factors})
    np.testing.assert_allclose(np.array(found.inv_freq) * factors, plain({}).inv_freq, rtol=1e-6)


@pytest.mark.parametrize("kind", ["ntk", "axial"])
def test_unknown_kinds(kind: str) -> None:
    with pytest.raises(
        UnsupportedModelError, match=f"'{kind}'.*expected one of default, linear, llama3.*--exporter optimum"
    ):
        plain({"rope_type": kind, "factor": 2.0})


def test_partial_rotation() -> None:
    found = rope_spec({}, head_dim=16, theta=10000.0, max_position_embeddings=64, partial=0.5)
    assert len(found.inv_freq) == 8
    assert [frequency > 0 for frequency in found.inv_freq] == [True] * 4 + [False] * 4
    with pytest.raises(CheckpointError, match=r"partial_rotary_factor = 0\.01"):
        rope_spec({}, head_dim=16, theta=10000.0, max_position_embeddings=64, partial=0.01)


@pytest.mark.next
@pytest.mark.parametrize("case", ["phi3", "stablelm", "glm", "nemotron", "qwen3_5"])
def test_families_that_rotate_a_part_read_its_share_from_the_config(case: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    family, values = CASES[case]
    sizes = {"head_dim": 32, "hidden_size": 128, "partial_rotary_factor": 0.75}
    model = save_random_model(tmp_path / "model", family, **values | sizes)
    tokens = random_tokens(24)
    logits = Decoder(export(tmp_path / "model", tmp_path / "out"), 1).step([tokens])[0]
    np.testing.assert_allclose(logits, reference_logits(model, tokens), rtol=0, atol=1e-3)


@pytest.mark.next
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "granite", "olmo2", "qwen3_moe"])
def test_no_transformers_rotates_a_part_of_other_families_heads(family: str, tmp_path: Path) -> None:
    """It ignores the key (5) or fails (4); a part rotated as Phi does it would be another model's logits."""
    pytest.importorskip("transformers")
    whole = save_random_model(tmp_path / "whole", family, **CASES[family][1])
    partly = save_random_model(tmp_path / "partly", family, **CASES[family][1], partial_rotary_factor=0.5)
    tokens = random_tokens(24)
    if int(version("transformers").split(".")[0]) < 5:
        with pytest.raises(RuntimeError, match="must match the size"):
            reference_logits(partly, tokens)
    else:
        np.testing.assert_array_equal(reference_logits(partly, tokens), reference_logits(whole, tokens))
    config = json.loads((tmp_path / "partly/config.json").read_text())
    with pytest.raises(UnsupportedModelError, match=rf"RoPE of this {family} model has partial_rotary_factor = 0\.5"):
        build_spec(config)


def test_longrope_has_a_set_of_frequencies_for_each_side_of_its_switch() -> None:
    params = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    found = rope_spec(params, head_dim=16, theta=10000.0, max_position_embeddings=64, original_length=32)
    assert found.frequencies(32) == found.inv_freq
    np.testing.assert_allclose(np.array(found.frequencies(33)) * 4, found.inv_freq, rtol=1e-6)
    with pytest.raises(CheckpointError, match="short_factor"):
        plain({"rope_type": "longrope", "factor": 2.0})


def test_longrope_takes_a_stated_factor_before_the_ratio_of_lengths() -> None:
    """transformers 5 writes the original length into every config, also where it is the whole context."""
    params: dict[str, Any] = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    params |= {"factor": 4.0, "original_max_position_embeddings": CONTEXT}
    assert plain(params).attention_scaling == pytest.approx(math.sqrt(1 + math.log(4) / math.log(CONTEXT)))


@pytest.mark.parametrize("missing", ["factor", "low_freq_factor", "original_max_position_embeddings"])
def test_missing_parameter(missing: str) -> None:
    params = {k: v for k, v in KINDS["llama3"].items() if k != missing}
    with pytest.raises(CheckpointError, match=f"{missing} = None; a number"):
        plain(params)


def test_wrong_number_of_frequency_factors() -> None:
    with pytest.raises(CheckpointError, match=r"3 positive RoPE factors in freq_factors.*need 8"):
        plain({"rope_type": "freq_factors", "freq_factors": [1.0, 2.0, 3.0]})


def folded(graph: Path, level: str, folder: Path) -> dict[str, np.ndarray]:
    """The tables that a session at the optimization level holds as constants; no node is left that computes one."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(folder / "optimized.onnx", load_external_data=False).graph
    assert not {"Range", "Cos", "Sin"} & {node.op_type for node in optimized.node}
    constants = {value.name: value for value in optimized.initializer}
    used = {name for node in optimized.node if node.op_type == "GroupQueryAttention" for name in node.input[7:9]}
    return {name: onnx.numpy_helper.to_array(constants[name]) for name in used}


@pytest.mark.next
def test_layers_of_the_same_rope_share_tables(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    rope = {"rope_type": "linear", "factor": 8.0}
    save_random_model(tmp_path / "hf", "gemma3_text", rope=rope, rope_theta=1e6, num_hidden_layers=7, sliding_window=6)
    exported = export(tmp_path / "hf", tmp_path / "out")
    assert list(distinct_ropes(exported.spec).values()) == [0, 1]
    assert exported.spec.ropes == 2
    tables = folded(exported.path / "model.onnx", "all", tmp_path)
    assert set(tables) == {"rope.0.cos", "rope.0.sin", "rope.1.cos", "rope.1.sin"}
    for table in tables.values():
        assert table.dtype == np.float32
        assert table.shape == (CONTEXT, 8)
    # Position 3 of the sliding layers' table (first used), and of the full layers', slowed by the factor 8.
    assert tables["rope.0.cos"][3, 0] == pytest.approx(np.cos(3.0))
    assert tables["rope.1.sin"][3, 0] == pytest.approx(np.sin(3.0 / 8), rel=1e-6)


@pytest.mark.next
@pytest.mark.parametrize("kind", KINDS)
def test_tables_are_computed_on_opening_and_equal_transformers(kind: str, tmp_path: Path) -> None:
    """No step computes them again, at any level of optimization but none, and they are transformers' to an ulp."""
    torch = pytest.importorskip("torch")
    model = save_random_model(tmp_path / "hf", "llama", rope=KINDS[kind], rope_theta=20000.0, num_hidden_layers=2)
    exported = export(tmp_path / "hf", tmp_path / "out")
    assert not [name for name in exported.layout.arrays if "rope" in name]
    cos, sin = model.model.rotary_emb(torch.zeros(1, dtype=torch.float32), torch.arange(CONTEXT)[None])
    for file, level in (("model.onnx", "all"), ("model.onnx", "basic"), ("model-genai.onnx", "extended")):
        tables = folded(exported.path / file, level, tmp_path)
        assert len(tables) == 2
        for name, expected in (("rope.0.cos", cos), ("rope.0.sin", sin)):
            half = expected[0, :, :8].numpy()
            np.testing.assert_allclose(tables[name], half, rtol=0, atol=2 * np.spacing(np.abs(half).max()))


def test_positions_beyond_the_integers_of_float32_are_refused() -> None:
    with pytest.raises(ValueError, match="16777217 positions; expected 1 to 16777216"):
        rope_tables(GraphBuilder(), plain({}), "rope.0", (1 << 24) + 1)


@pytest.mark.parametrize("theta", [-10000.0, float("inf"), float("nan")])
def test_a_base_that_is_no_positive_number_is_refused(theta: float) -> None:
    with pytest.raises(CheckpointError, match="rope_theta"):
        rope_spec({}, head_dim=16, theta=theta, max_position_embeddings=64)


def test_a_part_of_a_model_takes_the_factors_of_the_bundles_context() -> None:
    """Calibration runs layers on short texts; the bundle's context decides between LongRoPE's factors all the same."""
    rope = RopeSpec((1.0, 0.5), kind="longrope", long_inv_freq=(0.25, 0.125), original_length=24)
    for context, expected in ((None, rope.inv_freq), (96, rope.long_inv_freq)):
        b = GraphBuilder()
        rope_tables(b, rope, "rope", 20, context=context)
        value = b.initializers["rope.inv_freq"].const_value
        assert value is not None
        np.testing.assert_array_equal(value.numpy(), [expected])
