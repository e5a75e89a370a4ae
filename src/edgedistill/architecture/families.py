"""Model families: a Hugging Face ``config.json`` to a ``ModelSpec``, table-driven.

A row of ``FAMILIES`` says what a ``model_type`` fixes and what its config class assumes where ``config.json`` is silent
(transformers ``models/<type>/configuration_<type>.py``). Both spellings of the RoPE parameters are read: ``rope_theta``
with ``rope_scaling`` (transformers 4) and ``rope_parameters`` (transformers 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgedistill.architecture.rope import rope_spec
from edgedistill.architecture.spec import LayerSpec, ModelSpec
from edgedistill.architecture.weights import check_tensors, logical_weights
from edgedistill.checkpoint.config_values import integer, mapping, number, optional_number, per_layer
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.architecture.spec import Activation, RopeSpec

__all__ = ["FAMILIES", "Family", "build_spec", "check_tensors", "is_known", "logical_weights"]

Windows = Literal["none", "all", "optional", "pattern"]

_HINT = "Try --exporter optimum."
_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
# Keys of other architectures that change the arithmetic: ignoring one would export a wrong model without a word.
_FOREIGN = (
    ("num_experts", "a mixture of experts"),
    ("num_local_experts", "a mixture of experts"),
    ("n_routed_experts", "a mixture of experts"),
    ("attention_multiplier", "an attention multiplier"),
    ("residual_multiplier", "a residual multiplier"),
    ("embedding_multiplier", "an embedding multiplier"),
    ("logits_scaling", "scaled logits"),
    ("attention_sinks", "attention sinks"),
    ("use_bidirectional_attention", "bidirectional attention"),
    ("is_encoder_decoder", "an encoder and a decoder"),
)


@dataclass(frozen=True, slots=True)
class Family:
    """What a ``model_type`` fixes, and its config class's defaults.

    ``windows``: ``none``; ``all`` layers of the same sliding window; ``optional`` (``use_sliding_window`` with
    ``layer_types`` or ``max_window_layers``); ``pattern`` (``layer_types`` or every n-th layer full).
    ``attention_bias`` None reads the config key; True means a bias on q, k and v and none on o (Qwen2). ``gemma``
    means sandwich norms, norms of 1 + weight, a scaled embedding and ``query_pre_attn_scalar``.
    """

    rope_theta: float = 10000.0
    head_dim: int | None = None
    kv_heads: int | None = None
    max_position_embeddings: int = 32768
    tie_word_embeddings: bool = False
    activation: str = "silu"
    attention_bias: bool | None = False
    mlp_bias: bool = False
    qk_norm: bool = False
    windows: Windows = "none"
    sliding_window: int | None = None
    full_every: int = 0
    nope: bool = False
    gemma: bool = False
    attn_softcap: float | None = None
    final_softcap: float | None = None


FAMILIES: dict[str, Family] = {
    "llama": Family(attention_bias=None, mlp_bias=True, max_position_embeddings=2048),
    "mistral": Family(kv_heads=8, windows="all", sliding_window=4096, max_position_embeddings=131072),
    "qwen2": Family(kv_heads=32, attention_bias=True, windows="optional", sliding_window=4096),
    "qwen3": Family(
        kv_heads=32, head_dim=128, attention_bias=None, qk_norm=True, windows="optional", sliding_window=4096
    ),
    "smollm3": Family(
        kv_heads=4,
        rope_theta=2e6,
        attention_bias=None,
        mlp_bias=True,
        tie_word_embeddings=True,
        windows="optional",
        nope=True,
    ),
    "gemma2": Family(
        kv_heads=4,
        head_dim=256,
        attention_bias=None,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        activation="gelu_pytorch_tanh",
        windows="pattern",
        sliding_window=4096,
        full_every=2,
        gemma=True,
        attn_softcap=50.0,
        final_softcap=30.0,
    ),
    "gemma3_text": Family(
        kv_heads=4,
        head_dim=256,
        rope_theta=1e6,
        attention_bias=None,
        max_position_embeddings=131072,
        tie_word_embeddings=True,
        activation="gelu_pytorch_tanh",
        qk_norm=True,
        windows="pattern",
        sliding_window=4096,
        full_every=6,
        gemma=True,
    ),
}


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether the model's type is in the table (``build_spec`` may still find a feature that is not known)."""
    return str(config.get("model_type")) in FAMILIES


