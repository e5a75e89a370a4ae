"""How far a bundle's distributions are from the reference's, on given tokens, along both numerical paths.

The reference's logits are written to a file once and read in slices: memory does not grow with the tokens, and no two
models are loaded at a time. ``scoring`` computes many positions together, as a prefill does; ``decode`` goes token by
token, as deployed decoding does: under quantized activations these are two distributions.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.atomic_file import replacing
from edgedistill.json_codec import Record
from edgedistill.verify.metrics.token_divergence import TokenDivergence, concatenate, divergence, log_softmax, summarise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.progress import Progress
    from edgedistill.runtime.session import DecoderSession
    from edgedistill.verify.metrics.token_divergence import DivergenceSummary

    Floats = npt.NDArray[np.float64]
    Logits = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]

_STEPS_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Text:
    """A sequence, int64 [n]: the tokens from ``start`` (at least 1) on are predicted, each from all before it."""

    ids: Ids
    start: int

    @property
    def positions(self) -> int:
        """Predicted tokens."""
        return len(self.ids) - self.start


@dataclass(frozen=True, slots=True)
class Quality(Record):
    """Distance to the reference along one path. KL(reference || bundle) in nats; intervals resample sequences.

    ``perplexity_ratio`` is exp(mean log loss of the bundle minus the reference's) on the tokens themselves.
    """

    positions: int
    kl: float
    kl_low: float
    kl_high: float
    kl_quantiles: dict[str, float]
    top1: float
    perplexity: float
    perplexity_ratio: float


def texts(sequences: Sequence[Ids], prompt_tokens: Sequence[int], limit: int) -> list[Text]:
    """Sequences from the front until ``limit`` tokens are predicted; the last is cut to end there."""
    found: list[Text] = []
    left = limit
    for ids, prompt in zip(sequences, prompt_tokens, strict=True):
        start = max(1, prompt)
        if left and len(ids) > start:
            found.append(Text(ids[: start + left], start))
            left -= found[-1].positions
    return found


def scoring(session: DecoderSession, some: Sequence[Text], *, chunk: int) -> Iterator[Logits]:
    """Logits float32 [n, V] before every predicted token, text after text, in slices; valid until the next."""
    for text in some:
        decoder = session.decoder()
        wanted = np.arange(len(text.ids) - 1)[None, :] >= text.start - 1
        for scores in decoder.score(text.ids[None, :-1], wanted=wanted, chunk=chunk):
            yield scores.logits


def decoding(session: DecoderSession, some: Sequence[Text], *, chunk: int) -> Iterator[Logits]:
    """The same by a prefill of what precedes the predicted tokens, then one-token steps."""
    from edgedistill.runtime.chunks import chunk_bounds

    for text in some:
        decoder = session.decoder()
        for a, b in chunk_bounds(text.start, chunk):
            logits = decoder.feed(text.ids[a:b].tolist(), exact=True, logits=b == text.start)
        kept = [logits.copy()]
        for token in text.ids[text.start : -1].tolist():
            if len(kept) == _STEPS_TOGETHER:
                yield np.stack(kept)
                kept = []
            kept.append(decoder.feed([token]).copy())
        yield np.stack(kept)


def store(path: Path, session: DecoderSession, some: Sequence[Text], *, chunk: int, progress: Progress) -> None:
    """Write the reference's logits, float32 [positions, V], under ``path`` by one rename."""
    total = sum(text.positions for text in some)
    progress.begin("scoring the reference", total, "tokens")
    with replacing(path) as file:
        for logits in scoring(session, some, chunk=chunk):
            file.write(np.ascontiguousarray(logits, dtype=np.float32).tobytes())
            progress.advance(len(logits))
    progress.end()


def compare(
    path: Path, session: DecoderSession, some: Sequence[Text], *, steps: bool, name: str, chunk: int, progress: Progress
) -> Quality:
    """Distance of the model behind ``session`` to the stored logits.

    Args:
        path: What ``store`` wrote, for these texts or ones that begin with them.
        session: The bundle's.
        some: Texts; at least one.
        steps: One-token steps instead of scoring.
        name: For the progress.
        chunk: Tokens of a prefill chunk.
        progress: Receives tokens.

    Raises:
        VerifyError: Logits that are not finite.
    """
    vocabulary = session.info.vocab_size
    stored: Logits = np.memmap(path, dtype=np.float32, mode="r").reshape(-1, vocabulary)
    targets = [text.ids[text.start :] for text in some]
    flat = np.concatenate(targets)
    progress.begin(f"{'decoding' if steps else 'scoring'} {name}", len(flat), "tokens")
    parts: list[TokenDivergence] = []
    losses = np.zeros(2)
    at = 0
    for logits in (decoding if steps else scoring)(session, some, chunk=chunk):
        count = len(logits)
        expected = np.asarray(stored[at : at + count])
        parts.append(divergence(expected, logits))
        tokens = flat[at : at + count]
        losses += [_loss(expected, tokens), _loss(logits, tokens)]
        at += count
        progress.advance(count)
    progress.end()
    losses /= len(flat)
    joined = concatenate(parts)
    bounds = np.cumsum([0, *(len(tokens) for tokens in targets)])
    found = summarise([_cut(joined, int(a), int(b)) for a, b in itertools.pairwise(bounds)])
    return _quality(found, losses)


def _quality(found: DivergenceSummary, losses: Floats) -> Quality:
    interval = found.kl.interval
    return Quality(
        positions=found.positions,
        kl=found.kl.value,
        kl_low=found.kl.value if interval is None else float(interval.low),
        kl_high=found.kl.value if interval is None else float(interval.high),
        kl_quantiles={name: quantile.value for name, quantile in found.quantiles.items()},
        top1=found.top_agreement.value,
        perplexity=math.exp(min(700.0, float(losses[1]))),
        perplexity_ratio=math.exp(min(700.0, float(losses[1] - losses[0]))),
    )


def _loss(logits: Logits, tokens: Ids) -> float:
    """Sum of -ln p of the tokens."""
    return -float(np.take_along_axis(log_softmax(logits), tokens[:, None], axis=1).sum())


def _cut(joined: TokenDivergence, start: int, stop: int) -> TokenDivergence:
    return TokenDivergence(
        joined.entropy_p[start:stop],
        joined.entropy_q[start:stop],
        joined.kl[start:stop],
        joined.kl_llama_cpp[start:stop],
        joined.top_agrees[start:stop],
    )
