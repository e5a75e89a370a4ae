"""Hugging Face configs rebuilt from GGUF metadata, and architectures that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_fixtures import LLAMA, model_tensors, write_gguf

from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import CheckpointError, UnsupportedModelError


def config_of(path: Path, arch: str = "llama", **kwargs: Any) -> dict[str, Any]:
    write_gguf(path / "m.gguf", arch, **kwargs)
    with open_checkpoint(str(path / "m.gguf")) as checkpoint:
        assert checkpoint.source.license == "mit"
        return checkpoint.config


def test_llama(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    for key, value in LLAMA.items():
        assert config[key] == value
    assert config["model_type"] == "llama"
    assert config["tie_word_embeddings"] is True
    assert config["rope_scaling"] is None
    assert config["attention_bias"] is False
    assert config["eos_token_id"] == [2, 0]


def test_untied_head_and_biases(tmp_path: Path) -> None:
    modules = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj")
    config = config_of(tmp_path, tensors=model_tensors(LLAMA, untied=True, biases=modules))
    assert config["tie_word_embeddings"] is False
    assert config["attention_bias"] is True
    assert config["mlp_bias"] is True


def test_head_size_other_than_hidden_by_heads(tmp_path: Path) -> None:
    shape = {"head_dim": 32}
    config = config_of(tmp_path, "qwen3", config=shape, tensors=model_tensors(LLAMA | shape, qk_norm=True))
    assert config["head_dim"] == 32
    assert config["model_type"] == "qwen3"


def test_mistral_with_a_sliding_window(tmp_path: Path) -> None:
    config = config_of(tmp_path, metadata={"attention.sliding_window": 64})
    assert (config["model_type"], config["sliding_window"]) == ("mistral", 64)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"rope.scaling.type": "none"}, None),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}, {"rope_type": "linear", "factor": 8.0}),
        ({"rope.scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        ),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0, "rope.scaling.yarn_attn_factor": 1.25},
            {"rope_type": "yarn", "factor": 2.0, "attention_factor": 1.25},
        ),
    ],
)
def test_rope_scaling(tmp_path: Path, metadata: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert config_of(tmp_path, metadata=metadata)["rope_scaling"] == expected


def test_llama3_scaling_is_recovered_from_its_factors(tmp_path: Path) -> None:
    """The factors follow from transformers' own frequencies, so the config has to give these back."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    shape = {"head_dim": 64, "rope_theta": 500000.0}
    full = transformers.LlamaConfig(**(LLAMA | shape), rope_scaling=dict(scaling))
    plain = transformers.LlamaConfig(**(LLAMA | shape))
    scaled = ROPE_INIT_FUNCTIONS["llama3"](full, "cpu")[0].numpy()
    base = 1.0 / 500000.0 ** (np.arange(0, 64, 2, dtype=np.float32) / np.float32(plain.head_dim))
    factors = (base / scaled).astype(np.float32)
    tensors = model_tensors(LLAMA | shape)
    config = config_of(tmp_path, config=shape, tensors=tensors, extra={"rope_freqs.weight": factors})
    assert config["rope_scaling"] == scaling


def test_other_factors_are_kept_as_they_are(tmp_path: Path) -> None:
    factors = np.array([1, 1, 1.5, 2, 2, 3, 3, 5], np.float32)
    config = config_of(tmp_path, extra={"rope_freqs.weight": factors})
    assert config["rope_scaling"] == {"rope_type": "freq_factors", "freq_factors": factors.tolist()}
    assert config_of(tmp_path, extra={"rope_freqs.weight": np.ones(8, np.float32)})["rope_scaling"] is None
    with pytest.raises(CheckpointError, match="expected 8 positive values"):
        config_of(tmp_path, extra={"rope_freqs.weight": np.ones(9, np.float32)})


