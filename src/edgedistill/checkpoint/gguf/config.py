"""GGUF metadata as a Hugging Face config, and GGUF tensor names as Hugging Face names.

A table row per architecture says what llama.cpp's converter (conversion/*.py in ggml-org/llama.cpp) changed and what
its loader assumes without metadata (sliding window patterns, Gemma's attention scale).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgedistill.checkpoint.gguf.header import Keys
from edgedistill.checkpoint.gguf.rope import ROPE_FACTORS, rope_scaling
from edgedistill.checkpoint.gguf.tensors import GgufPart
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from edgedistill.checkpoint.gguf.header import GgufHeader

_HINT = "Export from the original Hugging Face checkpoint."


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """What is particular to one GGUF architecture.

    Attributes:
        model_type: Hugging Face's name.
        interleaved: Query and key rows are stored in llama.cpp's order.
        norm_shift: Was added to every norm weight.
        sandwich: Norms after attention and MLP, so ``ffn_norm`` has another meaning.
        qkv_bias: The Hugging Face architecture has query, key and value biases without a config key.
    """

    model_type: str
    interleaved: bool = False
    norm_shift: float = 0.0
    sandwich: bool = False
    qkv_bias: bool = False


ARCHITECTURES: dict[str, GgufArchitecture] = {
    "llama": GgufArchitecture("llama", interleaved=True),
    "smollm3": GgufArchitecture("smollm3", interleaved=True),
    "qwen2": GgufArchitecture("qwen2", qkv_bias=True),
    "qwen3": GgufArchitecture("qwen3"),
    "gemma2": GgufArchitecture("gemma2", norm_shift=1.0, sandwich=True),
    "gemma3": GgufArchitecture("gemma3_text", norm_shift=1.0, sandwich=True),
}

_GLOBAL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_PLAIN_NORMS = {"ffn_norm": "post_attention_layernorm"}
_SANDWICH_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def find_architecture(header: GgufHeader) -> GgufArchitecture:
    """The architecture of a GGUF file; raises UnsupportedModelError for an unknown one or a file that is no model."""
    kind = header.metadata.get("general.type", "model")
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise CheckpointError("The GGUF file has no general.architecture.", hint="It is no model: download it again.")
    if kind != "model" or name == "clip":
        raise UnsupportedModelError(f"The GGUF file is of type {kind!r} ({name}), expected a text model.")
    if header.metadata.get("split.count", 0) not in (0, 1):
        raise UnsupportedModelError(
            f"The GGUF file is one of {header.metadata['split.count']} parts; expected a whole model.",
            hint="Join them with: llama-gguf-split --merge FIRST_PART OUTPUT",
        )
    if name not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"The GGUF architecture {name!r} is not known; known are {', '.join(ARCHITECTURES)}.", hint=_HINT
        )
    return ARCHITECTURES[name]


def map_tensors(header: GgufHeader, architecture: GgufArchitecture, config: Mapping[str, Any]) -> dict[str, GgufPart]:
    """Hugging Face name -> stored tensor and how to read it.

    Raises UnsupportedModelError for a tensor that the architecture does not know: leaving one out would export a
    different model without a word.
    """
    names = _BLOCK_NAMES | (_SANDWICH_NORMS if architecture.sandwich else _PLAIN_NORMS)
    heads = {"self_attn.q_proj": config["num_attention_heads"], "self_attn.k_proj": config["num_key_value_heads"]}
    parts: dict[str, GgufPart] = {}
    for name, stored in header.tensors.items():
        if name == ROPE_FACTORS or name.endswith((".attn_rot_embd.weight", ".rope_freqs.weight")):
            continue
        match = _BLOCK.fullmatch(name)
        if match and match[2] in names:
            module = names[match[2]]
            target = f"model.layers.{int(match[1])}.{module}.{match[3]}"
        elif name in _GLOBAL_NAMES:
            module, target = name, _GLOBAL_NAMES[name]
        else:
            raise UnsupportedModelError(
                f"The GGUF file has a tensor {name}, which {architecture.model_type} models do not have.",
                hint=_HINT,
            )
        count = heads.get(module, 0) if architecture.interleaved else 0
        if count and stored.shape[0] % (2 * count):
            raise CheckpointError(f"{name} has {stored.shape[0]} rows, which {count} heads cannot share evenly.")
        shift = -architecture.norm_shift if name.endswith("norm.weight") else 0.0
        parts[target] = GgufPart(stored, heads=count, shift=shift)
    return parts


def build_config(
    header: GgufHeader, architecture: GgufArchitecture, rope_factors: npt.NDArray[np.float32] | None
) -> dict[str, Any]:
    """A config.json for the model of ``header``.

    Args:
        rope_factors: Content of ``rope_freqs.weight``, by which each RoPE frequency is divided.

    Raises CheckpointError for missing or malformed metadata, UnsupportedModelError for features that are not known.
    """
    keys = Keys(header.metadata)
    if keys.integer("expert_count", 0):
        raise UnsupportedModelError("The GGUF model is a mixture of experts, which is not known.", hint=_HINT)
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError("The GGUF file has no token_embd.weight matrix.", hint="Download it again.")
    hidden, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    if heads == 0:
        raise CheckpointError("The GGUF file states 0 attention heads.", hint="Download it again.")
    head_dim = keys.integer("attention.key_length", 0) or hidden // heads
    if keys.integer("attention.value_length", head_dim) != head_dim:
        raise UnsupportedModelError("Keys and values of the GGUF model differ in size, which is not known.")
    if keys.integer("rope.dimension_count", head_dim) != head_dim:
        raise UnsupportedModelError(
            f"The GGUF model rotates {keys.integer('rope.dimension_count')} of {head_dim} elements of a head; "
            "expected all of them."
        )
    config: dict[str, Any] = {
        "model_type": architecture.model_type,
        "hidden_size": hidden,
        "intermediate_size": keys.integer("feed_forward_length"),
        "num_hidden_layers": keys.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "vocab_size": embedding.shape[0],
        "max_position_embeddings": keys.integer("context_length"),
        "rms_norm_eps": keys.real("attention.layer_norm_rms_epsilon"),
        "rope_theta": keys.real("rope.freq_base", 10000.0),
        "rope_scaling": rope_scaling(keys, rope_factors, head_dim),
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }
    if not architecture.qkv_bias:
        config["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
    if architecture.model_type in ("llama", "smollm3"):
        config["mlp_bias"] = "blk.0.ffn_gate.bias" in header.tensors
    _windows_and_caps(config, keys, architecture)
    return config


def _windows_and_caps(config: dict[str, Any], keys: Keys, architecture: GgufArchitecture) -> None:
    window = keys.integer("attention.sliding_window", 0)
    if architecture.model_type == "llama" and window:
        config |= {"model_type": "mistral", "sliding_window": window}
    if not architecture.sandwich:
        return
    # Gemma: llama.cpp knows the pattern of windows and the scale of the 27B models without metadata.
    gemma2 = architecture.model_type == "gemma2"
    largest = config["num_hidden_layers"] == (46 if gemma2 else 62)
    config |= {
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": window or None,
        "query_pre_attn_scalar": config["hidden_size"] // config["num_attention_heads"]
        if largest
        else config["head_dim"],
        "attn_logit_softcapping": keys.real("attn_logit_softcapping", 50.0) if gemma2 else None,
        "final_logit_softcapping": keys.real("final_logit_softcapping", 30.0 if gemma2 else 0.0) or None,
    }
    if not gemma2:
        config |= {
            "rope_theta": keys.real("rope.freq_base", 1e6),
            "rope_local_base_freq": keys.real("rope.freq_base_swa", 10000.0),
            "sliding_window_pattern": keys.integer("attention.sliding_window_pattern", 6),
        }
