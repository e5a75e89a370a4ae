"""Continuous batching: sequences of different prompts and ages decoded together, a finished one replaced at once.

Every step feeds each row its last token and chooses the next one for all rows together. A row that ends gives its place
to the next start, so that the batch stays full until the work runs out. The noise of a row depends on its key and
position only (``choice``); in ``exact`` mode its logits depend on its own tokens only, so that the result of
(prompt, index) is the same in any batch, bit for bit. ``fast`` steps are those of deployed decoding up to what the
kernels do differently for one row and for several (``edgedistill selftest`` says what holds on a machine); the batch
therefore never shrinks to a single row.

Must not know: texts, prompts' contents, answers, files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.choice import choose

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    import numpy.typing as npt

    from edgedistill.runtime.decoder import Decoder
    from edgedistill.runtime.kv_cache import KVCache
    from edgedistill.runtime.session import DecoderSession
    from edgedistill.verify.run_settings import DrawSettings, Finish, SampleKey

    Logits = npt.NDArray[np.float32]


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
        self._exact = settings.mode == "exact"
        self._batch = max(2, batch)
        self._eos = np.array(sorted(eos), dtype=np.int64)
        self._limit = session.geometry.limit
        self.steps = 0
        self.row_steps = 0

    def run(self, starts: Iterable[Start]) -> Iterator[Finished]:
        """Continue every sequence to its end; results come in the order in which they end.

        ``starts`` is read only as far as there is room, so it may produce them (prefills) as it goes.

        Raises:
            GenerationError: The model's logits are not finite, or out of memory.
        """
        waiting = iter(starts)
        rows = _Rows(self._session.decoder(self._batch), self._settings)
        exhausted = False
        while True:
            while not exhausted and rows.free:
                start = next(waiting, None)
                if start is None:
                    exhausted = True
                    break
                finish = self.reason(start.tokens[-1], len(start.tokens), start.prompt_tokens)
                if finish is None:
                    rows.admit(start)
                else:
                    yield Finished(start.key, start.tokens, finish)
            active = rows.active_rows()
            if not len(active):
                return
            if exhausted and len(active) <= rows.size // 2 and rows.size > 2:
                rows = rows.compacted()
                active = rows.active_rows()
            yield from self._step(rows, active)

    def reason(self, token: int, count: int, prompt_tokens: int) -> Finish | None:
        """Why a sequence of ``count`` tokens ends with ``token``; None if it goes on."""
        if (self._eos == token).any():
            return "stop"
        if count >= self._settings.max_new_tokens:
            return "length"
        return "context" if prompt_tokens + count >= self._limit else None

    def _step(self, rows: _Rows, active: npt.NDArray[np.int64]) -> Iterator[Finished]:
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
        ended = np.isin(tokens, self._eos) | (counts + 1 >= self._settings.max_new_tokens) | (total >= self._limit)
        for row in active[ended].tolist():
            key, sequence = rows.release(row)
            finish = self.reason(sequence[-1], len(sequence), int(rows.prompts[row]))
            yield Finished(key, sequence, finish or "length")


class _Rows:
    """The places of a batch: what sits on each, and the cache behind them."""

    def __init__(self, decoder: Decoder, settings: DrawSettings) -> None:
        size = self.size = decoder.cache.batch
        self._settings = settings
        self._decoder = decoder
        self._keys: list[SampleKey | None] = [None] * size
        self.noise = np.zeros(size, dtype=np.uint64)
        self.counts = np.zeros(size, dtype=np.int64)
        self.prompts = np.zeros(size, dtype=np.int64)
        self.last = np.zeros((size, 1), dtype=np.int64)
        self._tokens = np.zeros((size, settings.max_new_tokens), dtype=np.int32)
        penalised = settings.repetition_penalty != 1.0
        self.seen = np.zeros((size, decoder.session.info.vocab_size), dtype=np.bool_) if penalised else None

    @property
    def free(self) -> bool:
        return None in self._keys

    def active_rows(self) -> npt.NDArray[np.int64]:
        return np.array([row for row, key in enumerate(self._keys) if key is not None], dtype=np.int64)

    def admit(self, start: Start) -> None:
        row = self._keys.index(None)
        cache = self._decoder.cache
        count = len(start.tokens)
        entries = start.prompt_tokens + count - 1
        # Room for all that may come, at once: growing moves every row, and pages that no token reaches cost nothing.
        cache.reserve(min(start.prompt_tokens + self._settings.max_new_tokens + 1, cache.geometry.limit))
        cache.put_row(row, start.cache, start.row, entries)
        self._keys[row] = start.key
        self.noise[row] = start.noise
        self.counts[row] = count
        self.prompts[row] = start.prompt_tokens
        self.last[row, 0] = start.tokens[-1]
        self._tokens[row, :count] = start.tokens
        if self.seen is not None:
            self.seen[row] = False
            self.seen[row, cache.tokens[row, :entries]] = True
            self.seen[row, start.tokens[-1]] = True

    def step(self, *, exact: bool) -> Logits:
        """float32 [size, V] after feeding every occupied row its last token."""
        occupied = np.array([key is not None for key in self._keys])
        return self._decoder.step(self.last, occupied, exact=exact)[:, 0]

    def take(self, active: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]) -> None:
        self._tokens[active, self.counts[active]] = tokens
        self.counts[active] += 1
        self.last[active, 0] = tokens
        if self.seen is not None:
            self.seen[active, tokens] = True

    def release(self, row: int) -> tuple[SampleKey, tuple[int, ...]]:
        key = self._keys[row]
        if key is None:
            raise ValueError(f"row {row} is free")
        self._keys[row] = None
        self._decoder.truncate(0, row=row)
        return key, tuple(self._tokens[row, : self.counts[row]].tolist())

    def compacted(self) -> _Rows:
        """The occupied rows alone (with a free one beside them if there is only one)."""
        kept = self.active_rows()
        chosen = [*kept.tolist(), *[int(kept[0])] * (2 - len(kept))]
        made = _Rows(self._decoder.select(chosen), self._settings)
        made._decoder.cache.reserve(self._decoder.cache.capacity)
        made._keys[: len(kept)] = [self._keys[row] for row in kept]
        made.noise, made.counts, made.prompts = self.noise[chosen], self.counts[chosen], self.prompts[chosen]
        made.last, made._tokens = self.last[chosen], self._tokens[chosen]
        made.seen = None if self.seen is None else self.seen[chosen]
        if len(kept) == 1:
            made._decoder.truncate(0, row=1)
        return made
