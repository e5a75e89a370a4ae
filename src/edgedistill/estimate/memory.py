"""What a bundle will weigh on disk and in memory, before any work is done.

Pure arithmetic on a plan and a model's dimensions. The memory model was measured with onnxruntime 1.32 on x86-64
(``weights_private`` says how); it is meant to be right within 10 % (``make bench-plan`` compares).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgedistill.bundle.opening_memory import LOOKED_UP, drops_scales, in_planes, supplied_bytes
from edgedistill.json_codec import Record
from edgedistill.quantize.plan import PREFILL, Plan, plan_weights
from edgedistill.runtime.state import with_copies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.profile.profile import Profile
    from edgedistill.quantize.plan import Plannable, PlannedWeight

BASE_BYTES = 84_000_000
"""Python with NumPy, onnxruntime and tokenizers imported, one session open, no model (77 to 98 MB seen)."""
TOKENIZER_BYTES_PER_ENTRY = 250
"""Memory of a loaded BPE tokenizer per vocabulary entry."""
TOKENIZER_BYTES_PER_FILE_BYTE = 7
"""The same by the size of tokenizer.json, where that is known."""
GRAPH_BYTES_PER_LAYER = 16_384
"""Both graph files together, per layer, weights excluded."""
TOKENIZER_FILE_BYTES_PER_ENTRY = 80
MAPPED_BY_ONE_READ = 2 << 20
"""Bytes of a mapped file that a first read can make resident: what lies together in the page cache. 2 MiB and 64 KiB
seen (Linux 6.18, ext4); being clean, they are given back where memory is short."""


class ModelLike(Protocol):
    """Dimensions that a budget needs; ``architecture.spec.ModelSpec`` has them."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def widest_mlp(self) -> int: ...
    @property
    def carried_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def tie_word_embeddings(self) -> bool: ...
    @property
    def ropes(self) -> int: ...
    @property
    def state_bytes(self) -> int: ...
    def kv_bytes_per_token(self, itemsize: float = 4) -> int: ...


@dataclass(frozen=True, slots=True)
class Budget(Record):
    """Predicted sizes in bytes.

    Attributes:
        file_bytes: The bundle on disk.
        context_length: Tokens that the memory figures are for.
        weights_private: Copies of matrices that ONNX Runtime makes when it prepacks them, and the rotary tables that
            it computes (anonymous memory).
        weights_mapped: Parts of the weights file that stay in use as mapped pages.
        weights_reclaimable: Mapped pages of the embedding's rows: resident once read, given back where memory is short.
        kv_bytes: Keys and values at ``context_length`` tokens, one sequence; states, and copies of them, are among it.
        activation_bytes: Largest set of intermediate tensors in one prefill chunk.
        logits_bytes: Logits of the last position, bound for the steps of several widths, and the sampler's copies.
        base_bytes: Interpreter, libraries and tokenizer.
        weights_opening: Matrices put together from planes, and widened scales, until their packed copies are made.
    """

    DERIVED = ("ram_bytes",)

    file_bytes: int
    context_length: int
    weights_private: int
    weights_mapped: int
    weights_reclaimable: int
    kv_bytes: int
    activation_bytes: int
    logits_bytes: int
    base_bytes: int
    weights_opening: int = 0

    @property
    def ram_bytes(self) -> int:
        """Most resident memory of a process that generates up to ``context_length`` tokens, where memory is plenty."""
        return self.needed_bytes + self.weights_reclaimable

    @property
    def needed_bytes(self) -> int:
        """Memory that such a process cannot do without: what limits are compared with."""
        loaded = self.weights_private + self.weights_mapped + self.base_bytes + self.logits_bytes
        return loaded + max(self.weights_opening, self.kv_bytes + self.activation_bytes)

    @property
    def opening_bytes(self) -> int:
        """The part of ``needed_bytes`` that opening alone takes, at its peak."""
        return self.weights_private + self.weights_mapped + self.base_bytes + self.logits_bytes + self.weights_opening


