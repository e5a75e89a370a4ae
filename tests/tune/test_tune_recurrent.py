"""The chunked form of the layers with states against their definition, token by token, and its gradients."""

from __future__ import annotations

import pytest
import torch

from edgedistill.tune.options import STATE_CHUNK
from edgedistill.tune.recurrent import scan

BATCH, HEADS, KEY, VALUE = 2, 3, 5, 4


def token_by_token(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, decay: torch.Tensor, rate: torch.Tensor | None
) -> torch.Tensor:
    """The rule as ``architecture.recurrent`` states it."""
    state = torch.zeros(BATCH, HEADS, VALUE, KEY, dtype=value.dtype)
    outputs = []
    for token in range(value.shape[2]):
        k, v = key[:, :, token, :, None], value[:, :, token, :, None]
        state = decay[:, :, token, None, None].exp() * state
        written = v if rate is None else rate[:, :, token, None, None] * (v - state @ k)
        state = state + written @ k.mT
        outputs.append((state @ query[:, :, token, :, None])[..., 0])
    return torch.stack(outputs, 2)


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("length", [1, STATE_CHUNK - 1, STATE_CHUNK, 2 * STATE_CHUNK + 7])
def test_chunks_give_what_single_tokens_give(delta: bool, length: int) -> None:
    generator = torch.Generator().manual_seed(length)

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(BATCH, *sizes, generator=generator, dtype=torch.float64)

    # Mamba's heads share queries and keys; a decay of nearly 1 and one that forgets everything are among them.
    shared = HEADS if delta else 1
    query, key = random(shared, length, KEY), torch.nn.functional.normalize(random(shared, length, KEY), dim=-1)
    decay = -torch.exp(3 * random(HEADS, length))
    inputs = [query, key, random(HEADS, length, VALUE), decay, *([random(HEADS, length).sigmoid()] if delta else [])]
    wanted = random(HEADS, length, VALUE)
    gradients = []
    for rule in (scan, token_by_token):
        leaves = [leaf.clone().requires_grad_() for leaf in inputs]
        query, key, value, decay, *rest = leaves
        out = rule(query, key, value, decay, rest[0] if rest else None)
        gradients.append((out.detach(), *torch.autograd.grad((out * wanted).sum(), leaves)))
    for found, expected in zip(*gradients, strict=True):
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
