"""Opening a checkpoint: what ``--model`` may be, special tokens, templates, and files that do not fit together."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from checkpoint_fixtures import CONFIG, TEMPLATE, qwen3_tensors, tokenizer, write_directory, write_safetensors
from tokenizers import Tokenizer, processors

from edgedistill.catalog import builtin as catalog
from edgedistill.checkpoint.hf_directory import NO_END
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import CheckpointError, ModelNotFoundError, UnsupportedModelError, UsageError


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; a value of ``...`` removes the key."""
    content = json.loads(path.read_text()) if path.exists() else {}
    content |= changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "my-model")


def test_directory(model: Path) -> None:
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.config == CONFIG
        assert checkpoint.chat_template == TEMPLATE
        assert checkpoint.generation_config == {}
        assert checkpoint.extra_files.keys() == {"README.md"}
        source = checkpoint.source
        assert (source.kind, source.name, source.license) == ("directory", "my-model", "apache-2.0")
        special = checkpoint.special_tokens
        assert (special.eos_token, special.eos_token_ids) == ("<|im_end|>", (2,))
        assert (special.pad_token, special.pad_token_id) == ("<|endoftext|>", 0)
        assert (special.bos_token, special.bos_token_id, special.add_bos) == (None, None, False)
        for name, array in qwen3_tensors().items():
            np.testing.assert_array_equal(checkpoint.tensors.read_rows(name, 0, len(array)), array)
        assert Tokenizer.from_buffer(checkpoint.tokenizer_json).encode("apples").ids


def test_hash_of_the_source(model: Path) -> None:
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.source.sha256 is None
        content = (model / "model.safetensors").read_bytes()
        line = f"model.safetensors\t{len(content)}\t{hashlib.sha256(content).hexdigest()}\n"
        assert checkpoint.hash_source() == hashlib.sha256(line.encode()).hexdigest()
        assert checkpoint.source.sha256 == checkpoint.hash_source()


def test_name_is_the_last_component_only(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model)
    with open_checkpoint(".") as checkpoint:
        assert checkpoint.source.name == "my-model"


def test_end_tokens_are_collected_from_all_files(model: Path) -> None:
    edit(model / "generation_config.json", eos_token_id=[0, 2], temperature=0.6)
    edit(model / "tokenizer_config.json", eos_token={"content": "<|im_start|>", "lstrip": False})
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.special_tokens.eos_token_ids == (0, 2, 1)
        assert checkpoint.special_tokens.eos_token == "<|im_start|>"
        assert checkpoint.generation_config["temperature"] == 0.6


def test_the_end_of_turn_of_the_template_ends_replies_too(model: Path) -> None:
    """An end token of texts in every file, and a template that closes turns with another one."""
    edit(model / "config.json", eos_token_id=0)
    edit(model / "tokenizer_config.json", eos_token="<|endoftext|>")
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.special_tokens.eos_token_ids == (0, 2)
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.special_tokens.eos_token_ids == (0,)


def test_a_model_without_any_end_token_says_so(model: Path) -> None:
    edit(model / "config.json", eos_token_id=None)
    edit(model / "tokenizer_config.json", eos_token=...)
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.special_tokens.eos_token_ids == ()
        assert NO_END in checkpoint.notes


def test_special_tokens_map_fills_gaps(model: Path) -> None:
    edit(model / "tokenizer_config.json", pad_token=..., eos_token=...)
    edit(model / "special_tokens_map.json", pad_token="<|im_start|>", bos_token={"content": "<|endoftext|>"})
    with open_checkpoint(str(model)) as checkpoint:
        special = checkpoint.special_tokens
        assert (special.pad_token_id, special.bos_token_id, special.add_bos) == (1, 0, False)
        assert (special.eos_token, special.eos_token_ids) == ("<|im_end|>", (2,))  # from config.json


