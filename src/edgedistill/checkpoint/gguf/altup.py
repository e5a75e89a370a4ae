"""Gemma 3n in a GGUF file: names of its tensors, and its metadata as config.json has them.

llama.cpp's converter stacks the matrices of the residual streams, fills the second embedding up to the vocabulary, and
stores the sparsity of each layer's MLP as standard deviations above the mean.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from edgedistill.errors import CheckpointError

if TYPE_CHECKING:
    from edgedistill.checkpoint.gguf.header import GgufHeader, GgufTensor, Keys

NAMES = {
    "altup_router": "altup.modality_router",
    "altup_router_norm": "altup.router_norm",
    "altup_predict_coef": "altup.prediction_coefs",
    "altup_correct_coef": "altup.correction_coefs",
    "altup_correct_scale": "altup.correct_output_scale",
    "laurel_l": "laurel.linear_left",
    "laurel_r": "laurel.linear_right",
    "laurel_post_norm": "laurel.post_laurel_norm",
    "inp_gate": "per_layer_input_gate",
    "proj": "per_layer_projection",
    "post_norm": "post_per_layer_input_norm",
}
MODEL_NAMES = {
    "altup_proj.weight": "model.altup_projections.weight",
    "altup_unembd_proj.weight": "model.altup_unembed_projections.weight",
    "per_layer_token_embd.weight": "model.embed_tokens_per_layer.weight",
    "per_layer_model_proj.weight": "model.per_layer_model_projection.weight",
    "per_layer_proj_norm.weight": "model.per_layer_projection_norm.weight",
}
STACKED = ("model.altup_projections.weight", "model.altup_unembed_projections.weight")
_LAYERS_WITH_KEYS = 20
"""What llama.cpp assumes of every file (src/models/gemma3n.cpp), as it does the cap on the logits."""
_FINAL_CAP = 30.0


def unstacked(name: str, stored: GgufTensor) -> dict[str, GgufTensor]:
    """The matrices, by name, that ``stored`` [n, rows, columns], called ``name``, holds one behind the other."""
    count, nbytes = stored.shape[0], stored.nbytes // stored.shape[0]
    module = name.removesuffix(".weight")
    return {
        f"{module}.{index}.weight": replace(
            stored, shape=stored.shape[1:], offset=stored.offset + index * nbytes, nbytes=nbytes
        )
        for index in range(count)
    }


def altup_config(keys: Keys, header: GgufHeader) -> dict[str, Any]:
    """What config.json has beyond that of other models; raises CheckpointError for a missing tensor or key."""
    layers = keys.integer("block_count")
    second, left = (header.tensors.get(name) for name in ("per_layer_token_embd.weight", "blk.0.laurel_l.weight"))
    if second is None or left is None:
        missing = "per_layer_token_embd.weight" if second is None else "blk.0.laurel_l.weight"
        raise CheckpointError(f"The GGUF file has no tensor {missing}.", hint="Download it again.")
    sliding = keys.flags("attention.sliding_window_pattern", layers, 5)
    deviations = keys.reals("activation_sparsity_scale", layers)
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_theta": keys.real("rope.freq_base", 1e6),
        "rope_local_base_freq": keys.real("rope.freq_base_swa", 10000.0),
        "sliding_window": keys.integer("attention.sliding_window"),
        "layer_types": ["sliding_attention" if flag else "full_attention" for flag in sliding],
        "final_logit_softcapping": keys.real("final_logit_softcapping", _FINAL_CAP),
        "num_kv_shared_layers": keys.integer("attention.shared_kv_layers", max(0, layers - _LAYERS_WITH_KEYS)),
        "hidden_size_per_layer_input": keys.integer("embedding_length_per_layer_input"),
        "vocab_size_per_layer_input": second.shape[0],
        "altup_num_inputs": keys.integer("altup.num_inputs"),
        "altup_active_idx": keys.integer("altup.active_idx"),
        "altup_correct_scale": "blk.0.altup_correct_scale.weight" in header.tensors,
        "laurel_rank": left.shape[0],
        # A share of none is stored as minus infinity.
        "activation_sparsity_pattern": [NormalDist().cdf(value) for value in deviations],
    }
