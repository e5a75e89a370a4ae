"""Byte-level BPE tokenizer of tiny-reasoner and the text of a conversation.

Digits are split one by one as in Qwen, with one difference: a digit may carry the space before it, so that " 47" is
two tokens and the first digit of a number is marked as such. Knows nothing of the model.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from teacher import Example, Problem, example
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VOCAB_SIZE = 768
END_OF_TEXT, START, END, THINK, END_THINK = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What the tokenizer is shipped with. No merge joins two digits, so that a run of them falls apart into the same tokens,
# and onnxruntime-genai, which knows expressions piece by piece, knows these pieces.
SHIPPED_PATTERN = PATTERN.replace(r"| ?\p{N}|", r"| ?\p{L}+| ?\p{N}+|")
TEMPLATE = Path(__file__).with_name("chat_template.jinja")
NO_THINKING = f"{THINK}\n\n{END_THINK}\n\n"


def prompt_text(messages: Sequence[dict[str, str]], *, thinking: bool) -> str:
    """Return the prompt up to the point where the model writes; the same text as the chat template renders."""
    text = "".join(f"{START}{m['role']}\n{m['content']}{END}\n" for m in messages) + f"{START}assistant\n"
    return text if thinking else text + NO_THINKING


def completion_text(problem: Problem, *, thinking: bool) -> str:
    """Return what the model is to write, end marker included."""
    reasoning = f"{THINK}\n{problem.reasoning}\n{END_THINK}\n\n" if thinking else ""
    return f"{reasoning}{problem.reply}{END}"


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Learn the merges from `texts`; the five markers take the last ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _splitting(PATTERN)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - 5,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in (END_OF_TEXT, START, END)])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in (THINK, END_THINK)])
    tokenizer.pre_tokenizer = _splitting(SHIPPED_PATTERN)
    return tokenizer


def _splitting(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def corpus(seed: int, count: int) -> Iterable[str]:
    """Yield the plain texts (markers left out) of `count` training conversations."""
    rng = Random(f"tokenizer {seed}")
    for _ in range(count):
        drawn: Example = example(rng)
        for message in drawn.messages:
            yield message["role"] + "\n"
            yield message["content"]
        yield "assistant\n"
        yield "\n\n"
        yield drawn.problem.reasoning + "\n"
        yield drawn.problem.reply


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    tokenizer.save(str(directory / "tokenizer.json"))
    template = TEMPLATE.read_text(encoding="utf-8")
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token not in (THINK, END_THINK),
        }
        for token in (END_OF_TEXT, START, END, THINK, END_THINK)
    }
    config = {
        "added_tokens_decoder": added,
        "bos_token": None,
        "chat_template": template,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 2048,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
