"""Log-probabilities of tokens: the chosen one's and the most likely ones'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import GenerationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from tokenizers import Tokenizer

MOST_TOP = 100


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of a text.

    Attributes:
        token: Its id.
        text: What it stands for by itself; a replacement character where it is part of a character.
        logprob: Natural logarithm of its probability given what precedes it, by the model's own distribution: before
            temperature, filters and repetition penalty.
        top: The most likely tokens at its place, most likely first; empty unless asked for.
    """

    token: int
    text: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


def check_top(count: int | None) -> None:
    """Raises GenerationError unless ``count`` is None or a possible number of top tokens."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST_TOP):
        raise GenerationError(f"logprobs is {count!r}; expected a whole number from 0 to {MOST_TOP}.")


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """float64 [n, V] log-probabilities of float32 [n, V] logits."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def token_logprobs(
    logits: npt.NDArray[np.float32], tokens: Sequence[int], tokenizer: Tokenizer, *, top: int = 0
) -> list[TokenLogprob]:
    """The record of each of ``tokens`` [n], which came at the positions of ``logits`` float32 [n, V]."""

    def text(token: int) -> str:
        return str(tokenizer.decode([token], skip_special_tokens=False))

    found = []
    for row, token in zip(log_softmax(logits), tokens, strict=True):
        # Of equal ones the lower id first, as greedy decoding chooses.
        best = np.argsort(-row, kind="stable")[:top].tolist() if top else []
        likely = tuple(TokenLogprob(other, text(other), float(row[other])) for other in best)
        found.append(TokenLogprob(int(token), text(int(token)), float(row[token]), likely))
    return found
