"""Batched sampling with a KV cache, for evaluation. Plain torch; the prompts of a batch may differ in length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model import Qwen3


@torch.inference_mode()
def generate(
    model: Qwen3,
    prompts: Sequence[Sequence[int]],
    *,
    eos: int,
    pad: int,
    temperature: float = 0.0,
    max_new_tokens: int = 400,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Return the new tokens of every prompt, without the end marker.

    Prompts are padded at the left and the padding is masked, so a row gives what it would give alone. `temperature` 0
    is greedy. A row that reaches `max_new_tokens` is returned as it stands.
    """
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    tokens = torch.full((len(prompts), width), pad, device=device)
    keep = torch.zeros((len(prompts), width), dtype=torch.bool, device=device)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt, device=device)
        keep[row, width - len(prompt) :] = True
    positions = (keep.cumsum(1) - 1).clamp(min=0)
    causal = torch.ones((width, width), dtype=torch.bool, device=device).tril()
    # A padded query must see something, or its softmax is undefined: let it see itself.
    mask = (causal & keep[:, None, :]) | torch.eye(width, dtype=torch.bool, device=device)
    hidden, cache = model(tokens, positions=positions, mask=mask[:, None])
    outputs: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    position = positions[:, -1]
    for _ in range(max_new_tokens):
        logits = model.logits(hidden[:, -1])
        if temperature > 0:
            shares = torch.softmax(logits / temperature, dim=-1)
            chosen = torch.multinomial(shares, 1, generator=generator).squeeze(1)
        else:
            chosen = logits.argmax(-1)
        going = [i for i, token in enumerate(chosen.tolist()) if token not in (eos, pad)]
        for i in going:
            outputs[rows[i]].append(int(chosen[i]))
        if not going:
            break
        if len(going) < len(rows):
            index = torch.tensor(going, device=device)
            rows = [rows[i] for i in going]
            chosen, keep, position = chosen[index], keep[index], position[index]
            cache = [(k[index], v[index]) for k, v in cache]
        keep = torch.cat((keep, torch.ones((len(rows), 1), dtype=torch.bool, device=device)), dim=1)
        position = position + 1
        hidden, cache = model(chosen[:, None], positions=position[:, None], mask=keep[:, None, None], past=cache)
    return outputs
