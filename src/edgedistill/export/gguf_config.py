"""GGUF metadata as a Hugging Face config, and GGUF tensor names as Hugging Face names.

A table row per architecture says what llama.cpp's converter (conversion/*.py in ggml-org/llama.cpp) changed and what
its loader assumes without metadata (sliding window patterns, Gemma's attention scale).

Must not know: ONNX, tokenizers, how tensors are read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.errors import CheckpointError, UnsupportedModelError
from edgedistill.export.gguf_source import GgufPart

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgedistill.export.gguf_header import GgufHeader

ROPE_FACTORS = "rope_freqs.weight"
_LLAMA_HINT = "Export from the original Hugging Face checkpoint."


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
# llama.cpp's converter reads the scaling of Llama 3.x from the config, but with these as what the files always had.
_LLAMA3_SHAPES = ((8192, 1.0, 4.0),)


def find_architecture(header: GgufHeader) -> GgufArchitecture:
    """The architecture of a GGUF file; raises UnsupportedModelError for an unknown one or a file that is no model."""
    kind = header.metadata.get("general.type", "model")
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise CheckpointError("The GGUF file has no general.architecture.", hint="It is no model: download it again.")
    if kind != "model" or name == "clip":
        raise UnsupportedModelError(f"The GGUF file is of type {kind!r} ({name}), expected a text model.")
    if int(header.metadata.get("split.count", 0) or 0) > 1:
        raise UnsupportedModelError(
            f"The GGUF file is one of {header.metadata['split.count']} parts; expected a whole model.",
            hint="Join them with: llama-gguf-split --merge FIRST_PART OUTPUT",
        )
    if name not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"The GGUF architecture {name!r} is not known; known are {', '.join(ARCHITECTURES)}.", hint=_LLAMA_HINT
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
                hint=_LLAMA_HINT,
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
    keys = _Keys(header.metadata)
    if keys.integer("expert_count", 0):
        raise UnsupportedModelError("The GGUF model is a mixture of experts, which is not known.", hint=_LLAMA_HINT)
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError("The GGUF file has no token_embd.weight matrix.", hint="Download it again.")
    hidden, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
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
        "rope_scaling": _rope_scaling(keys, rope_factors, head_dim),
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }
    if not architecture.qkv_bias:
        config["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
    if architecture.model_type in ("llama", "smollm3"):
        config["mlp_bias"] = "blk.0.ffn_gate.bias" in header.tensors
    _windows_and_caps(config, keys, architecture)
    return config


def _windows_and_caps(config: dict[str, Any], keys: _Keys, architecture: GgufArchitecture) -> None:
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


def _rope_scaling(keys: _Keys, factors: npt.NDArray[np.float32] | None, head_dim: int) -> dict[str, Any] | None:
    kind = keys.text("rope.scaling.type", "none")
    if factors is not None:
        if kind not in ("none", "linear"):
            raise UnsupportedModelError(f"RoPE frequency factors together with scaling {kind!r} are not known.")
        return _from_factors(factors, keys.real("rope.freq_base", 10000.0), head_dim)
    factor = keys.real("rope.scaling.factor", 0.0) or keys.real("rope.scale_linear", 0.0)
    if kind in ("none", "linear"):
        return {"rope_type": "linear", "factor": factor} if factor not in (0.0, 1.0) else None
    if kind != "yarn":
        raise UnsupportedModelError(
            f"The GGUF model scales RoPE by {kind!r}; known are none, linear, yarn and llama3.", hint=_LLAMA_HINT
        )
    scaling: dict[str, Any] = {"rope_type": "yarn", "factor": factor}
    if original := keys.integer("rope.scaling.original_context_length", 0):
        scaling["original_max_position_embeddings"] = original
    for key, name in (
        ("rope.scaling.yarn_attn_factor", "attention_factor"),
        ("rope.scaling.yarn_beta_fast", "beta_fast"),
        ("rope.scaling.yarn_beta_slow", "beta_slow"),
    ):
        if value := keys.real(key, 0.0):
            scaling[name] = value
    return scaling


def _from_factors(factors: npt.NDArray[np.float32], theta: float, head_dim: int) -> dict[str, Any] | None:
    """The scaling that gives ``factors`` (float32 [head_dim/2]): none, Llama 3's, or else the factors themselves."""
    if factors.shape != (head_dim // 2,) or not (factors > 0).all():
        raise CheckpointError(
            f"{ROPE_FACTORS} has shape {list(factors.shape)}, expected {head_dim // 2} positive values."
        )
    if (factors == 1).all():
        return None
    factor = round(float(factors.max()), 4)
    for original, low, high in _LLAMA3_SHAPES:
        if np.allclose(_llama3_factors(theta, head_dim, factor, original, low, high), factors, rtol=1e-4):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
    return {"rope_type": "freq_factors", "freq_factors": [float(value) for value in factors]}


def _llama3_factors(
    theta: float, head_dim: int, factor: float, original: int, low: float, high: float
) -> npt.NDArray[np.float64]:
    """Divisors of the RoPE frequencies in Llama 3.1 (transformers, modeling_rope_utils.py)."""
    wavelength = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((original / wavelength - low) / (high - low), 0.0, 1.0)
    result: npt.NDArray[np.float64] = 1 / ((1 - smooth) / factor + smooth)
    return result


def _shortest(value: Any) -> float:
    """The decimal that a float32 was written as: 1e-05 rather than 9.999999747378752e-06."""
    return float(str(np.float32(value)))


class _Keys:
    """Typed access to the metadata of the file's architecture."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata
        self._prefix = metadata["general.architecture"]

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0 or value >= 1 << 40:
            raise self._bad(key, value, "a whole number")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._bad(key, value, "a finite number")
        return _shortest(value) if isinstance(value, float) else float(value)

    def text(self, key: str, default: str) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._bad(key, value, "text")
        return value

    def _get(self, key: str, default: Any) -> Any:
        value = self._metadata.get(f"{self._prefix}.{key}", default)
        if isinstance(value, np.ndarray):  # one value for each layer: known only if all are the same
            if value.size == 0 or (value != value[0]).any():
                raise UnsupportedModelError(f"{self._prefix}.{key} differs between layers, which is not known.")
            value = value[0].item()
        return value

    def _bad(self, key: str, value: object, expected: str) -> CheckpointError:
        shown = "missing" if value is None else repr(value)
        return CheckpointError(
            f"GGUF metadata {self._prefix}.{key} is {shown}, expected {expected}.", hint="Download the file again."
        )
