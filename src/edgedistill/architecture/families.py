"""Model families: a Hugging Face ``config.json`` to a ``ModelSpec``, by the rows of ``family_table``.

Both spellings of the RoPE parameters are read: ``rope_theta`` with ``rope_scaling`` (transformers 4) and
``rope_parameters`` (transformers 5).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgedistill.architecture.altup import altup_spec, mlp_sizes, with_mlps
from edgedistill.architecture.experts import experts_spec, mixture_layers
from edgedistill.architecture.family import Family, Key, flag
from edgedistill.architecture.family_table import FAMILIES
from edgedistill.architecture.layer_sizes import FullLayers, full_layers, second_embedding, with_sizes
from edgedistill.architecture.recurrent import adjusted_mlp, recurrent_layers
from edgedistill.architecture.refused_types import reason
from edgedistill.architecture.rope import rope_spec
from edgedistill.architecture.spec import LayerSpec, ModelSpec, QueryScaling
from edgedistill.architecture.weights import check_tensors, logical_weights
from edgedistill.checkpoint.bitnet import ROUNDED_INPUTS
from edgedistill.checkpoint.config_values import integer, mapping, number, optional_number, per_layer
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.architecture.spec import Activation, RopeSpec

__all__ = ["FAMILIES", "Family", "build_spec", "check_tensors", "is_known", "logical_weights"]

_HINT = "Try --exporter optimum."
_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu2": "relu2",
    "xielu": "xielu",
}
# Keys of other architectures that change the arithmetic: ignoring one would export a wrong model without a word.
_FOREIGN = {
    "num_experts": "a mixture of experts",
    "num_local_experts": "a mixture of experts",
    "n_routed_experts": "a mixture of experts",
    "attention_multiplier": "an attention multiplier",
    "residual_multiplier": "a residual multiplier",
    "embedding_multiplier": "an embedding multiplier",
    "logits_scaling": "scaled logits",
    "logit_scale": "scaled logits",
    "attention_sinks": "attention sinks",
    "attn_logit_softcapping": "a cap on attention logits",
    "final_logit_softcapping": "a cap on logits",
    "use_bidirectional_attention": "bidirectional attention",
    "is_encoder_decoder": "an encoder and a decoder",
}


_LAYER_TYPES = {"full_attention", "sliding_attention", "attention"}


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
            f"The model is of type '{model_type}', which is not one of the {len(FAMILIES)} known families"
            f"{reason(model_type)}.",
            hint=f"See: edgedistill families. {hint}",
        )
    _reject_foreign(config, model_type, family)

    config = _older_spelling(config, family)
    hidden_size = integer(config, "hidden_size")
    count = integer(config, "num_hidden_layers")
    heads = integer(config, "num_attention_heads")
    kv_heads = integer(config, "num_key_value_heads", family.kv_heads or heads, null=heads)
    head_dim = integer(config, "head_dim", family.head_dim or hidden_size // heads, null=hidden_size // heads)
    if heads % kv_heads:
        raise CheckpointError(f"{heads} attention heads cannot share {kv_heads} key/value heads evenly.")
    _check_head_dim(head_dim)
    activation = config.get(family.activation_key) or family.activation
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"The model uses the activation '{activation}'; expected one of {', '.join(_ACTIVATIONS)}.", hint=_HINT
        )
    experts = experts_spec(config, family.experts, hidden_size)
    if experts is not None and _ACTIVATIONS[activation] != "silu":
        raise UnsupportedModelError(
            f"The experts have the activation '{activation}'; ONNX Runtime's kernel for them has silu.", hint=_HINT
        )
    max_position_embeddings = integer(config, "max_position_embeddings", family.max_position_embeddings)
    for key in (family.attention_scale_base, family.attention_scale, family.logits_divisor):
        if isinstance(key, Key) and not 0 < key.number(config) < math.inf:
            raise CheckpointError(
                f"config.json has {key.name} = {key.number(config):g}; a positive number is expected.",
                hint="Compare config.json with the original model's.",
            )
    scale_base = family.attention_scale_base.number(config) if family.attention_scale_base else float(head_dim)
    per_layer_size, per_layer_vocab = second_embedding(config, family) if family.own_sizes else (0, 0)
    return ModelSpec(
        family=model_type,
        hidden_size=hidden_size,
        intermediate_size=_mlp_size(config, family),
        num_hidden_layers=count,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=integer(config, "vocab_size"),
        max_position_embeddings=max_position_embeddings,
        rms_norm_eps=family.norm_eps.number(config),
        activation=_ACTIVATIONS[activation],
        tie_word_embeddings=bool(config.get("tie_word_embeddings", family.tie_word_embeddings)),
        attention_scale=_attention_scale(config, family, scale_base),
        layers=_layers(config, family, count, head_dim, max_position_embeddings, hidden_size),
        qkv_bias=flag(family.qkv_bias, config),
        o_bias=flag(family.o_bias, config),
        mlp_bias=flag(family.mlp_bias, config),
        qk_norm=family.qk_norm,
        norm=family.norm,
        norm_bias=family.norm_bias,
        norm_placement=family.norm_placement,
        parallel=flag(family.parallel, config),
        gated_mlp=family.gated_mlp,
        output_gate=family.output_gate,
        norm_offset=family.norm_offset,
        embedding_scale=_embedding_scale(config, family, hidden_size),
        attn_logit_softcapping=optional_number(config, "attn_logit_softcapping", family.attn_softcap),
        final_logit_softcapping=optional_number(config, "final_logit_softcapping", family.final_softcap),
        query_scaling=_query_scaling(config),
        attention_sinks=family.attention_sinks,
        experts=experts,
        sub_norms=family.sub_norms,
        rounded_inputs=bool(config.get(ROUNDED_INPUTS)),
        value_norm=family.own_sizes,
        layer_scalars=family.layer_scalars,
        per_layer_size=per_layer_size,
        per_layer_vocab=per_layer_vocab,
        altup=altup_spec(config) if family.altup else None,
    )


def _check_head_dim(head_dim: int) -> None:
    if head_dim % 16:
        raise UnsupportedModelError(
            f"The model's heads have {head_dim} elements; ONNX Runtime's attention needs a multiple of 16.", hint=_HINT
        )


def _attention_scale(config: Mapping[str, Any], family: Family, scale_base: float) -> float:
    scale = family.attention_scale
    return scale.number(config) if isinstance(scale, Key) else scale or scale_base**-0.5


def _older_spelling(config: Mapping[str, Any], family: Family) -> Mapping[str, Any]:
    """LFM2's first checkpoints have names of their own for three keys; a family's usual RoPE may go without saying."""
    if family.rope_parameters and not mapping(config, "rope_parameters") and "rope_scaling" not in config:
        return {**config, "rope_parameters": family.rope_parameters}
    if family.recurrent is None or family.recurrent.layer_type != "conv":
        return config
    older = {"tie_embedding": "tie_word_embeddings", "block_ff_dim": "intermediate_size", "theta": "rope_theta"}
    return {**config, **{new: config[old] for old, new in older.items() if config.get(old) is not None}}


def _mlp_size(config: Mapping[str, Any], family: Family) -> int:
    if family.altup:
        return max(mlp_sizes(config, family.intermediate_size))
    size = integer(config, family.intermediate_size)
    return adjusted_mlp(config, size) if family.adjusted_mlp else size


def _query_scaling(config: Mapping[str, Any]) -> QueryScaling | None:
    params = mapping(config, "rope_parameters") or mapping(config, "rope_scaling")
    beta = number(params, "llama_4_scaling_beta", 0.0)
    return QueryScaling(beta, integer(params, "original_max_position_embeddings")) if beta else None


def _embedding_scale(config: Mapping[str, Any], family: Family, hidden_size: int) -> float | None:
    if family.scaled_embedding:
        return float(hidden_size**0.5)
    scale = family.embedding_scale.number(config) if family.embedding_scale else 1.0
    return None if scale == 1.0 else scale


def _reject_foreign(config: Mapping[str, Any], model_type: str, family: Family) -> None:
    scales = (family.embedding_scale, family.residual_scale, family.logits_scale, family.logits_divisor)
    known = {key.name for key in (*scales, family.attention_scale) if isinstance(key, Key)}
    known |= {"attn_logit_softcapping", "final_logit_softcapping"} if family.caps else set()
    known |= {"num_experts", "num_local_experts"} if family.experts else set()
    for key, meaning in {**_FOREIGN, **family.refused}.items():
        if key == "use_bidirectional_attention" and config.get(key) == "vision":
            continue  # of the tokens of images, among themselves
        if (key not in known or key in family.refused) and config.get(key):
            raise UnsupportedModelError(
                f"The config of this {model_type} model sets {key} = {config[key]!r} ({meaning}), which is not "
                "supported.",
                hint=_HINT,
            )
    listed = config.get("layer_types") or config.get("layers_block_type")
    kinds = {str(kind)[:40] for kind in listed} if isinstance(listed, list | tuple) else set()
    recurrent = f" or {family.recurrent.layer_type}" if family.recurrent else ""
    if unknown := kinds - _LAYER_TYPES - set(family.recurrent.layer_types if family.recurrent else ()):
        raise UnsupportedModelError(
            f"The model has layers of type {', '.join(sorted(unknown))}; expected full_attention or sliding_attention"
            f"{recurrent}.",
            hint=_HINT,
        )
    if config.get("quantization_config"):
        method = mapping(config, "quantization_config").get("quant_method", "unknown method")
        raise UnsupportedModelError(
            f"The checkpoint is already quantized ({method}); a float checkpoint or a GGUF file is expected.",
            hint="Export the original model.",
        )


def _layers(
    config: Mapping[str, Any],
    family: Family,
    count: int,
    head_dim: int,
    max_position_embeddings: int,
    hidden_size: int,
) -> tuple[LayerSpec, ...]:
    windows = _windows(config, family, count)
    rotated = _rotated(config, family, windows)
    sizes = FullLayers(head_dim)
    if family.full_head_dim:
        kv_heads = integer(config, "num_key_value_heads", family.kv_heads)
        unbounded = tuple(index for index, window in enumerate(windows) if window is None)
        sizes = full_layers(config, unbounded, kv_heads, family.full_head_dim)
    wide = sizes.head_dim
    _check_head_dim(wide)
    ropes: dict[str, RopeSpec] = {}
    for kind, (params, base) in _rope_parameters(config, family).items():
        ropes[kind] = rope_spec(
            params,
            head_dim=wide if kind == "full_attention" else head_dim,
            theta=base,
            max_position_embeddings=max_position_embeddings,
            partial=_partial(config, params, family),
            original_length=config.get("original_max_position_embeddings"),
        )
    full = ropes["full_attention"]
    mixture = mixture_layers(config, family.experts, count)
    recurrent = recurrent_layers(config, family.recurrent, count, hidden_size)
    layers = tuple(
        LayerSpec(
            index,
            rope=(full if window is None else ropes.get("sliding_attention", full)) if rotates else None,
            sliding_window=window,
            mixture=mixture[index],
            recurrent=recurrent[index],
        )
        for index, (rotates, window) in enumerate(zip(rotated, windows, strict=True))
    )
    if family.altup:
        layers = with_mlps(config, layers, mlp_sizes(config, family.intermediate_size))
    return with_sizes(config, family, layers, sizes, _mlp_size(config, family)) if family.own_sizes else layers


def _rotated(config: Mapping[str, Any], family: Family, windows: tuple[int | None, ...]) -> tuple[bool, ...]:
    """Whether each layer has RoPE."""
    count = len(windows)
    if family.no_rope in ("unless_stated", "stated"):
        default = "rope" if family.no_rope == "stated" else None
        return (config.get("position_embedding_type", default) == "rope",) * count
    if family.no_rope == "interval":
        return _rotated_by_interval(config, count)
    if family.no_rope == "full_layers" and any(window is not None for window in windows):
        return tuple(window is not None for window in windows)
    # Without any window, EXAONE 4 rotates every layer and Cohere 2 none.
    return (not (family.no_rope == "full_layers" and family.parallel),) * count


def _rotated_by_interval(config: Mapping[str, Any], count: int) -> tuple[bool, ...]:
    listed = per_layer(config, "no_rope_layers", count)
    if listed is not None:
        return tuple(bool(value) for value in listed)
    interval = integer(config, "no_rope_layer_interval", 4)
    return tuple((index + 1) % interval != 0 for index in range(count))


def _partial(config: Mapping[str, Any], params: Mapping[str, Any], family: Family) -> float:
    """Share of each head that is rotated: of the RoPE parameters (transformers 5), the config, or the family.

    Other families ignore the key in transformers 5 and fail with it in transformers 4, so no share is right there.
    """
    key = "partial_rotary_factor"
    partial = number(params, key, number(config, key, family.partial_rotary or 1.0))
    if partial != 1.0 and family.partial_rotary is None and params.get("rope_type") != "proportional":
        raise UnsupportedModelError(
            f"The RoPE of this {config['model_type']} model has {key} = {partial:g}; models of this type rotate whole "
            "heads, and transformers ignores the key or fails, depending on its version.",
            hint=f"Remove {key} from config.json if the model was trained on whole heads.",
        )
    return partial


def _rope_parameters(config: Mapping[str, Any], family: Family) -> dict[str, tuple[Mapping[str, Any], float]]:
    """RoPE parameters and base by layer type; ``sliding_attention`` only where it differs from the full layers'."""
    theta = number(config, "rope_theta", family.rope_theta)
    params = mapping(config, "rope_parameters") or mapping(config, "rope_scaling")
    local = number(config, "rope_local_base_freq", 10000.0) if family.sliding_rope == "local_base" else theta
    if "full_attention" in params:
        full, sliding = mapping(params, "full_attention"), mapping(params, "sliding_attention")
        return {"full_attention": (full, theta), "sliding_attention": (sliding, local)}
    if family.sliding_rope == "same":
        return {"full_attention": (params, theta)}
    # A base given inside the parameters (transformers 5) is that of OLMo 3's sliding layers too.
    base = number(params, "rope_theta", theta) if family.sliding_rope == "unscaled" else local
    return {"full_attention": (params, theta), "sliding_attention": ({}, base)}