def predict(
    model: ModelLike,
    plan: Plan,
    *,
    context_length: int,
    prefill_chunk: int = 256,
    kv_itemsize: float = 4,
    tokenizer_bytes: int | None = None,
) -> Budget:
    """Sizes of a bundle of ``plan``; ``kv_itemsize`` is in bytes per key or value, ``tokenizer_bytes`` the size of
    tokenizer.json where it is known.

    Prepacking copies every matrix that is multiplied: the codes once and, for scales and block sums, twice the
    scales (q + 2 * scales; measured 72, 54, 123, 110 and 385 MiB for matrices of 62, 51, 108, 102 and 384 MiB in
    int4-b32-asym, int4-b128-asym, int8-b32-sym, int8-b64-sym and fp32, with float32 scales). Scales stay in use
    beside that where kernels or look-ups read them: mapped where they lie as float32, else in memory; others are
    memory until they are packed (``drops_scales``). Of the mapped file the zero points stay in use. A
    tied embedding that is put together from planes exists once more (an untied one only so), and one in float32
    stays mapped beside its packed copy. Rows of an embedding that is not in float32 are read from the mapped file
    as their tokens occur, which soon makes most of it resident (``MAPPED_BY_ONE_READ``); an untied one is nowhere
    else. Rotary tables of cos and sin, float32 [context, head_dim/2] each, are in memory alone, once for each form
    of the layers.
    """
    forms = 2 if any(weight.weight_name.startswith(PREFILL) for weight in plan.weights) else 1
    private = forms * model.ropes * 4 * context_length * model.head_dim
    mapped = reclaimable = 0
    for weight in plan.weights:
        parts = matrix_memory(weight, tied=model.tie_word_embeddings, context_length=context_length)
        private, mapped, reclaimable = private + parts[0], mapped + parts[1], reclaimable + parts[2]
    tokens = min(prefill_chunk, context_length)
    heads = model.num_attention_heads
    per_token = 3 * model.widest_mlp + 6 * model.hidden_size + 4 * heads * model.head_dim + model.carried_size
    scores = heads * tokens * context_length
    # The allocator keeps what the widest steps of several widths needed: half as much again as the largest alone.
    activations = 6 * tokens * per_token + 4 * scores
    tokenizer = model.vocab_size * TOKENIZER_BYTES_PER_ENTRY
    if tokenizer_bytes is not None:
        tokenizer = tokenizer_bytes * TOKENIZER_BYTES_PER_FILE_BYTE
    graph = model.num_hidden_layers * GRAPH_BYTES_PER_LAYER + 65_536
    return Budget(
        file_bytes=plan.nbytes + graph + model.vocab_size * TOKENIZER_FILE_BYTES_PER_ENTRY,
        context_length=context_length,
        weights_private=private,
        weights_mapped=mapped,
        weights_reclaimable=reclaimable,
        kv_bytes=model.kv_bytes_per_token(kv_itemsize) * context_length + with_copies(model.state_bytes),
        activation_bytes=activations,
        logits_bytes=8 * 4 * model.vocab_size,
        base_bytes=BASE_BYTES + tokenizer,
        weights_opening=supplied_bytes((weight.weight_name, weight.shape, weight.format) for weight in plan.weights),
    )


def matrix_memory(weight: PlannedWeight, *, tied: bool, context_length: int) -> tuple[int, int, int]:
    """Bytes (private, mapped, reclaimable) of one weight in use; see ``predict`` and ``Budget``."""
    fmt = weight.format
    looked_up = context_length * MAPPED_BY_ONE_READ
    is_embedding = weight.weight_name in LOOKED_UP
    tied = tied and weight.weight_name == "embed"
    if fmt.is_float:
        if is_embedding and not tied:
            return 0, 0, min(weight.nbytes, looked_up)
        return weight.nbytes, weight.nbytes if is_embedding else 0, 0
    if is_embedding and not tied:
        if not in_planes(fmt):
            return 0, 0, min(weight.nbytes, looked_up)
        blocks = weight.shape[0] * fmt.blocks(weight.shape[1])
        return blocks * (fmt.block_size * fmt.kernel_bits // 8 + 4 + (0 if fmt.symmetric else 1)), 0, 0
    if fmt.is_w8a8:
        # Codes are packed with a sum per channel; scales are used as they lie.
        return math.prod(weight.shape) + 4 * weight.shape[0], weight.nbytes - math.prod(weight.shape), 0
    blocks = weight.shape[0] * fmt.blocks(weight.shape[1])
    codes, scales = blocks * fmt.block_size * fmt.kernel_bits // 8, 4 * blocks
    private, mapped, reclaimable = codes + 2 * scales, 0, 0
    if is_embedding:
        if in_planes(fmt):
            private += codes
        else:
            reclaimable = min(codes, looked_up)
    if fmt.scale_bits == 32:
        mapped += scales
    elif not drops_scales(weight.weight_name, fmt):
        private += scales
    mapped += 0 if fmt.symmetric else blocks * fmt.kernel_bits // 8
    return private, mapped, reclaimable


def predict_profile(model: ModelLike, weights: Sequence[Plannable], profile: Profile) -> Budget:
    """``predict`` for the weights planned by the rules, context and chunk of ``profile``."""
    plan = plan_weights(weights, profile.weights.default, profile.weights.all_rules)
    return predict(
        model,
        plan,
        context_length=profile.context.length,
        prefill_chunk=profile.context.prefill_chunk,
        kv_itemsize=profile.kv_cache.itemsize,
    )
