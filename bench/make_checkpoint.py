"""Write a random bf16 checkpoint of a real model's shape: what `make bench-export` and `make bench-verify-minutes` use.

    python bench/make_checkpoint.py --shape qwen3-4b --out build/qwen3-4b

The weights are noise (standard deviation 0.02, norms 1), so only time, memory and size can be measured with them.
Written tensor by tensor from one 64 MB buffer of noise, of which every tile starts at another offset; needs no torch
and about 200 MB of memory for any shape.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARD_BYTES = 2_000_000_000
NOISE_ELEMENTS = 32 << 20
STD = 0.02

_QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
    "bos_token_id": None,
}
_QWEN2: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "eos_token_id": 2,
    "bos_token_id": None,
}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-0.5b": _QWEN2
    | {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
       "num_key_value_heads": 2, "head_dim": 64},
    "qwen3-tiny": _QWEN3
    | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
       "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512},
    "qwen3-0.6b": _QWEN3 | {"hidden_size": 1024, "intermediate_size": 3072},
    "qwen3-1.7b": _QWEN3 | {"hidden_size": 2048, "intermediate_size": 6144},
    "qwen3-4b": _QWEN3
    | {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    "qwen3-8b": _QWEN3
    | {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
       "tie_word_embeddings": False},
}  # fmt: skip


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a Qwen3 or Qwen2 ``config``, in the order in which they are written."""
    hidden, inter, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    modules = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (q, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q),
        **({"self_attn.q_norm": (dim,), "self_attn.k_norm": (dim,)} if config["model_type"] == "qwen3" else {}),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inter, hidden),
        "mlp.up_proj": (inter, hidden),
        "mlp.down_proj": (hidden, inter),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for index in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{index}.{module}.weight": shape for module, shape in modules.items()}
        if config["model_type"] == "qwen2":
            biases = {"q": (q,), "k": (kv,), "v": (kv,)}
            shapes |= {f"model.layers.{index}.self_attn.{name}_proj.bias": size for name, size in biases.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def with_reply_length(config: dict[str, Any], length: int) -> dict[str, Any]:
    """The config with so many end-of-sequence tokens that replies have about ``length`` tokens if all tokens are
    equally likely, which random weights of this size nearly make them.
    """
    ends = max(1, config["vocab_size"] // length)
    return config | {"eos_token_id": list(range(2, 2 + ends))}


def make_checkpoint(
    out: Path,
    config: dict[str, Any],
    *,
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
    words: bool = False,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> int:
    """Write the checkpoint of ``config`` into the new directory ``out``; returns the bytes of its tensors.

    ``words``: every token is a number, so that replies have an answer. ``shapes``: shapes of the tensors, if they are
    not those of ``tensor_shapes``.

    The directory appears only once it is complete. Raises FileExistsError if it exists already.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already: remove it, or choose another --out.")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    shapes = shapes or tensor_shapes(config)
    largest = max(math.prod(shape) for shape in shapes.values())
    noise = _noise(rng, min(NOISE_ELEMENTS, largest))
    shards = list(_split(shapes, shard_bytes))
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(part / file, {name: shapes[name] for name in names}, noise, rng)
        weight_map |= dict.fromkeys(names, file)
    total = sum(_nbytes(shape) for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (part / "model.safetensors.index.json").write_text(json.dumps(index))
    (part / "config.json").write_text(json.dumps(config, indent=2))
    (part / "tokenizer.json").write_text(_tokenizer(config["vocab_size"] if words else 0))
    (part / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": _TEMPLATE})
    )
    part.rename(out)
    return total


def _nbytes(shape: tuple[int, ...]) -> int:
    return 2 * math.prod(shape)


def _split(shapes: dict[str, tuple[int, ...]], shard_bytes: int) -> Iterator[list[str]]:
    """Names grouped into shards of at most ``shard_bytes`` (a larger tensor has a shard of its own)."""
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        if names and size + _nbytes(shape) > shard_bytes:
            yield names
            names, size = [], 0
        names.append(name)
        size += _nbytes(shape)
    yield names


def _noise(rng: np.random.Generator, count: int) -> np.ndarray:
    """``count`` normal bfloat16 values as uint16 bit patterns, made in slices."""
    noise = np.empty(count, np.uint16)
    for start in range(0, count, 1 << 20):
        values = rng.standard_normal(min(1 << 20, count - start), np.float32) * np.float32(STD)
        noise[start : start + len(values)] = values.view(np.uint32) >> 16
    return noise


def _write_shard(path: Path, shapes: dict[str, tuple[int, ...]], noise: np.ndarray, rng: np.random.Generator) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + _nbytes(shape)]}
        offset += _nbytes(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb", buffering=0) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            if name.endswith("norm.weight"):
                file.write(np.full(shape, 0x3F80, np.uint16).data)  # 1.0
                continue
            left = math.prod(shape)
            while left:
                start = int(rng.integers(len(noise)))
                left -= file.write(noise[start : start + left].data) // 2


_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tokenizer(words: int = 0) -> str:
    """A byte-level tokenizer: three special tokens and the 256 bytes. The other rows of the embedding are unused, or
    numbers in words, up to so many tokens in all.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {text: index for index, text in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    vocab |= {f"Ġ{index}": index for index in range(len(vocab), words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    text: str = tokenizer.to_str()
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
    parser.add_argument("--out", type=Path, required=True, help="directory to make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-bytes", type=int, default=SHARD_BYTES, help="largest size of a shard")
    args = parser.parse_args()
    started = time.perf_counter()
    try:
        total = make_checkpoint(args.out, SHAPES[args.shape], seed=args.seed, shard_bytes=args.shard_bytes)
    except OSError as error:
        print(f"make_checkpoint: {error}", file=sys.stderr)
        return 2
    seconds = time.perf_counter() - started
    print(f"{args.out}: {total / 1e9:.2f} GB of random bf16 weights ({args.shape}) in {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
