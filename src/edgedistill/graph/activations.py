"""Activations that ONNX has no operator for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgedistill.graph.builder import GraphBuilder

XIELU_BETA = 0.5
XIELU_EPS = -1e-6
"""Constants of every published xIELU model; a checkpoint carries them as tensors of their own."""


def xielu(b: GraphBuilder, x: ir.Value, alpha_p: ir.Value, alpha_n: ir.Value, *, name: str, output: str) -> ir.Value:
    """xIELU (Huang and Schlag 2024, arXiv:2411.13010), with a_p = softplus(alpha_p), a_n = beta + softplus(alpha_n):
    a_p x^2 + beta x for x > 0, else a_n (expm1(min(x, eps)) - x) + beta x.

    Args:
        b: Gets the nodes.
        x: float32 of any shape. ``alpha_p``, ``alpha_n``: float32 [1].
        name: Prefix of the values between. ``output``: name of the result.
    """
    beta, eps, one, zero = (
        b.constant(f"xielu.{part}", np.array(value, dtype=np.float32))
        for part, value in (("beta", XIELU_BETA), ("eps", XIELU_EPS), ("one", 1.0), ("zero", 0.0))
    )
    positive = b.call("Softplus", [alpha_p], f"{name}.a_p")
    negative = b.call("Add", [b.call("Softplus", [alpha_n], f"{name}.a_n.softplus"), beta], f"{name}.a_n")
    linear = b.call("Mul", [x, beta], f"{name}.linear")
    square = b.call("Mul", [b.call("Mul", [x, x], f"{name}.squared"), positive], f"{name}.square")
    grown = b.call(
        "Sub", [b.call("Exp", [b.call("Min", [x, eps], f"{name}.low")], f"{name}.exp"), one], f"{name}.expm1"
    )
    curved = b.call("Mul", [b.call("Sub", [grown, x], f"{name}.curve"), negative], f"{name}.curved")
    above = b.call("Greater", [x, zero], f"{name}.above")
    return b.call("Add", [b.call("Where", [above, square, curved], f"{name}.branch"), linear], output)
