"""GGUF metadata as a Hugging Face config, and GGUF tensor names as Hugging Face names, by the rows of
``architectures``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.checkpoint.gguf import altup, delta, gemma4, mamba
from edgedistill.checkpoint.gguf.architectures import ARCHITECTURES, GgufArchitecture
from edgedistill.checkpoint.gguf.header import Keys
from edgedistill.checkpoint.gguf.rope import ROPE_FACTORS, rope_scaling
from edgedistill.checkpoint.gguf.tensors import GgufPart
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgedistill.checkpoint.gguf.header import GgufHeader

    RopeFactors = Mapping[str, npt.NDArray[np.float32]]

_HINT = "Export from the original Hugging Face checkpoint."


_GLOBAL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output_norm.bias": "model.norm.bias",
    "output.weight": "lm_head.weight",
}
_BLOCK = re.compile(r"blk\.(\d+)\.([\w.]+?)(?:\.(weight|bias))?")
_NO_SUFFIX = (
    ".sinks", ".A_log", ".dt_bias", ".correct_output_scale", "mamba.D", ".expert_bias", "layer_scalar",
)  # fmt: skip


def find_architecture(header: GgufHeader) -> GgufArchitecture:
    """The architecture of a GGUF file; raises UnsupportedModelError for an unknown one or a file that is no model."""
    kind = header.metadata.get("general.type", "model")
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise CheckpointError(
            "The GGUF file has no general.architecture.", hint="It is not a model: download it again."
        )
    if kind != "model" or name == "clip":
        raise UnsupportedModelError(f"The GGUF file is of type {kind!r} ({name}), expected a text model.")
    if header.metadata.get("split.count", 0) not in (0, 1):
        raise UnsupportedModelError(
            f"The GGUF file is one of {header.metadata['split.count']} parts; expected a whole model.",
            hint="Join them with: llama-gguf-split --merge FIRST_PART OUTPUT",
        )
    if name not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"The GGUF architecture {name!r} is not supported; expected one of {', '.join(ARCHITECTURES)}.",
            hint=f"See: edgedistill families. {_HINT}",
        )
    return ARCHITECTURES[name]


def map_tensors(header: GgufHeader, architecture: GgufArchitecture, config: Mapping[str, Any]) -> dict[str, GgufPart]:
    """Hugging Face name -> stored tensor and how to read it.

    Raises UnsupportedModelError for a tensor that the architecture does not know: leaving one out would export a
    different model without a word.
    """
    names, others = architecture.block_names, _GLOBAL_NAMES | dict(architecture.model_names)
    heads = {"self_attn.q_proj": config["num_attention_heads"], "self_attn.k_proj": config["num_key_value_heads"]}
    guessing = Keys(header.metadata).integer("nextn_predict_layers", 0)
    parts: dict[str, GgufPart] = {}
    for name, stored in header.tensors.items():
        if name in ROPE_FACTORS or name.endswith((".attn_rot_embd.weight", ".rope_freqs.weight")):
            continue
        match = _BLOCK.fullmatch(name)
        if match and guessing and int(match[1]) >= config["num_hidden_layers"]:
            continue
        if match and match[2] in names:
            module = names[match[2]]
            suffix = "" if module.endswith(_NO_SUFFIX) else f".{match[3]}"
            target = f"model.layers.{int(match[1])}.{module}{suffix}"
        elif name in others:
            module, target = name, others[name]
        else:
            raise UnsupportedModelError(
                f"The GGUF file has a tensor {name}, which {architecture.model_type} models do not have.",
                hint=_HINT,
            )
        if target in altup.STACKED:
            parts |= {part: GgufPart(matrix) for part, matrix in altup.unstacked(target, stored).items()}
            continue
        count = heads.get(module, 0) if architecture.interleaved else 0
        if count and stored.shape[0] % (2 * count):
            raise CheckpointError(f"{name} has {stored.shape[0]} rows, which {count} heads cannot share evenly.")
        shifted = name.endswith("norm.weight") and not name.endswith("ssm_norm.weight")
        parts[target] = GgufPart(stored, heads=count, shift=-architecture.norm_shift if shifted else 0.0)
        if module.startswith("linear_attn."):
            rows, columns = delta.rows_of(module, config), delta.columns_of(module, config)
            log = module.endswith(".A_log")
            parts[target] = replace(parts[target], rows=rows, columns=columns, logarithm=log)
        elif module.startswith("mamba."):
            parts[target] = mamba.part_of(module, stored)
    return parts


def metadata_tensors(header: GgufHeader, architecture: GgufArchitecture) -> dict[str, npt.NDArray[np.float32]]:
    """Tensors that GGUF keeps among its metadata, by Hugging Face name: the parameters of Apertus' activation.

    Raises CheckpointError where one is missing, UnsupportedModelError for constants other than those of all models.
    """
    if architecture.model_type != "apertus":
        return {}
    layers = Keys(header.metadata).integer("block_count")
    found: dict[str, npt.NDArray[np.float32]] = {}
    for part, constant in (("alpha_p", None), ("alpha_n", None), ("beta", 0.5), ("eps", -1e-6)):
        values = header.metadata.get(f"xielu.{part}")
        if values is None and constant is not None:
            continue
        array = np.atleast_1d(np.asarray(values if isinstance(values, np.ndarray | float) else [], np.float32))
        if array.size not in (1, layers) or not np.isfinite(array).all():
            raise CheckpointError(f"xielu.{part} of the GGUF file are not {layers} numbers.", hint="Download it again.")
        if constant is None:
            array = np.broadcast_to(array, layers)
            found |= {f"model.layers.{i}.mlp.act_fn.{part}": array[i : i + 1] for i in range(layers)}
        elif not np.allclose(array, constant, rtol=1e-2):
            raise UnsupportedModelError(f"xielu.{part} of the GGUF file is {array[0]}; {constant} is expected.")
    return found


def build_config(header: GgufHeader, architecture: GgufArchitecture, rope_factors: RopeFactors) -> dict[str, Any]:
    """A config.json for the model of ``header``.

    Args:
        rope_factors: Content of the tensors ``ROPE_FACTORS`` that there are.

    Raises CheckpointError for missing or malformed metadata, UnsupportedModelError for features that are not known.
    """
    keys = Keys(header.metadata)
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError("The GGUF file has no token_embd.weight matrix.", hint="Download it again.")
    hidden, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    if heads == 0:
        raise CheckpointError("The GGUF file states 0 attention heads.", hint="Download it again.")
    head_dim = keys.integer("attention.key_length", 0) or hidden // heads
    if keys.integer("attention.value_length", head_dim) != head_dim:
        raise UnsupportedModelError("Keys and values of the GGUF model differ in size, which is not supported.")
    rotated = keys.integer("rope.dimension_count", head_dim)
    if not 0 < rotated <= head_dim or (rotated != head_dim and architecture.interleaved):
        raise UnsupportedModelError(
            f"The GGUF model rotates {rotated} of {head_dim} elements of a head; expected all of them."
        )
    layers = _block_count(keys, header)
    by_layer = architecture.recurrent or architecture.windows == "gemma4"
    kv_heads = keys.each("attention.head_count_kv", layers, heads) if by_layer else []
    norm = "layer_norm" if architecture.layer_norm else "layer_norm_rms"
    config: dict[str, Any] = {
        "model_type": architecture.model_type,
        "hidden_size": hidden,
        # Not stated where all layers are mixtures (Qwen3.5).
        "intermediate_size": keys.each("feed_forward_length", layers)
        if architecture.windows in ("gemma3n", "gemma4")
        else keys.integer("feed_forward_length", keys.integer("expert_feed_forward_length", 0) or None),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(kv_heads) if kv_heads else keys.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "vocab_size": embedding.shape[0],
        "max_position_embeddings": keys.integer("context_length"),
        architecture.eps: keys.real(f"attention.{norm}_epsilon"),
        "rope_theta": keys.real("rope.freq_base", 10000.0),
        "partial_rotary_factor": rotated / head_dim,
        "rope_scaling": rope_scaling(keys, rope_factors, rotated),
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }
    if original := keys.integer("rope.scaling.original_context_length", 0):
        config["original_max_position_embeddings"] = original
    blocks = (match for name in header.tensors if (match := _BLOCK.fullmatch(name)))
    biases = {match[2] for match in blocks if match[3] == "bias"}
    config |= {key: module in biases for key, module in architecture.biases.items()}
    config |= {key: value for key, name in architecture.reals.items() if (value := keys.real(name, 0.0))}
    _recurrent(config, keys, architecture, kv_heads)
    _experts(config, keys, architecture)
    if header.metadata.get("granite.rope.scaling.finetuned") is False:
        raise UnsupportedModelError(
            "The GGUF model is a Granite without positions, which is not supported.", hint=_HINT
        )
    if not keys.flag("attention.causal", True):
        raise UnsupportedModelError(
            "Tokens of the GGUF model see later ones (attention.causal is false): it embeds texts and writes none.",
            hint="Export the language model that it was made from.",
        )
    if architecture.windows == "gemma4":
        return config | gemma4.gemma4_config(config, keys, header, rope_factors, kv_heads)
    if architecture.windows == "gemma3n":
        return config | altup.altup_config(keys, header)
    _particular(config, keys, architecture, header)
    return config


def _particular(config: dict[str, Any], keys: Keys, architecture: GgufArchitecture, header: GgufHeader) -> None:
    """Windows, and what one architecture alone has."""
    if architecture.model_type == "stablelm":
        config["use_parallel_residual"] = "blk.0.ffn_norm.weight" not in header.tensors
    if architecture.model_type == "minicpm":
        _minicpm(config, keys)
    if architecture.model_type == "ministral3":
        _query_scaling(config, keys)
    _windows(config, keys, architecture)


def _block_count(keys: Keys, header: GgufHeader) -> int:
    """Blocks of the model, without those behind them that only guess the tokens after the next one (Qwen3.5)."""
    count = keys.integer("block_count") - keys.integer("nextn_predict_layers", 0)
    if not 0 < count <= len(header.tensors):
        raise CheckpointError(
            f"The GGUF file claims {count} layers, the weights have {len(header.tensors)} tensors.",
            hint="Download it again.",
        )
    return count


def _recurrent(config: dict[str, Any], keys: Keys, architecture: GgufArchitecture, kv_heads: list[int]) -> None:
    """Layers without key/value heads, if the architecture has them."""
    if architecture.recurrent is None:
        return
    if {*kv_heads} - {0, max(kv_heads)}:
        raise UnsupportedModelError("The number of key/value heads differs between layers, which is not supported.")
    if 0 in kv_heads:
        config["layer_types"] = ["full_attention" if count else architecture.recurrent for count in kv_heads]
    if architecture.recurrent == "linear_attention":
        config |= delta.delta_config(keys)
    elif architecture.recurrent == "mamba":
        config |= mamba.mamba_config(keys, config["hidden_size"])
    else:
        config |= {"conv_L_cache": keys.integer("shortconv.l_cache"), "block_auto_adjust_ff_dim": False}
        config["num_dense_layers"] = keys.integer("leading_dense_block_count", 0)


def _windows(config: dict[str, Any], keys: Keys, architecture: GgufArchitecture) -> None:
    if architecture.windows == "none":
        return
    if architecture.windows == "gemma":
        _gemma(config, keys)
        return
    window = keys.integer("attention.sliding_window", 0)
    if architecture.sliding_type and (not window or config["model_type"] == architecture.experts_type):
        return
    config["model_type"] = architecture.sliding_type or architecture.model_type
    config["sliding_window"] = window or None
    if architecture.windows == "pattern":
        sliding = keys.flags("attention.sliding_window_pattern", config["num_hidden_layers"], architecture.full_every)
        config["layer_types"] = ["sliding_attention" if flag and window else "full_attention" for flag in sliding]


def _experts(config: dict[str, Any], keys: Keys, architecture: GgufArchitecture) -> None:
    """A mixture of experts; llama.cpp knows more about its routing than the file says."""
    count = keys.integer("expert_count", 0)
    if not count and (architecture.experts is None or architecture.experts_type):
        return
    if architecture.experts is None or not count or keys.integer("expert_shared_count", 0):
        found = "no mixture of experts" if not count else "a mixture of experts" if architecture.experts is None else ""
        raise UnsupportedModelError(
            f"The GGUF model is {found or 'a mixture with experts that all tokens share'}, which is not known of "
            f"{architecture.model_type} models.",
            hint=_HINT,
        )
    config["model_type"] = architecture.experts_type or architecture.model_type
    size = keys.integer("expert_feed_forward_length", 0) or config["intermediate_size"]
    own_key = ("qwen2_moe", "qwen3_moe", "qwen3_5_moe_text", "lfm2_moe")
    key = "moe_intermediate_size" if config["model_type"] in own_key else "intermediate_size"
    config |= {"num_experts": count, "num_experts_per_tok": keys.integer("expert_used_count"), key: size}
    config |= architecture.experts
    shared = keys.integer("expert_shared_feed_forward_length", 0)
    if architecture.shared and shared:
        config[architecture.shared] = shared
        config["model_type"] = architecture.shared_type or config["model_type"]
    if config["model_type"] == "gpt_oss" and config["rope_scaling"]:
        config["rope_scaling"]["truncate"] = False  # as its config.json has it


def _query_scaling(config: dict[str, Any], keys: Keys) -> None:
    """Ministral 3 scales its queries; Mistral Small 3, of the same architecture, does not."""
    beta, scaling = keys.real("attention.temperature_scale", 0.0), config["rope_scaling"]
    config["sliding_window"] = None
    if not beta:
        config["model_type"] = "mistral"
    elif scaling is None or "original_max_position_embeddings" not in scaling:
        raise CheckpointError("The GGUF file scales queries, but states no original context length for it.")
    else:
        scaling["llama_4_scaling_beta"] = beta


def _minicpm(config: dict[str, Any], keys: Keys) -> None:
    """Multipliers as config.json has them; files of before they were stored mean those of MiniCPM 2B."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    config |= {
        "scale_emb": keys.real("embedding_scale", 12.0),
        "scale_depth": keys.real("residual_scale", 1.4 / layers**0.5) * layers**0.5,
        "dim_model_base": hidden / keys.real("logit_scale", hidden / 256),
    }


def _gemma(config: dict[str, Any], keys: Keys) -> None:
    """Gemma 2 and 3: llama.cpp knows the pattern of windows and the scale of the 27B models without metadata."""
    gemma2 = config["model_type"] == "gemma2"
    largest = config["num_hidden_layers"] == (46 if gemma2 else 62)
    config |= {
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": keys.integer("attention.sliding_window", 0) or None,
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
