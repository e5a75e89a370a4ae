"""What a decoder looks like, free of file formats and of ONNX: the exporter's view of a model.

``families`` makes a ``ModelSpec`` from a Hugging Face config; ``graph`` turns it into nodes; the exporter reads the
weights that ``LogicalWeight`` lists.

"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edgedistill.architecture.altup import AltUpSpec
    from edgedistill.architecture.recurrent import RecurrentSpec

Activation = Literal["silu", "gelu", "gelu_tanh", "relu2", "xielu"]
Norm = Literal["rms", "layer"]
NormPlacement = Literal["pre", "post", "sandwich"]
QkNorm = Literal["none", "head", "full", "head_after_rope"]
WeightKind = Literal["linear", "embedding", "experts", "router", "kernel", "norm", "bias"]


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding of one layer, reduced to what the cos/sin caches need.

    Attributes:
        inv_freq: Inverse frequencies, head_dim/2 values, scaling already applied; 0 where a pair is not rotated.
        attention_scaling: Factor on cos and sin (YaRN's mscale; 1.0 otherwise).
        kind: Name of the scaling, for the manifest.
        long_inv_freq: Frequencies for contexts of more than ``original_length`` tokens (LongRoPE), else empty.
    """

    inv_freq: tuple[float, ...]
    attention_scaling: float = 1.0
    kind: str = "default"
    long_inv_freq: tuple[float, ...] = ()
    original_length: int = 0

    def frequencies(self, context_length: int) -> tuple[float, ...]:
        """The frequencies of a bundle with this context.

        LongRoPE has two sets, and cached keys of one do not fit queries of the other: as vLLM and llama.cpp do, the
        context that a model is opened with decides, so that no conversation crosses from one into the other.
        """
        return self.long_inv_freq if self.long_inv_freq and context_length > self.original_length else self.inv_freq


@dataclass(frozen=True, slots=True)
class QueryScaling:
    """A query at position p is multiplied by 1 + beta ln(1 + floor(p / length)) (Llama 4, Ministral 3)."""

    beta: float
    length: int