def build_spec(config: Mapping[str, Any]) -> ModelSpec:
    """Describe the model of a Hugging Face ``config`` (the content of config.json).

    Raises:
        UnsupportedModelError: Unknown ``model_type``, RoPE kind or feature.
        CheckpointError: A key is missing or contradicts another.
    """
    model_type = str(config.get("model_type"))
    family = FAMILIES.get(model_type)
    if family is None:
        text = mapping(config, "text_config")
        hint = f"It wraps a text model of type '{text.get('model_type')}': export that one alone." if text else _HINT
        raise UnsupportedModelError(
            f"The model is of type '{model_type}'; known are {', '.join(FAMILIES)}.",
            hint=hint,
        )
    _reject_foreign(config, model_type)

    hidden_size = integer(config, "hidden_size")
    count = integer(config, "num_hidden_layers")
    heads = integer(config, "num_attention_heads")
    kv_heads = integer(config, "num_key_value_heads", family.kv_heads or heads, null=heads)
    head_dim = integer(config, "head_dim", family.head_dim or hidden_size // heads, null=hidden_size // heads)
    if heads % kv_heads:
        raise CheckpointError(f"{heads} attention heads cannot share {kv_heads} key/value heads evenly.")
    if head_dim % 16:
        raise UnsupportedModelError(
            f"The model's heads have {head_dim} elements; ONNX Runtime's attention needs a multiple of 16.", hint=_HINT
        )
    activation = config.get("hidden_activation" if family.gemma else "hidden_act") or family.activation
    if activation not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"The model uses the activation '{activation}'; known are {', '.join(_ACTIVATIONS)}.", hint=_HINT
        )
    attention_bias = bool(config.get("attention_bias", False)) if family.attention_bias is None else False
    scale_base = number(config, "query_pre_attn_scalar", 256) if family.gemma else float(head_dim)
    max_position_embeddings = integer(config, "max_position_embeddings", family.max_position_embeddings)
    return ModelSpec(
        family=model_type,
        hidden_size=hidden_size,
        intermediate_size=integer(config, "intermediate_size"),
        num_hidden_layers=count,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=integer(config, "vocab_size"),
        max_position_embeddings=max_position_embeddings,
        rms_norm_eps=number(config, "rms_norm_eps", 1e-6),
        activation=_ACTIVATIONS[activation],
        tie_word_embeddings=bool(config.get("tie_word_embeddings", family.tie_word_embeddings)),
        attention_scale=scale_base**-0.5,
        layers=_layers(config, family, count, head_dim, max_position_embeddings),
        qkv_bias=attention_bias or family.attention_bias is True,
        o_bias=attention_bias,
        mlp_bias=family.mlp_bias and bool(config.get("mlp_bias", False)),
        qk_norm=family.qk_norm,
        norm_offset=1.0 if family.gemma else 0.0,
        sandwich_norms=family.gemma,
        embedding_scale=hidden_size**0.5 if family.gemma else None,
        attn_logit_softcapping=optional_number(config, "attn_logit_softcapping", family.attn_softcap),
        final_logit_softcapping=optional_number(config, "final_logit_softcapping", family.final_softcap),
    )


