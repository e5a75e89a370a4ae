"""LoRA adapters merged while streaming: equal to PEFT's own merge, and refused where it would not be."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_fixtures import CONFIG, tokenizer, write_directory, write_safetensors
from safetensors import safe_open

from edgedistill.checkpoint.lora import open_adapter
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.checkpoint.safetensors import open_safetensors_file
from edgedistill.errors import CheckpointError, UnsupportedModelError

LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
TARGET = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory(tmp_path_factory.mktemp("base") / "tiny")


def randomize(model: Any, seed: int = 0) -> None:
    """Give every adapter parameter random values (B starts at zero, which would hide errors)."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.1, generator=generator)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "v_proj", "down_proj"]},
        {"target_modules": "all-linear", "use_rslora": True},
        {
            "target_modules": ["q_proj", "k_proj", "gate_proj"],
            "rank_pattern": {"layers.1.self_attn.q_proj": 3, "gate_proj": 5},
            "alpha_pattern": {"self_attn.k_proj": 40, ".*gate_proj": 1},
        },
        {"target_modules": ["o_proj"], "modules_to_save": ["input_layernorm", "norm"]},
        {"target_modules": ["embed_tokens", "up_proj"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj", "lm_head"]},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_equal_to_pefts_own_merge(base: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    tied = not any(name in str(options) for name in ("lm_head", "embed_tokens"))
    if not tied:  # merging into one of two tied weights would change both
        model.config.tie_word_embeddings = False
        model.lm_head.weight = type(model.lm_head.weight)(model.lm_head.weight.detach().clone())
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=12, task_type="CAUSAL_LM", **options))
    randomize(model)
    model.save_pretrained(tmp_path / "adapter")
    merged = {name: tensor.float().numpy() for name, tensor in model.merge_and_unload().state_dict().items()}
    with open_checkpoint(str(base), adapter=tmp_path / "adapter") as checkpoint:
        assert checkpoint.config["tie_word_embeddings"] is tied
        names = set(checkpoint.tensors.names())
        assert names == set(merged) - ({"lm_head.weight"} if tied else set())
        changed = 0
        with open_checkpoint(str(base)) as plain:
            for name in names:
                rows = checkpoint.tensors.info(name).shape[0]
                got = checkpoint.tensors.read_rows(name, 0, rows)
                np.testing.assert_allclose(got, merged[name], rtol=0, atol=2e-6)
                np.testing.assert_array_equal(checkpoint.tensors.read_rows(name, 3, 9), got[3:9])
                before = "model.embed_tokens.weight" if name == "lm_head.weight" else name
                changed += not np.allclose(got, plain.tensors.read_rows(before, 0, rows), atol=1e-4)
        facts = checkpoint.source.adapter
        assert facts is not None
        assert facts["merged_tensors"] + facts["replaced_tensors"] >= changed > 0
        assert (facts["name"], facts["rank"], facts["alpha"]) == ("adapter", 4, 12)
        assert facts["base_model"] == "tiny"  # no path of this machine
        assert len(checkpoint.weight_files) == 2


def write_adapter(path: Path, tensors: dict[str, np.ndarray] | None = None, **config: Any) -> Path:
    path.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    default = {
        f"{LAYER}.lora_A.weight": rng.normal(0, 1, (2, 32)).astype(np.float32),
        f"{LAYER}.lora_B.weight": rng.normal(0, 1, (64, 2)).astype(np.float32),
    }
    write_safetensors(path / "adapter_model.safetensors", default if tensors is None else tensors)
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4} | config))
    return path


def test_sum_of_base_and_product(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a")
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (2, 32)).astype(np.float32), rng.normal(0, 1, (64, 2)).astype(np.float32)
    with open_checkpoint(str(base)) as plain, open_checkpoint(str(base), adapter=adapter) as merged:
        expected = plain.tensors.read_rows(TARGET, 0, 64) + 2.0 * (b @ a)
        np.testing.assert_allclose(merged.tensors.read_rows(TARGET, 0, 64), expected, rtol=1e-6, atol=1e-6)
        assert plain.hash_source() != merged.hash_source()


