"""What the config classes of text models have where the text part of a multimodal config.json is silent.

A config.json of a text model states its sizes. Inside a multimodal one, transformers has left out what equals the class
default: of Gemma 3 4B's text model it says six values. Read from transformers' ``models/<type>`` (configuration).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
          "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps")  # fmt: skip


def _row(*values: float | None, **others: Any) -> dict[str, Any]:
    return {name: value for name, value in zip(_NAMES, values, strict=True) if value is not None} | others


_QWEN2_VL = _row(152064, 8192, 29568, 80, 64, 8, None, 32768, 1e-5, rope_theta=1e6)
_QWEN2 = _row(151936, 4096, 22016, 32, 32, 32, None, 32768, 1e-6)

TEXT_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma": _row(256000, 3072, 24576, 28, 16, 16, 256, 8192, 1e-6),
    "gemma2": _row(256000, 2304, 9216, 26, 8, 4, 256, 8192, 1e-6),
    "gemma3_text": _row(262208, 2304, 9216, 26, 8, 4, 256, 131072, 1e-6, rope_theta=1e6),
    "gemma3n_text": _row(262400, 2048, 16384, 35, 8, 2, 256, 32768, 1e-6, rope_theta=1e6),
    "gemma4_text": _row(262144, 2304, 9216, 30, 8, 4, 256, 131072, 1e-6),
    "llama": _row(32000, 4096, 11008, 32, 32, None, None, 2048, 1e-6),
    "mistral": _row(32000, 4096, 14336, 32, 32, 8, None, 131072, 1e-6),
    "ministral3": _row(131072, 4096, 14336, 34, 32, 8, 128, 262144, 1e-5),
    "qwen2": _QWEN2,
    "qwen2_vl": _QWEN2_VL,
    "qwen2_vl_text": _QWEN2_VL,
    "qwen2_5_vl": _QWEN2_VL,
    "qwen2_5_vl_text": _QWEN2_VL,
    "qwen3": _QWEN2 | {"head_dim": 128},
    "qwen3_vl_text": _row(151936, 4096, 22016, 32, 32, 32, 128, 128000, 1e-6, rope_theta=5e6),
    "qwen3_5_text": _row(248320, 4096, 12288, 32, 16, 4, 256, 32768, 1e-6),
}
