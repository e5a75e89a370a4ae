"""A mixture of experts: the router's product, and ONNX Runtime's MoE or QMoE over all experts' matrices.

Both operators choose the experts of the largest logits and weight them by the softmax of just these, which is what
``normalized`` routing is. Without normalization the weights are smaller by one factor a token, the sum of the chosen
probabilities, and the result is multiplied by that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgedistill.architecture.spec import ExpertsSpec
    from edgedistill.graph.builder import GraphBuilder
    from edgedistill.graph.weights import WeightEmitter


def mixture(b: GraphBuilder, weights: WeightEmitter, experts: ExpertsSpec, x: ir.Value, name: str) -> ir.Value:
    """The MLP ``name`` of ``x`` float32 [B, S, H]: float32 [B, S, H]."""
    logits = weights.linear(
        b, x, f"{name}.router", output=f"{name}.router.out", bias=f"{name}.router.bias" if experts.router_bias else None
    )
    by_token = b.constant("router_by_token", np.array([-1, experts.count], dtype=np.int64))
    flat = b.call("Reshape", [logits, by_token], f"{name}.router.by_token")
    out = weights.experts(b, x, flat, f"{name}.experts", experts, output=f"{name}.experts.out")
    if experts.normalized:
        return out
    probabilities = b.call("Softmax", [logits], f"{name}.router.probabilities", axis=-1)
    active = b.constant("router_active", np.array([experts.active], dtype=np.int64))
    last = b.constant("axis_last", np.array([-1], dtype=np.int64))
    chosen, _ = b.op("TopK", [probabilities, active], f"{name}.router.chosen", outputs=2, axis=-1, sorted=0)
    share = b.call("ReduceSum", [chosen, last], f"{name}.router.share", keepdims=1)
    return b.call("Mul", [out, share], f"{name}.experts.weighted")


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
