"""A transformers model as a GGUF file, as llama.cpp's converter writes it: names from the gguf package, the order of
query and key rows, norms with 1 added, metadata.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import MODEL_ARCH_NAMES, ExpertGatingFuncType, GGUFWriter, RopeScalingType, get_tensor_name_map
from gguf_fixtures import add_bpe, finish, interleave

if TYPE_CHECKING:
    from pathlib import Path

# What the converter's classes do beyond the names (conversion/*.py).
PERMUTED = ("llama", "mistral3", "smollm3", "granite", "granitemoe", "granitehybrid", "arcee", "minicpm")
SHIFTED = ("gemma", "gemma2", "gemma3", "nemotron", "qwen35", "qwen35moe")
# Config keys of an expert's inner size.
EXPERTS = {
    "qwen3moe": "moe_intermediate_size",
    "olmoe": "intermediate_size",
    "granitemoe": "intermediate_size",
    "granitehybrid": "intermediate_size",
    "qwen2moe": "moe_intermediate_size",
    "qwen35moe": "moe_intermediate_size",
    "gpt-oss": "intermediate_size",
    "lfm2moe": "moe_intermediate_size",
    "llama": "intermediate_size",  # Mixtral
}
MIXTRAL = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
LAYER_NORM = {"cohere2": "layer_norm_eps", "nemotron": "norm_eps", "stablelm": "layer_norm_eps"}


def write_model(path: Path, arch: str, model: Any, *, guessing: int = 0) -> None:
    """Write the random ``model`` to ``path`` under the architecture ``arch``; ``guessing``: blocks that only guess."""
    config = model.config.to_dict()
    writer = GGUFWriter(path, arch)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = rope_values(config)
    rotated = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"] + guessing)
    if guessing:
        writer.add_nextn_predict_layers(guessing)
    for block in range(config["num_hidden_layers"], config["num_hidden_layers"] + guessing):
        for name in ("attn_norm", "nextn.enorm"):
            writer.add_tensor(f"blk.{block}.{name}.weight", np.ones(config["hidden_size"], np.float32))
    size = model.model.layers[0].feed_forward.w1.out_features if arch == "lfm2" else config["intermediate_size"]
    if arch != "qwen35moe":
        writer.add_feed_forward_length(gemma4_inner(model) if arch == "gemma4" else size)
    if arch.startswith("qwen35"):
        add_delta(writer, config)
    writer.add_head_count(heads)
    kinds = config.get("layer_types")
    if arch in ("lfm2", "lfm2moe", "granitehybrid"):
        attends = [kind in ("full_attention", "attention") for kind in kinds]
        writer.add_head_count_kv([kv_heads if attention else 0 for attention in attends])
    if arch == "lfm2moe":
        writer.add_leading_dense_block_count(config["num_dense_layers"])
        writer.add_expert_gating_func(ExpertGatingFuncType.SIGMOID)
    if arch.startswith("lfm2"):
        writer.add_shortconv_l_cache(config["conv_L_cache"])
    elif arch == "granitehybrid":
        add_mamba(writer, config)
    elif arch == "gemma4":
        add_gemma4(writer, model)
    else:
        writer.add_head_count_kv(kv_heads)
    if arch != "gemma4":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if arch in LAYER_NORM:
        writer.add_layer_norm_eps(config[LAYER_NORM[arch]])
    else:
        writer.add_layer_norm_rms_eps(config["norm_eps" if arch.startswith("lfm2") else "rms_norm_eps"])
    if arch == "gemma4":
        rope = {"rope_theta": rope["rope_theta"]}
    else:
        writer.add_rope_dimension_count(rotated)
    add_rope(writer, arch, config, rope, rotated)
    add_features(writer, arch, config)
    names = get_tensor_name_map(next(key for key, name in MODEL_ARCH_NAMES.items() if name == arch),
                                config["num_hidden_layers"])  # fmt: skip
    activations: dict[str, list[float]] = {}
    arrays = {name: parameter.float().numpy() for name, parameter in model.state_dict().items()}
    if arch == "gemma3n":
        add_altup(writer, config)
        arrays = with_stacked_streams(arrays, config)
    if arch == "granitehybrid":
        arrays = dict(pair for name, array in arrays.items() for pair in of_granite_hybrid(name, array, config).items())
    if arch in EXPERTS and config.get("num_experts_per_tok") and config.get("num_local_experts") != 0:
        add_experts(writer, config, EXPERTS[arch])
        arrays = with_stacked_experts(arrays, arch)
    for kept, stored in arrays.items():
        name, array = kept, stored
        if ".act_fn." in name:
            activations.setdefault(name.rpartition(".")[2], []).append(array.item())
            continue
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        if name.endswith(("conv.conv.weight", "conv1d.weight")):
            array = array.squeeze(1)
        if ".linear_attn." in name:
            name, array = as_tiled(name, array, config)
        if arch in SHIFTED and not name.endswith("linear_attn.norm.weight") and name.endswith("norm.weight"):
            array = array + np.float32(1)
        for module, count in (("q_proj", heads), ("k_proj", kv_heads)):
            if arch in PERMUTED and f".{module}." in name:
                array = interleave(array, count)
        name = f"{name}.weight" if name.endswith("layer_scalar") else name
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        target = f"{target}.weight" if target and target.endswith(("attn_sinks", "altup_correct_scale")) else target
        target = f"{target}.bias" if target and target.endswith("exp_probs_b") else target
        assert target is not None, f"the converter has no name for {name} in {arch}"
        writer.add_tensor(target, np.ascontiguousarray(array))
    for part, values in activations.items():
        getattr(writer, f"add_xielu_{part}")(values)
    # The tokenizer has more tokens than the models of the parity tests: their embedding is filled up.
    add_bpe(writer, "gpt-2", config["vocab_size"])
    finish(writer)


def gemma4_inner(model: Any) -> list[int]:
    return [layer.mlp.gate_proj.out_features for layer in model.model.layers]


def add_gemma4(writer: GGUFWriter, model: Any) -> None:
    """Heads of two sizes, shared keys, and the divisors that leave a part of wide heads unrotated."""
    config, whole, layers = model.config, model.config.to_dict(), [layer.self_attn for layer in model.model.layers]
    kinds = [kind == "sliding_attention" for kind in config.layer_types]
    wide = layers[kinds.index(False)]
    writer.add_shared_kv_layers(config.num_kv_shared_layers)
    writer.add_embedding_length_per_layer_input(config.hidden_size_per_layer_input)
    writer.add_sliding_window_pattern(kinds)
    for add in (writer.add_key_length, writer.add_value_length, writer.add_rope_dimension_count):
        add(wide.head_dim)
    for add in (writer.add_key_length_swa, writer.add_value_length_swa):
        add(whole["head_dim"])
    global_heads = wide.k_proj.out_features // wide.head_dim
    writer.add_head_count_kv([whole["num_key_value_heads"] if local else global_heads for local in kinds])
    rotated = int(wide.head_dim * config.rope_parameters["full_attention"]["partial_rotary_factor"] / 2)
    factors = [1.0] * rotated + [1e30] * (wide.head_dim // 2 - rotated)
    writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def add_delta(writer: GGUFWriter, config: dict[str, Any]) -> None:
    heads = config["linear_num_value_heads"]
    writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
    writer.add_ssm_state_size(config["linear_key_head_dim"])
    writer.add_ssm_group_count(config["linear_num_key_heads"])
    writer.add_ssm_time_step_rank(heads)
    writer.add_ssm_inner_size(config["linear_value_head_dim"] * heads)
    writer.add_full_attention_interval(4)


def as_tiled(name: str, array: np.ndarray, config: dict[str, Any]) -> tuple[str, np.ndarray]:
    """Value heads of all key heads in turn, where they are grouped by key head; A as minus its exponential."""
    keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
    before = 2 * keys * config["linear_key_head_dim"]

    def tiled(rows: np.ndarray) -> np.ndarray:
        grouped = rows.reshape(keys, values // keys, len(rows) // values, *rows.shape[1:])
        return grouped.swapaxes(0, 1).reshape(rows.shape)

    module = name.partition(".linear_attn.")[2]
    if module in ("in_proj_qkv.weight", "conv1d.weight"):
        array = np.concatenate([array[:before], tiled(array[before:])])
    elif module == "out_proj.weight":
        array = tiled(array.T).T
    elif not module.startswith("norm."):
        array = tiled(array)
    return name.replace(".dt_bias", ".dt_proj.bias"), -np.exp(array) if module == "A_log" else array


def add_altup(writer: GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_altup_active_idx(config["altup_active_idx"])
    writer.add_altup_num_inputs(config["altup_num_inputs"])
    writer.add_embedding_length_per_layer_input(config["hidden_size_per_layer_input"])
    writer.add_shared_kv_layers(config["num_kv_shared_layers"])
    shares = config["activation_sparsity_pattern"]
    writer.add_activation_sparsity_scale([NormalDist().inv_cdf(share) if share else -math.inf for share in shares])


def with_stacked_streams(arrays: dict[str, np.ndarray], config: dict[str, Any]) -> dict[str, np.ndarray]:
    """``arrays`` with the streams' matrices in one tensor each, and a row of the second embedding for every token."""
    second = "model.embed_tokens_per_layer.weight"
    missing = config["vocab_size"] - len(arrays[second])
    found = {
        name: array for name, array in arrays.items() if "embed_projections" not in name and "altup_proj" not in name
    }
    for module in ("model.altup_projections", "model.altup_unembed_projections"):
        matrices = [arrays[f"{module}.{index}.weight"] for index in range(config["altup_num_inputs"] - 1)]
        found[f"{module}.weight"] = np.stack(matrices)
    return found | {second: np.pad(arrays[second], ((0, missing), (0, 0)))}