@pytest.mark.parametrize("spelling", ["model.language_model", "language_model.model", "_orig_mod.model", "default"])
def test_names_of_adapters_trained_in_a_larger_or_wrapped_model(base: Path, tmp_path: Path, spelling: str) -> None:
    plain = write_adapter(tmp_path / "plain")
    with open_checkpoint(str(base), adapter=plain) as checkpoint:
        expected = checkpoint.tensors.read_rows(TARGET, 0, 64)
    with safe_open(plain / "adapter_model.safetensors", "np") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if spelling == "default":
        renamed = {re.sub(r"\.(lora_[AB])\.", r".\1.default.", name): array for name, array in stored.items()}
    else:
        renamed = {
            name.replace("_model.model.model.", f"_model.model.{spelling}."): array for name, array in stored.items()
        }
        renamed["base_model.model.model.visual.blocks.0.attn.qkv.lora_A.weight"] = ONE
        renamed["base_model.model.model.visual.blocks.0.attn.qkv.lora_B.weight"] = ONE.T
    with open_checkpoint(str(base), adapter=write_adapter(tmp_path / "other", renamed)) as checkpoint:
        np.testing.assert_array_equal(checkpoint.tensors.read_rows(TARGET, 0, 64), expected)
        assert any("2 tensors of the adapter" in note for note in checkpoint.notes) == (spelling != "default")


def test_fan_in_fan_out_concerns_matrices_that_are_stored_transposed(base: Path, tmp_path: Path) -> None:
    """PEFT says of any other module that it takes the option for false; GPT-2's c_attn is [in, out]."""
    with (
        open_checkpoint(str(base), adapter=write_adapter(tmp_path / "a")) as plain,
        open_checkpoint(str(base), adapter=write_adapter(tmp_path / "b", fan_in_fan_out=True)) as stated,
    ):
        np.testing.assert_array_equal(plain.tensors.read_rows(TARGET, 0, 64), stated.tensors.read_rows(TARGET, 0, 64))
    rng = np.random.default_rng(1)
    weight, a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((32, 96), (2, 32), (96, 2)))
    module = "transformer.h.0.attn.c_attn"
    write_safetensors(tmp_path / "gpt2.safetensors", {f"{module}.weight": weight})
    factors = {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    adapter = write_adapter(tmp_path / "c", factors, fan_in_fan_out=True)
    source = open_adapter(adapter, open_safetensors_file(tmp_path / "gpt2.safetensors"))
    merged = source.read_rows(f"{module}.weight", 3, 30)
    np.testing.assert_allclose(merged, (weight + 2 * (b @ a).T)[3:30], rtol=1e-5, atol=1e-6)
    source.close()


def test_tokens_added_in_training(base: Path, tmp_path: Path) -> None:
    """An embedding that grew comes with its own tokenizer."""
    rows = np.random.default_rng(1).normal(0, 1, (324, 32)).astype(np.float32)
    adapter = write_adapter(tmp_path / "a", {"base_model.model.model.embed_tokens.weight": rows})
    grown = tokenizer()
    grown.add_special_tokens(["<|tool|>"])
    (adapter / "tokenizer.json").write_text(grown.to_str())
    (adapter / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|tool|>", "chat_template": "own"}))
    with open_checkpoint(str(base), adapter=adapter) as checkpoint:
        assert checkpoint.config["vocab_size"] == 324
        assert checkpoint.special_tokens.eos_token_ids == (2, 300)
        assert checkpoint.chat_template == "own"
        np.testing.assert_array_equal(checkpoint.tensors.read_rows("model.embed_tokens.weight", 300, 324), rows[300:])


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"use_dora": True}, "says use_dora, but the adapter has no lora_magnitude_vector"),
        ({"layer_replication": [[0, 2]]}, "replicated"),
        ({"peft_type": "IA3"}, "of type 'IA3'"),
        ({"init_lora_weights": "pissa_niter_4"}, "initialised by 'pissa_niter_4'"),
        ({"lora_alpha": None}, "no usable lora_alpha"),
        ({"alpha_pattern": {"(": 3}}, "no usable lora_alpha"),
    ],
)
def test_options_that_are_refused(base: Path, tmp_path: Path, config: dict[str, Any], match: str) -> None:
    adapter = write_adapter(tmp_path / "a", **config)
    with pytest.raises((CheckpointError, UnsupportedModelError), match=match):
        open_checkpoint(str(base), adapter=adapter)


