"""The weights that a model consists of: which checkpoint tensors make up each one, and whether they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.architecture.recurrent import GatedDeltaSpec, ShortConvSpec
from edgedistill.architecture.spec import LogicalWeight
from edgedistill.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.architecture.altup import AltUpSpec
    from edgedistill.architecture.recurrent import Mamba2Spec, RecurrentSpec
    from edgedistill.architecture.spec import ExpertsSpec, ModelSpec
    from edgedistill.checkpoint.types import TensorSource


def logical_weights(spec: ModelSpec) -> tuple[LogicalWeight, ...]:
    """All weights of the model in graph order: ``embed``, the layers, ``final_norm`` and, if untied, ``lm_head``."""
    h, v = spec.hidden_size, spec.vocab_size
    embed = LogicalWeight(
        "embed",
        "embedding",
        (v, h),
        ("model.embed_tokens.weight",),
        aliases=("lm_head",) if spec.tie_word_embeddings else (),
    )
    weights = [embed]
    if spec.per_layer_size:
        weights += _per_layer(spec)
    if spec.altup:
        weights += _streams(spec.altup, h)
    for index in range(spec.num_hidden_layers):
        weights += _layer(spec.of_layer(index), index)
    weights += _norm(spec, "final_norm", "model.norm", h, bias=spec.norm_bias)
    if not spec.tie_word_embeddings:
        weights.append(LogicalWeight("lm_head", "linear", (v, h), ("lm_head.weight",)))
    return tuple(weights)


def check_tensors(spec: ModelSpec, source: TensorSource) -> None:
    """Check that every tensor of the model exists with the shape that its config promises.

    Raises CheckpointError that names the tensor, the shape found and the shape expected.
    """
    present = set(source.names())
    for weight in logical_weights(spec):
        for part, shape in _part_shapes(spec, weight):
            if part not in present:
                hint = "The checkpoint is incomplete or belongs to another config.json."
                if part == "lm_head.weight":
                    hint = "If the model ties its embeddings, set tie_word_embeddings to true in config.json."
                raise CheckpointError(
                    f"The checkpoint has no tensor '{part}'; one of shape {list(shape)} is expected.", hint=hint
                )
            found = tuple(source.info(part).shape)
            if found != shape:
                raise CheckpointError(
                    f"The tensor '{part}' has shape {list(found)}; config.json asks for {list(shape)}.",
                    hint="The checkpoint and config.json do not belong together.",
                )


def _part_shapes(spec: ModelSpec, weight: LogicalWeight) -> Iterator[tuple[str, tuple[int, ...]]]:
    whole, count = weight.shape[0], len(weight.parts)
    if weight.name.endswith((".attn.qkv", ".attn.qkv.bias")):
        spec = spec.of_layer(int(weight.name.split(".")[1]))
        rows: tuple[int, ...] = (spec.q_size, spec.kv_size, spec.kv_size)
    else:
        rows = weight.rows or (whole // count,) * count
    for part, count in zip(weight.parts, rows, strict=True):
        yield part, (count, *weight.shape[1:])


def _layer(spec: ModelSpec, index: int) -> list[LogicalWeight]:
    name, source = f"layers.{index}", f"model.layers.{index}"
    h, inner = spec.hidden_size, spec.intermediate_size
    weights: list[LogicalWeight] = []

    def norm(role: str, tensor: str, size: int, *, bias: bool = spec.norm_bias) -> None:
        weights.extend(_norm(spec, f"{name}.{role}", f"{source}.{tensor}", size, bias=bias))

    def linear(role: str, tensors: tuple[str, ...], shape: tuple[int, int], bias: bool) -> None:
        weights.extend(_linear(name, source, role, tensors, shape, bias))

    if spec.norm_placement != "post":
        norm("input_norm", "input_layernorm", h)
    recurrent = spec.layers[index].recurrent
    if recurrent is None:
        weights += _attention(spec, name, source, own_keys=spec.layers[index].keys_of is None)
    else:
        weights += _recurrent(recurrent, name, source, h)
    if spec.altup:
        linear("laurel.left", ("laurel.linear_left",), (spec.altup.laurel_rank, h), False)
        linear("laurel.right", ("laurel.linear_right",), (h, spec.altup.laurel_rank), False)
        norm("laurel.norm", "laurel.post_laurel_norm", h)
    if not spec.parallel:
        norm("post_attention_norm", "post_attention_layernorm", h)
    if spec.norm_placement == "sandwich":
        norm("pre_feedforward_norm", "pre_feedforward_layernorm", h)
    if spec.layers[index].mixture and spec.experts is not None:
        weights += _mixture(spec, spec.experts, f"{name}.mlp", f"{source}.mlp")
    else:
        if spec.gated_mlp:
            linear("mlp.gate", ("mlp.gate_proj",), (inner, h), spec.mlp_bias)
        linear("mlp.up", ("mlp.up_proj",), (inner, h), spec.mlp_bias)
        if spec.activation == "xielu":
            weights += [
                LogicalWeight(f"{name}.mlp.{part}", "bias", (1,), (f"{source}.mlp.act_fn.{part}",))
                for part in ("alpha_p", "alpha_n")
            ]
        if spec.sub_norms:
            norm("mlp.sub_norm", "mlp.ffn_sub_norm", inner)
        linear("mlp.down", ("mlp.down_proj",), (h, inner), spec.mlp_bias)
    if spec.norm_placement != "pre":
        norm("post_feedforward_norm", "post_feedforward_layernorm", h)
    return weights + (_end(spec, name, source) if spec.has_own_sizes else [])


def _end(spec: ModelSpec, name: str, source: str) -> list[LogicalWeight]:
    """What predicts and corrects residual streams, what reads the second embedding, and the layer's scalar."""
    h, size = spec.hidden_size, spec.per_layer_size
    weights = _altup(spec, spec.altup, name, source) if spec.altup else []
    if size:
        weights += _linear(name, source, "per_layer.gate", ("per_layer_input_gate",), (size, h), False)
        weights += _linear(name, source, "per_layer.out", ("per_layer_projection",), (h, size), False)
        weights += _norm(spec, f"{name}.per_layer.norm", f"{source}.post_per_layer_input_norm", h, bias=False)
    if spec.layer_scalars:
        weights.append(LogicalWeight(f"{name}.scalar", "bias", (1,), (f"{source}.layer_scalar",)))
    return weights


