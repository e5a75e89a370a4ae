"""Token distributions as a baseline stores them: the most likely tokens, and all others together as one (the tail)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.token_divergence import TokenDivergence, concatenate, log_softmax

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Logits = npt.NDArray[np.floating]

_LLAMA_CPP_FLOOR = -16.0  # as in divergence


@dataclass(frozen=True, slots=True)
class TopTokens:
    """Per position the k most likely tokens, most likely first, and all others' probability together.

    Attributes:
        ids: uint32 [positions, k]. ``logprobs``: float32 [positions, k], nats. ``tail``: float32 [positions].
    """

    ids: npt.NDArray[np.uint32]
    logprobs: npt.NDArray[np.float32]
    tail: npt.NDArray[np.float32]

    def cut(self, start: int, stop: int) -> TopTokens:
        """The positions [start, stop)."""
        return TopTokens(self.ids[start:stop], self.logprobs[start:stop], self.tail[start:stop])

    @classmethod
    def joined(cls, parts: Sequence[TopTokens]) -> Self:
        """Positions of all ``parts`` in order; at least one part."""
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.logprobs for part in parts]),
            np.concatenate([part.tail for part in parts]),
        )


def top_tokens(logits: Logits, k: int) -> TopTokens:
    """Cut the distributions of logits [positions, V]; of equal tokens the lower ids come first."""
    log_p = log_softmax(logits)
    k = min(k, log_p.shape[1])
    ids = np.argpartition(-log_p, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(log_p, ids, axis=1)
    order = np.lexsort((ids, -values), axis=1)
    ids, values = np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)
    rest = np.exp(log_p)
    np.put_along_axis(rest, ids, 0.0, axis=1)
    return TopTokens(ids.astype(np.uint32), values.astype(np.float32), rest.sum(axis=1).astype(np.float32))


def coarse_divergence(top: TopTokens, logits: Iterable[Logits]) -> TokenDivergence:
    """KL(p || q) and entropies with the tail as one token: p from ``top``, q from slices of logits [n, V] in order.

    Raises:
        VerifyError: Positions that do not match, ids outside q's vocabulary, logits that are not finite.
    """
    parts: list[TokenDivergence] = []
    at = 0
    for part in logits:
        parts.append(_coarse(top.cut(at, at + len(part)), part))
        at += len(part)
    if at != len(top.tail):
        raise VerifyError(f"Found {at} positions to compare with a baseline of {len(top.tail)}.")
    return concatenate(parts)


def _coarse(top: TopTokens, logits: Logits) -> TokenDivergence:
    if np.isnan(top.logprobs).any() or np.isnan(top.tail).any():
        raise VerifyError("The reference's stored distributions hold NaN; expected numbers. Make the baseline again.")
    if not np.isfinite(logits.max(axis=1)).all():
        raise VerifyError("Found logits that are NaN or not finite; the model's arithmetic is broken.")
    if len(top.ids) != len(logits) or (top.ids.size and int(top.ids.max()) >= logits.shape[1]):
        raise VerifyError(f"The baseline does not fit logits of the shape {logits.shape}.")
    ids = top.ids.astype(np.int64)
    full = log_softmax(logits)
    log_q = _with_tail(np.take_along_axis(full, ids, axis=1), _tail(full, ids))
    log_p = _with_tail(top.logprobs.astype(np.float64), top.tail.astype(np.float64))
    p, q = np.exp(log_p), np.exp(log_q)
    with np.errstate(invalid="ignore"):
        terms = np.where(p > 0, p * (log_p - log_q), 0.0)
        entropy_p = -np.where(p > 0, p * log_p, 0.0).sum(axis=1) / math.log(2)
        entropy_q = -np.where(q > 0, q * log_q, 0.0).sum(axis=1) / math.log(2)
    return TokenDivergence(
        entropy_p=entropy_p,
        entropy_q=entropy_q,
        kl=np.maximum(terms.sum(axis=1), 0.0),
        kl_llama_cpp=np.where(log_p > _LLAMA_CPP_FLOOR, terms, 0.0).sum(axis=1),
        top_agrees=ids[:, 0] == logits.argmax(axis=1),
    )


def _tail(log_q: Floats, ids: npt.NDArray[np.int64]) -> Floats:
    rest = np.exp(log_q)
    np.put_along_axis(rest, ids, 0.0, axis=1)
    return np.asarray(rest.sum(axis=1))


def _with_tail(logprobs: Floats, tail: Floats) -> Floats:
    """float64 [n, k + 1]: the tail as the last token."""
    with np.errstate(divide="ignore"):
        return np.concatenate([logprobs, np.log(tail)[:, None]], axis=1)
