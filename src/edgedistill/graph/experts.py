"""A mixture of experts: the router's product, and ONNX Runtime's MoE or QMoE over all experts' matrices.

Both operators choose the experts of the largest logits and weight them by the softmax of just these, which is what
``normalized`` routing is. Without normalization the weights are smaller by one factor a token, the sum of the chosen
probabilities, and the result is multiplied by that. Weights by sigmoids are the same operator's, whose logits then are
the logarithms of the sigmoids, and nearly minus infinity where an expert is not chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.graph.builder import MICROSOFT

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgedistill.architecture.spec import ExpertsSpec
    from edgedistill.graph.builder import GraphBuilder
    from edgedistill.graph.weights import WeightEmitter


_NEVER = -1e30
_SHARE_EPS = 1e-6
"""Added to the sum of sigmoids that divides them (transformers' ``Lfm2MoeTopKRouter``)."""


def mixture(b: GraphBuilder, weights: WeightEmitter, experts: ExpertsSpec, x: ir.Value, name: str) -> ir.Value:
    """The MLP ``name`` of ``x`` float32 [B, S, H]: float32 [B, S, H]."""
    logits = weights.linear(
        b, x, f"{name}.router", output=f"{name}.router.out", bias=f"{name}.router.bias" if experts.router_bias else None
    )
    by_token = b.constant("router_by_token", np.array([-1, experts.count], dtype=np.int64))
    routed, factor = _by_sigmoid(b, weights, experts, logits, name) if experts.sigmoid else (logits, None)
    flat = b.call("Reshape", [routed, by_token], f"{name}.router.by_token")
    out = weights.experts(b, x, flat, f"{name}.experts", experts, output=f"{name}.experts.out")
    if factor is not None:
        return b.call("Mul", [out, factor], f"{name}.experts.weighted")
    if experts.normalized:
        return out
    probabilities = b.call("Softmax", [logits], f"{name}.router.probabilities", axis=-1)
    active = b.constant("router_active", np.array([experts.active], dtype=np.int64))
    last = b.constant("axis_last", np.array([-1], dtype=np.int64))
    chosen, _ = b.op("TopK", [probabilities, active], f"{name}.router.chosen", outputs=2, axis=-1, sorted=0)
    share = b.call("ReduceSum", [chosen, last], f"{name}.router.share", keepdims=1)
    return b.call("Mul", [out, share], f"{name}.experts.weighted")


def _by_sigmoid(
    b: GraphBuilder, weights: WeightEmitter, experts: ExpertsSpec, logits: ir.Value, name: str
) -> tuple[ir.Value, ir.Value]:
    """Logits float32 [B, S, E] for the operator from the router's, and the factor [B, S, 1] on what it gives.

    LinearAttentionGate gives softplus(-logit), element by element: minus the logarithm of the sigmoid.
    """

    def number(what: str, value: float) -> ir.Value:
        return b.constant(f"router_{what}", np.array(value, dtype=np.float32))

    def summed(values: ir.Value, what: str, operator: str) -> ir.Value:
        last = b.constant("axis_last", np.array([-1], dtype=np.int64))
        return b.call(operator, [values, last], f"{name}.router.{what}", keepdims=1)

    scores = b.call("Sigmoid", [logits], f"{name}.router.scores")
    ranked = scores
    if experts.selection:
        ranked = b.call("Add", [scores, weights.vector(b, f"{name}.router.selection")], f"{name}.router.ranked")
    active = b.constant("router_active", np.array([experts.active], dtype=np.int64))
    highest, _ = b.op("TopK", [ranked, active], f"{name}.router.chosen", outputs=2, axis=-1, sorted=0)
    chosen = b.call("GreaterOrEqual", [ranked, summed(highest, "least", "ReduceMin")], f"{name}.router.is_chosen")
    zeros, ones = (b.constant(f"router_{n}s", np.full(experts.count, n, dtype=np.float32)) for n in (0, 1))
    turned = b.call("Neg", [logits], f"{name}.router.turned")
    missing = b.call("LinearAttentionGate", [turned, zeros, ones], f"{name}.router.missing", domain=MICROSOFT)
    logarithms = b.call("Neg", [missing], f"{name}.router.logarithms")
    routed = b.call("Where", [chosen, logarithms, number("never", _NEVER)], f"{name}.router.routed")
    kept = b.call("Where", [chosen, scores, number("nothing", 0.0)], f"{name}.router.kept")
    factor = summed(kept, "share", "ReduceSum")
    if experts.normalized:
        total = b.call("Add", [factor, number("eps", _SHARE_EPS)], f"{name}.router.total")
        factor = b.call("Div", [factor, total], f"{name}.router.normalized")
    if experts.scaling != 1.0:
        factor = b.call("Mul", [factor, number("scaling", experts.scaling)], f"{name}.router.scaled")
    return routed, factor


def attributes(experts: ExpertsSpec) -> dict[str, Any]:
    """Attributes that MoE and QMoE share."""
    found: dict[str, Any] = {
        "k": experts.active,
        "activation_type": "swiglu",
        "swiglu_fusion": 1,
        "normalize_routing_weights": 1,
        "activation_alpha": experts.sigmoid_scale,
        "activation_beta": experts.up_offset,
    }
    return found if experts.limit is None else found | {"swiglu_limit": experts.limit}