def _altup(spec: ModelSpec, altup: AltUpSpec, name: str, source: str) -> list[LogicalWeight]:
    """The router of a layer's streams, and its matrices of coefficients, tiny and in float32."""
    h, streams, own = spec.hidden_size, altup.streams, f"{source}.altup"
    matrices = (
        ("router", (streams, h), "modality_router"),
        ("predict", (streams**2, streams), "prediction_coefs"),
        ("correct", (streams, streams), "correction_coefs"),
    )
    weights = _norm(spec, f"{name}.altup.router_norm", f"{own}.router_norm", h, bias=False)
    weights += [
        LogicalWeight(f"{name}.altup.{role}", "router", shape, (f"{own}.{tensor}.weight",))
        for role, shape, tensor in matrices
    ]
    if altup.scaled:
        weights.append(LogicalWeight(f"{name}.altup.scale", "bias", (h,), (f"{own}.correct_output_scale",)))
    return weights


def _streams(altup: AltUpSpec, hidden: int) -> list[LogicalWeight]:
    """What makes the further streams of the embedding, all in one matrix, and what takes each of them back."""
    others = range(altup.streams - 1)
    made = tuple(f"model.altup_projections.{index}.weight" for index in others)
    taken = (f"model.altup_unembed_projections.{index}.weight" for index in others)
    return [
        LogicalWeight("altup.in", "linear", (len(others) * hidden, hidden), made),
        *(LogicalWeight(f"altup.out.{index}", "linear", (hidden, hidden), (name,)) for index, name in enumerate(taken)),
    ]


def _per_layer(spec: ModelSpec) -> list[LogicalWeight]:
    """The embedding that the layers read parts of, and what is added to it of the model's own embedding."""
    width = spec.num_hidden_layers * spec.per_layer_size
    name, model = "per_layer", "model.per_layer"
    return [
        LogicalWeight(
            f"{name}.embed", "embedding", (spec.per_layer_vocab, width), ("model.embed_tokens_per_layer.weight",)
        ),
        LogicalWeight(f"{name}.in", "linear", (width, spec.hidden_size), (f"{model}_model_projection.weight",)),
        *_norm(spec, f"{name}.norm", f"{model}_projection_norm", spec.per_layer_size, bias=False),
    ]


