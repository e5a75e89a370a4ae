"""Tokens per second of a bundle that need not exist yet, from timings of its kernels.

A step is the sum of its parts, because ONNX Runtime runs one node after the other: every matrix multiplication, timed
as that kernel with that shape over weights that take as much memory as the model's; per layer everything else
(attention over the cache, norms, activations), timed as the model's own graph without its matrices, at a short and a
long past between which attention grows linearly; and a constant for the loop around it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgedistill.json_codec import Record
from edgedistill.quantize.plan import PlannedWeight
from edgedistill.quantize.spec import array_specs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgedistill.architecture.spec import ExpertsSpec, LayerSpec, ModelSpec
    from edgedistill.profile.profile import Profile
    from edgedistill.quantize.plan import Plan
    from edgedistill.quantize.spec import WeightFormat

STEP_OVERHEAD_S = 100e-6
"""Per step: the binding, the call, choosing the token. Some 30 us and a maximum over the vocabulary."""
MOST_ELEMENTS = 1 << 24
"""Larger matrices are timed as a part of their rows: the time grows with the rows."""
WORKING_SETS = tuple(1 << shift for shift in range(20, 30))
"""Bytes of weights that a timing goes through: beyond the last, all of them come from memory."""
_TIMED_EXPERTS = 4
"""Times the active experts: as many of a mixture are timed with many tokens, which are fewer accordingly."""
SHORT_PAST = 64
LONG_PAST = 2048


@dataclass(frozen=True, slots=True)
class MatrixCase:
    """``tokens`` rows times a matrix [rows, columns] in ``format``, among ``working_set`` bytes of such matrices."""

    format: WeightFormat
    rows: int
    columns: int
    tokens: int
    working_set: int

    @property
    def key(self) -> str:
        """Name of its timing; how codes were chosen and stored makes no difference once they are loaded."""
        fmt = self.format
        label = fmt.label() if fmt.is_float else replace(fmt, method="rtn").label()
        return f"matrix {label} {self.rows}x{self.columns} tokens {self.tokens} in {self.working_set >> 20}M"

    def weights(self, name: str) -> tuple[PlannedWeight, ...]:
        """The matrices of one such product, called ``name``."""
        return (_planned(name, (self.rows, self.columns), self.format),)


@dataclass(frozen=True, slots=True)
class ExpertsCase(MatrixCase):
    """``tokens`` rows through a mixture of ``experts``, whose matrices have ``rows`` rows in all (gate and up) and
    ``columns`` columns, those that come after (``down``) in a format of their own.
    """

    down: WeightFormat
    experts: ExpertsSpec

    @property
    def key(self) -> str:
        """Name of its timing."""
        labels = " ".join("fp32" if f.is_float else replace(f, method="rtn").label() for f in (self.format, self.down))
        of = f"{self.experts.active}/{self.experts.count} {self.experts.intermediate_size}x{self.columns}"
        return f"experts {of} {labels} tokens {self.tokens} in {self.working_set >> 20}M"

    def weights(self, name: str) -> tuple[PlannedWeight, ...]:
        """Both matrices of one mixture called ``name``."""
        down = (self.experts.count * self.columns, self.experts.intermediate_size)
        return (
            _planned(f"{name}.gate_up", (self.rows, self.columns), self.format),
            _planned(f"{name}.down", down, self.down),
        )


def _planned(name: str, shape: tuple[int, int], fmt: WeightFormat) -> PlannedWeight:
    return PlannedWeight(name, shape, fmt, array_specs(name, shape, fmt))


@dataclass(frozen=True, slots=True)
class LayerCase:
    """A layer without its matrices: ``tokens`` new ones after ``past``, in the geometry of ``shape``."""

    shape: str
    layer: int
    tokens: int
    past: int

    @property
    def key(self) -> str:
        """Name of its timing."""
        return f"layer {self.shape} tokens {self.tokens} past {self.past}"


@dataclass(frozen=True, slots=True)
class Speed(Record):
    """Predicted rates in tokens per second.

    Attributes:
        decode_tps: By tokens in the context.
        prefill_tps: By tokens of the prompt.
        matrix_bytes: Bytes of weights that a step of one token reads.
    """

    decode_tps: dict[int, float]
    prefill_tps: dict[int, float]
    matrix_bytes: int


@dataclass(frozen=True, slots=True)
class StepModel:
    """The cases that a model's steps consist of."""

    spec: ModelSpec
    plan: Plan
    profile: Profile

    @property
    def chunk(self) -> int:
        """Tokens of a prefill step."""
        return self.profile.context.prefill_chunk

    @property
    def threads(self) -> int:
        """Threads that the profile asks for; 0: one per physical core."""
        return self.profile.session.intra_op_num_threads

    @property
    def long_past(self) -> int:
        """The longer of the two pasts that attention is timed at."""
        return max(2 * SHORT_PAST, min(LONG_PAST, self.profile.context.length - self.chunk))

    @property
    def matrices(self) -> list[PlannedWeight]:
        """Everything that every token is multiplied with: an untied embedding is only looked up."""
        tied = self.spec.tie_word_embeddings
        named = [w for w in self.plan.weights if len(w.shape) == 2 and ".mlp.experts." not in w.weight_name]
        return [
            w
            for w in named
            if (tied or w.weight_name != "embed")
            and w.weight_name != "per_layer.embed"
            and not w.weight_name.endswith(".kernel")
        ]

    @property
    def mixtures(self) -> list[tuple[PlannedWeight, PlannedWeight]]:
        """Both matrices of every mixture of experts."""
        experts = [w for w in self.plan.weights if len(w.shape) == 2 and ".mlp.experts." in w.weight_name]
        return list(zip(experts[::2], experts[1::2], strict=True))

    @property
    def matrix_bytes(self) -> int:
        """Bytes that a step of one token reads of them and of the experts that are active, as the kernels read them."""
        all_experts = sum(kernel_bytes(weight) for pair in self.mixtures for weight in pair)
        share = self.spec.experts.active / self.spec.experts.count if self.spec.experts else 0.0
        return sum(kernel_bytes(weight) for weight in self.matrices) + round(share * all_experts)

    def matrix_case(self, weight: PlannedWeight, tokens: int) -> tuple[MatrixCase, float]:
        """The case of a weight and how often its time the weight takes."""
        rows, columns = weight.shape
        part = min(rows, max(256, MOST_ELEMENTS // columns // 256 * 256))
        return MatrixCase(weight.format, part, columns, tokens, self._working_set), rows / part

    def experts_case(self, pair: tuple[PlannedWeight, PlannedWeight], tokens: int) -> tuple[ExpertsCase, float]:
        """The case of a mixture and how often its time the mixture takes.

        A token reads its active experts, so these are timed alone; of many tokens, the share that some experts get.
        """
        experts = self.spec.experts
        if experts is None:
            raise ValueError("the model is not a mixture of experts")
        count = experts.active if tokens == 1 else min(experts.count, _TIMED_EXPERTS * experts.active)
        some = replace(experts, count=count, bias=False)
        share = 1.0 if tokens == 1 else experts.count / count
        columns = pair[0].shape[1]
        rows = 2 * experts.intermediate_size * count
        some_tokens = max(1, round(tokens / share))
        formats = (pair[0].format, pair[1].format)
        return ExpertsCase(formats[0], rows, columns, some_tokens, self._working_set, formats[1], some), share

    @property
    def _working_set(self) -> int:
        return next((size for size in WORKING_SETS if size >= self.matrix_bytes), WORKING_SETS[-1])

    def layer_cases(self, tokens: int) -> list[tuple[LayerCase, LayerCase, int]]:
        """(at a short past, at a long past, how many layers), one entry for each kind of layer."""
        short = SHORT_PAST if tokens == 1 else 0
        counts = Counter(layer_shape(self.spec, layer, self.profile) for layer in self.spec.layers)
        first = {layer_shape(self.spec, layer, self.profile): layer.index for layer in reversed(self.spec.layers)}
        return [
            (LayerCase(shape, first[shape], tokens, short), LayerCase(shape, first[shape], tokens, self.long_past), n)
            for shape, n in counts.items()
        ]

    def cases(self) -> Iterator[MatrixCase | LayerCase]:
        """Everything whose timing a prediction needs; some more than once."""
        for tokens in (1, self.chunk):
            for weight in self.matrices:
                if tokens == 1 or not self._is_head(weight):
                    yield self.matrix_case(weight, tokens)[0]
            for pair in self.mixtures:
                yield self.experts_case(pair, tokens)[0]
            for short, long, _ in self.layer_cases(tokens):
                yield short
                yield long

    def speed(self, seconds: dict[str, float], *, contexts: Sequence[int], prompts: Sequence[int]) -> Speed | None:
        """The prediction; None where a timing is missing."""
        try:
            decode = {at: 1 / self._decode_s(seconds, at) for at in contexts}
            prefill = {count: count / self._prefill_s(seconds, count) for count in prompts}
        except KeyError:
            return None
        return Speed(decode, prefill, self.matrix_bytes)

    def _decode_s(self, seconds: dict[str, float], past: int) -> float:
        return STEP_OVERHEAD_S + self._matrices_s(seconds, 1) + self._layers_s(seconds, 1, past)

    def _prefill_s(self, seconds: dict[str, float], count: int) -> float:
        head = sum(self._matrix_s(seconds, weight, 1) for weight in self.matrices if self._is_head(weight))
        whole = self._matrices_s(seconds, self.chunk)
        total = head
        for start in range(0, count, self.chunk):
            share = min(self.chunk, count - start) / self.chunk
            total += share * (whole + self._layers_s(seconds, self.chunk, start)) + STEP_OVERHEAD_S
        return total

    def _matrices_s(self, seconds: dict[str, float], tokens: int) -> float:
        dense = sum(
            self._matrix_s(seconds, weight, tokens)
            for weight in self.matrices
            if tokens == 1 or not self._is_head(weight)
        )
        cases = [self.experts_case(pair, tokens) for pair in self.mixtures]
        return dense + sum(seconds[case.key] * times for case, times in cases)

    def _matrix_s(self, seconds: dict[str, float], weight: PlannedWeight, tokens: int) -> float:
        case, times = self.matrix_case(weight, tokens)
        return seconds[case.key] * times

    def _layers_s(self, seconds: dict[str, float], tokens: int, past: int) -> float:
        total = 0.0
        for short, long, count in self.layer_cases(tokens):
            low, high = seconds[short.key], seconds[long.key]
            slope = max(0.0, high - low) / (long.past - short.past)
            total += count * max(0.0, low + slope * (past - short.past))
        return total

    def _is_head(self, weight: PlannedWeight) -> bool:
        """The lm_head sees the last position of a prompt only."""
        return weight.weight_name == ("embed" if self.spec.tie_word_embeddings else "lm_head")


def prediction_points(context_length: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Lengths of prompts, and tokens in the context at a decode step, that are predicted if nothing else is asked."""
    prompts = tuple(count for count in (256, 1024) if count < context_length) or (context_length // 2,)
    contexts = tuple(
        sorted({min(64, context_length // 2), *(n for n in (1024,) if n < context_length), context_length})
    )
    return prompts, contexts


def kernel_bytes(weight: PlannedWeight) -> int:
    """Bytes that a product with ``weight`` reads: codes in the kernel's width, float32 scales, zero points."""
    fmt = weight.format
    if fmt.is_float or fmt.is_w8a8 or len(weight.shape) != 2:
        return weight.nbytes
    blocks = weight.shape[0] * fmt.blocks(weight.shape[1])
    zero_points = 0 if fmt.symmetric else blocks * fmt.kernel_bits // 8
    return blocks * fmt.block_size * fmt.kernel_bits // 8 + 4 * blocks + zero_points


def layer_shape(spec: ModelSpec, layer: LayerSpec, profile: Profile) -> str:
    """A name for what a layer computes beside its matrices: equal names take equal time."""
    window = layer.sliding_window or 0
    cache = profile.kv_cache
    kind = (
        spec.activation, spec.qk_norm, spec.norm, spec.norm_placement, spec.parallel,
        spec.gated_mlp, spec.attn_logit_softcapping, layer.rope is not None,
        spec.qkv_bias, spec.o_bias, spec.mlp_bias, spec.attention_sinks, layer.mixture,
        cache.scales if cache.is_quantized else "", *((spec.rounded_inputs,) if spec.sub_norms else ()),
        *((layer.recurrent,) if layer.recurrent else ()), *((spec.per_layer_size,) if spec.has_own_sizes else ()),
        *((spec.altup, layer.gate_deviations is None) if spec.altup else ()),
    )  # fmt: skip
    digest = hashlib.sha256(repr(kind).encode()).hexdigest()[:8]
    spec = spec.of_layer(layer.index)
    heads = f"{spec.num_attention_heads}/{spec.num_key_value_heads}x{spec.head_dim}"
    return f"{spec.hidden_size}-{spec.intermediate_size} heads {heads} window {window} cache {cache.dtype} {digest}"