def test_gemma3(tmp_path: Path) -> None:
    tensors = model_tensors(LLAMA, gemma=True)
    metadata = {"attention.sliding_window": 32, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
    config = config_of(tmp_path, "gemma3", tensors=tensors, metadata=metadata)
    assert config["model_type"] == "gemma3_text"
    assert config["sliding_window"] == 32
    assert config["sliding_window_pattern"] == 6
    assert config["query_pre_attn_scalar"] == 16
    assert config["rope_local_base_freq"] == 10000.0
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    assert config["final_logit_softcapping"] is None


def test_gemma2_soft_caps(tmp_path: Path) -> None:
    tensors = model_tensors(LLAMA, gemma=True)
    tensors = {name: array for name, array in tensors.items() if "q_norm" not in name and "k_norm" not in name}
    metadata = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 20.0, "attention.sliding_window": 32}
    config = config_of(tmp_path, "gemma2", tensors=tensors, metadata=metadata)
    assert (config["attn_logit_softcapping"], config["final_logit_softcapping"]) == (50.0, 20.0)
    assert config["sliding_window"] == 32


@pytest.mark.parametrize(
    ("arch", "metadata", "match"),
    [
        ("mamba", {}, "architecture 'mamba' is not supported"),
        ("qwen2", {"expert_count": 8}, "mixture of experts"),
        ("llama", {"rope.scaling.type": "longrope"}, "scales RoPE by 'longrope'"),
        ("llama", {"rope.dimension_count": 8}, "rotates 8 of 16"),
        ("llama", {"attention.value_length": 8}, "differ in size"),
        ("llama", {"general.type": "adapter"}, "of type 'adapter'"),
        ("qwen2", {"attention.causal": False}, "embeds texts and writes none"),
        ("llama", {"split.count": 3}, "one of 3 parts"),
        ("llama", {"block_count": "two"}, "llama.block_count is 'two', expected a whole number"),
        ("llama", {"attention.layer_norm_rms_epsilon": float("nan")}, "expected a finite number"),
        ("llama", {"rope.freq_base": -1.0}, "expected a finite number from 0"),
        ("llama", {"attention.head_count": 0}, "0 attention heads"),
        ("llama", {"block_count": 4000000000}, "claims 4000000000 layers, the weights have"),
        ("llama", {"nextn_predict_layers": 9}, "claims -7 layers, the weights have"),
        ("gemma4", {"block_count": 0}, "claims 0 layers, the weights have"),
        ("gemma4", {"block_count": (1 << 32) - 1}, "claims 4294967295 layers, the weights have"),
        ("lfm2moe", {"block_count": 0}, "claims 0 layers, the weights have"),
    ],
)
def test_what_is_refused(tmp_path: Path, arch: str, metadata: dict[str, Any], match: str) -> None:
    write_gguf(tmp_path / "m.gguf", arch, metadata=metadata)
    with pytest.raises((CheckpointError, UnsupportedModelError), match=match):
        open_checkpoint(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize("name", ["blk.0.ssm_in.weight", "blk.bias"])
def test_tensors_that_an_architecture_does_not_have(tmp_path: Path, name: str) -> None:
    write_gguf(tmp_path / "m.gguf", extra={name: np.ones((4, 4), np.float32)})
    with pytest.raises(UnsupportedModelError, match=rf"tensor {name}, which llama models do not have"):
        open_checkpoint(str(tmp_path / "m.gguf"))


def test_specs_and_tensors_agree(tmp_path: Path) -> None:
    """The rebuilt config describes a model whose tensors are all there, for every architecture."""
    from edgedistill.architecture.families import build_spec, check_tensors

    for arch in ("llama", "smollm3", "qwen2", "qwen3", "gemma3"):
        biases = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj") if arch == "qwen2" else ()
        tensors = model_tensors(LLAMA, gemma=arch == "gemma3", qk_norm=arch == "qwen3", biases=biases)
        metadata = {"attention.sliding_window": 32} if arch == "gemma3" else {}
        write_gguf(tmp_path / "m.gguf", arch, tensors=tensors, metadata=metadata)
        with open_checkpoint(str(tmp_path / "m.gguf")) as checkpoint:
            spec = build_spec(checkpoint.config)
            check_tensors(spec, checkpoint.tensors)
            assert spec.tie_word_embeddings