def _attention(spec: ModelSpec, name: str, source: str, *, own_keys: bool) -> list[LogicalWeight]:
    """Attention of the layer ``name``, which is ``source`` in the checkpoint, with keys of its own or another's."""
    h, qkv = spec.hidden_size, spec.q_size + 2 * spec.kv_size
    projections = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    if own_keys:
        weights = _linear(name, source, "attn.qkv", projections, (qkv, h), spec.qkv_bias)
    else:
        weights = _linear(name, source, "attn.query", projections[:1], (spec.q_size, h), spec.qkv_bias)
    if spec.qk_norm != "none":
        for which, whole in (("q", spec.q_size), ("k", spec.kv_size))[: 2 if own_keys else 1]:
            size = whole if spec.qk_norm == "full" else spec.head_dim
            weights += _norm(spec, f"{name}.attn.{which}_norm", f"{source}.self_attn.{which}_norm", size, bias=False)
    if spec.attention_sinks:
        weights.append(
            LogicalWeight(f"{name}.attn.sinks", "bias", (spec.num_attention_heads,), (f"{source}.self_attn.sinks",))
        )
    if spec.output_gate:
        weights += _linear(name, source, "attn.output_gate", ("self_attn.gate_proj",), (spec.q_size, h), spec.qkv_bias)
    if spec.sub_norms:
        weights += _norm(spec, f"{name}.attn.sub_norm", f"{source}.self_attn.attn_sub_norm", spec.q_size, bias=False)
    return weights + _linear(name, source, "attn.o", ("self_attn.o_proj",), (h, spec.q_size), spec.o_bias)


def _recurrent(recurrent: RecurrentSpec, name: str, source: str, hidden: int) -> list[LogicalWeight]:
    if isinstance(recurrent, ShortConvSpec):
        return _short_conv(recurrent, name, source)
    if isinstance(recurrent, GatedDeltaSpec):
        return _gated_delta(recurrent, name, source, hidden)
    return _mamba2(recurrent, name, source, hidden)


def _short_conv(conv: ShortConvSpec, name: str, source: str) -> list[LogicalWeight]:
    """A short convolution: the projections in (b, c, x by rows) and out, and its kernel, one row a channel."""
    size = conv.channels
    weights = _linear(name, source, "conv.in", ("conv.in_proj",), (3 * size, size), conv.bias)
    weights.append(LogicalWeight(f"{name}.conv.kernel", "kernel", (size, conv.kernel), (f"{source}.conv.conv.weight",)))
    if conv.bias:
        weights.append(LogicalWeight(f"{name}.conv.kernel.bias", "bias", (size,), (f"{source}.conv.conv.bias",)))
    return weights + _linear(name, source, "conv.out", ("conv.out_proj",), (size, size), conv.bias)


def _gated_delta(delta: GatedDeltaSpec, name: str, source: str, hidden: int) -> list[LogicalWeight]:
    """A gated delta rule: one matrix for queries, keys, values and the gate of the output, and one in float32 for b and
    a, which decide what is forgotten.
    """
    own, heads = f"{source}.linear_attn", delta.value_heads
    rows = (delta.channels, delta.values)
    parts = (f"{own}.in_proj_qkv.weight", f"{own}.in_proj_z.weight")
    gates = (f"{own}.in_proj_b.weight", f"{own}.in_proj_a.weight")
    return [
        LogicalWeight(f"{name}.delta.in", "linear", (sum(rows), hidden), parts, rows=rows),
        LogicalWeight(f"{name}.delta.gates", "router", (2 * heads, hidden), gates),
        LogicalWeight(f"{name}.delta.kernel", "kernel", (delta.channels, delta.kernel), (f"{own}.conv1d.weight",)),
        LogicalWeight(f"{name}.delta.a_log", "bias", (heads,), (f"{own}.A_log",)),
        LogicalWeight(f"{name}.delta.dt_bias", "bias", (heads,), (f"{own}.dt_bias",)),
        LogicalWeight(f"{name}.delta.norm", "norm", (delta.value_size,), (f"{own}.norm.weight",)),
        LogicalWeight(f"{name}.delta.out", "linear", (hidden, delta.values), (f"{own}.out_proj.weight",)),
    ]


