"""The decoder as an ONNX graph over fused operators, from a ``ModelSpec`` alone.

Three signatures share every weight:

``edgedistill``: B sequences in slots of a KV cache of capacity C, each with its own past and its own number of new
tokens (right-padded to S), logits for chosen positions only.

    ============================== ======= ======================== =============================================
    input                          type    shape                    meaning
    ============================== ======= ======================== =============================================
    input_ids                      int64   [B, S]                   new tokens
    seqlens_k                      int32   [B]                      past + valid new tokens - 1
    query_seqlens                  int32   [B]                      valid new tokens (0: the slot is idle)
    total_sequence_length          int32   []                       C, always
    logit_index                    int64   [B, P]                   positions within S whose logits are wanted
    past_key_values.{i}.key/.value float32 [B, kv_heads, C, head]   keys are stored after RoPE
    ============================== ======= ======================== =============================================

    With ``kv`` scales the cache is int8, or uint8 [B, kv_heads, C, head/2] with two 4-bit values in a byte.

    Where layers have states, they have no cache; two inputs are added, and present_state.* to the outputs:

    ============================== ======= ======================== =============================================
    state_seqlens                  int32   [B]                      new tokens that enter the states; those behind
                                                                    them, up to query_seqlens, are only looked at
    past_state.{i}.{name}          float32 [B, ...]                 see ``architecture.recurrent``
    ============================== ======= ======================== =============================================

    Outputs: logits float32 [B, P, V] and present.{i}.key/.value, meant to be bound to the buffers of the past.

``genai``: what onnxruntime-genai feeds: input_ids, attention_mask int64 [B, total], past_key_values.*; outputs logits
[B, S, V] and present.*. Prompts of unequal length are padded on the right; each row's cache is as long as its tokens.

``portable``: what optimum and transformers.js feed: input_ids, attention_mask, position_ids int64 [B, S],
past_key_values.* of any length; outputs as for ``genai``. Prompts of unequal length are padded on the left: the cache
of every row is as long as the mask, and the mask hides what is padding. Keys are turned by their place in the cache,
which RoPE, relative as it is, takes as well as position_ids; these count where an absolute position does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgedistill.graph.activations import activate, outstanding, rounded
from edgedistill.graph.altup import Streams
from edgedistill.graph.attention import AttentionInputs, attention
from edgedistill.graph.builder import MICROSOFT, GraphBuilder
from edgedistill.graph.experts import mixture
from edgedistill.graph.inputs import GraphInputs
from edgedistill.graph.per_layer import leave, part_of_layer, per_layer_inputs
from edgedistill.graph.recurrent import recurrent

if TYPE_CHECKING:
    from edgedistill.architecture.spec import ExpertsSpec, LayerSpec, ModelSpec
    from edgedistill.graph.inputs import Signature
    from edgedistill.graph.weights import WeightEmitter
    from edgedistill.quantize.kv import KvScales

OPSET = 21
IR_VERSION = 10


def build_graph(
    spec: ModelSpec, weights: WeightEmitter, *, signature: Signature, context_length: int, kv: KvScales | None = None
) -> ir.Model:
    """Build the decoder; save it with ``onnx_ir.save`` beside the weights file.

    Args:
        spec: The model; with states it takes the signature ``edgedistill``.
        weights: Emitter that knows every array of ``logical_weights(spec)``.
        signature: Inputs and outputs, see the module's docstring.
        context_length: Positions in the RoPE tables: no sequence, and no cache capacity, may exceed it. With states
            there are ``inputs.SPARE`` more of them, for tokens that are only looked at.
        kv: Scales of a quantized KV cache, kept inside the graph; None: float32.
    """
    if not spec.is_uniform and signature != "edgedistill":
        raise ValueError(f"a model whose layers differ has no graph of the signature {signature}")
    b = GraphBuilder()
    inputs = GraphInputs(spec, signature, kv, context_length)
    attention_inputs = inputs.of_signature(b)
    decoder = Decoder(b, spec, weights)
    hidden, present = decoder.layers(decoder.embed(inputs.input_ids), attention_inputs, inputs.input_ids)
    if inputs.logit_index is not None:
        last_axis = b.constant("axis_last", np.array([-1], dtype=np.int64))
        index = b.call("Unsqueeze", [inputs.logit_index, last_axis], "logit_index.nd")
        hidden = b.call("GatherND", [hidden, index], "logit_hidden", batch_dims=1)
    logits = decoder.logits(hidden)
    logits.shape = ir.Shape(
        [inputs.batch, "logits" if inputs.logit_index is not None else inputs.sequence, spec.vocab_size]
    )
    logits.type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        inputs.all(),
        [logits, *present],
        nodes=b.nodes,
        initializers=list(b.initializers.values()),
        opset_imports={"": OPSET, MICROSOFT: 1},
        name=f"{spec.family}_{signature}",
    )
    metadata = {"edgedistill.signature": signature, "edgedistill.context_length": str(context_length)}
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="edgedistill", metadata_props=metadata)


class Decoder:
    """Embedding, layers and head; each method appends nodes and returns the values they make."""

    def __init__(self, b: GraphBuilder, spec: ModelSpec, weights: WeightEmitter) -> None:
        self._b = b
        self._spec = spec
        self._weights = weights
        self._streams = Streams(b, spec, spec.altup, weights) if spec.altup else None

    def embed(self, input_ids: ir.Value) -> ir.Value:
        hidden = self._weights.embedding(self._b, input_ids, "embed", output="embedding")
        if self._spec.embedding_scale is None:
            return hidden
        scale = self._b.constant("embedding_scale", np.array(self._spec.embedding_scale, dtype=np.float32))
        return self._b.call("Mul", [hidden, scale], "embedding.scaled")

    def layers(self, hidden: ir.Value, inputs: AttentionInputs, input_ids: ir.Value) -> tuple[ir.Value, list[ir.Value]]:
        """All layers and the final norm, and the present caches. The residual is added inside the norm after it."""
        spec = self._spec
        next_norms = [*(f"layers.{i}.input_norm" for i in range(1, spec.num_hidden_layers)), "final_norm"]
        streams, residual = None, hidden
        if self._streams:
            streams = self._streams.begin(hidden)
            residual = self._streams.active(streams, "layers.0.altup.active")
        normed = self.enter(residual, 0)
        present: list[ir.Value] = []
        per_layer = per_layer_inputs(self._b, spec, self._weights, input_ids, hidden)
        for layer, next_norm in zip(spec.layers, next_norms, strict=True):
            update, residual, key_value = self.layer(layer, normed, residual, inputs)
            present += key_value
            part = part_of_layer(self._b, layer, per_layer)
            if self._streams and streams and part:
                total = self._add(update, residual, f"layers.{layer.index}.sum")
                residual = streams = self._streams.leave(layer, total, streams, part, output=f"{next_norm}.sum")
                if next_norm != "final_norm":
                    residual = self._streams.active(streams, f"layers.{layer.index + 1}.altup.active")
                normed = self.norm(residual, next_norm)
            elif spec.has_own_sizes:
                total = self._add(update, residual, f"layers.{layer.index}.sum")
                residual = leave(self._b, spec, self._weights, layer, total, part, output=f"{next_norm}.sum")
                normed = self.norm(residual, next_norm)
            elif spec.norm_placement == "post" and next_norm != "final_norm":
                residual = self._add(update, residual, f"{next_norm}.sum")
                normed = self.enter(residual, layer.index + 1)
            else:
                normed, residual = self._skip_norm(update, residual, next_norm)
        return normed, present

    def enter(self, hidden: ir.Value, index: int) -> ir.Value:
        """What the attention of a layer reads: ``hidden`` behind its first norm, if it has one."""
        name = f"layers.{index}.input_norm"
        return self._b.call("Identity", [hidden], f"{name}.out") if self._post else self.norm(hidden, name)

    def layer(
        self, layer: LayerSpec, normed: ir.Value, residual: ir.Value, inputs: AttentionInputs
    ) -> tuple[ir.Value, ir.Value, tuple[ir.Value, ...]]:
        """One layer: what it adds to the residual at last, the residual so far, present key and value or states."""
        spec, name = self._spec, f"layers.{layer.index}"
        key_value: tuple[ir.Value, ...]
        if layer.recurrent is None:
            own = spec.of_layer(layer.index)
            update, key_value = attention(self._b, own, self._weights, layer, normed, inputs=inputs)
        else:
            assert inputs.states is not None
            update, key_value = recurrent(
                self._b, layer.recurrent, self._weights, layer.index, normed, inputs.states, eps=spec.rms_norm_eps
            )
        if spec.parallel:
            residual = self._add(update, residual, f"{name}.attn.sum")
            return self._mlp(layer, normed, f"{name}.mlp"), residual, key_value
        if spec.norm_placement != "pre":
            update = self.norm(update, f"{name}.post_attention_norm")
        if self._streams:
            residual = self._streams.with_laurel(layer, normed, update, residual)
            normed = self.norm(residual, f"{name}.{spec.mlp_input}")
        elif self._post:
            residual = self._add(update, residual, f"{name}.attn.sum")
            normed = self._b.call("Identity", [residual], f"{name}.{spec.mlp_input}.out")
        else:
            normed, residual = self._skip_norm(update, residual, f"{name}.{spec.mlp_input}")
        update = self._mlp(layer, normed, f"{name}.mlp")
        if spec.norm_placement != "pre":
            update = self.norm(update, f"{name}.post_feedforward_norm")
        return update, residual, key_value

    def logits(self, hidden: ir.Value) -> ir.Value:
        matrix = "embed" if self._spec.tie_word_embeddings else "lm_head"
        cap = self._spec.final_logit_softcapping
        if cap is None:
            return self._weights.linear(self._b, hidden, matrix, output="logits")
        raw = self._weights.linear(self._b, hidden, matrix, output="logits.raw")
        limit = self._b.constant("final_logit_softcapping", np.array(cap, dtype=np.float32))
        squashed = self._b.call("Tanh", [self._b.call("Div", [raw, limit], "logits.scaled")], "logits.tanh")
        return self._b.call("Mul", [squashed, limit], "logits")

    @property
    def _post(self) -> bool:
        return self._spec.norm_placement == "post"

    def _add(self, update: ir.Value, residual: ir.Value, name: str) -> ir.Value:
        return self._b.call("Add", [update, residual], name)

    def norm(self, x: ir.Value, name: str) -> ir.Value:
        if self._spec.norm == "layer":
            inputs = [x, self._weights.vector(self._b, name)]
            if self._spec.norm_bias:
                inputs.append(self._weights.vector(self._b, f"{name}.bias"))
            return self._b.call(
                "LayerNormalization", inputs, f"{name}.out", axis=-1, epsilon=self._spec.rms_norm_eps, stash_type=1
            )
        return self._b.call(
            "SimplifiedLayerNormalization",
            [x, self._weights.vector(self._b, name)],
            f"{name}.out",
            axis=-1,
            epsilon=self._spec.rms_norm_eps,
            stash_type=1,
        )

    def _skip_norm(self, x: ir.Value, residual: ir.Value, name: str) -> tuple[ir.Value, ir.Value]:
        """Norm of ``x + residual``, and that sum."""
        if self._spec.norm == "layer":
            total = self._add(x, residual, f"{name}.sum")
            return self.norm(total, name), total
        # The second and third output (statistics for training) are left out; an empty name says so.
        outputs = [ir.Value(name=n) for n in (f"{name}.out", "", "", f"{name}.sum")]
        self._b.nodes.append(
            ir.node(
                "SkipSimplifiedLayerNormalization",
                [x, residual, self._weights.vector(self._b, name)],
                {"epsilon": self._spec.rms_norm_eps},
                domain=MICROSOFT,
                outputs=outputs,
                name=name,
            )
        )
        return outputs[0], outputs[3]

    def _mlp(self, layer: LayerSpec, x: ir.Value, name: str) -> ir.Value:
        if layer.mixture and self._spec.experts is not None:
            out = mixture(self._b, self._weights, self._spec.experts, x, name)
            return self._with_shared(self._spec.experts, x, out, name) if self._spec.experts.shared_size else out
        up = self._linear(x, f"{name}.up")
        if not self._spec.gated_mlp:
            return self._linear(self._active(up, name, f"{name}.gated"), f"{name}.down")
        gate = self._linear(x, f"{name}.gate")
        if layer.gate_deviations is not None:
            gate = outstanding(self._b, gate, layer.gate_deviations, f"{name}.gate.sparse")
        active = self._active(gate, name, f"{name}.active")
        gated = self._b.call("Mul", [active, up], f"{name}.gated")
        return self._linear(self.norm(gated, f"{name}.sub_norm") if self._spec.sub_norms else gated, f"{name}.down")

    def _with_shared(self, experts: ExpertsSpec, x: ir.Value, routed: ir.Value, name: str) -> ir.Value:
        """``routed`` and what the expert that all tokens share makes of ``x``."""

        def linear(value: ir.Value, role: str) -> ir.Value:
            return self._weights.linear(self._b, value, f"{name}.shared.{role}", output=f"{name}.shared.{role}.out")

        active = self._active(linear(x, "gate"), f"{name}.shared", f"{name}.shared.active")
        out = linear(self._b.call("Mul", [active, linear(x, "up")], f"{name}.shared.gated"), "down")
        if experts.shared_gated:
            weight = self._b.call("Sigmoid", [linear(x, "router")], f"{name}.shared.weight")
            out = self._b.call("Mul", [out, weight], f"{name}.shared.weighted")
        return self._b.call("Add", [routed, out], f"{name}.out")

    def _active(self, x: ir.Value, name: str, output: str) -> ir.Value:
        return activate(self._b, self._weights, self._spec.activation, x, name=name, output=output)

    def _linear(self, x: ir.Value, name: str) -> ir.Value:
        bias = f"{name}.bias" if self._spec.mlp_bias else None
        x = rounded(self._b, x) if self._spec.rounded_inputs else x
        return self._weights.linear(self._b, x, name, output=f"{name}.out", bias=bias)
