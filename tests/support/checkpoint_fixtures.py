"""Small checkpoints written to disk without torch, for the tests of everything that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from edgedistill.checkpoint.types import TensorInfo

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXT = ["Ann has 3 apples and buys 4 more apples.", "How many apples does Ann have now?", "the there then three"] * 4
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 320,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 2,
}


def tokenizer(vocab_size: int = 300) -> Tokenizer:
    """A trained byte-level BPE tokenizer with three special tokens (ids 0 to 2)."""
    result = Tokenizer(models.BPE())
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(text, normalized=False, special=True) for text in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    result.train_from_iterator(TEXT, trainer)
    return result


def bf16_bits(values: np.ndarray) -> np.ndarray:
    """float32 values cut to bfloat16, as uint16 bit patterns."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], bf16: set[str] | None = None) -> None:
    """Write ``tensors``; those named in ``bf16`` hold bit patterns."""
    names = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "uint8": "U8", "int32": "I32"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in tensors.items():
        dtype = "BF16" if name in (bf16 or ()) else names[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    write_raw(path, json.dumps(header).encode(), b"".join(array.tobytes() for array in tensors.values()))


def write_raw(path: Path, header: bytes, data: bytes, length: int | None = None) -> None:
    """Write a safetensors file of given header bytes; ``length`` overrides the length it claims."""
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + data)


def qwen3_tensors(config: dict[str, Any] | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 tensors of a tiny Qwen3 with tied embeddings."""
    c = CONFIG | (config or {})
    rng = np.random.default_rng(seed)
    hidden, inter, dim = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c["vocab_size"], hidden)}
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes |= {
            f"{layer}.input_layernorm.weight": (hidden,),
            f"{layer}.self_attn.q_proj.weight": (q, hidden),
            f"{layer}.self_attn.k_proj.weight": (kv, hidden),
            f"{layer}.self_attn.v_proj.weight": (kv, hidden),
            f"{layer}.self_attn.o_proj.weight": (hidden, q),
            f"{layer}.self_attn.q_norm.weight": (dim,),
            f"{layer}.self_attn.k_norm.weight": (dim,),
            f"{layer}.post_attention_layernorm.weight": (hidden,),
            f"{layer}.mlp.gate_proj.weight": (inter, hidden),
            f"{layer}.mlp.up_proj.weight": (inter, hidden),
            f"{layer}.mlp.down_proj.weight": (hidden, inter),
        }
    shapes["model.norm.weight"] = (hidden,)
    return {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}


def write_directory(path: Path, **overrides: Any) -> Path:
    """A tiny Qwen3 checkpoint directory; ``overrides`` replace or add config keys."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(CONFIG | overrides))
    (path / "tokenizer.json").write_text(tokenizer().to_str())
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    )
    (path / "chat_template.jinja").write_text(TEMPLATE)
    (path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    write_safetensors(path / "model.safetensors", qwen3_tensors(overrides))
    return path


def write_shards(path: Path, tensors: dict[str, np.ndarray], weight_map: dict[str, str] | None = None) -> None:
    """Write ``tensors`` as two shards with an index; ``weight_map`` replaces the index's map."""
    names = list(tensors)
    half = len(names) // 2
    shards = {"model-00001-of-00002.safetensors": names[:half], "model-00002-of-00002.safetensors": names[half:]}
    for shard, members in shards.items():
        write_safetensors(path / shard, {name: tensors[name] for name in members})
    placed = {name: shard for shard, members in shards.items() for name in members}
    index = {"metadata": {"total_size": 0}, "weight_map": placed if weight_map is None else weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


class Stored:
    """Tensors in memory, with the types that a safetensors file states."""

    def __init__(self, tensors: dict[str, np.ndarray], types: dict[str, str] | None = None) -> None:
        self.tensors, self.types = tensors, types or {}
        self.paths = (Path("model.safetensors"),)

    def names(self) -> list[str]:
        return list(self.tensors)

    def info(self, name: str) -> TensorInfo:
        known = {"int32": "I32", "float32": "F32", "uint8": "U8", "int8": "I8"}
        return TensorInfo(name, self.tensors[name].shape, self.types.get(name, known[str(self.tensors[name].dtype)]))

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self.tensors[name][start:stop].astype(np.float32)

    def read_stored(self, name: str, start: int, stop: int) -> np.ndarray:
        return np.atleast_1d(self.tensors[name])[start:stop]

    def close(self) -> None:
        pass
