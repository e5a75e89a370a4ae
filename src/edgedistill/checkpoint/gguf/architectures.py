"""The table of GGUF architectures: what llama.cpp's converter (conversion/*.py in ggml-org/llama.cpp) made of each
Hugging Face model type, and what its loader (src/models/*.cpp) assumes without metadata.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from edgedistill.checkpoint.gguf import altup, delta, gemma4, mamba

if TYPE_CHECKING:
    from collections.abc import Mapping

Windows = Literal["none", "all", "pattern", "gemma", "gemma3n", "gemma4"]

_LLAMA_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SANDWICH = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_POST = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
_FUSED_MLP = {"ffn_up": "mlp.gate_up_proj"}
_GRANITE = {
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}
_EXPERTS = {
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}
_LFM2 = {
    "attn_norm": "operator_norm",
    "attn_output": "self_attn.out_proj",
    "attn_q_norm": "self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_layernorm",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "feed_forward.w1",
    "ffn_up": "feed_forward.w3",
    "ffn_down": "feed_forward.w2",
    "shortconv.conv": "conv.conv",
    "shortconv.in_proj": "conv.in_proj",
    "shortconv.out_proj": "conv.out_proj",
}
_SHARED = {
    "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj",
    "ffn_down_shexp": "mlp.shared_experts.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_experts.gate",
}


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """What is particular to one GGUF architecture.

    Attributes:
        model_type: Hugging Face's name. ``also``: others that are stored under this architecture.
        interleaved: The converter put query and key rows into llama.cpp's order.
        norm_shift: Was added to every norm weight.
        names: Modules of a block by GGUF name, where they are not those of Llama. ``model_names``: whole names of other
            tensors, likewise.
        biases: Config keys that say whether there are biases, by the GGUF module that shows it.
        reals: Config keys of multipliers, by GGUF key.
        eps: Config key of the norms' epsilon; the GGUF key is that of RMSNorm unless ``layer_norm``.
        windows: No sliding windows; the same in all layers; a pattern, every fourth layer full by default; those of
            Gemma; those of Gemma 3n and 4, with which come more keys (``altup``, ``gemma4``).
        full_every: Distance of the full layers of a pattern that the file does not state.
        experts: Constants of a mixture of experts that the file does not state; None: there is none.
        shared: Config key of the inner size of an expert that all tokens share; ``shared_type``: model type of a file
            that states one.
        experts_type, sliding_type: Model types of a file with a mixture of experts, or with sliding windows.
        recurrent: What layers without key/value heads are.
    """

    model_type: str
    also: tuple[str, ...] = ()
    interleaved: bool = False
    norm_shift: float = 0.0
    names: Mapping[str, str] = field(default_factory=dict)
    model_names: Mapping[str, str] = field(default_factory=dict)
    biases: Mapping[str, str] = field(default_factory=lambda: {"attention_bias": "attn_q"})
    reals: Mapping[str, str] = field(default_factory=dict)
    eps: str = "rms_norm_eps"
    layer_norm: bool = False
    windows: Windows = "none"
    sliding_type: str | None = None
    full_every: int = 4
    experts: Mapping[str, Any] | None = None
    shared: str | None = None
    shared_type: str | None = None
    experts_type: str | None = None
    recurrent: str | None = None

    @property
    def block_names(self) -> dict[str, str]:
        """All modules of a block, by GGUF name."""
        return _LLAMA_NAMES | dict(self.names)


_MLP_TOO = {"attention_bias": "attn_q", "mlp_bias": "ffn_gate"}
_UNGATED = {"attention_bias": "attn_q", "mlp_bias": "ffn_up"}

ARCHITECTURES: dict[str, GgufArchitecture] = {
    "llama": GgufArchitecture(
        "llama",
        also=("mistral", "mixtral"),
        interleaved=True,
        names=_EXPERTS | {"ffn_gate_inp": "block_sparse_moe.gate"},
        biases=_MLP_TOO,
        windows="all",
        experts={},
        experts_type="mixtral",
        sliding_type="mistral",
    ),
    "smollm3": GgufArchitecture("smollm3", interleaved=True, biases=_MLP_TOO),
    "mistral3": GgufArchitecture("ministral3", also=("mistral",), interleaved=True, biases={}),
    "qwen2": GgufArchitecture("qwen2", biases={}),
    "qwen3": GgufArchitecture("qwen3"),
    "gemma": GgufArchitecture("gemma", norm_shift=1.0),
    "gemma2": GgufArchitecture("gemma2", norm_shift=1.0, names=_SANDWICH, windows="gemma"),
    "gemma3": GgufArchitecture("gemma3_text", norm_shift=1.0, names=_SANDWICH, windows="gemma"),
    "gemma3n": GgufArchitecture(
        "gemma3n_text", names=_SANDWICH | altup.NAMES, model_names=altup.MODEL_NAMES, windows="gemma3n"
    ),
    "gemma4": GgufArchitecture(
        "gemma4_text", names=_SANDWICH | gemma4.NAMES, model_names=gemma4.MODEL_NAMES, biases={}, windows="gemma4"
    ),
    "granite": GgufArchitecture(
        "granite",
        interleaved=True,
        biases=_MLP_TOO,
        reals=_GRANITE,
    ),
    "olmo2": GgufArchitecture("olmo2", also=("olmo3",), names=_POST, windows="pattern", sliding_type="olmo3"),
    "exaone4": GgufArchitecture("exaone4", names=_POST, biases={}, windows="pattern"),
    "ernie4_5": GgufArchitecture("ernie4_5", biases={"use_bias": "attn_q"}),
    "hunyuan-dense": GgufArchitecture(
        "hunyuan_v1_dense",
        names={"attn_q_norm": "self_attn.query_layernorm", "attn_k_norm": "self_attn.key_layernorm"},
    ),
    "chatglm": GgufArchitecture("glm", names=_FUSED_MLP),
    "glm4": GgufArchitecture(
        "glm4",
        names=_FUSED_MLP
        | {
            "post_attention_norm": "post_self_attn_layernorm",
            "ffn_norm": "post_attention_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
        },
    ),
    "phi3": GgufArchitecture("phi3", names=_FUSED_MLP | {"attn_qkv": "self_attn.qkv_proj"}, biases={}, windows="all"),
    "cohere2": GgufArchitecture(
        "cohere2", layer_norm=True, eps="layer_norm_eps", reals={"logit_scale": "logit_scale"}, windows="pattern"
    ),
    "seed_oss": GgufArchitecture(
        "seed_oss",
        names={"post_attention_norm": "post_attention_layernorm"},
        biases=_MLP_TOO | {"attention_out_bias": "attn_output"},
    ),
    "apertus": GgufArchitecture(
        "apertus", names={"attn_norm": "attention_layernorm", "ffn_norm": "feedforward_layernorm"}
    ),
    "arcee": GgufArchitecture("arcee", interleaved=True, biases=_UNGATED),
    "nemotron": GgufArchitecture("nemotron", norm_shift=1.0, layer_norm=True, eps="norm_eps", biases=_UNGATED),
    "stablelm": GgufArchitecture("stablelm", layer_norm=True, eps="layer_norm_eps", biases={"use_qkv_bias": "attn_q"}),
    "minicpm": GgufArchitecture("minicpm", interleaved=True, biases={"attention_bias": "attn_q"}),
    "qwen3moe": GgufArchitecture(
        "qwen3_moe", names=_EXPERTS | {"ffn_gate_inp": "mlp.gate"}, experts={"norm_topk_prob": True}
    ),
    "qwen2moe": GgufArchitecture(
        "qwen2_moe",
        names=_EXPERTS | _SHARED | {"ffn_gate_inp": "mlp.gate"},
        biases={},
        experts={"norm_topk_prob": False},
        shared="shared_expert_intermediate_size",
    ),
    "olmoe": GgufArchitecture(
        "olmoe", names=_EXPERTS | {"ffn_gate_inp": "mlp.gate"}, experts={"norm_topk_prob": False}
    ),
    "granitemoe": GgufArchitecture(
        "granitemoe",
        also=("granitemoeshared",),
        interleaved=True,
        names=_EXPERTS | _SHARED | {"ffn_gate_inp": "block_sparse_moe.router.layer"},
        biases={"attention_bias": "attn_q"},
        reals=_GRANITE,
        experts={},
        shared="shared_intermediate_size",
        shared_type="granitemoeshared",
    ),
    "granitehybrid": GgufArchitecture(
        "granitemoehybrid",
        interleaved=True,
        names=mamba.NAMES
        | _EXPERTS
        | _SHARED
        | {"ffn_gate_inp": "block_sparse_moe.router.layer", "ffn_down": "shared_mlp.output_linear"},
        biases={"attention_bias": "attn_q", "mamba_proj_bias": "ssm_in", "mamba_conv_bias": "ssm_conv1d"},
        reals=_GRANITE,
        experts={},
        experts_type="granitemoehybrid",
        shared="shared_intermediate_size",
        recurrent="mamba",
    ),
    "gpt-oss": GgufArchitecture(
        "gpt_oss",
        names=_EXPERTS
        | {
            "ffn_gate_inp": "mlp.router",
            "post_attention_norm": "post_attention_layernorm",
            "attn_sinks": "self_attn.sinks",
        },
        windows="pattern",
        full_every=2,
        experts={},
    ),
    "qwen35": GgufArchitecture(
        "qwen3_5_text", norm_shift=1.0, names=delta.NAMES, biases={}, recurrent="linear_attention"
    ),
    "qwen35moe": GgufArchitecture(
        "qwen3_5_moe_text",
        norm_shift=1.0,
        names=delta.NAMES | _EXPERTS | _SHARED | {"ffn_gate_inp": "mlp.gate"},
        biases={},
        experts={},
        shared="shared_expert_intermediate_size",
        recurrent="linear_attention",
    ),
    "lfm2moe": GgufArchitecture(
        "lfm2_moe",
        names=_LFM2 | _EXPERTS | {"ffn_gate_inp": "feed_forward.gate", "exp_probs_b": "feed_forward.expert_bias"},
        model_names={"token_embd_norm.weight": "model.embedding_norm.weight"},
        biases={"conv_bias": "shortconv.in_proj", "use_expert_bias": "exp_probs_b"},
        eps="norm_eps",
        experts={"norm_topk_prob": True},
        recurrent="conv",
    ),
    "lfm2": GgufArchitecture(
        "lfm2",
        names=_LFM2,
        model_names={"token_embd_norm.weight": "model.embedding_norm.weight"},
        biases={"conv_bias": "shortconv.in_proj"},
        eps="norm_eps",
        recurrent="conv",
    ),
}