ONE = np.ones((2, 32), np.float32)


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({}, "changes no tensor"),
        ({f"{LAYER}.lora_A.weight": ONE}, "only one of lora_A and lora_B"),
        ({f"{LAYER}.lora_A.weight": ONE, f"{LAYER}.lora_B.weight": ONE.T}, "but the tensor has shape"),
        ({f"{LAYER}.lora_A.weight": ONE, f"{LAYER}.lora_B.weight": np.ones((64, 3), np.float32)}, "but the tensor"),
        ({f"{LAYER}.lora_A.weight": ONE[0, 0], f"{LAYER}.lora_B.weight": ONE.T}, "has rank 0 and alpha 4"),
        ({f"{LAYER}.lora_A.weight": ONE, f"{LAYER}.lora_B.weight": ONE[0, 0]}, "but the tensor has shape"),
        ({f"{LAYER}.lora_magnitude_vector": ONE}, "only one of lora_A and lora_B"),
        ({f"{LAYER}.lora_C.weight": ONE}, "lora_C.weight, which is not supported"),
        (
            {
                f"{LAYER}.lora_A.weight": ONE,
                f"{LAYER}.lora_B.weight": np.ones((64, 2), np.float32),
                f"{LAYER}.lora_B.bias": ONE[0],
            },
            "changes model.layers.0.self_attn.q_proj.bias, which the base model does not have",
        ),
        (
            {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": ONE},
            "does not say which tokens of model.embed_tokens were trained",
        ),
        ({"model.layers.0.x": ONE}, "tensor model.layers.0.x, which is not supported"),
        ({"base_model.model.score.weight": ONE}, "replaces score.weight, which the base model does not have"),
        ({"base_model.model.model.norm.weight": ONE}, "replaces model.norm.weight by shape"),
        (
            {LAYER.replace(".0.", ".7.") + s: ONE if "A" in s else ONE.T for s in (".lora_A.weight", ".lora_B.weight")},
            "layers.7.self_attn.q_proj.weight, which the base model does not have",
        ),
        ({f"{LAYER}.lora_A.weight": ONE * np.nan, f"{LAYER}.lora_B.weight": np.ones((64, 2), np.float32)}, "holds nan"),
    ],
)
def test_adapters_that_do_not_fit(base: Path, tmp_path: Path, tensors: dict[str, np.ndarray], match: str) -> None:
    adapter = write_adapter(tmp_path / "a", tensors)
    with (
        pytest.raises((CheckpointError, UnsupportedModelError), match=match),
        open_checkpoint(str(base), adapter=adapter) as checkpoint,
    ):
        checkpoint.tensors.read_rows(TARGET, 0, 64)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [("org/model", "org/model"), ("/home/me/llama", "llama"), ("C:\\Users\\me\\llama", "llama"), ("~/llama", "llama")],
)
def test_no_path_of_the_machine_that_trained_it(base: Path, tmp_path: Path, stated: str, expected: str) -> None:
    adapter = write_adapter(tmp_path / "a", base_model_name_or_path=stated)
    with open_checkpoint(str(base), adapter=adapter) as checkpoint:
        assert checkpoint.source.adapter is not None
        assert checkpoint.source.adapter["base_model"] == expected


def test_incomplete_directories(base: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such adapter directory"):
        open_checkpoint(str(base), adapter=tmp_path / "none")
    adapter = write_adapter(tmp_path / "a")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(UnsupportedModelError, match=r"adapter_model\.bin; expected"):
        open_checkpoint(str(base), adapter=adapter)
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"no adapter_model\.safetensors"):
        open_checkpoint(str(base), adapter=adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        open_checkpoint(str(base), adapter=adapter)


def test_tokenizer_that_outgrew_the_adapter(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a")
    grown = tokenizer()
    grown.add_special_tokens([f"<|{i}|>" for i in range(CONFIG["vocab_size"])])
    (adapter / "tokenizer.json").write_text(grown.to_str())
    with pytest.raises(CheckpointError, match=r"but model.embed_tokens.weight has 320 rows"):
        open_checkpoint(str(base), adapter=adapter)
    shutil.rmtree(adapter)


@pytest.mark.parametrize("turned", [False, True])
def test_dora_of_an_output_that_is_all_zeros(base: Path, tmp_path: Path, turned: bool) -> None:
    """PEFT divides 0 by 0 there: every number of that output is none. The other outputs can be read."""
    module = "embed_tokens" if turned else "lm_head"
    from edgedistill.checkpoint.lora_source import Changes, Delta, LoraSource
    from edgedistill.checkpoint.safetensors import open_safetensors_file

    weights = np.ones((6, 4), np.float32)
    weights[:, 2] = weights[3] = 0
    stored, adapted = tmp_path / "base.safetensors", tmp_path / "adapter.safetensors"
    write_safetensors(stored, {f"{module}.weight": weights})
    a, b = np.zeros((2, 6 if turned else 4), np.float32), np.zeros((4 if turned else 6, 2), np.float32)
    write_safetensors(adapted, {"a": a, "b": b, "m": np.ones(len(b), np.float32)})
    changes = Changes(deltas={f"{module}.weight": Delta("a", "b", 1.0, embedding=turned, magnitude="m")})
    source = LoraSource(open_safetensors_file(stored), open_safetensors_file(adapted), changes, {})
    with pytest.raises(CheckpointError, match=rf"DoRA divides the outputs of {module}\.weight by their lengths"):
        source.read_rows(f"{module}.weight", 0, 6)
    if not turned:
        np.testing.assert_allclose(
            source.read_rows(f"{module}.weight", 0, 3) ** 2, np.full((3, 4), [1 / 3, 1 / 3, 0, 1 / 3])
        )
    source.close()