def _windows(config: Mapping[str, Any], family: Family, count: int) -> tuple[int | None, ...]:
    """Sliding window of each layer, None where attention is full."""
    if family.windows == "none" or config.get("sliding_window", family.sliding_window) is None:
        return (None,) * count
    if family.windows == "optional" and not config.get("use_sliding_window", False):
        return (None,) * count
    window = integer(config, "sliding_window", family.sliding_window)
    if family.windows == "all":
        return (window,) * count
    types = per_layer(config, "layer_types", count)
    if types is None and family.windows == "pattern":
        types = _pattern(config, family, count)
    elif types is None and family.no_rope == "interval":
        rotated = _rotated_by_interval(config, count)
        types = tuple("full_attention" if rotates else "sliding_attention" for rotates in rotated)
    elif types is None:
        # 0 is a sensible value here: every layer has a window.
        first = number(config, "max_window_layers", 28)
        types = tuple("sliding_attention" if i >= first else "full_attention" for i in range(count))
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def _pattern(config: Mapping[str, Any], family: Family, count: int) -> tuple[str, ...]:
    """Types of layers by the distance of the full ones; 0: there is none."""
    pattern = config.get("sliding_window_pattern")
    if isinstance(pattern, str):  # EXAONE 4: one letter a layer, repeated, L for local
        kinds = (pattern * count)[:count]
        return tuple("sliding_attention" if kind == "L" else "full_attention" for kind in kinds)
    every = integer(config, "sliding_window_pattern", family.full_every or None) if pattern or family.full_every else 0
    return tuple("full_attention" if every and (i + 1) % every == 0 else "sliding_attention" for i in range(count))