def _reject_foreign(config: Mapping[str, Any], model_type: str) -> None:
    for key, meaning in _FOREIGN:
        if config.get(key):
            raise UnsupportedModelError(
                f"The config of this {model_type} model sets {key} = {config[key]!r} ({meaning}), which is not known.",
                hint=_HINT,
            )
    if config.get("quantization_config"):
        method = mapping(config, "quantization_config").get("quant_method", "unknown method")
        raise UnsupportedModelError(
            f"The checkpoint is already quantized ({method}); a float checkpoint or a GGUF file is expected.",
            hint="Export the original model.",
        )
    if number(config, "partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedModelError(
            f"The model rotates only a part of each head (partial_rotary_factor {config['partial_rotary_factor']}).",
            hint=_HINT,
        )
    if model_type == "gemma3_text" and config.get("attn_logit_softcapping"):
        # transformers' Gemma 3 keeps this key but never applies it, so neither reading would be safe.
        raise UnsupportedModelError("A gemma3_text model with attn_logit_softcapping is not known.", hint=_HINT)


def _layers(
    config: Mapping[str, Any], family: Family, count: int, head_dim: int, max_position_embeddings: int
) -> tuple[LayerSpec, ...]:
    use_rope = per_layer(config, "no_rope_layers", count) if family.nope else None
    if use_rope is None:
        interval = integer(config, "no_rope_layer_interval", 4) if family.nope else count + 1
        use_rope = tuple((index + 1) % interval != 0 for index in range(count))
    windows = _windows(config, family, count, use_rope)
    theta = number(config, "rope_theta", family.rope_theta)
    ropes: dict[str, RopeSpec] = {}
    for kind, (params, base) in _rope_parameters(config, theta).items():
        ropes[kind] = rope_spec(params, head_dim=head_dim, theta=base, max_position_embeddings=max_position_embeddings)
    return tuple(
        LayerSpec(
            index,
            rope=ropes.get("full_attention" if window is None else "sliding_attention", ropes["full_attention"])
            if rotated
            else None,
            sliding_window=window,
        )
        for index, (rotated, window) in enumerate(zip(use_rope, windows, strict=True))
    )


def _rope_parameters(config: Mapping[str, Any], theta: float) -> dict[str, tuple[Mapping[str, Any], float]]:
    """RoPE parameters and base by layer type; ``sliding_attention`` only where it differs from the full layers'."""
    params = mapping(config, "rope_parameters") or mapping(config, "rope_scaling")
    local = number(config, "rope_local_base_freq", 10000.0)
    if "full_attention" in params:
        full, sliding = mapping(params, "full_attention"), mapping(params, "sliding_attention")
        return {"full_attention": (full, theta), "sliding_attention": (sliding, local)}
    if config.get("model_type") == "gemma3_text":
        return {"full_attention": (params, theta), "sliding_attention": ({}, local)}
    return {"full_attention": (params, theta)}


def _windows(
    config: Mapping[str, Any], family: Family, count: int, use_rope: tuple[Any, ...]
) -> tuple[int | None, ...]:
    """Sliding window of each layer, None where attention is full."""
    if family.windows == "none" or config.get("sliding_window", family.sliding_window) is None:
        return (None,) * count
    window = integer(config, "sliding_window", family.sliding_window)
    if family.windows == "all":
        return (window,) * count
    if family.windows == "optional" and not config.get("use_sliding_window", False):
        return (None,) * count
    types = per_layer(config, "layer_types", count)
    if types is None and family.windows == "pattern":
        every = integer(config, "sliding_window_pattern", family.full_every)
        types = tuple("sliding_attention" if (i + 1) % every else "full_attention" for i in range(count))
    elif types is None and family.nope:
        types = tuple("full_attention" if rotated else "sliding_attention" for rotated in use_rope)
    elif types is None:
        # 0 is a sensible value here: every layer has a window.
        first = number(config, "max_window_layers", 28)
        types = tuple("sliding_attention" if i >= first else "full_attention" for i in range(count))
    unknown = set(types) - {"full_attention", "sliding_attention"}
    if unknown:
        raise UnsupportedModelError(
            f"The model has layers of type {', '.join(sorted(map(str, unknown)))}; known are full_attention and "
            "sliding_attention.",
            hint=_HINT,
        )
    return tuple(window if kind == "sliding_attention" else None for kind in types)
