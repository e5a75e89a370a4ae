"""Answers multiple-choice prompts by likelihood: the answer is the choice that the model would most likely write.

No reply is drawn. The score of a choice is the mean log-probability of its bytes, as in lm-evaluation-harness's
``acc_norm``, so that longer choices are not penalised. It is the same for every sample: here a model always agrees with
itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.progress import NullProgress
from edgedistill.verify.sampling.protocol import slices
from edgedistill.verify.types import Drawn, Sample

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from edgedistill.progress import Progress
    from edgedistill.runtime.batch.request import DrawSettings, SampleKey
    from edgedistill.verify.sampling.protocol import SampledModel
    from edgedistill.verify.sampling.replies import Replies
    from edgedistill.verify.types import Prompt


@runtime_checkable
class _Scoring(Protocol):
    """A model with a tokenizer on this machine."""

    replies: Replies


def draw_likely(
    model: SampledModel,
    prompts: Sequence[Prompt],
    samples: int,
    settings: DrawSettings,
    *,
    done: Collection[SampleKey] = (),
    progress: Progress | None = None,
) -> Iterator[Drawn]:
    """Yields the most likely choice of every prompt, as each of its samples; see ``SampledModel.draw``.

    Raises:
        VerifyError: The model cannot score, a choice has no tokens, or logits are not finite.
    """
    if not model.can_score or not isinstance(model, _Scoring):
        raise VerifyError(
            f"{model.identity.name} gives no token probabilities, and choices by likelihood need them.",
            hint="Score it without --procedure, or choose another suite.",
        )
    progress = progress or NullProgress()
    progress.begin(f"scoring choices with {model.identity.name}", len(prompts) * samples, "items")
    for prompt in prompts:
        if model.cancel is not None and model.cancel.is_set():
            return
        wanted = [index for index in range(samples) if (prompt.id, index) not in done]
        if wanted:
            tokens, letter = most_likely(model, model.replies, prompt, settings.thinking)
            text = prompt.choices[ord(letter) - ord("A")]
            correct = None if prompt.answer is None else letter == prompt.answer
            for index in wanted:
                sample = Sample(
                    prompt_id=prompt.id,
                    index=index,
                    kind="parsed",
                    answer=letter,
                    text=text,
                    tokens=len(tokens),
                    reasoning_tokens=0,
                    unclosed=False,
                    repetition=0.0,
                    correct=correct,
                    loose=None,
                )
                yield Drawn(sample, tokens, "stop")
        progress.advance(samples)
    progress.end()


def most_likely(
    model: SampledModel, replies: Replies, prompt: Prompt, thinking: bool | None
) -> tuple[tuple[int, ...], str]:
    """Token ids and letter of the choice with the highest mean log-probability of a byte."""
    lead = replies.closing(prompt, thinking)
    tokens = [tuple(replies.tokens(choice)) for choice in prompt.choices]
    if not all(tokens):
        raise VerifyError(f"A choice of `{prompt.id}` has no tokens; expected texts that the tokenizer knows.")
    scores: list[float] = []
    for at in range(0, len(tokens), model.score_rows):
        group = [(*lead, *ids) for ids in tokens[at : at + model.score_rows]]
        scores += _log_probabilities(model, prompt, group, len(lead), thinking)
    sizes = [len(choice.encode("utf-8", "replace")) for choice in prompt.choices]
    best = int(np.argmax(np.array(scores) / np.array(sizes)))
    return tokens[best], chr(ord("A") + best)


def _log_probabilities(
    model: SampledModel, prompt: Prompt, group: Sequence[tuple[int, ...]], skipped: int, thinking: bool | None
) -> list[float]:
    """Sum of the log-probabilities of each sequence's tokens after the first ``skipped``."""
    lengths = np.array([len(ids) for ids in group])
    parts = slices(lengths.tolist(), model.identity.vocab_size)
    totals = [0.0] * len(group)
    for part, logits in zip(parts, model.score(prompt, group, parts, thinking=thinking), strict=True):
        counts = np.clip(lengths - part.start, 0, part.stop - part.start)
        wanted = np.concatenate(
            [np.array(ids[part.start : part.start + n], np.int64) for ids, n in zip(group, counts, strict=True)]
        )
        top = logits.max(axis=1, keepdims=True).astype(np.float64)
        rows = np.arange(len(wanted))
        found = logits[rows, wanted] - top[:, 0] - np.log(np.exp(logits - top).sum(axis=1))
        if not np.isfinite(found).all():
            raise VerifyError(f"{model.identity.name}: the logits after `{prompt.id}` are not finite.")
        at = 0
        for row, count in enumerate(counts.tolist()):
            start = max(0, skipped - part.start)
            totals[row] += float(found[at + min(start, count) : at + count].sum())
            at += count
    return totals
