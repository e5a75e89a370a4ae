"""Gemma 4's metadata in a GGUF file: heads of two sizes, shared keys, the second embedding (conversion/gemma.py and
src/models/gemma4.cpp in ggml-org/llama.cpp).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from edgedistill.checkpoint.gguf.header import GgufHeader, Keys

NAMES = {
    "inp_gate": "per_layer_input_gate",
    "proj": "per_layer_projection",
    "post_norm": "post_per_layer_input_norm",
    "layer_output_scale": "layer_scalar",
}
MODEL_NAMES = {
    "per_layer_token_embd.weight": "model.embed_tokens_per_layer.weight",
    "per_layer_model_proj.weight": "model.per_layer_model_projection.weight",
    "per_layer_proj_norm.weight": "model.per_layer_projection_norm.weight",
}
_NOT_ROTATED = 1e29
"""Frequencies are divided by more than this where a pair of elements is not rotated."""


def gemma4_config(
    config: Mapping[str, Any],
    keys: Keys,
    header: GgufHeader,
    rope_factors: Mapping[str, npt.NDArray[np.float32]],
    kv_heads: list[int],
) -> dict[str, Any]:
    """What config.json of the model says, where it differs from ``config``, what is common to all architectures.

    Args:
        config: With the sizes of a head in layers of full attention.
        keys: The metadata.
        header: Of the file.
        rope_factors: Content of ``rope_freqs.weight``, by that name.
        kv_heads: Of every layer.

    Raises:
        CheckpointError: The file contradicts itself.
        UnsupportedModelError: Layers differ in another way than Gemma 4's.
    """
    layers, wide = int(config["num_hidden_layers"]), int(config["head_dim"])
    sliding = keys.flags("attention.sliding_window_pattern", layers, 6)
    shared = keys.integer("attention.shared_kv_layers", 0)
    own = [index for index in range(layers - shared) if not sliding[index]]
    inner = keys.each("feed_forward_length", layers, 0)
    doubled = inner[-1] == 2 * inner[0]
    expected = [inner[0] * (2 if doubled and index >= layers - shared else 1) for index in range(layers)]
    by_kind = [{count for count, is_local in zip(kv_heads, sliding, strict=True) if is_local == kind}
               for kind in (True, False)]  # fmt: skip
    if inner != expected or any(len(counts) > 1 for counts in by_kind):
        raise UnsupportedModelError(
            "The layers of the GGUF model differ in sizes of MLPs or numbers of heads in a way that Gemma 4's do not.",
            hint="Export from the original Hugging Face checkpoint.",
        )
    factors = rope_factors.get("rope_freqs.weight")
    if factors is None or factors.shape != (wide // 2,):
        raise CheckpointError(
            f"The GGUF file has no rope_freqs.weight of {wide // 2} values.", hint="Download it again."
        )
    rows = header.tensors.get("per_layer_token_embd.weight")
    full = {
        "rope_type": "proportional",
        "rope_theta": keys.real("rope.freq_base", 1e6),
        "partial_rotary_factor": 2 * int((factors < _NOT_ROTATED).sum()) / wide,
    }
    local = {"rope_type": "default", "rope_theta": keys.real("rope.freq_base_swa", 10000.0)}
    full_heads = next(iter(by_kind[1]), max(kv_heads))
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "head_dim": keys.integer("attention.key_length_swa", wide),
        "global_head_dim": wide,
        "num_key_value_heads": next(iter(by_kind[0]), full_heads),
        "num_global_key_value_heads": full_heads,
        "attention_k_eq_v": bool(own) and f"blk.{own[0]}.attn_v.weight" not in header.tensors,
        "intermediate_size": inner[0],
        "use_double_wide_mlp": doubled,
        "num_kv_shared_layers": shared,
        "layer_types": ["sliding_attention" if is_local else "full_attention" for is_local in sliding],
        "sliding_window": keys.integer("attention.sliding_window"),
        "final_logit_softcapping": keys.real("final_logit_softcapping", 0.0) or None,
        "hidden_size_per_layer_input": keys.integer("embedding_length_per_layer_input", 0),
        "vocab_size_per_layer_input": rows.shape[0] if rows else config["vocab_size"],
        "rope_scaling": None,
        "rope_parameters": {"full_attention": full, "sliding_attention": local},
    }