@pytest.mark.parametrize(
    ("stated", "post", "expected"), [(True, False, True), (None, True, True), (False, True, False)]
)
def test_whether_prompts_start_with_bos(model: Path, stated: bool | None, post: bool, expected: bool) -> None:
    edit(model / "tokenizer_config.json", bos_token="<|endoftext|>", add_bos_token=... if stated is None else stated)
    if post:
        built = tokenizer()
        built.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
        )
        (model / "tokenizer.json").write_text(built.to_str())
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.special_tokens.add_bos is expected


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("plain", "plain"),
        ([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], "d"),
        ([{"name": "rag", "template": "r"}], "r"),
        ({"default": "d", "other": "o"}, "d"),
        (None, None),
    ],
)
def test_chat_templates_in_tokenizer_config(model: Path, stored: object, expected: str | None) -> None:
    (model / "chat_template.jinja").unlink()
    edit(model / "tokenizer_config.json", chat_template=stored)
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.chat_template == expected


def test_chat_template_files(model: Path) -> None:
    edit(model / "tokenizer_config.json", chat_template="third")
    edit(model / "chat_template.json", chat_template="second")
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.chat_template == TEMPLATE
    (model / "chat_template.jinja").unlink()
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.chat_template == "second"
    edit(model / "chat_template.json", chat_template=5)
    with pytest.raises(CheckpointError, match="chat template is a int"):
        open_checkpoint(str(model))


