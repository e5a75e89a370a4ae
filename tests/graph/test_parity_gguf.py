"""GGUF files of every architecture: the logits of the transformers model that they were written from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from family_cases import CASES
from gguf_parity import write_model
from parity_support import Decoder, export_source, random_tokens, reference_logits, save_random_model

from edgedistill.checkpoint.gguf.architectures import ARCHITECTURES
from edgedistill.checkpoint.open import open_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("transformers")
pytestmark = pytest.mark.next

# Cases of the parity tests by GGUF architecture, and the size of the vocabulary that the tokenizer needs.
FILES = {
    "llama": ("llama", "llama-bias", "llama-linear", "llama-llama3", "mistral-window", "mixtral"),
    "mistral3": ("ministral3", "mistral"),
    "smollm3": ("smollm3",),
    "qwen2": ("qwen2", "qwen2-yarn"),
    "qwen3": ("qwen3", "qwen3-yarn", "qwen3-bias"),
    "gemma": ("gemma",),
    "gemma2": ("gemma2",),
    "gemma3": ("gemma3", "gemma3-linear"),
    "gemma3n": ("gemma3n", "gemma3n-streams"),
    "gemma4": ("gemma4", "gemma4-keys-as-values"),
    "granite": ("granite", "granite-tied"),
    "olmo2": ("olmo2", "olmo2-theta", "olmo3", "olmo3-yarn"),
    "exaone4": ("exaone4", "exaone4-full"),
    "ernie4_5": ("ernie4_5",),
    "hunyuan-dense": ("hunyuan", "hunyuan-alpha"),
    "chatglm": ("glm",),
    "glm4": ("glm4",),
    "phi3": ("phi3", "phi3-partial-short", "phi3-partial-long", "phi3-window"),
    "cohere2": ("cohere2",),
    "seed_oss": ("seed_oss",),
    "apertus": ("apertus",),
    "arcee": ("arcee",),
    "nemotron": ("nemotron",),
    "stablelm": ("stablelm", "stablelm-parallel"),
    "minicpm": ("minicpm", "minicpm-untied"),
    "qwen3moe": ("qwen3_moe",),
    "olmoe": ("olmoe",),
    "granitemoe": ("granitemoe", "granitemoeshared"),
    "qwen2moe": ("qwen2_moe",),
    "gpt-oss": ("gpt_oss",),
    "lfm2": ("lfm2", "lfm2-adjusted"),
    "lfm2moe": ("lfm2_moe",),
    "qwen35": ("qwen3_5",),
    "qwen35moe": ("qwen3_5_moe",),
    "granitehybrid": ("granite4-h", "granite4-h-bias", "granite4-h-experts"),
}
VOCABULARY = 320
# What llama.cpp knows without metadata: values that a GGUF file cannot have otherwise.
OTHER: dict[str, dict[str, Any]] = {
    "llama-bias": {"hidden_act": "silu"},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3": {"query_pre_attn_scalar": 16},
    "gemma3n-streams": {"altup_correct_scale": True},
    "gemma4": {"vocab_size_per_layer_input": VOCABULARY},
    "gemma3-linear": {"query_pre_attn_scalar": 16, "layer_types": None, "num_hidden_layers": 7},
}


def recorded(params: dict[str, Any]) -> tuple[str, str, str]:
    """What a passed file says about its family, for the table of families."""
    return CASES[params["case"]][0], "gguf", params["arch"]


def test_every_architecture_has_a_file() -> None:
    assert set(FILES) == set(ARCHITECTURES)
    for arch, cases in FILES.items():
        row = ARCHITECTURES[arch]
        assert {CASES[case][0] for case in cases} == {row.model_type, *row.also}


@pytest.mark.parametrize(("arch", "case"), [(arch, case) for arch, cases in FILES.items() for case in cases])
def test_logits_of_a_gguf_file(arch: str, case: str, tmp_path: Path) -> None:
    model_type, values = CASES[case]
    model = save_random_model(tmp_path / "hf", model_type, **values | OTHER.get(case, {}) | {"vocab_size": VOCABULARY})
    write_model(tmp_path / "model.gguf", arch, model)
    tokens = random_tokens(40)
    expected = reference_logits(model, tokens)
    with open_checkpoint(str(tmp_path / "model.gguf")) as checkpoint:
        assert checkpoint.config["model_type"] == model_type
        exported = export_source(checkpoint.config, checkpoint.tensors, tmp_path / "out")
    found = Decoder(exported, 1).step([tokens])[0]
    assert expected.std() > 0.3
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


def test_blocks_that_only_guess_further_tokens_are_left_out(tmp_path: Path) -> None:
    """As the converter writes Qwen3.5's, behind those of the model."""
    model = save_random_model(tmp_path / "hf", "qwen3", vocab_size=VOCABULARY)
    write_model(tmp_path / "model.gguf", "qwen3", model, guessing=2)
    tokens = random_tokens(20)
    with open_checkpoint(str(tmp_path / "model.gguf")) as checkpoint:
        assert checkpoint.config["num_hidden_layers"] == model.config.num_hidden_layers
        exported = export_source(checkpoint.config, checkpoint.tensors, tmp_path / "out")
    np.testing.assert_allclose(Decoder(exported, 1).step([tokens])[0], reference_logits(model, tokens), atol=2e-4)
