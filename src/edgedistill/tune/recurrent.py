"""Layers with a state, over whole sequences and with gradients: short convolution, gated delta rule, Mamba 2.

The formulas are those of ``architecture.recurrent``. The two rules that keep a matrix are computed in chunks: within
one, every token's output is a product of matrices, and only the state between two chunks is kept for the gradient,
where token by token every token's would be.

Imports PyTorch, which is an extra: only functions may import this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch  # noqa: TID251
from torch.nn import functional  # noqa: TID251

from edgedistill.architecture.recurrent import Mamba2Spec, ShortConvSpec
from edgedistill.tune.options import STATE_CHUNK

if TYPE_CHECKING:
    from edgedistill.architecture.recurrent import GatedDeltaSpec, RecurrentSpec
    from edgedistill.tune.decoder import Weights

_LENGTH_EPS = 1e-6


def recurrent(weights: Weights, spec: RecurrentSpec, index: int, x: torch.Tensor, eps: float) -> torch.Tensor:
    """What layer ``index`` makes of ``x`` float32 [B, S, H], from states of zeros: float32 [B, S, H].

    ``eps`` is that of the model's norms.
    """
    if isinstance(spec, ShortConvSpec):
        return _short_conv(weights, spec, f"layers.{index}.conv", x)
    if isinstance(spec, Mamba2Spec):
        return _mamba2(weights, spec, f"layers.{index}.mamba", x, eps)
    return _gated_delta(weights, spec, f"layers.{index}.delta", x, eps)


def _short_conv(weights: Weights, conv: ShortConvSpec, name: str, x: torch.Tensor) -> torch.Tensor:
    before, after, value = weights.linear(x, f"{name}.in", bias=conv.bias).chunk(3, -1)
    gated = after * _causal_conv(weights, name, before * value, bias=conv.bias)
    return weights.linear(gated, f"{name}.out", bias=conv.bias)


def _gated_delta(weights: Weights, delta: GatedDeltaSpec, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    mixed, gate = weights.linear(x, f"{name}.in").split([delta.channels, delta.values], -1)
    mixed = functional.silu(_causal_conv(weights, name, mixed, bias=False))
    query, key, value = mixed.split([delta.keys, delta.keys, delta.values], -1)
    query, key = (
        _unit(_heads(part, delta.key_heads)).repeat_interleave(delta.value_heads // delta.key_heads, 1)
        for part in (query, key)
    )
    rate, time = weights.linear(x, f"{name}.gates").mT.chunk(2, 1)
    steps = functional.softplus(time + weights.vector(f"{name}.dt_bias")[:, None])
    decay = -weights.vector(f"{name}.a_log").exp()[:, None] * steps
    out = scan(query * delta.key_size**-0.5, key, _heads(value, delta.value_heads), decay, rate.sigmoid())
    normed = functional.rms_norm(out, (delta.value_size,), weights.vector(f"{name}.norm"), eps)
    return weights.linear(normed.transpose(1, 2).flatten(2) * functional.silu(gate), f"{name}.out")


def _mamba2(weights: Weights, mamba: Mamba2Spec, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    gate, mixed = weights.linear(x, f"{name}.in", bias=mamba.bias).split([mamba.values, mamba.channels], -1)
    mixed = functional.silu(_causal_conv(weights, name, mixed, bias=mamba.conv_bias))
    value, key, query = mixed.split([mamba.values, mamba.state_size, mamba.state_size], -1)
    value = _heads(value, mamba.heads)
    time = weights.linear(x, f"{name}.gates", bias=mamba.bias).mT
    steps = functional.softplus(time + weights.vector(f"{name}.dt_bias")[:, None])
    decay = -weights.vector(f"{name}.a_log").exp()[:, None] * steps
    out = scan(query[:, None], key[:, None], value * steps[..., None], decay)
    out = out + value * weights.vector(f"{name}.d")[:, None, None]
    active = out.transpose(1, 2).flatten(2) * functional.silu(gate)
    normed = functional.rms_norm(active, (mamba.values,), weights.vector(f"{name}.norm"), eps)
    return weights.linear(normed, f"{name}.out", bias=mamba.bias)


def scan(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    rate: torch.Tensor | None = None,
) -> torch.Tensor:
    """Outputs S_t q_t of a state of zeros that becomes S_t = a_t S_(t-1) + u_t k_t^T: float32 [B, heads, S, V].

    u is the value or, with a ``rate`` b (the delta rule), b_t (v_t - a_t S_(t-1) k_t). In a chunk, where G_t is the sum
    of log a up to t, S_t = exp(G_t) S_0 + sum over s <= t of exp(G_t - G_s) u_s k_s^T. That makes u of the delta rule
    the solution of a triangular system (Yang et al. 2024, arXiv:2412.06464, section 3.3).

    Args:
        query, key: float32 [B, heads, S, K]; one head is shared by all.
        value: float32 [B, heads, S, V].
        decay: log a, float32 [B, heads, S].
        rate: float32 [B, heads, S].
    """
    state = value.new_zeros(*value.shape[:2], value.shape[3], key.shape[3])
    parts = []
    for start in range(0, value.shape[2], STATE_CHUNK):
        here = slice(start, start + STATE_CHUNK)
        q, k, u, total = query[:, :, here], key[:, :, here], value[:, :, here], decay[:, :, here].cumsum(-1)
        size = total.shape[-1]
        later = torch.ones(size, size, dtype=torch.bool).triu(1)
        weight = (total[..., None] - total[..., None, :]).masked_fill(later, -torch.inf).exp()
        grown = total.exp()[..., None]
        if rate is not None:
            b = rate[:, :, here, None]
            earlier = (b * weight * (k @ k.mT)).tril(-1)
            wanted = b * (u - grown * (k @ state.mT))
            u = torch.linalg.solve_triangular(earlier, wanted, upper=False, unitriangular=True)
        parts.append(grown * (q @ state.mT) + (weight * (q @ k.mT)) @ u)
        left = (total[..., -1:] - total).exp()[..., None]
        state = grown[..., -1:, :] * state + (left * u).mT @ k
    return torch.cat(parts, 2)


def _causal_conv(weights: Weights, name: str, x: torch.Tensor, *, bias: bool) -> torch.Tensor:
    """The depthwise convolution ``{name}.kernel`` [C, width] of ``x`` float32 [B, S, C] behind zeros."""
    kernel = weights.vector(f"{name}.kernel")
    padded = functional.pad(x.mT, (kernel.shape[1] - 1, 0))
    offset = weights.vector(f"{name}.kernel.bias") if bias else None
    return functional.conv1d(padded, kernel[:, None], offset, groups=len(kernel)).mT


def _heads(x: torch.Tensor, count: int) -> torch.Tensor:
    """[B, S, heads * size] as [B, heads, S, size]."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + _LENGTH_EPS)
