"""Endless training batches of about equal length, the same for the same seed wherever they are resumed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from teacher import example
from tokenizer import END_OF_TEXT, completion_text, prompt_text
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer

CHUNK = 1024  # conversations sorted by length together


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens` int64 [batch, time], padded at the end; `targets` of the same shape, -100 where nothing is learned."""

    tokens: Tensor
    targets: Tensor


def chunk(tokenizer: Tokenizer, seed: int, index: int, batch_tokens: int) -> Iterator[Batch]:
    """Yield the batches of chunk `index`, each of at most `batch_tokens` padded positions.

    Only the last reply is learned: the prompt, earlier turns included, has target -100.
    """
    rng = Random(f"train {seed} {index}")
    examples = [example(rng) for _ in range(CHUNK)]
    prompts = tokenizer.encode_batch([prompt_text(e.messages, thinking=e.thinking) for e in examples])
    replies = tokenizer.encode_batch([completion_text(e.problem, thinking=e.thinking) for e in examples])
    rows = sorted(((p.ids, r.ids) for p, r in zip(prompts, replies, strict=True)), key=lambda x: len(x[0]) + len(x[1]))
    groups: list[list[tuple[list[int], list[int]]]] = [[]]
    for row in rows:  # ascending, so the newest row is the longest of its group
        if (len(groups[-1]) + 1) * (len(row[0]) + len(row[1])) > batch_tokens and groups[-1]:
            groups.append([])
        groups[-1].append(row)
    rng.shuffle(groups)
    pad = tokenizer.token_to_id(END_OF_TEXT)
    for group in groups:
        width = max(len(p) + len(r) for p, r in group)
        tokens = torch.full((len(group), width), pad)
        targets = torch.full((len(group), width), -100)
        for i, (prompt, reply) in enumerate(group):
            tokens[i, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
            targets[i, len(prompt) - 1 : len(prompt) + len(reply) - 1] = torch.tensor(reply)
        yield Batch(tokens[:, :-1], targets[:, :-1])