def add_mamba(writer: GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_ssm_conv_kernel(config["mamba_d_conv"])
    writer.add_ssm_state_size(config["mamba_d_state"])
    writer.add_ssm_group_count(config["mamba_n_groups"])
    writer.add_ssm_inner_size(config["mamba_expand"] * config["hidden_size"])
    writer.add_ssm_time_step_rank(config["mamba_n_heads"])
    if not config["num_local_experts"]:
        writer.add_expert_shared_feed_forward_length(config["shared_intermediate_size"])
    writer.add_rope_scaling_finetuned(config["position_embedding_type"] == "rope")


def of_granite_hybrid(name: str, array: np.ndarray, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """A as minus its exponential, A and D as columns, the norm by group; gate and up of the shared MLP apart."""
    module = name.partition(".mamba.")[2]
    if module in ("A_log", "D"):
        return {name: (-np.exp(array) if module == "A_log" else array)[:, None]}
    if module == "norm.weight":
        return {name: array.reshape(config["mamba_n_groups"], -1)}
    if module == "dt_bias":
        return {name.replace(".dt_bias", ".dt_proj.bias"): array}
    if ".shared_mlp." in name and not config["num_local_experts"]:
        layer = name.partition(".shared_mlp.")[0]
        if "output_linear" in name:
            return {f"{layer}.mlp.down_proj.weight": array}
        gate, up = np.split(array, 2)
        return {f"{layer}.mlp.gate_proj.weight": gate, f"{layer}.mlp.up_proj.weight": up}
    return {name: array}


def add_experts(writer: GGUFWriter, config: dict[str, Any], size: str) -> None:
    writer.add_expert_count(config.get("num_local_experts") or config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(config[size])
    for key in ("shared_intermediate_size", "shared_expert_intermediate_size"):
        if config.get(key):
            writer.add_expert_shared_feed_forward_length(config[key])


def with_stacked_experts(arrays: dict[str, np.ndarray], arch: str) -> dict[str, np.ndarray]:
    """``arrays`` with gate, up and down of all experts of a layer in one tensor each."""
    found: dict[str, np.ndarray] = {}
    singles: dict[str, list[np.ndarray]] = {}
    for name, array in arrays.items():
        if "shared" in name:
            found |= of_shared_expert(name, array)
            continue
        block = next((part for part in ("mlp.experts", "feed_forward.experts") if part in name), "block_sparse_moe")
        layer, _, module = name.partition(f".{block}.")
        for short, whole in MIXTRAL.items():
            module = module.removeprefix("experts.").replace(f".{short}.", f".{whole}.") if short in module else module
        target = f"{layer}.mlp.experts"
        kind = "bias" if "bias" in module else "weight"
        if ".experts." not in name and not module.startswith(("input_linear", "output_linear")):
            found[name.replace("moe.router.weight", "moe.router.layer.weight")] = array
        elif module.partition(".")[0].isdigit():  # one expert's matrix, in the order of experts
            singles.setdefault(f"{target}.{module.partition('.')[2]}", []).append(array)
        else:
            rows = array.transpose(0, 2, 1) if arch == "gpt-oss" and kind == "weight" else array
            if module.startswith(("output_linear", "down_proj", "experts.down_proj")):
                found[f"{target}.down_proj.{kind}"] = rows
                continue
            half = rows.shape[1] // 2
            parts = (rows[:, 0::2], rows[:, 1::2]) if arch == "gpt-oss" else (rows[:, :half], rows[:, half:])
            found |= {f"{target}.{which}_proj.{kind}": part for which, part in zip(("gate", "up"), parts, strict=True)}
    return found | {name: np.stack(parts) for name, parts in singles.items()}


def of_shared_expert(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """The expert that all tokens share: gate and up apart, its own weight as a vector."""
    if name.endswith("shared_expert_gate.weight"):
        return {name: array.reshape(-1)}
    if "input_linear" not in name:
        return {name: array}
    gate, up = np.split(array, 2)
    whole = "shared_mlp.input_linear"
    return {name.replace(whole, f"mlp.shared_mlp.{which}_proj"): part for which, part in (("gate", gate), ("up", up))}


def rope_values(config: dict[str, Any]) -> dict[str, Any]:
    """RoPE parameters of the full layers, the base and the partial factor among them, from either spelling."""
    stored = config.get("rope_parameters") or config.get("rope_scaling") or {}
    stored = stored.get("full_attention", stored)
    found = {key: config[key] for key in ("rope_theta", "partial_rotary_factor") if config.get(key) is not None}
    return found | {key: value for key, value in stored.items() if value is not None}


def add_rope(writer: GGUFWriter, arch: str, config: dict[str, Any], rope: dict[str, Any], rotated: int) -> None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    base = rope["rope_theta"]
    if kind == "dynamic":
        base *= rope["alpha"] ** (rotated / (rotated - 2))
        writer.add_rope_scaling_type(RopeScalingType.NONE)
    writer.add_rope_freq_base(base)
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for key, add in (
            ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
        ):
            if key in rope:
                add(rope[key])
    if "llama_4_scaling_beta" in rope:
        writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
        writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, base, rotated))
    if kind == "longrope":
        original = rope.get("original_max_position_embeddings") or config["original_max_position_embeddings"]
        scale = config["max_position_embeddings"] / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0)
        for which in ("short", "long"):
            writer.add_tensor(f"rope_factors_{which}.weight", np.array(rope[f"{which}_factor"], np.float32))
    elif arch == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
    local = config.get("rope_local_base_freq")
    if arch in ("gemma3", "gemma3n", "gemma4") and local is None:
        local = config["rope_parameters"]["sliding_attention"]["rope_theta"]
    if local is not None:
        writer.add_float32(f"{arch}.rope.freq_base_swa", local)


def llama3_factors(rope: dict[str, Any], base: float, rotated: int) -> np.ndarray:
    """Divisors of the frequencies, as the converter computes them."""
    wavelengths = 2 * math.pi * base ** (np.arange(0, rotated, 2, dtype=np.float32) / rotated)
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    length = rope["original_max_position_embeddings"]
    factors = []
    for wavelength in wavelengths.tolist():
        smooth = (length / wavelength - low) / (high - low)
        between = 1 / ((1 - smooth) / factor + smooth) if low < length / wavelength < high else 0.0
        factors.append(1.0 if wavelength < length / high else factor if wavelength > length / low else between)
    return np.array(factors, np.float32)


def add_features(writer: GGUFWriter, arch: str, config: dict[str, Any]) -> None:
    if arch in ("granite", "granitemoe", "granitehybrid"):
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    if arch == "minicpm":
        writer.add_embedding_scale(config["scale_emb"])
        writer.add_residual_scale(config["scale_depth"] / math.sqrt(config["num_hidden_layers"]))
        writer.add_logit_scale(config["hidden_size"] / config["dim_model_base"])
    if arch == "cohere2":
        writer.add_logit_scale(config["logit_scale"])
    if arch == "stablelm":
        writer.add_parallel_residual(config["use_parallel_residual"])
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    if arch in ("gemma2", "gemma3n"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    window = config.get("sliding_window")
    if window and config.get("use_sliding_window", True):
        writer.add_sliding_window(window)
        if arch in ("olmo2", "exaone4", "gemma3n"):
            writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
