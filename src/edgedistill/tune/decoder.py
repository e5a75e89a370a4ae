"""The decoder with gradients, from a ``ModelSpec`` and the logical weights: what ``graph.decoder`` builds.

Whole sequences, padded on the right: nothing looks ahead, so that padding changes nothing before it. Which matrices are
quantized, and what of them is trained, is the affair of whoever gives the weights.

Imports PyTorch, which is an extra: only functions may import this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch  # noqa: TID251
from torch.nn import functional  # noqa: TID251
from torch.utils.checkpoint import checkpoint  # noqa: TID251

from edgedistill.tune.recurrent import recurrent

if TYPE_CHECKING:
    from edgedistill.architecture.spec import ExpertsSpec, LayerSpec, ModelSpec, RopeSpec

XIELU_BETA, XIELU_EPS = 0.5, -1e-6
"""Constants of every published xIELU model."""
SHARE_EPS = 1e-6
"""Added to the sum of sigmoids that divides them (LFM2 MoE)."""
ALL = slice(None)


class Weights(Protocol):
    """The weights by their logical names."""

    def linear(self, x: torch.Tensor, name: str, *, rows: slice = ALL, bias: bool = False) -> torch.Tensor:
        """``x`` float32 [..., K] times the transposed ``rows`` of a matrix, plus those of ``{name}.bias``."""
        ...

    def embedding(self, ids: torch.Tensor, name: str) -> torch.Tensor:
        """Rows ``ids`` int64 [B, S] of a matrix: float32 [B, S, K]."""
        ...

    def vector(self, name: str) -> torch.Tensor:
        """A norm or bias float32 [N], or a kernel float32 [N, width]."""
        ...


class Decoder:
    """Hidden states of sequences.

    Args:
        spec: The model; without norms inside attention and MLP (BitNet) and without sizes of single layers (Gemma 4).
        weights: Its weights.
        context: The bundle's context, by which LongRoPE chooses its factors.
        recompute: Keep nothing inside the layers for the gradient, compute them again.
    """

    def __init__(self, spec: ModelSpec, weights: Weights, *, context: int, recompute: bool = False) -> None:
        self._spec, self._weights, self._context, self._recompute = spec, weights, context, recompute

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states float32 [B, S, H] behind the final norm, for int64 ids [B, S]."""
        hidden = self._weights.embedding(ids, "embed")
        if self._spec.embedding_scale is not None:
            hidden = hidden * self._spec.embedding_scale
        for layer in self._spec.layers:
            if self._recompute:
                hidden = checkpoint(self._layer, hidden, layer, use_reentrant=False)
            else:
                hidden = self._layer(hidden, layer)
        return self._norm(hidden, "final_norm")

    def _layer(self, hidden: torch.Tensor, layer: LayerSpec) -> torch.Tensor:
        spec, name = self._spec, f"layers.{layer.index}"
        post, around = spec.norm_placement == "post", spec.norm_placement != "pre"
        normed = hidden if post else self._norm(hidden, f"{name}.input_norm")
        if layer.recurrent is None:
            update = self._attention(normed, layer)
        else:
            update = recurrent(self._weights, layer.recurrent, layer.index, normed, spec.rms_norm_eps)
        if spec.parallel:
            return hidden + update + self._mlp(normed, layer)
        hidden = hidden + (self._norm(update, f"{name}.post_attention_norm") if around else update)
        normed = hidden if post else self._norm(hidden, f"{name}.{spec.mlp_input}")
        update = self._mlp(normed, layer)
        return hidden + (self._norm(update, f"{name}.post_feedforward_norm") if around else update)

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        spec, weight = self._spec, self._weights.vector(name)
        if spec.norm == "layer":
            bias = self._weights.vector(f"{name}.bias") if spec.norm_bias else None
            return functional.layer_norm(x, weight.shape, weight, bias, spec.rms_norm_eps)
        return functional.rms_norm(x, weight.shape, weight, spec.rms_norm_eps)

    # ---- attention ------------------------------------------------------------------------------------------

    def _attention(self, x: torch.Tensor, layer: LayerSpec) -> torch.Tensor:
        spec, weights, name = self._spec, self._weights, f"layers.{layer.index}.attn"
        projected = weights.linear(x, f"{name}.qkv", bias=spec.qkv_bias)
        query, key, value = projected.split([spec.q_size, spec.kv_size, spec.kv_size], -1)
        if spec.qk_norm == "full":
            query, key = self._norm(query, f"{name}.q_norm"), self._norm(key, f"{name}.k_norm")
        query, key, value = (part.unflatten(-1, (-1, spec.head_dim)).transpose(1, 2) for part in (query, key, value))
        if spec.qk_norm == "head":
            query, key = self._norm(query, f"{name}.q_norm"), self._norm(key, f"{name}.k_norm")
        if layer.rope is not None:
            cos, sin = rotation(layer.rope, x.shape[1], self._context)
            query, key = _rotated(query, cos, sin), _rotated(key, cos, sin)
        if spec.qk_norm == "head_after_rope":
            query, key = self._norm(query, f"{name}.q_norm"), self._norm(key, f"{name}.k_norm")
        if spec.query_scaling is not None and self._context > spec.query_scaling.length:
            position = torch.arange(x.shape[1], dtype=torch.float32)[:, None]
            passed = torch.floor(position / spec.query_scaling.length)
            query = query * (1 + spec.query_scaling.beta * torch.log1p(passed))
        groups = spec.num_attention_heads // spec.num_key_value_heads
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        seen = _seen(x.shape[1], layer.sliding_window)
        out = self._heads(query, key, value, seen, name).transpose(1, 2).flatten(2)
        if spec.output_gate:
            out = out * weights.linear(x, f"{name}.output_gate", bias=spec.qkv_bias).sigmoid()
        return weights.linear(out, f"{name}.o", bias=spec.o_bias)

    def _heads(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor, name: str
    ) -> torch.Tensor:
        """What the heads give, float32 [B, heads, S, D]; ``seen`` bool [S, S]: which keys a query sees."""
        spec, cap = self._spec, self._spec.attn_logit_softcapping
        if cap is None and not spec.attention_sinks:  # what PyTorch's fused attention knows
            return functional.scaled_dot_product_attention(query, key, value, seen, scale=spec.attention_scale)
        scores = query @ key.mT * spec.attention_scale
        scores = scores if cap is None else torch.tanh(scores / cap) * cap
        scores = scores.masked_fill(~seen, -torch.inf)
        if spec.attention_sinks:
            sinks = self._weights.vector(f"{name}.sinks")[:, None, None].expand(*scores.shape[:3], 1)
            return torch.cat([scores, sinks], -1).softmax(-1)[..., :-1] @ value
        return scores.softmax(-1) @ value

    # ---- MLP ------------------------------------------------------------------------------------------------

    def _mlp(self, x: torch.Tensor, layer: LayerSpec) -> torch.Tensor:
        spec, weights, name = self._spec, self._weights, f"layers.{layer.index}.mlp"
        if layer.mixture and spec.experts is not None:
            return self._mixture(x, spec.experts, name)
        up = weights.linear(x, f"{name}.up", bias=spec.mlp_bias)
        if spec.gated_mlp:
            up = up * self._activate(weights.linear(x, f"{name}.gate", bias=spec.mlp_bias), name)
        else:
            up = self._activate(up, name)
        return weights.linear(up, f"{name}.down", bias=spec.mlp_bias)

    def _mixture(self, x: torch.Tensor, experts: ExpertsSpec, name: str) -> torch.Tensor:
        """Router, active experts and the shared one; an expert reads only the tokens that chose it."""
        weights = self._weights
        flat = x.flatten(0, 1)
        logits = weights.linear(flat, f"{name}.router", bias=experts.router_bias)
        chosen, shares = self._routed(logits, experts, name)
        out = torch.zeros_like(flat)
        for expert in range(experts.count):
            token, place = (chosen == expert).nonzero(as_tuple=True)
            if len(token):
                one = self._expert(flat[token], experts, expert, f"{name}.experts")
                out = out.index_add(0, token, one * shares[token, place, None])
        out = out.view_as(x)
        if not experts.shared_size:
            return out
        active = self._activate(weights.linear(x, f"{name}.shared.gate"), f"{name}.shared")
        shared = weights.linear(active * weights.linear(x, f"{name}.shared.up"), f"{name}.shared.down")
        if experts.shared_gated:
            shared = shared * weights.linear(x, f"{name}.shared.router").sigmoid()
        return out + shared

    def _routed(self, logits: torch.Tensor, experts: ExpertsSpec, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The active experts int64 [tokens, active] by router logits float32 [tokens, E], and their shares."""
        if not experts.sigmoid:
            chosen = logits.topk(experts.active, -1)
            shares = chosen.values.softmax(-1) if experts.normalized else logits.softmax(-1).gather(-1, chosen.indices)
            return chosen.indices, shares
        scores = logits.sigmoid()
        ranked = scores + self._weights.vector(f"{name}.router.selection") if experts.selection else scores
        active = ranked.topk(experts.active, -1).indices
        shares = scores.gather(-1, active)
        if experts.normalized:
            shares = shares / (shares.sum(-1, keepdim=True) + SHARE_EPS)
        return active, shares * experts.scaling

    def _expert(self, x: torch.Tensor, experts: ExpertsSpec, expert: int, name: str) -> torch.Tensor:
        """One expert of ``x`` float32 [tokens, H]; see ``ExpertsSpec``."""

        def linear(value: torch.Tensor, role: str, size: int) -> torch.Tensor:
            rows = slice(expert * size, (expert + 1) * size)
            return self._weights.linear(value, f"{name}.{role}", rows=rows, bias=experts.bias)

        both = linear(x, "gate_up", 2 * experts.intermediate_size)
        gate, up = both[..., ::2], both[..., 1::2]
        if experts.limit is not None:
            gate, up = gate.clamp(max=experts.limit), up.clamp(-experts.limit, experts.limit)
        active = gate * torch.sigmoid(experts.sigmoid_scale * gate) * (up + experts.up_offset)
        return linear(active, "down", self._spec.hidden_size)

    def _activate(self, x: torch.Tensor, name: str) -> torch.Tensor:
        kind = self._spec.activation
        if kind == "silu":
            return functional.silu(x)
        if kind == "relu2":
            return functional.relu(x).square()
        if kind == "xielu":
            positive, negative = (functional.softplus(self._weights.vector(f"{name}.alpha_{sign}")) for sign in "pn")
            curved = (XIELU_BETA + negative) * (torch.expm1(x.clamp(max=XIELU_EPS)) - x)
            return torch.where(x > 0, positive * x * x, curved) + XIELU_BETA * x
        return functional.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


def rotation(rope: RopeSpec, length: int, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cos and sin float32 [length, head_dim/2] of a bundle with this ``context``, as ``graph.attention`` makes them."""
    frequencies = torch.tensor(rope.frequencies(context), dtype=torch.float32)
    angles = (torch.arange(length, dtype=torch.float32)[:, None] * frequencies).double()
    # Elements that are not rotated are not scaled either.
    factor = torch.where(torch.tensor(rope.inv_freq) != 0, rope.attention_scaling, 1.0)
    return angles.cos().float() * factor, angles.sin().float() * factor


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _seen(length: int, window: int | None) -> torch.Tensor:
    """Which keys (columns) a query (row) sees: bool [length, length]."""
    position = torch.arange(length)
    behind = position[:, None] - position
    return behind >= 0 if window is None else (behind >= 0) & (behind < window)
