"""Simulated models: answer distributions per prompt, samples drawn from them, coupled or not."""

from __future__ import annotations

import numpy as np

from edgedistill.verify.types import Sample

TRUNCATED, UNPARSED = "<truncated>", "<unparsed>"


def draw(
    distributions: list[dict[str, float]],
    samples: int,
    rng: np.random.Generator,
    *,
    gold: list[str] | None = None,
    tokens: float = 100.0,
    uniforms: np.ndarray | None = None,
) -> dict[str, list[Sample]]:
    """Samples of each prompt by inverse transform of ``uniforms`` [prompts, samples]; equal uniforms couple models."""
    uniforms = rng.random((len(distributions), samples)) if uniforms is None else uniforms
    lengths = np.maximum(1, rng.normal(tokens, tokens / 5, size=uniforms.shape)).astype(int)
    groups: dict[str, list[Sample]] = {}
    for at, distribution in enumerate(distributions):
        names, edges = list(distribution), np.cumsum(list(distribution.values()))
        picks = np.minimum(np.searchsorted(edges, uniforms[at] * edges[-1], side="right"), len(names) - 1)
        groups[f"p{at}"] = [
            sample(f"p{at}", i, names[pick], gold[at] if gold else None, int(lengths[at, i]))
            for i, pick in enumerate(picks)
        ]
    return groups


def sample(prompt: str, index: int, answer: str, gold: str | None = None, tokens: int = 100) -> Sample:
    """One sample; the answers TRUNCATED and UNPARSED stand for garbage."""
    kind = {TRUNCATED: "truncated", UNPARSED: "unparsed"}.get(answer, "parsed")
    return Sample(
        prompt_id=prompt,
        index=index,
        kind=kind,  # type: ignore[arg-type]
        answer=answer if kind == "parsed" else None,
        text=answer,
        tokens=tokens,
        reasoning_tokens=tokens // 2,
        unclosed=kind == "truncated",
        repetition=0.0,
        correct=None if gold is None else answer == gold,
    )


def skilled(
    prompts: int, rng: np.random.Generator, *, skill: tuple[float, float] = (0.5, 1.0), wrong: int = 3
) -> tuple[list[dict[str, float]], list[str]]:
    """(distributions, gold): each prompt has its own gold answer, given with a probability uniform in ``skill``."""
    gold = [f"g{i}" for i in range(prompts)]
    distributions = []
    for i in range(prompts):
        p = rng.uniform(*skill)
        distributions.append({gold[i]: p, **{f"w{i}-{k}": (1 - p) / wrong for k in range(wrong)}})
    return distributions, gold


def damaged(distributions: list[dict[str, float]], gold: list[str], loss: float) -> list[dict[str, float]]:
    """The same models with ``loss`` of the gold answer's probability moved to the wrong answers."""
    out = []
    for distribution, right in zip(distributions, gold, strict=True):
        move = min(loss, distribution[right])
        others = [name for name in distribution if name != right]
        out.append({name: p - move if name == right else p + move / len(others) for name, p in distribution.items()})
    return out