def _mamba2(mamba: Mamba2Spec, name: str, source: str, hidden: int) -> list[LogicalWeight]:
    """A Mamba 2 layer: one matrix for the gate and the convolution's channels, and one in float32 for the time steps,
    which decide what is forgotten.
    """
    own, role, heads, channels = f"{source}.mamba", f"{name}.mamba", mamba.heads, mamba.channels
    weights = _linear(name, source, "mamba.in", ("mamba.in_proj",), (mamba.values + channels, hidden), mamba.bias)
    weights.append(LogicalWeight(f"{role}.gates", "router", (heads, hidden), (f"{own}.dt_proj.weight",)))
    vectors = [("gates.bias", "dt_proj.bias", heads)] if mamba.bias else []
    vectors += [("kernel.bias", "conv1d.bias", channels)] if mamba.conv_bias else []
    vectors += [("a_log", "A_log", heads), ("dt_bias", "dt_bias", heads), ("d", "D", heads)]
    weights.append(LogicalWeight(f"{role}.kernel", "kernel", (channels, mamba.kernel), (f"{own}.conv1d.weight",)))
    weights += [
        LogicalWeight(f"{role}.{part}", "bias", (size,), (f"{own}.{stored}",)) for part, stored, size in vectors
    ]
    weights.append(LogicalWeight(f"{role}.norm", "norm", (mamba.values,), (f"{own}.norm.weight",)))
    return weights + _linear(name, source, "mamba.out", ("mamba.out_proj",), (hidden, mamba.values), mamba.bias)


def _linear(
    name: str, source: str, role: str, tensors: tuple[str, ...], shape: tuple[int, int], bias: bool
) -> list[LogicalWeight]:
    parts = tuple(f"{source}.{tensor}" for tensor in tensors)
    weights = [LogicalWeight(f"{name}.{role}", "linear", shape, tuple(f"{p}.weight" for p in parts))]
    if bias:
        weights.append(LogicalWeight(f"{name}.{role}.bias", "bias", shape[:1], tuple(f"{p}.bias" for p in parts)))
    return weights


def _mixture(spec: ModelSpec, experts: ExpertsSpec, name: str, source: str) -> list[LogicalWeight]:
    """Router and experts of a layer whose MLP is called ``name``, and ``source`` in the checkpoint."""
    h, inner, count = spec.hidden_size, experts.intermediate_size, experts.count
    weights = [LogicalWeight(f"{name}.router", "router", (count, h), (f"{source}.router.weight",))]
    if experts.router_bias:
        weights.append(LogicalWeight(f"{name}.router.bias", "bias", (count,), (f"{source}.router.bias",)))
    if experts.selection:
        weights.append(LogicalWeight(f"{name}.router.selection", "bias", (count,), (f"{source}.router.selection",)))
    for role, rows, columns in (("gate_up", 2 * inner, h), ("down", h, inner)):
        modules = [f"{source}.experts.{expert}.{role}_proj" for expert in range(count)]
        parts = tuple(f"{module}.weight" for module in modules)
        weights.append(LogicalWeight(f"{name}.experts.{role}", "experts", (count * rows, columns), parts))
        if experts.bias:
            parts = tuple(f"{module}.bias" for module in modules)
            weights.append(LogicalWeight(f"{name}.experts.{role}.bias", "bias", (count * rows,), parts))
    if size := experts.shared_size:
        for role, shape in (("gate", (size, h)), ("up", (size, h)), ("down", (h, size))):
            weights.append(
                LogicalWeight(f"{name}.shared.{role}", "linear", shape, (f"{source}.shared.{role}_proj.weight",))
            )
        if experts.shared_gated:
            weights.append(
                LogicalWeight(f"{name}.shared.router", "router", (1, h), (f"{source}.shared.router.weight",))
            )
    return weights


def _norm(spec: ModelSpec, name: str, tensor: str, size: int, *, bias: bool) -> list[LogicalWeight]:
    weights = [LogicalWeight(name, "norm", (size,), (f"{tensor}.weight",), offset=spec.norm_offset)]
    if bias:
        weights.append(LogicalWeight(f"{name}.bias", "bias", (size,), (f"{tensor}.bias",)))
    return weights
