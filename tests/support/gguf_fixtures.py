"""Small GGUF files, written with the gguf package the way llama.cpp's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint_fixtures import TEMPLATE, tokenizer
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize

BLOCK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
}
PLAIN = {"post_attention_layernorm": "ffn_norm"}
GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GLOBAL = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 320,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}


def model_tensors(c: dict[str, Any], *, gemma: bool = False, qk_norm: bool = False, untied: bool = False,
                  biases: tuple[str, ...] = ()) -> dict[str, np.ndarray]:  # fmt: skip
    """Random float32 tensors under Hugging Face names; ``biases`` lists modules that have one."""
    rng = np.random.default_rng(3)
    q, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    hidden, inter = c["hidden_size"], c["intermediate_size"]
    modules: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,), "self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden), "self_attn.o_proj": (hidden, q), "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inter, hidden), "mlp.up_proj": (inter, hidden), "mlp.down_proj": (hidden, inter),
    }  # fmt: skip
    if gemma:
        modules |= {"pre_feedforward_layernorm": (hidden,), "post_feedforward_layernorm": (hidden,)}
    if gemma or qk_norm:
        modules |= {"self_attn.q_norm": (c["head_dim"],), "self_attn.k_norm": (c["head_dim"],)}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c["vocab_size"], hidden)}
    for i in range(c["num_hidden_layers"]):
        for module, shape in modules.items():
            shapes[f"model.layers.{i}.{module}.weight"] = shape
            if module in biases:
                shapes[f"model.layers.{i}.{module}.bias"] = shape[:1]
    shapes["model.norm.weight"] = (hidden,)
    if untied:
        shapes["lm_head.weight"] = (c["vocab_size"], hidden)
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def interleave(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows in llama.cpp's order: in each head the two halves alternate."""
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return np.ascontiguousarray(np.moveaxis(halves, 1, 2).reshape(array.shape))


def gguf_name(name: str, gemma: bool) -> str:
    if name in GLOBAL:
        return GLOBAL[name]
    _, _, index, rest = name.split(".", 3)
    module, _, suffix = rest.rpartition(".")
    return f"blk.{index}.{(BLOCK_NAMES | (GEMMA if gemma else PLAIN))[module]}.{suffix}"


def add_model(writer: GGUFWriter, arch: str, c: dict[str, Any], tensors: dict[str, np.ndarray],
              kinds: dict[str, GGMLQuantizationType] | None = None) -> None:  # fmt: skip
    """Metadata and tensors of a model; ``kinds`` gives a storage type by Hugging Face name."""
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_rope_freq_base(c["rope_theta"])
    writer.add_key_length(c["head_dim"])
    writer.add_value_length(c["head_dim"])
    gemma = arch.startswith("gemma")
    for name, array in tensors.items():
        stored = array
        if arch in ("llama", "smollm3") and ".q_proj." in name:
            stored = interleave(array, c["num_attention_heads"])
        if arch in ("llama", "smollm3") and ".k_proj." in name:
            stored = interleave(array, c["num_key_value_heads"])
        if gemma and name.endswith("norm.weight"):
            stored = array + np.float32(1)
        kind = (kinds or {}).get(name, GGMLQuantizationType.F32)
        writer.add_tensor(gguf_name(name, gemma), encode(stored, kind), raw_dtype=kind)


