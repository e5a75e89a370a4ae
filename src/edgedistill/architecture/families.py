"""Model families: a Hugging Face ``config.json`` to a ``ModelSpec``, by the rows of ``family_table``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgedistill.architecture.altup import altup_spec, mlp_sizes, with_mlps
from edgedistill.architecture.experts import experts_spec, mixture_layers
from edgedistill.architecture.family import Family, Key, flag
from edgedistill.architecture.family_table import FAMILIES
from edgedistill.architecture.layer_sizes import FullLayers, full_layers, second_embedding, with_sizes
from edgedistill.architecture.positions import (
    partial_rotation,
    query_scaling,
    rope_parameters,
    rotated_layers,
    windows_of,
)
from edgedistill.architecture.recurrent import adjusted_mlp, recurrent_layers
from edgedistill.architecture.refused_types import reason
from edgedistill.architecture.rope import rope_spec
from edgedistill.architecture.spec import LayerSpec, ModelSpec
from edgedistill.architecture.weights import check_tensors, logical_weights
from edgedistill.checkpoint.bitnet import ROUNDED_INPUTS
from edgedistill.checkpoint.config_values import integer, mapping, optional_number
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.architecture.spec import Activation, RopeSpec

__all__ = ["FAMILIES", "Family", "build_spec", "check_tensors", "is_known", "logical_weights"]

_HINT = "Try --exporter optimum."
_COMPARE = "Compare config.json with the original model's."
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
    if model_type == "mistral" and config.get("layer_types") is not None:
        model_type = "ministral"  # as transformers opens such a checkpoint: windows layer by layer
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
    if family.recurrent is not None and _ACTIVATIONS[activation] != "silu":
        # Their convolutions have the activation of the MLP (Qwen 3.5, Granite 4-h), or the MLP has silu whatever it is.
        raise UnsupportedModelError(
            f"The model has the activation '{activation}'; of this type, silu is expected.", hint=_HINT
        )
    max_position_embeddings = integer(config, "max_position_embeddings", family.max_position_embeddings)
    for key in (family.attention_scale_base, family.attention_scale, family.logits_divisor):
        if isinstance(key, Key) and not 0 < key.number(config) < math.inf:
            raise CheckpointError(
                f"config.json has {key.name} = {key.number(config):g}; a positive number is expected.",
                hint=_COMPARE,
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
        rms_norm_eps=_norm_eps(config, family),
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
        attn_logit_softcapping=_softcap(config, "attn_logit_softcapping", family.caps, family.attn_softcap),
        final_logit_softcapping=_softcap(config, "final_logit_softcapping", family.caps, family.final_softcap),
        query_scaling=query_scaling(config, family),
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


def _norm_eps(config: Mapping[str, Any], family: Family) -> float:
    if (eps := family.norm_eps.number(config)) < 0:
        raise CheckpointError(
            f"config.json has {family.norm_eps.name} = {eps:g}; 0 or more is expected.", hint=_COMPARE
        )
    return eps


def _softcap(config: Mapping[str, Any], key: str, caps: bool, default: float | None) -> float | None:
    """A cap on logits, of families that have them; raises CheckpointError for one that leaves nothing."""
    cap = optional_number(config, key, default) if caps else None
    if cap is not None and cap <= 0:
        raise CheckpointError(f"config.json has {key} = {cap:g}; a positive number or null is expected.", hint=_COMPARE)
    return cap


def _attention_scale(config: Mapping[str, Any], family: Family, scale_base: float) -> float:
    scale = family.attention_scale
    return scale.number(config) if isinstance(scale, Key) else scale or scale_base**-0.5


def _older_spelling(config: Mapping[str, Any], family: Family) -> Mapping[str, Any]:
    """LFM2's first checkpoints have names of their own for three keys; a family's usual RoPE may go without saying; the
    official Gemmas of the first generation say gelu and mean its approximation, which all others say.
    """
    if family.scaled_embedding and config.get("hidden_act") == "gelu":
        config = {**config, "hidden_act": "gelu_pytorch_tanh"}
    if family.rope_parameters and config.get("rope_parameters") is None and "rope_scaling" not in config:
        if config.get("rope_theta", family.rope_theta) not in (None, family.rope_theta):
            raise CheckpointError(
                "config.json has a rope_theta and no RoPE parameters, where transformers 4 and 5 read different ones.",
                hint=_COMPARE,
            )
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
    if config.get("is_causal") is False:  # transformers 5 then lets every token attend to all
        raise UnsupportedModelError(
            f"The config of this {model_type} model sets is_causal = False (bidirectional attention), which is not "
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
    if "sliding_attention" in kinds and "use_sliding_window" in family.refused:
        raise UnsupportedModelError(
            f"The config of this {model_type} model lists layers with windows, which is not supported.", hint=_HINT
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
    windows = windows_of(config, family, count)
    rotated = rotated_layers(config, family, windows)
    sizes = FullLayers(head_dim)
    if family.full_head_dim:
        kv_heads = integer(config, "num_key_value_heads", family.kv_heads)
        unbounded = tuple(index for index, window in enumerate(windows) if window is None)
        sizes = full_layers(config, unbounded, kv_heads, family.full_head_dim)
    wide = sizes.head_dim
    _check_head_dim(wide)
    ropes: dict[str, RopeSpec] = {}
    for kind, (params, base) in rope_parameters(config, family).items():
        ropes[kind] = rope_spec(
            params,
            head_dim=wide if kind == "full_attention" else head_dim,
            theta=base,
            max_position_embeddings=max_position_embeddings,
            partial=partial_rotation(config, params, family),
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
