"""What a decoder looks like, free of file formats and of ONNX: the exporter's view of a model.

``architecture.py`` makes a ``ModelSpec`` from a Hugging Face config; ``graph.py`` turns it into nodes; the pipeline
reads the weights that ``LogicalWeight`` lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["silu", "gelu", "gelu_tanh"]
WeightKind = Literal["linear", "embedding", "norm", "bias"]


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding of one layer, reduced to what the cos/sin caches need.

    Attributes:
        inv_freq: Inverse frequencies, head_dim/2 (or fewer for partial rotary) values, scaling already applied.
        attention_scaling: Factor on cos and sin (YaRN's mscale; 1.0 otherwise).
        kind: Name of the scaling, for the manifest.
    """

    inv_freq: tuple[float, ...]
    attention_scaling: float = 1.0
    kind: str = "default"


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One decoder layer. ``rope`` None: no position encoding (NoPE). ``sliding_window`` None: full attention."""

    index: int
    rope: RopeSpec | None
    sliding_window: int | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A decoder-only transformer. Names follow Hugging Face configs where one exists.

    ``attention_scale`` multiplies q.k before the softmax. ``norm_offset`` is added to every RMSNorm weight (Gemma: 1).
    ``sandwich_norms``: norms after attention and MLP as well (Gemma 2/3). ``embedding_scale`` multiplies the embedding.
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
    qk_norm: bool = False
    norm_offset: float = 0.0
    sandwich_norms: bool = False
    embedding_scale: float | None = None
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None

    @property
    def q_size(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_key_value_heads * self.head_dim

    @property
    def ropes(self) -> int:
        """Number of distinct rotary embeddings (Gemma 3 has two)."""
        return len({layer.rope for layer in self.layers if layer.rope is not None})

    def kv_bytes_per_token(self, itemsize: float = 4) -> int:
        """Bytes of KV cache per token over all layers; half a byte per element in 4 bits."""
        return int(2 * self.num_hidden_layers * self.kv_size * itemsize)


@dataclass(frozen=True, slots=True)
class LogicalWeight:
    """One weight as the graph uses it, possibly several checkpoint tensors stacked by rows.

    Attributes:
        name: Name in rules, plan and files, such as ``layers.3.attn.qkv``.
        kind: ``linear`` and ``embedding`` are matrices [N, K] and may be quantized; ``norm`` and ``bias`` are vectors.
        shape: [N, K] or [N].
        parts: Checkpoint tensors (Hugging Face names) concatenated along the first axis.
        offset: Added to every element on reading (Gemma's ``1 + weight``).
        aliases: Further names that a rule may use (``lm_head`` for a tied embedding).
    """

    name: str
    kind: WeightKind
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    offset: float = 0.0
    aliases: tuple[str, ...] = ()

    @property
    def is_matrix(self) -> bool:
        return self.kind in ("linear", "embedding")
