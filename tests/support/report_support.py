"""Made-up models for tests of reports: each prompt has a distribution of answers, drawn with a seed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.gate.endpoints import Margins
from edgedistill.verify.metrics.token_divergence import divergence
from edgedistill.verify.report.build import Provenance, analyse
from edgedistill.verify.report.extras import ModelSamples
from edgedistill.verify.report.tokens import PromptDivergences
from edgedistill.verify.types import AnswerKind, Drawn, Message, ModelIdentity, Prompt, RunSettings, Sample, Suite

if TYPE_CHECKING:
    from edgedistill.verify.report.model import VerifyReport

PROVENANCE = Provenance("2026-01-01T00:00:00+00:00", {"edgedistill": "0"}, {"cpu": "a processor"})
SETTINGS = RunSettings(
    preset="custom", samples=16, temperature=0.7, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0,
    max_new_tokens=64, seed=1, margins={"accuracy": 0.02},
)  # fmt: skip
LOOSE = Margins(accuracy=0.2, agreement=0.2, entropy_bits=0.9, length_ratio=1.5, truncation=0.2, distance=0.5)


def make_suite(prompts: int = 40, *, variants: bool = False) -> Suite:
    """Questions with the gold answers 0, 1, 2, ..."""
    questions = [f"What is {i} + 0? <b>&</b>" for i in range(prompts)]
    plain = tuple(
        Prompt(f"p{i:02}", (Message("user", text),), str(i), tags=("easy",)) for i, text in enumerate(questions)
    )
    other: list[Prompt] = []
    if variants:
        for i, prompt in enumerate(plain):
            other.append(replace(prompt, id=f"{prompt.id}/p", variant="paraphrase", variant_of=prompt.id))
            other.append(
                replace(prompt, id=f"{prompt.id}/c", answer=str(i + 1), variant="changed-number", variant_of=prompt.id)
            )
        other.append(Prompt("empty", (Message("user", ""),), variant="empty"))
    return Suite("made-up", plain, tuple(other))


def identity(name: str, kind: str = "bundle") -> ModelIdentity:
    return ModelIdentity(kind, name, "0" * 64, "1" * 64, 100, {"family": "made-up"})  # type: ignore[arg-type]


def draw(
    prompts: tuple[Prompt, ...],
    samples: int,
    *,
    accuracy: float = 0.8,
    constant: str | None = None,
    seed: int = 0,
    garbage: float = 0.0,
    tokens: int = 20,
) -> list[Drawn]:
    """Replies: right with probability ``accuracy``, else one of three wrong answers; ``constant``: always that one."""
    rng = np.random.default_rng(seed)
    drawn = []
    for prompt in prompts:
        for index in range(samples):
            right = rng.random() < accuracy
            answer = prompt.answer if right else str(1000 + int(rng.integers(3)))
            if constant is not None:
                answer, right = constant, constant == prompt.answer
            length = max(1, int(rng.normal(tokens, 3)))
            kind: AnswerKind = "parsed" if rng.random() >= garbage else "unparsed"
            correct = None if prompt.answer is None else right and kind == "parsed"
            sample = Sample(
                prompt.id, index, kind, answer if kind == "parsed" else None, f"the answer is {answer}",
                length, 0, False, 0.0, correct,
            )  # fmt: skip
            ids = tuple(int(v) for v in rng.integers(0, 50, length))
            drawn.append(Drawn(sample, ids, "stop"))
    return drawn


def model(suite: Suite, name: str, **arguments: object) -> ModelSamples:
    samples = int(arguments.pop("samples", 16))  # type: ignore[call-overload]
    kind = str(arguments.pop("kind", "bundle"))
    drawn = draw(suite.prompts, samples, **arguments)  # type: ignore[arg-type]
    return ModelSamples(identity(name, kind), drawn)


def divergences(suite: Suite, drawn: list[Drawn], *, size: float = 0.3, seed: int = 0) -> list[PromptDivergences]:
    """Of random logits and the same with noise added, on as many positions as each prompt's first reply has."""
    rng = np.random.default_rng(seed)
    entries = []
    for prompt in suite.prompts:
        reply = next(d for d in drawn if d.sample.prompt_id == prompt.id)
        p = rng.normal(size=(len(reply.token_ids), 30))
        q = p + size * rng.normal(size=p.shape)
        entries.append(PromptDivergences(prompt.id, (divergence(p, q),), (divergence(q, p),), (divergence(p, p),)))
    return entries


def make_report(
    *, prompts: int = 40, samples: int = 16, audit: bool = False, margins: Margins = LOOSE, **bundle: object
) -> VerifyReport:
    """The report of a made-up bundle against a made-up reference of accuracy 0.8, or its audit alone."""
    suite = make_suite(prompts, variants=True)
    settings = replace(SETTINGS, samples=samples)
    ours = model(suite, "bundle", samples=samples, **{"seed": 2, **bundle})
    ours = replace(
        ours,
        variants=draw(suite.variants, 4, seed=5),
        sweep={0.0: draw(suite.prompts, 4, accuracy=1.0, seed=6), 1.0: draw(suite.prompts, 4, accuracy=0.5, seed=7)},
    )
    if audit:
        return analyse(suite, replace(settings, margins={}), ours, provenance=PROVENANCE)
    reference = model(suite, "reference", samples=samples, seed=1)
    return analyse(
        suite, settings, ours, reference, margins=margins, provenance=PROVENANCE,
        divergences=divergences(suite, list(reference.drawn)),
    )  # fmt: skip
