"""Teacher forcing: feeds given tokens to a model and computes the logits before each of them.

Every step uses the exact numerical path, that of a prefill, whatever path the tokens were decoded with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgedistill.runtime.chunks import chunk_bounds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from edgedistill.runtime.decoder import Decoder
    from edgedistill.runtime.optimum_session import OptimumDecoder
    from edgedistill.runtime.session import DecoderSession
    from edgedistill.verify.sampling.protocol import Slice

    Logits = npt.NDArray[np.float32]


def prefill(session: DecoderSession, ids: Sequence[int], *, chunk: int) -> tuple[Decoder, Logits]:
    """A decoder of one row that holds ``ids``, and the logits float32 [V] after the last (empty for no tokens).

    ``chunk``: largest number of tokens in one run of the graph.
    """
    decoder = session.decoder()
    logits = np.empty(0, dtype=np.float32)
    for start, stop in chunk_bounds(len(ids), chunk):
        logits = decoder.feed(ids[start:stop], exact=True, logits=stop == len(ids))
    return decoder, logits.copy()


def force(
    session: DecoderSession,
    prompt: Sequence[int],
    sequences: Sequence[Sequence[int]],
    parts: Sequence[Slice],
    *,
    chunk: int,
) -> tuple[Decoder, Iterator[tuple[Logits, npt.NDArray[np.bool_]]]]:
    """Score ``sequences`` after ``prompt``, slice by slice.

    Args:
        session: Of the model.
        prompt: Token ids; computed once for all sequences.
        sequences: Token ids of each.
        parts: Positions of the sequences, in order.
        chunk: Largest number of tokens of the prompt in one run of the graph.

    Returns:
        A decoder with a row per sequence, and an iterator over the slices that fills it: logits float32 [rows, width,
        V] and bool [rows, width], False at padding. After a slice the rows hold the prompt and the tokens before the
        slice's last position.
    """
    prefix, _ = prefill(session, prompt[:-1], chunk=chunk)
    decoder = prefix.select([0] * len(sequences)) if len(prompt) > 1 else session.decoder(len(sequences))
    lengths = np.array([len(sequence) for sequence in sequences])
    ids = np.zeros((len(sequences), max(int(lengths.max()), 1)), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = [prompt[-1], *sequence[:-1]]

    def run() -> Iterator[tuple[Logits, npt.NDArray[np.bool_]]]:
        for part in parts:
            width = part.stop - part.start
            counts = np.clip(lengths - part.start, 0, width)
            index = np.broadcast_to(np.arange(width), (len(sequences), width))
            logits = decoder.step(ids[:, part.start : part.stop], counts, index.copy(), exact=True)
            yield logits, np.arange(width)[None, :] < counts[:, None]

    return decoder, run()


def force_one(
    decoder: Decoder | OptimumDecoder,
    prompt: Sequence[int],
    sequence: Sequence[int],
    parts: Sequence[Slice],
    *,
    chunk: int,
) -> Iterator[Logits]:
    """Logits float32 [width, V] of one sequence, slice by slice, on an empty decoder: for graphs without batches."""
    for start, stop in chunk_bounds(len(prompt) - 1, chunk):
        decoder.feed(prompt[start:stop], exact=True, logits=False)
    ids = np.array([[prompt[-1], *sequence[:-1]]], dtype=np.int64)
    for part in parts:
        columns = ids[:, part.start : part.stop]
        for scores in decoder.score(columns, chunk=max(2, columns.shape[1])):
            yield scores.logits
