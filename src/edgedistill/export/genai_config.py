"""The files that onnxruntime-genai needs beside a graph: genai_config.json and tokenizer_config.json, as plain data.

The keys are those that onnxruntime-genai's own model builder writes (``models/builders/base.py`` of its package). A
bundle does not need these files itself: they let onnxruntime-genai 0.18 open its directory unchanged.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgedistill.checkpoint.tokenizer.pre_tokenizers import GPT2, SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.architecture.spec import ModelSpec
    from edgedistill.checkpoint.types import SpecialTokens

_KNOWN = frozenset({
    "ernie4_5", "gemma", "gemma2", "gemma3_text", "granite", "llama", "mistral", "nemotron", "phi3", "qwen2", "qwen3",
    "smollm3",
})  # fmt: skip
_ANY_DECODER = "llama"
_READ_SPLITS = (
    "gpt-2", "llama3", "qwen2", "qwen35", "ufakzeka", "laguna", "gpt-4o", "tekken", "deepseek-v3", "jais-2",
)  # fmt: skip
"""Pre-tokenizers with which onnxruntime-genai 0.18 gives the same tokens as the tokenizers library. With others it
refuses, or silently splits text differently."""
_TINY_REASONER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def genai_config(
    spec: ModelSpec,
    special: SpecialTokens,
    *,
    context_length: int,
    generation: Mapping[str, Any],
    filename: str = "model-genai.onnx",
) -> dict[str, Any]:
    """Content of genai_config.json.

    Args:
        spec: The model. Its family is named where onnxruntime-genai knows it; any other decoder is called ``llama``,
            which changes nothing: what differs between families is in the graph.
        special: Ids of the tokens that begin, end and pad.
        context_length: Longest prompt plus output. onnxruntime-genai allocates its whole cache for ``max_length``.
        generation: Sampling defaults (``temperature``, ``top_k``, ``top_p``, ``repetition_penalty``); a temperature
            of 0 means greedy.
        filename: The graph of onnxruntime-genai's signature.
    """
    eos = list(special.eos_token_ids)
    # Without a padding token the field must still hold a token; it only ever fills masked positions.
    pad = special.pad_token_id if special.pad_token_id is not None else (eos[0] if eos else 0)
    temperature = float(generation.get("temperature") or 0.0)
    return {
        "model": {
            "type": spec.family if spec.family in _KNOWN else _ANY_DECODER,
            "bos_token_id": special.bos_token_id if special.bos_token_id is not None else (eos[0] if eos else 0),
            "eos_token_id": eos[0] if len(eos) == 1 else eos,
            "pad_token_id": pad,
            "context_length": context_length,
            "vocab_size": spec.vocab_size,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": filename,
                "head_size": spec.head_dim,
                "hidden_size": spec.hidden_size,
                "num_attention_heads": spec.num_attention_heads,
                "num_hidden_layers": spec.num_hidden_layers,
                "num_key_value_heads": spec.num_key_value_heads,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "diversity_penalty": 0.0,
            "do_sample": temperature > 0,
            "early_stopping": True,
            "length_penalty": 1.0,
            "max_length": context_length,
            "min_length": 0,
            "no_repeat_ngram_size": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": True,
            "repetition_penalty": float(generation.get("repetition_penalty") or 1.0),
            "temperature": temperature if temperature > 0 else 1.0,
            "top_k": int(generation.get("top_k") or 0) or 50,
            "top_p": float(generation.get("top_p") or 1.0),
        },
    }


def reads_tokenizer(tokenizer_json: bytes) -> bool:
    """Whether onnxruntime-genai is known to split text into the same tokens as this tokenizer.json.

    True for byte-level BPE after one of the pre-tokenizers that tests have compared; False for all others.
    """
    content = json.loads(tokenizer_json)
    step = content.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", []) if step.get("type") == "Sequence" else [step]
    cuts: list[str] = []
    for one in steps:
        if one.get("type") == "Split" and one.get("behavior") == "Isolated" and not one.get("invert"):
            cuts.append(one["pattern"].get("Regex", ""))
        elif one.get("type") == "ByteLevel" and not one.get("add_prefix_space"):
            cuts += ["gpt-2"] if one.get("use_regex", True) else []
        else:
            return False
    known = {*(SPLITS[name] for name in _READ_SPLITS), (_TINY_REASONER,)}
    last = bool(steps) and steps[-1].get("type") == "ByteLevel"
    return (
        last
        and content.get("model", {}).get("type") == "BPE"
        and tuple("gpt-2" if cut == GPT2 else cut for cut in cuts) in known
    )


def tokenizer_config(special: SpecialTokens, chat_template: str | None, context_length: int) -> dict[str, Any]:
    """Content of tokenizer_config.json, for onnxruntime-genai and for transformers' AutoTokenizer."""
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "add_bos_token": special.add_bos,
        "add_eos_token": False,
    }
    for key in ("bos_token", "eos_token", "pad_token"):
        if (token := getattr(special, key)) is not None:
            config[key] = token
    if chat_template is not None:
        config["chat_template"] = chat_template
    return config
