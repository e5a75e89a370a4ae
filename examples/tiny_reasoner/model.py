"""Qwen3 decoder in plain torch: small enough to read, fast enough to train on two CPU cores.

Parameter names are those of `transformers.Qwen3ForCausalLM`, so `state_dict()` is written to safetensors as it is
and loads there unchanged (a test compares the logits). The module knows nothing of tokenizers, prompts or data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KVCache = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of the student. Hidden and intermediate sizes are multiples of 128: every quantization block fits."""

    vocab_size: int = 768
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    head_dim: int = 32
    intermediate_size: int = 512
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 2048

    def hf_config(self, *, eos_token_id: int, pad_token_id: int) -> dict[str, object]:
        """Return the contents of a Hugging Face `config.json` for this shape."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            **asdict(self),
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": pad_token_id,
            "dtype": "float32",
            "eos_token_id": eos_token_id,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "max_window_layers": self.num_hidden_layers,
            "pad_token_id": pad_token_id,
            "rope_scaling": None,
            "sliding_window": None,
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
            "use_cache": True,
            "use_sliding_window": False,
        }


class _RMSNormFunction(torch.autograd.Function):
    """x / rms(x) * weight with a hand-written backward: on a CPU half the time of the composite one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_() / x.shape[-1]).add_(eps).rsqrt_()
        unit = x * scale
        ctx.save_for_backward(unit, scale, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, scale, weight = ctx.saved_tensors
        grad_weight = (grad * unit).flatten(0, -2).sum(0)
        grad_unit = grad * weight
        return (
            grad_unit.addcmul_(unit, (grad_unit * unit).mean(-1, keepdim=True), value=-1).mul_(scale),
            grad_weight,
            None,
        )


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _RMSNormFunction.apply(x.float(), self.weight, self.eps)
        return out


def rotary_tables(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cos and sin [..., head_dim] for integer `positions` [...] (half-split layout of Llama and Qwen)."""
    inverse = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim)
    angles = positions.to(torch.float32)[..., None] * inverse
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary embedding to x [batch, heads, time, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, time, _ = x.shape
        query = self.q_norm(self.q_proj(x).view(batch, time, self.heads, self.head_dim)).transpose(1, 2)
        key = self.k_norm(self.k_proj(x).view(batch, time, self.kv_heads, self.head_dim)).transpose(1, 2)
        value = self.v_proj(x).view(batch, time, self.kv_heads, self.head_dim).transpose(1, 2)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        if past is not None:
            key, value = torch.cat((past[0], key), dim=2), torch.cat((past[1], value), dim=2)
        groups = self.heads // self.kv_heads
        total = key.shape[2]
        # One matrix product per KV head, its query heads stacked: faster on a CPU than the fused kernel in training.
        scores = query.reshape(batch, self.kv_heads, groups * time, self.head_dim) @ key.transpose(2, 3)
        scores = scores.view(batch, self.heads, time, total).float() * self.head_dim**-0.5 + mask
        shares = torch.softmax(scores, dim=-1).to(value.dtype)
        out = (shares.view(batch, self.kv_heads, groups * time, total) @ value).view(batch, self.heads, time, -1)
        return self.o_proj(out.transpose(1, 2).reshape(batch, time, -1)), (key, value)


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        attended, present = self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), present


class Decoder(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Qwen3(nn.Module):
    """Tied-embedding Qwen3 language model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                scale = 0.02 if "embed" in name else parameter.shape[1] ** -0.5
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    scale /= (2 * config.num_hidden_layers) ** 0.5
                nn.init.normal_(parameter, std=scale)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        past: KVCache | None = None,
    ) -> tuple[Tensor, KVCache]:
        """Return the final hidden states [batch, time, hidden] and the cache.

        `tokens` is int64 [batch, time]. Without `mask` attention is causal over `tokens` alone (training). With `mask`
        (bool [batch, 1, time, past + time], True = may attend) `positions` int64 [batch, time] must be given too.
        """
        x = self.model.embed_tokens(tokens)
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        cos, sin = rotary_tables(positions, self.config.head_dim, self.config.rope_theta)
        cos, sin = cos[:, None], sin[:, None]
        if mask is None:
            mask = torch.ones((tokens.shape[1], tokens.shape[1]), dtype=torch.bool, device=tokens.device).tril()
        bias = torch.zeros(mask.shape, device=tokens.device).masked_fill_(~mask, float("-inf"))
        cache: KVCache = []
        for index, layer in enumerate(self.model.layers):
            x, present = layer(x, cos, sin, bias, past[index] if past is not None else None)
            cache.append(present)
        return self.model.norm(x), cache

    def logits(self, hidden: Tensor) -> Tensor:
        """Project hidden states [..., hidden] to logits [..., vocab] with the tied embedding."""
        return F.linear(hidden, self.model.embed_tokens.weight)