def test_vocab_and_merges_become_a_tokenizer(model: Path) -> None:
    original = tokenizer()
    content = json.loads(original.to_str())
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in content["model"]["merges"]]
    vocab = {token: index for token, index in content["model"]["vocab"].items() if index > 2}
    (model / "tokenizer.json").unlink()
    (model / "vocab.json").write_text(json.dumps(vocab))
    (model / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    added = {str(t["id"]): {"content": t["content"], "special": True} for t in content["added_tokens"]}
    edit(model / "tokenizer_config.json", tokenizer_class="GPT2TokenizerFast", added_tokens_decoder=added)
    with open_checkpoint(str(model)) as checkpoint:
        rebuilt = Tokenizer.from_buffer(checkpoint.tokenizer_json)
    for text in ("Ann has 31 apples.\n\n  The end", "<|im_start|>user\nhi<|im_end|>", "Zoë's ünïcode 🙂"):
        assert rebuilt.encode(text).ids == original.encode(text).ids
        assert rebuilt.decode(rebuilt.encode(text).ids, skip_special_tokens=False) == text
    edit(model / "tokenizer_config.json", tokenizer_class="BloomTokenizer")
    with pytest.raises(UnsupportedModelError, match="BloomTokenizer"):
        open_checkpoint(str(model))


def test_no_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
        open_checkpoint(str(model))
    (model / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        open_checkpoint(str(model))
    (model / "tokenizer.model").write_bytes(b"sp")
    with pytest.raises(UnsupportedModelError, match="SentencePiece") as caught:
        open_checkpoint(str(model))
    assert "save_pretrained" in str(caught.value)


def test_vocabulary_that_disagrees_with_the_embedding(model: Path) -> None:
    tensors = qwen3_tensors({"vocab_size": 299})
    write_safetensors(model / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=r"token .* with id 299, but model.embed_tokens.weight has 299 rows"):
        open_checkpoint(str(model))


def test_layers_without_weights(model: Path) -> None:
    edit(model / "config.json", num_hidden_layers=10**12)
    with pytest.raises(CheckpointError, match=r"claims 1000000000000 layers, the weights have \d+ tensors"):
        open_checkpoint(str(model))


def test_end_token_outside_the_tokenizer(model: Path) -> None:
    edit(model / "config.json", eos_token_id=5000)
    with pytest.raises(CheckpointError, match="eos_token_id is 5000"):
        open_checkpoint(str(model))
    edit(model / "config.json", eos_token_id="end")
    with pytest.raises(CheckpointError, match="whole numbers"):
        open_checkpoint(str(model))


@pytest.mark.parametrize("method", ["gptq", "bitsandbytes", "fp8"])
def test_a_quantization_config_over_float_weights_is_left_over_and_ignored(model: Path, method: str) -> None:
    edit(model / "config.json", quantization_config={"quant_method": method, "bits": 4})
    with open_checkpoint(str(model)) as checkpoint:
        assert "quantization_config" not in checkpoint.config


def test_weights_that_bitnet_rounds_while_it_runs_are_not_taken_as_they_are(model: Path) -> None:
    edit(model / "config.json", quantization_config={"quant_method": "bitnet", "quantization_mode": "online"})
    with pytest.raises(UnsupportedModelError, match="matrices in floats"):  # the mode belongs to another class
        open_checkpoint(str(model))


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100000, "null"])
def test_malformed_config(model: Path, content: str) -> None:
    (model / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_checkpoint(str(model))


def test_missing_config(model: Path) -> None:
    (model / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        open_checkpoint(str(model))


def test_names_of_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no such file or directory.*Did you mean .*my-model"):
        open_checkpoint(str(model.parent / "my-modle"))
    with pytest.raises(ModelNotFoundError, match=r"no such file.*does not exist either"):
        open_checkpoint("/nowhere/at/all")
    with pytest.raises(ModelNotFoundError, match=r"no such file"):
        open_checkpoint("model.gguf")
    with pytest.raises(ModelNotFoundError, match=r"Did you mean tiny-reasoner\?"):
        open_checkpoint("tiny-resoner")
    with pytest.raises(ModelNotFoundError, match="Built-in models are tiny-reasoner"):
        open_checkpoint("zzzz")
    with pytest.raises(UsageError):
        open_checkpoint("")
    with pytest.raises(UsageError, match="--revision is for hub"):
        open_checkpoint(str(model), revision="main")
    with pytest.raises(UsageError, match="Two revisions"):
        open_checkpoint("org/name@v1", revision="v2", offline=True)
    (model / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="neither a directory nor a GGUF file"):
        open_checkpoint(str(model / "notes.txt"))


@pytest.mark.next
def test_saved_by_transformers(tmp_path: Path) -> None:
    """What the installed transformers writes, 4 or 5, is read without it: weights, ends of text, template."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.Qwen3Config(**{key: value for key, value in CONFIG.items() if key != "model_type"})
    model = transformers.Qwen3ForCausalLM(config).to(torch.bfloat16)
    model.generation_config = transformers.GenerationConfig(eos_token_id=[2, 0])
    model.save_pretrained(tmp_path / "m", max_shard_size="60KB")
    saved = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer(), eos_token="<|im_end|>", pad_token="!")
    saved.chat_template = TEMPLATE
    saved.save_pretrained(tmp_path / "m")
    with open_checkpoint(str(tmp_path / "m")) as checkpoint:
        assert len(checkpoint.weight_files) > 1
        state = model.state_dict()
        for name in checkpoint.tensors.names():
            rows = checkpoint.tensors.read_rows(name, 0, checkpoint.tensors.info(name).shape[0])
            np.testing.assert_array_equal(rows, state[name].float().numpy())
        special = checkpoint.special_tokens
        assert (special.eos_token_ids, special.pad_token) == ((2, 0), "!")
        assert checkpoint.chat_template == TEMPLATE


def test_built_in_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_directory(tmp_path / "tiny-reasoner")
    monkeypatch.setattr(catalog, "location", lambda model: tmp_path / model.name)
    with open_checkpoint("tiny-reasoner") as checkpoint:
        assert (checkpoint.source.kind, checkpoint.source.name) == ("builtin", "tiny-reasoner")
        assert checkpoint.source.license == "Apache-2.0"
    with pytest.raises(ModelNotFoundError, match="Run: edgedistill models pull smollm2-135m"):
        open_checkpoint("smollm2-135m")


def test_a_path_wins_over_a_name(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model.rename(model.parent / "tiny-reasoner")
    monkeypatch.chdir(model.parent)
    with open_checkpoint("tiny-reasoner") as checkpoint:
        assert checkpoint.source.kind == "directory"
