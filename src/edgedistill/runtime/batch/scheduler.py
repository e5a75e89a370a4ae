"""Continuous batching: sequences of different prompts and ages decoded together, a finished one replaced at once.

Every step feeds each row its last token and chooses the next one for all rows together. A row that ends gives its place
to the next start, so that the batch stays full until the work runs out. The noise of a row depends on its key and
position only (``choice``); in ``exact`` mode its logits depend on its own tokens only, so that the result of
(prompt, index) is the same in any batch, bit for bit. ``fast`` steps are those of deployed decoding up to what the
kernels do differently for one row and for several (``edgedistill selftest`` says what holds on a machine); the batch
therefore never shrinks to a single row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.runtime.batch.slots import Rows
from edgedistill.runtime.sampling import choose

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Iterable, Iterator

    import numpy.typing as npt

    from edgedistill.runtime.batch.request import DrawSettings, Finish, SampleKey
    from edgedistill.runtime.kv_cache import KVCache
    from edgedistill.runtime.session import DecoderSession


@dataclass(frozen=True, slots=True)
class Start:
    """A sequence to be continued.

    Attributes:
        key: (prompt id, index).
        noise: Key of its noise.
        cache, row: Where its entries lie: those of the prompt and of all ``tokens`` but the last. They are copied when
            the sequence is given a place, until when the row must keep them.
        prompt_tokens: Length of the prompt.
        tokens: Generated tokens so far, at least one. A sequence that ends with them is given out as it is.
    """

    key: SampleKey
    noise: np.uint64
    cache: KVCache
    row: int
    prompt_tokens: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """A sequence that ended: its tokens (the end-of-sequence token included) and why."""

    key: SampleKey
    tokens: tuple[int, ...]
    finish: Finish


class Engine:
    """Decodes any number of sequences on ``batch`` rows (at least 2). One run at a time.

    Attributes:
        steps, row_steps: Steps of the batch so far, and steps of single rows in them: how full it was.
        cancel: Looked at before every step; once it is set, what has not ended is given up.
    """

    def __init__(
        self,
        session: DecoderSession,
        settings: DrawSettings,
        *,
        batch: int,
        eos: Collection[int],
    ) -> None:
        self._session = session
        self._settings = settings
        self._generation = settings.generation
        self._exact = settings.numerics == "exact"
        self._batch = max(2, batch)
        self._eos = np.array(sorted(eos), dtype=np.int64)
        self._limit = session.geometry.limit
        self._stopped = False
        self.steps = 0
        self.row_steps = 0
        self.cancel: threading.Event | None = None

    def stop(self) -> None:
        """End a run after its current step, from another thread; its unfinished sequences are given up."""
        self._stopped = True

    def run(self, starts: Iterable[Start]) -> Iterator[Finished]:
        """Continue every sequence to its end; results come in the order in which they end.

        ``starts`` is read only as far as there is room, so it may produce them (prefills) as it goes.

        Raises:
            GenerationError: The model's logits are not finite, or out of memory.
        """
        waiting = iter(starts)
        rows = Rows[tuple[str, int]](
            self._session.decoder(self._batch),
            max_new_tokens=self._settings.max_new_tokens,
            penalised=self._settings.repetition_penalty != 1.0,
        )
        exhausted = False
        while not self._stopped:
            while not exhausted and rows.free:
                start = next(waiting, None)
                if start is None:
                    exhausted = True
                    break
                finish = self.reason(start.tokens[-1], len(start.tokens), start.prompt_tokens)
                if finish is None:
                    rows.admit(start.key, start.noise, start.cache, start.row, start.prompt_tokens, start.tokens)
                else:
                    yield Finished(start.key, start.tokens, finish)
            active = rows.active()
            if not len(active) or (self.cancel is not None and self.cancel.is_set()):
                return
            if exhausted and len(active) <= rows.size // 2 and rows.size > 2:
                rows.compact()
                active = rows.active()
            yield from self._step(rows, active)

    def reason(self, token: int, count: int, prompt_tokens: int) -> Finish | None:
        """Why a sequence of ``count`` tokens ends with ``token``; None if it goes on."""
        if (self._eos == token).any():
            return "stop"
        if count >= self._settings.max_new_tokens:
            return "length"
        return "context" if prompt_tokens + count >= self._limit else None

    def _step(self, rows: Rows[SampleKey], active: npt.NDArray[np.int64]) -> Iterator[Finished]:
        logits = rows.step(exact=self._exact)
        if len(active) < rows.size:
            logits = logits[active]
        seen = None if rows.seen is None else rows.seen[active]
        counts = rows.counts[active]
        tokens = choose(logits, self._generation, rows.noise[active], counts, seen)
        rows.take(active, tokens)
        self.steps += 1
        self.row_steps += len(active)
        total = rows.prompts[active] + counts + 1
        ended = (
            (tokens[:, None] == self._eos).any(axis=1)
            | (counts + 1 >= self._settings.max_new_tokens)
            | (total >= self._limit)
        )
        for row in active[ended].tolist():
            key, sequence = rows.release(row)
            finish = self.reason(sequence[-1], len(sequence), int(rows.prompts[row]))
            yield Finished(key, sequence, finish or "length")
