"""What a ``model_type`` fixes, as data: ``Family`` is a row of the table in ``family_table``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from edgedistill.checkpoint.config_values import integer, number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.architecture.spec import Norm, NormPlacement, QkNorm

Windows = Literal["none", "all", "optional", "optional_all", "pattern"]
NoRope = Literal["none", "interval", "full_layers", "unless_stated", "stated"]
SlidingRope = Literal["same", "local_base", "unscaled"]


@dataclass(frozen=True, slots=True)
class Key:
    """A key of config.json, and the value that the family's config class has where config.json is silent.

    With ``over``, a second key and a power, the number is divided by that key's number to that power.
    """

    name: str
    default: float = 0.0
    over: tuple[str, float] | None = None

    def flag(self, config: Mapping[str, Any]) -> bool:
        """The value as a truth value."""
        return bool(config.get(self.name, self.default))

    def number(self, config: Mapping[str, Any]) -> float:
        """The value as a number; raises CheckpointError for anything else."""
        value = number(config, self.name, self.default)
        return value if self.over is None else value / integer(config, self.over[0]) ** self.over[1]


@dataclass(frozen=True, slots=True)
class Experts:
    """How a family names and stores its mixture of experts; see ``ExpertsSpec`` for what it computes.

    Attributes:
        count, active, size: Keys of the number of experts, of those active for a token, and of their inner size.
        normalized: See ``ExpertsSpec``.
        optional: A count of 0 says that the model has none.
        some_layers: Which layers are mixtures is said by ``decoder_sparse_step`` and ``mlp_only_layers``, not all are.
        dense_first: Key of the number of layers before the first mixture.
        router: Module of the router.
        separate: Modules gate, up and down of expert ``{}``, each stored by itself.
        stacked: Names of the tensors gate-up [E, 2I, H] (gate before up) and down [E, H, I] of all experts.
        transposed: Stacked tensors are [E, H, 2I] and [E, I, H], and gate and up are neighbours (gpt-oss).
        bias: Experts and router have biases. ``limit``, ``sigmoid_scale``: keys; ``up_offset``: fixed.
        shared: Key of the inner size of an expert that all tokens share; None: there is none.
        shared_names: Its modules gate, up and down; two: gate and up in one tensor, and down.
        shared_gate: Module of the logit that it is weighted by; None: it is not.
        sigmoid: See ``ExpertsSpec``. ``selection``: key of its flag, and its tensor. ``scaling``: key.
    """

    count: Key = Key("num_experts", 128)
    active: Key = Key("num_experts_per_tok", 8)
    size: Key = Key("intermediate_size")
    normalized: bool | Key = True
    optional: bool = False
    some_layers: bool = False
    dense_first: Key | None = None
    router: str = "mlp.gate"
    separate: tuple[str, str, str] = (
        "mlp.experts.{}.gate_proj",
        "mlp.experts.{}.up_proj",
        "mlp.experts.{}.down_proj",
    )
    stacked: tuple[str, str] = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
    transposed: bool = False
    bias: bool = False
    limit: Key | None = None
    sigmoid_scale: Key = Key("swiglu_alpha", 1.0)
    up_offset: float = 0.0
    shared: Key | None = None
    shared_names: tuple[str, ...] = ()
    shared_gate: str | None = None
    sigmoid: bool = False
    selection: tuple[Key, str] | None = None
    scaling: Key | None = None


@dataclass(frozen=True, slots=True)
class Recurrent:
    """Layers with a state in place of attention.

    Attributes:
        layer_type: What ``layer_types`` calls them. ``also``: as transformers 5 writes it, if that differs.
        attention_list: Older key that lists the attention layers. ``attention_every``: where nothing lists them, every
            n-th layer is one.
    """

    layer_type: str
    attention_list: str | None = None
    attention_every: int = 0
    also: str | None = None

    @property
    def layer_types(self) -> tuple[str, ...]:
        """All its names."""
        return (self.layer_type, self.also) if self.also else (self.layer_type,)


@dataclass(frozen=True, slots=True)
class Family:
    """Features of a family; a feature that several families share is one field here and one branch in the graph.

    Attributes:
        rope_theta, head_dim, kv_heads, max_position_embeddings, tie_word_embeddings, activation: Defaults of the
            config class, for keys that config.json leaves out. ``activation_key``: where the activation is named.
        rope_parameters: Likewise, where config.json has neither these nor the older ``rope_scaling``.
            ``rope_alpha``: they may have an ``alpha``, which raises the base (Hunyuan).
        norm, norm_bias, norm_offset, norm_placement, parallel, qk_norm, gated_mlp, output_gate: See ``ModelSpec``.
        norm_eps: Key of the norms' epsilon.
        qkv_bias, o_bias, mlp_bias: Fixed, or the key that says.
        interleaved_rope: Rotary pairs are neighbours (0, 1), (2, 3), ... instead of halves of the head.
        partial_rotary: Default share of each head that is rotated; None: whole heads, whatever the config says.
        windows: ``none``; ``all`` layers of the same sliding window; ``optional`` (``use_sliding_window`` with
            ``layer_types`` or ``max_window_layers``); ``optional_all`` (all with ``use_sliding_window``, or none);
            ``pattern`` (``layer_types`` or every n-th layer full).
        no_rope: Layers without RoPE: every n-th (SmolLM3), those of full attention (EXAONE 4, Cohere 2), or all unless
            ``position_embedding_type`` is rope (Granite 4), which ``stated`` has by default (Granite 3 with experts).
        intermediate_size: Key of the MLP's inner size.
        sliding_rope: RoPE of sliding layers: the same, of a local base (Gemma 3), or without scaling (OLMo 3).
        scaled_embedding: The embedding is multiplied by the square root of the hidden size (Gemma).
        embedding_scale, residual_scale, logits_scale, logits_divisor: Keys of multipliers.
        attention_scale: The factor on q.k, or its key. ``attention_scale_base``: key of a number whose inverse square
            root it is.
        caps: Logits may be capped. ``attn_softcap``, ``final_softcap``: defaults of the caps.
        attention_sinks: See ``ModelSpec``.
        experts: The mixture of experts, if the family has one. ``recurrent``: layers without attention, likewise.
        sub_norms: See ``ModelSpec``.
        adjusted_mlp: The MLP's inner size is worked out from the stated one (LFM2).
        own_sizes: Layers differ in their sizes, share keys, norm values and read a second embedding (Gemma 3n and 4);
            ``layer_sizes``. ``shared_layers``: how many of the last ones share keys, where config.json is silent.
        full_head_dim: Default size of heads of full attention, where those of other layers differ from it.
        layer_scalars: See ``ModelSpec``.
        altup: There are several residual streams, and what else the module ``altup`` describes (Gemma 3n).
        fused_qkv, fused_gate_up: Stored as one tensor under this name.
        names: Module names that differ from Llama's, by Llama's name; whole ones begin with ``model.``.
        ignored: Tensors that may be there and that no arithmetic uses, as suffixes.
        refused: Config keys that change the arithmetic in a way that is not known, with what they mean.
    """

    rope_theta: float = 10000.0
    rope_parameters: Mapping[str, Any] = field(default_factory=dict)
    rope_alpha: bool = False
    head_dim: int | None = None
    kv_heads: int | None = None
    max_position_embeddings: int = 32768
    intermediate_size: str = "intermediate_size"
    tie_word_embeddings: bool = False
    activation: str = "silu"
    activation_key: str = "hidden_act"
    norm: Norm = "rms"
    norm_bias: bool = False
    norm_offset: float = 0.0
    norm_placement: NormPlacement = "pre"
    norm_eps: Key = Key("rms_norm_eps", 1e-6)
    parallel: bool | Key = False
    qk_norm: QkNorm = "none"
    gated_mlp: bool = True
    output_gate: bool = False
    qkv_bias: bool | Key = False
    o_bias: bool | Key = False
    mlp_bias: bool | Key = False
    interleaved_rope: bool = False
    partial_rotary: float | None = None
    windows: Windows = "none"
    sliding_window: int | None = None
    full_every: int = 0
    no_rope: NoRope = "none"
    sliding_rope: SlidingRope = "same"
    scaled_embedding: bool = False
    embedding_scale: Key | None = None
    residual_scale: Key | None = None
    logits_scale: Key | None = None
    logits_divisor: Key | None = None
    attention_scale: Key | float | None = None
    attention_scale_base: Key | None = None
    caps: bool = False
    attn_softcap: float | None = None
    final_softcap: float | None = None
    attention_sinks: bool = False
    experts: Experts | None = None
    sub_norms: bool = False
    recurrent: Recurrent | None = None
    adjusted_mlp: bool = False
    own_sizes: bool = False
    shared_layers: int = 0
    full_head_dim: int | None = None
    layer_scalars: bool = False
    altup: bool = False
    fused_qkv: str | None = None
    fused_gate_up: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


def flag(value: bool | Key, config: Mapping[str, Any]) -> bool:
    """A feature that is fixed, or read from its key."""
    return value.flag(config) if isinstance(value, Key) else value
