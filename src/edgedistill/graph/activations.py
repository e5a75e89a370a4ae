"""Activations of MLPs, and what is done to their inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgedistill.architecture.spec import Activation
    from edgedistill.graph.builder import GraphBuilder
    from edgedistill.graph.weights import WeightEmitter

XIELU_BETA = 0.5
XIELU_EPS = -1e-6
"""Constants of every published xIELU model; a checkpoint carries them as tensors of their own."""


def activate(
    b: GraphBuilder, weights: WeightEmitter, kind: Activation, x: ir.Value, *, name: str, output: str
) -> ir.Value:
    """The activation ``kind`` of ``x`` float32 of any shape, called ``output``; ``name`` prefixes what it needs."""
    if kind == "silu":
        # ONNX Runtime fuses this pair into one operator.
        return b.call("Mul", [x, b.call("Sigmoid", [x], f"{name}.sigmoid")], output)
    if kind == "relu2":
        positive = b.call("Relu", [x], f"{name}.relu")
        return b.call("Mul", [positive, positive], output)
    if kind == "xielu":
        alphas = [weights.vector(b, f"{name}.{part}") for part in ("alpha_p", "alpha_n")]
        return xielu(b, x, *alphas, name=name, output=output)
    return b.call("Gelu", [x], output, approximate="tanh" if kind == "gelu_tanh" else "none")


def outstanding(b: GraphBuilder, x: ir.Value, deviations: float, name: str) -> ir.Value:
    """How far ``x`` float32 [B, S, I] exceeds its mean over I by more than ``deviations`` standard deviations, else 0
    (transformers ``models/gemma3n``, ``_gaussian_topk``); values are called ``name`` and so on.
    """
    last = b.constant("axis_last", np.array([-1], dtype=np.int64))
    factor = b.constant(f"{name}.deviations", np.array(deviations, dtype=np.float32))
    centered = b.call("Sub", [x, b.call("ReduceMean", [x, last], f"{name}.mean", keepdims=1)], f"{name}.centered")
    squared = b.call("Mul", [centered, centered], f"{name}.squared")
    deviation = b.call("Sqrt", [b.call("ReduceMean", [squared, last], f"{name}.variance", keepdims=1)], f"{name}.std")
    cutoff = b.call("Mul", [deviation, factor], f"{name}.cutoff")
    return b.call("Relu", [b.call("Sub", [centered, cutoff], f"{name}.above")], name)


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


def rounded(b: GraphBuilder, x: ir.Value) -> ir.Value:
    """``x`` float32 [..., K] rounded to 8 bits per token, of its largest magnitude, as BitNet's matrices take it
    (transformers ``integrations/bitnet``); made once for each input.
    """
    last = b.constant("axis_last", np.array([-1], dtype=np.int64))
    least = b.constant("rounded.least", np.array(1e-5, dtype=np.float32))
    top = b.constant("rounded.top", np.array(127.0, dtype=np.float32))
    largest = b.once("ReduceMax", [b.once("Abs", [x], f"{x.name}.magnitude"), last], f"{x.name}.largest", keepdims=1)
    scale = b.once("Div", [top, b.once("Max", [largest, least], f"{x.name}.bounded")], f"{x.name}.scale")
    codes = b.once("Round", [b.once("Mul", [x, scale], f"{x.name}.scaled")], f"{x.name}.codes")
    return b.once("Div", [codes, scale], f"{x.name}.rounded")