@dataclass(frozen=True, slots=True)
class ExpertsSpec:
    """A mixture of experts: of ``count`` gated MLPs, the ``active`` ones of the largest router logits, weighted.

    Weights are the softmax of all logits, divided by their sum over the active experts if ``normalized``. With
    ``sigmoid`` they are each logit's sigmoid, divided likewise, times ``scaling``. An expert is
    ``down(g * sigmoid(sigmoid_scale * g) * (u + up_offset))`` with g = min(gate(x), limit), u = clip(up(x), limit).

    Attributes:
        intermediate_size: Inner size of one expert.
        bias, router_bias: Whether experts and router have biases.
        limit: None: nothing is clamped.
        shared_size: Inner size of the expert that all tokens share, whose result is added; 0: there is none.
        shared_gated: Its result is multiplied by the sigmoid of a logit of its own (Qwen 2 MoE).
        selection: With ``sigmoid``, a number of every expert's is added where the active ones are chosen, and only
            there (LFM2 MoE).
    """

    count: int
    active: int
    intermediate_size: int
    normalized: bool = True
    bias: bool = False
    router_bias: bool = False
    limit: float | None = None
    sigmoid_scale: float = 1.0
    up_offset: float = 0.0
    shared_size: int = 0
    shared_gated: bool = False
    sigmoid: bool = False
    selection: bool = False
    scaling: float = 1.0


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One decoder layer. ``rope`` None: no position encoding (NoPE). ``sliding_window`` None: full attention.

    ``mixture``: a mixture of experts in place of the MLP. ``recurrent``: what it has in place of attention, whose
    fields then mean nothing. ``head_dim``, ``intermediate_size``: where they are not the model's. ``keys_of``: an
    earlier layer, whose keys and values it reads in place of its own. ``gate_deviations``: the MLP's gate counts as far
    as it exceeds the mean over the layer by so many standard deviations (Gemma 3n); None: all of it. ``kv_repeats``:
    times that each key/value head is there, since it is stored once and the model has so many more (a query head reads
    the same one either way). ``values_are_keys``: values are what the keys' matrix gives.
    """

    index: int
    rope: RopeSpec | None
    sliding_window: int | None = None
    mixture: bool = False
    recurrent: RecurrentSpec | None = None
    head_dim: int | None = None
    intermediate_size: int | None = None
    keys_of: int | None = None
    gate_deviations: float | None = None
    kv_repeats: int = 1
    values_are_keys: bool = False


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A decoder-only transformer. Names follow Hugging Face configs where one exists.

    Attributes:
        attention_scale: Multiplies q.k before the softmax.
        norm: RMSNorm, or LayerNorm (mean subtracted), which has a bias if ``norm_bias``.
        norm_placement: Norms before attention and MLP; after them (OLMo 2); or both (``sandwich``, Gemma 2 and 3).
        parallel: Attention and MLP read the same norm, and both add to the residual (Cohere).
        qk_norm: Norm of queries and keys: per head before RoPE, per head after it (Hunyuan), or over the whole
            projection (OLMo 2).
        output_gate: What attention gives is multiplied by the sigmoid of a projection of the layer's input.
        gated_mlp: ``down(act(gate(x)) * up(x))``; else ``down(act(up(x)))``.
        norm_offset: Added to the weight of every norm (Gemma: 1).
        embedding_scale: Multiplies the embedding.
        query_scaling: Queries grow with their position (Ministral 3).
        attention_sinks: Every head has a logit of its own, which takes its share of the softmax and adds nothing.
        experts: What the layers that are a ``mixture`` have.
        sub_norms: Norms before the last matrices of attention and MLP too (BitNet).
        rounded_inputs: Inputs of the layers' matrices are rounded to 8 bits per token (BitNet).
        value_norm: Values are normed per head, without weights (Gemma 3n and 4).
        layer_scalars: What a layer gives to the next one is multiplied by a number of its own (Gemma 4).
        per_layer_size: Elements that each layer reads of a second embedding of every token; 0: there is none.
        per_layer_vocab: Rows of that embedding; tokens behind them read the first one.
        altup: There are several residual streams, and a learned residual beside attention (Gemma 3n).
    """

    family: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    activation: Activation
    tie_word_embeddings: bool
    attention_scale: float
    layers: tuple[LayerSpec, ...]
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: QkNorm = "none"
    norm: Norm = "rms"
    norm_bias: bool = False
    norm_placement: NormPlacement = "pre"
    parallel: bool = False
    gated_mlp: bool = True
    output_gate: bool = False
    norm_offset: float = 0.0
    embedding_scale: float | None = None
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    query_scaling: QueryScaling | None = None
    attention_sinks: bool = False
    experts: ExpertsSpec | None = None
    sub_norms: bool = False
    rounded_inputs: bool = False
    value_norm: bool = False
    layer_scalars: bool = False
    per_layer_size: int = 0
    per_layer_vocab: int = 0
    altup: AltUpSpec | None = None

    @property
    def widest_mlp(self) -> int:
        """Inner elements that a token's MLP has, of all active experts together, or of the one that all share."""
        active = self.experts.active * self.experts.intermediate_size if self.experts else 0
        return max(self.intermediate_size, active, self.experts.shared_size if self.experts else 0)

    @property
    def carried_size(self) -> int:
        """Elements that a token has between layers beside the residual: other streams, and its second embedding."""
        streams = self.altup.streams - 1 if self.altup else 0
        return streams * self.hidden_size + self.num_hidden_layers * self.per_layer_size

    @property
    def q_size(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_key_value_heads * self.head_dim

    @property
    def mlp_input(self) -> str:
        """Name, within a layer, of the norm whose output the MLP reads (with ``post`` norms: what stands in for it)."""
        if self.parallel:
            return "input_norm"
        return "post_attention_norm" if self.norm_placement == "pre" else "pre_feedforward_norm"

    @property
    def ropes(self) -> int:
        """Number of distinct rotary embeddings (Gemma 3 has two)."""
        return len({layer.rope for layer in self.layers if layer.rope is not None})

    @property
    def attention_layers(self) -> tuple[int, ...]:
        """Indices of the layers that have keys and values; the others have states."""
        return tuple(layer.index for layer in self.layers if layer.recurrent is None and layer.keys_of is None)

    @property
    def head_dims(self) -> tuple[int, ...]:
        """Elements of a head of each layer; empty where all have the model's."""
        found = tuple(layer.head_dim or self.head_dim for layer in self.layers)
        return found if self.has_own_sizes else ()

    @property
    def keys_of(self) -> tuple[int, ...]:
        """The layer whose keys and values each layer reads, mostly its own; empty where that holds for all."""
        found = tuple(layer.index if layer.keys_of is None else layer.keys_of for layer in self.layers)
        return () if found == tuple(range(len(found))) else found

    @property
    def is_uniform(self) -> bool:
        """Whether every layer reads the one before it and a cache of one shape, and nothing else."""
        return not (self.states or self.has_own_sizes)

    @property
    def has_own_sizes(self) -> bool:
        """Whether layers differ in their sizes or read each other's keys (see ``layer_sizes``)."""
        return self.layer_scalars or self.altup is not None

    def of_layer(self, index: int) -> ModelSpec:
        """This model, with the sizes that the layer has."""
        layer = self.layers[index]
        return replace(
            self,
            head_dim=layer.head_dim or self.head_dim,
            intermediate_size=layer.intermediate_size or self.intermediate_size,
        )

    @property
    def states(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Name (``3.conv``: of layer 3) and shape of every state of one sequence, float32; see ``recurrent``."""
        return tuple(
            (f"{layer.index}.{state.name}", state.shape)
            for layer in self.layers
            if layer.recurrent is not None
            for state in layer.recurrent.states
        )

    @property
    def state_bytes(self) -> int:
        """Bytes of the states of one sequence."""
        return sum(state.nbytes for layer in self.layers if layer.recurrent for state in layer.recurrent.states)

    def kv_bytes_per_token(self, itemsize: float = 4) -> int:
        """Bytes of KV cache per token over all layers; half a byte per element in 4 bits."""
        elements = sum(self.of_layer(index).kv_size for index in self.attention_layers)
        return int(2 * elements * itemsize)


@dataclass(frozen=True, slots=True)
class LogicalWeight:
    """One weight as the graph uses it, possibly several checkpoint tensors stacked by rows.

    Attributes:
        name: Name in rules, plan and files, such as ``layers.3.attn.qkv``.
        kind: ``linear``, ``embedding`` and ``experts`` are matrices [N, K] and may be quantized; a ``router`` is one
            that stays float32, as does the ``kernel`` of a convolution; ``norm`` and ``bias`` are vectors.
            ``experts``: the matrices of all experts stacked by rows, gate and up as neighbouring rows.
        shape: [N, K] or [N].
        parts: Checkpoint tensors (Hugging Face names) concatenated along the first axis, of equal length unless
            ``rows`` has the length of each.
        offset: Added to every element on reading (Gemma's ``1 + weight``).
        aliases: Further names that a rule may use (``lm_head`` for a tied embedding).
    """

    name: str
    kind: WeightKind
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    offset: float = 0.0
    aliases: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()

    @property
    def is_matrix(self) -> bool:
        """Whether it may be quantized."""
        return self.kind in ("linear", "embedding", "experts")
