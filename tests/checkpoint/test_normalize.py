"""Prefixes of training wrappers, heads that only claim to be tied, tensors that nothing reads, misnamed directories."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoint_fixtures import write_directory, write_safetensors, write_shards

from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import CheckpointError, UnsupportedModelError
from edgedistill.export.plan import canonical

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "model")


def rewrite(model: Path, **changed: np.ndarray) -> dict[str, np.ndarray]:
    with open_checkpoint(str(model)) as checkpoint:
        tensors = {n: checkpoint.tensors.read_rows(n, 0, checkpoint.tensors.info(n).shape[0])
                   for n in checkpoint.tensors.names()}  # fmt: skip
    return tensors | changed


@pytest.mark.parametrize("prefix", ["base_model.model.", "_orig_mod.", "module.", "language_model."])
def test_prefixes_of_wrappers(model: Path, prefix: str) -> None:
    tensors = rewrite(model)
    write_safetensors(model / "model.safetensors", {f"{prefix}{name}": t for name, t in tensors.items()})
    with open_checkpoint(str(model)) as checkpoint:
        assert sorted(checkpoint.tensors.names()) == sorted(tensors)
        canonical(checkpoint)


def test_a_head_that_differs_from_a_tied_embedding_keeps_its_weights(model: Path) -> None:
    config = json.loads((model / "config.json").read_text()) | {"tie_word_embeddings": True}
    (model / "config.json").write_text(json.dumps(config))
    tensors = rewrite(model)
    head = tensors["model.embed_tokens.weight"] + 1
    write_safetensors(model / "model.safetensors", tensors | {"lm_head.weight": head})
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.config["tie_word_embeddings"] is False
        assert any("lm_head" in note for note in checkpoint.notes)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.mlp.up_proj.bias",
        "model.layers.0.self_attn.sinks",
        "model.layers.0.post_feedforward_layernorm.weight",
        "model.layers.7.self_attn.q_proj.weight",
    ],
)
def test_a_tensor_that_nothing_reads_is_refused_unless_allowed(model: Path, name: str) -> None:
    tensors = rewrite(model, **{name: np.zeros(4, np.float32)})
    write_safetensors(model / "model.safetensors", tensors)
    with open_checkpoint(str(model)) as checkpoint:
        with pytest.raises(CheckpointError, match=rf"{re.escape(name)}.*--allow-unused"):
            canonical(checkpoint)
        assert any(name in note for note in canonical(checkpoint, allow_unused=True).notes)


@pytest.mark.parametrize("name", ["score.weight", "v_head.summary.bias", "module.classifier.out_proj.weight"])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_reward_model_is_refused(model: Path, name: str, prefix: str) -> None:
    """Also where it was saved without the head that it never had, so that its body has no prefix."""
    tensors = {n.removeprefix("model.") if not prefix else n: array for n, array in rewrite(model).items()}
    write_safetensors(model / "model.safetensors", tensors | {name: np.zeros((1, 48), np.float32)})
    with pytest.raises(UnsupportedModelError, match="scores"):
        open_checkpoint(str(model))


def wrapped(model: Path, more: dict[str, np.ndarray], whole: dict[str, Any], **text: Any) -> Path:
    """``model`` as the text part of a multimodal checkpoint."""
    config = json.loads((model / "config.json").read_text())
    del config["tie_word_embeddings"]
    names = {f"language_model.{name}": array for name, array in rewrite(model).items()}
    vision = {"vision_tower.layers.0.q.weight": np.zeros(4, np.float32), "multi_modal_projector.w": np.zeros(4, "<f4")}
    write_safetensors(model / "model.safetensors", names | vision | more)
    whole = {"model_type": "llava", "text_config": config | text} | whole
    (model / "config.json").write_text(json.dumps(whole))
    return model


@pytest.mark.parametrize("name", ["language_model.adapter.weight", "language_model.model.layers.0.q.bias", "x.weight"])
def test_what_is_not_of_images_or_sound_is_not_left_out(model: Path, name: str) -> None:
    more = {name: np.zeros(4, np.float32)}
    with open_checkpoint(str(wrapped(model, more, {"tie_word_embeddings": True}))) as checkpoint:
        assert any("2 tensors left out" in note for note in checkpoint.notes)
        with pytest.raises(CheckpointError, match=r"1 tensors that a qwen3 model of this config does not use"):
            canonical(checkpoint)


@pytest.mark.parametrize("text", [{}, {"tie_word_embeddings": False}])
def test_a_head_that_is_tied_by_the_whole_model(model: Path, text: dict[str, Any]) -> None:
    with open_checkpoint(str(wrapped(model, {}, {"tie_word_embeddings": True}, **text))) as checkpoint:
        assert checkpoint.config["tie_word_embeddings"] is True
        canonical(checkpoint)


def test_layers_that_guess_further_tokens_are_left_out(model: Path) -> None:
    write_safetensors(model / "model.safetensors", rewrite(model, **{"mtp.layers.0.x.weight": np.zeros(4, "<f4")}))
    with open_checkpoint(str(model)) as checkpoint:
        assert any("1 tensors of layers that guess" in note for note in checkpoint.notes)
        canonical(checkpoint)


def test_the_only_checkpoint_of_a_training_run(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    model.rename(run / "checkpoint-500")
    with open_checkpoint(str(run)) as checkpoint:
        assert any("checkpoint-500" in note for note in checkpoint.notes)
    write_directory(run / "checkpoint-900")
    with pytest.raises(CheckpointError, match="checkpoint-500, checkpoint-900"):
        open_checkpoint(str(run))


def test_an_adapter_named_as_the_model_is_merged_into_its_base(model: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    rng = np.random.default_rng(0)
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {
        f"{layer}.lora_A.weight": rng.normal(size=(2, 32)).astype(np.float32),
        f"{layer}.lora_B.weight": rng.normal(size=(64, 2)).astype(np.float32),
    }
    write_safetensors(adapter / "adapter_model.safetensors", factors)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"does not name its base model.*--adapter"):
        open_checkpoint(str(adapter))
    # The path of the machine that it was trained on; the base lies beside it here.
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/train/model"}))
    with open_checkpoint(str(adapter)) as merged, open_checkpoint(str(model), adapter=adapter) as expected:
        name = "model.layers.0.self_attn.q_proj.weight"
        np.testing.assert_array_equal(merged.tensors.read_rows(name, 0, 64), expected.tensors.read_rows(name, 0, 64))
        assert any("adapter of /train/model" in note for note in merged.notes)


def test_an_adapter_beside_a_copy_of_its_bases_config(model: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    name = "base_model.model.model.norm.weight"
    write_safetensors(adapter / "adapter_model.safetensors", {name: np.full(32, 7, np.float32)})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "model"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (adapter / "config.json").write_text((model / "config.json").read_text())
    with open_checkpoint(str(adapter)) as merged:
        assert merged.tensors.read_rows("model.norm.weight", 0, 32).tolist() == [7.0] * 32
    write_safetensors(adapter / "model.safetensors", rewrite(model))
    (adapter / "tokenizer.json").write_text((model / "tokenizer.json").read_text())  # merged already
    with open_checkpoint(str(adapter)) as whole:
        assert not (whole.tensors.read_rows("model.norm.weight", 0, 32) == 7).any()


def test_the_only_model_in_a_directory(model: Path, tmp_path: Path) -> None:
    outer = tmp_path / "download"
    outer.mkdir()
    model.rename(outer / "final_model")
    with open_checkpoint(str(outer)) as checkpoint:
        assert "final_model in download is exported." in checkpoint.notes
    write_directory(outer / "other")
    with pytest.raises(CheckpointError, match=r"holds 2 models \(final_model, other\)"):
        open_checkpoint(str(outer))


@pytest.mark.parametrize("name", ["pytorch_model-{}-of-00002.safetensors", "model-{}-of-00002.fp16.safetensors"])
def test_shards_of_other_names_whose_index_is_lost(model: Path, name: str) -> None:
    tensors = rewrite(model)
    (model / "model.safetensors").unlink()
    write_shards(model, tensors)
    (model / "model.safetensors.index.json").unlink()
    for number in ("00001", "00002"):
        (model / f"model-{number}-of-00002.safetensors").rename(model / name.format(number))
    with open_checkpoint(str(model)) as checkpoint:
        assert sorted(checkpoint.tensors.names()) == sorted(tensors)
    (model / "other-00001-of-00002.safetensors").write_bytes((model / name.format("00001")).read_bytes())
    with pytest.raises(CheckpointError, match="expected 1 to 2 of one model"):
        open_checkpoint(str(model))


@pytest.mark.parametrize("special", [True, False])
def test_the_end_of_turn_of_the_template_where_the_files_name_another(model: Path, special: bool) -> None:
    (model / "config.json").write_text(
        json.dumps(json.loads((model / "config.json").read_text()) | {"eos_token_id": 0})
    )
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    stored = json.loads((model / "tokenizer.json").read_text())
    next(token for token in stored["added_tokens"] if token["content"] == "<|im_end|>")["special"] = special
    (model / "tokenizer.json").write_text(json.dumps(stored))
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.special_tokens.eos_token_ids == (0, 2)


def test_a_directory_of_the_hubs_cache(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--org--name"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "refs").mkdir()
    model.rename(cache / "snapshots" / "aaaa")
    with open_checkpoint(str(cache)) as checkpoint:
        assert checkpoint.config["model_type"] == "qwen3"
    write_directory(cache / "snapshots" / "bbbb", rope_theta=5.0)
    with pytest.raises(CheckpointError, match=r"2 complete revisions \(aaaa, bbbb\)"):
        open_checkpoint(str(cache))
    (cache / "refs" / "main").write_text("bbbb\n")
    with open_checkpoint(str(cache)) as checkpoint:
        assert checkpoint.config["rope_theta"] == 5.0


def test_shards_whose_index_is_lost(model: Path) -> None:
    tensors = rewrite(model)
    (model / "model.safetensors").unlink()
    write_shards(model, tensors)
    (model / "model.safetensors.index.json").unlink()
    with open_checkpoint(str(model)) as checkpoint:
        assert sorted(checkpoint.tensors.names()) == sorted(tensors)
    (model / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="00002"):
        open_checkpoint(str(model))