def encode(array: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """The stored bytes of ``array``; of K-quants, which the package does not write, random blocks of its shape."""
    if kind in (GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q5_K):
        return k_quants(array.shape, kind)
    if kind.name.startswith("IQ") or kind == GGMLQuantizationType.Q2_K:
        return other_blocks(array.shape, kind)
    if kind not in (GGMLQuantizationType.Q6_K, GGMLQuantizationType.Q3_K):
        stored: np.ndarray = quantize(array, kind)
        return stored
    rng = np.random.default_rng(array.size)
    size = GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, (array.shape[0], array.shape[1] // 256, size)).astype(np.uint8)
    blocks[..., -2:] = rng.uniform(1e-5, 1e-4, (*blocks.shape[:2], 1)).astype("<f2").view(np.uint8)
    return blocks.reshape(array.shape[0], -1)


def other_blocks(shape: tuple[int, ...], kind: GGMLQuantizationType) -> np.ndarray:
    """Random blocks of a kind whose float16 scale comes first, or (Q2_K) last, before that of its minima."""
    rng = np.random.default_rng(shape[0])
    block, size = GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (shape[0], shape[1] // block, size)).astype(np.uint8)
    units = rng.uniform(1e-5, 1e-4, (*blocks.shape[:2], 2)).astype("<f2").view(np.uint8)
    if kind == GGMLQuantizationType.Q2_K:
        blocks[..., -4:] = units
    else:
        blocks[..., :2] = units[..., :2]
    return blocks.reshape(shape[0], -1)


def k_quants(shape: tuple[int, ...], kind: GGMLQuantizationType) -> np.ndarray:
    """Random super-blocks of Q4_K or Q5_K (ggml-common.h): their scales and minima are such as those of real weights,
    whose blocks lie about zero."""
    rng = np.random.default_rng(shape[0])
    blocks, top = shape[1] // 256, 15 if kind == GGMLQuantizationType.Q4_K else 31
    units = np.full((shape[0], blocks, 2), (5e-5, 5e-5 * top / 2), "<f2").view(np.uint8)
    scales = rng.integers(30, 64, (shape[0], blocks, 8)).astype(np.uint8)
    minima = np.clip(scales + rng.integers(-4, 5, scales.shape), 0, 63).astype(np.uint8)
    packed = [scales[..., :4] | scales[..., 4:] >> 4 << 6, minima[..., :4] | minima[..., 4:] >> 4 << 6]
    packed.append(scales[..., 4:] & 15 | minima[..., 4:] << 4)
    codes = rng.integers(0, 256, (shape[0], blocks, 128 if top == 15 else 160)).astype(np.uint8)
    return np.concatenate([units, *packed, codes], axis=-1).reshape(shape[0], -1)


def add_bpe(writer: GGUFWriter, pre: str | None = "gpt-2", size: int = 320) -> None:
    """The byte-level tokenizer of ``checkpoint_fixtures``, filled up to ``size`` as the converter does."""
    content = json.loads(tokenizer().to_str())
    vocab = content["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.__getitem__)
    special = {entry["content"] for entry in content["added_tokens"]}
    types = [TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens]
    tokens.append("<think>")
    types.append(TokenType.USER_DEFINED)
    padding = range(len(tokens), size)
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list([*tokens, *(f"[PAD{i}]" for i in padding)])
    writer.add_token_types([*types, *(TokenType.UNUSED for _ in padding)])
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(TEMPLATE)


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gguf(path: Path, arch: str = "llama", config: dict[str, Any] | None = None, *,
               tensors: dict[str, np.ndarray] | None = None, kinds: dict[str, GGMLQuantizationType] | None = None,
               pre: str | None = "gpt-2", metadata: dict[str, Any] | None = None,
               extra: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:  # fmt: skip
    """Write a whole model and return its tensors under Hugging Face names.

    ``metadata`` adds or replaces keys below the architecture (``str``, ``bool``, ``int`` or ``float``), ``extra`` adds
    tensors under GGUF names.
    """
    c = LLAMA | (config or {})
    tensors = model_tensors(c) if tensors is None else tensors
    writer = GGUFWriter(path, arch)
    writer.add_license("mit")
    add_model(writer, arch, c, tensors, kinds)
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array)
    add_bpe(writer, pre, c["vocab_size"])
    adders = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    for key, value in (metadata or {}).items():
        full = key if "." in key and key.split(".")[0] in ("general", "tokenizer", "split") else f"{arch}.{key}"
        for data in writer.kv_data:
            data.pop(full, None)
        adders[type(value)](full, value)
    finish(writer)
    return tensors
