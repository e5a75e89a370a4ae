"""A tiny random Qwen3 with a tokenizer and a chat template, as transformers would save it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import chat_templates
import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from edgedistill.bundle.bundle import Bundle
from edgedistill.runtime.session import DecoderSession, SessionConfig
from edgedistill.runtime.settings import GenerationSettings

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT = 160
GREEDY = GenerationSettings(temperature=0.0, max_new_tokens=20, ignore_eos=True)
SAMPLED = GenerationSettings(temperature=1.0, max_new_tokens=20, ignore_eos=True, seed=5)
TEXTS = ["What is 12 + 30? The answer is 42.", "größer, naïve café 数学", "system user assistant think", "0123456789"]


def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    return tokenizer


def save_checkpoint(directory: Path, *, template: str | None = chat_templates.QWEN3) -> Any:
    """Write the checkpoint as transformers would and return the transformers model (float32)."""
    torch = pytest.importorskip("torch")
    import transformers

    tokenizer = make_tokenizer()
    config = transformers.Qwen3Config(
        vocab_size=320,  # padded: ids without a token exist, as in real models
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        bos_token_id=None,
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
    )
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and "embed" not in name:
                parameter.mul_(12.0)  # otherwise a random model with tied embeddings repeats its last token for ever
    model.save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    if template is not None:
        special["chat_template"] = template
    (directory / "tokenizer_config.json").write_text(json.dumps(special))
    (directory / "generation_config.json").write_text(
        json.dumps({"temperature": 0.6, "top_p": 0.95, "do_sample": True})
    )
    return model


def open_tiny(path: Path, **config: Any) -> DecoderSession:
    """The session of a bundle, of one thread and with a cache that grows often, unless ``config`` says otherwise."""
    bundle = Bundle.open(path)
    config = {"threads": 1, "kv_step": 16} | config
    return DecoderSession(bundle, SessionConfig(**config))


def prefilled(bundle: Bundle, ids: list[int]) -> np.ndarray:
    """Logits float32 [S, V] of all ``ids`` at once, by a session of its own."""
    return DecoderSession(bundle).decoder().feed_all(ids, exact=True)


def continued(bundle: Bundle, prompt: list[int], count: int) -> tuple[list[int], np.ndarray]:
    """The prompt with ``count`` greedy tokens, and the logits float32 [count, V] that chose them."""
    decoder, tokens, found = DecoderSession(bundle).decoder(), list(prompt), []
    logits = decoder.feed_all(tokens, exact=True)[-1]
    for _ in range(count):
        found.append(logits.copy())
        tokens.append(int(logits.argmax()))
        logits = decoder.feed_all(tokens[-1:], exact=True)[-1]
    return tokens, np.stack(found)
