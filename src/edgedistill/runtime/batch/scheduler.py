"""Continuous batching: sequences of different prompts and ages decoded together, a finished one replaced at once.

Every step feeds each row its last token and chooses the next one for all rows together. A row that ends gives its place
to the next start, so that the batch stays full until the work runs out. The noise of a row depends on its key and
position only (``sampling.choose``); in ``exact`` mode its logits depend on its own tokens only, so that the result of
(prompt, index) is the same in any batch, bit for bit. ``fast`` steps are those of deployed decoding up to what the
kernels do differently for one row and for several (``edgedistill selftest`` says what holds on a machine); the batch
therefore never shrinks to a single row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol

import numpy as np

from edgedistill.runtime.batch.slots import Key, Rows
from edgedistill.runtime.sampling import choose

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    import numpy.typing as npt

    from edgedistill.runtime.batch.request import DrawSettings, Finish, SampleKey
    from edgedistill.runtime.kv_cache import KVCache
    from edgedistill.runtime.session import DecoderSession
    from edgedistill.runtime.settings import GenerationSettings
    from edgedistill.runtime.structured.masks import TokenMask

    Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Start(Generic[Key]):
    """A sequence to be continued.

    Attributes:
        key: Its name.
        noise: Key of its noise.
        cache, row: Where its entries lie: those of the prompt and of all ``tokens`` but the last. They are copied when
            the sequence is given a place, until when the row must keep them. None for ``OneRow``, which holds them.
        prompt_tokens: Length of the prompt.
        tokens: Generated tokens so far, at least one. A sequence that ends with them is given out as it is.
        mask: Which tokens may follow; it has seen ``tokens``.
    """

    key: Key
    noise: np.uint64
    cache: KVCache | None
    row: int
    prompt_tokens: int
    tokens: tuple[int, ...]
    mask: TokenMask | None = None


@dataclass(frozen=True, slots=True)
class Finished(Generic[Key]):
    """A sequence that ended: its tokens (the end-of-sequence token included) and why."""

    key: Key
    tokens: tuple[int, ...]
    finish: Finish


@dataclass(frozen=True, slots=True)
class Step(Generic[Key]):
    """One token of each of the ``keys``: ``tokens`` int64 [n], drawn from ``logits`` float32 [n, V], which hold until
    the next step; and the sequences that ended with it.
    """

    keys: list[Key]
    tokens: npt.NDArray[np.int64]
    logits: Logits
    finished: list[Finished[Key]]


class Batch(Generic[Key]):
    """Sequences in progress on rows, and those that wait for one.

    Args:
        rows: All of them free.
        starts: Read only as far as there is room, so it may produce them (prefills) as it goes.
        settings: Sampling; ``ignore_eos`` is left to ``eos``.
        exact: Decode in exact numerics.
        eos: Ids that end a sequence. ``limit``: most tokens of prompt and continuation together.
    """

    def __init__(
        self,
        rows: Rows[Key],
        starts: Iterable[Start[Key]],
        settings: GenerationSettings,
        *,
        exact: bool,
        eos: Collection[int],
        limit: int,
    ) -> None:
        self._rows, self._starts, self._settings, self._exact = rows, iter(starts), settings, exact
        self._eos = np.array(sorted(eos), dtype=np.int64)
        self._limit = limit
        self._exhausted = False

    @property
    def kv_bytes(self) -> int:
        """Bytes allocated for the cache of the rows."""
        return self._rows.kv_bytes

    def fill(self) -> list[Finished[Key]]:
        """Give free rows to what waits; those that end with the tokens they start with."""
        finished = []
        while not self._exhausted and self._rows.free:
            start = next(self._starts, None)
            if start is None:
                self._exhausted = True
                break
            finish = self.reason(start.tokens[-1], len(start.tokens), start.prompt_tokens, start.mask)
            if finish is None:
                self._rows.admit(
                    start.key, start.noise, start.cache, start.row, start.prompt_tokens, start.tokens, start.mask
                )
            else:
                finished.append(Finished(start.key, start.tokens, finish))
        return finished

    def drop(self, key: Key) -> None:
        """Give a sequence up; nothing happens if it has no row."""
        row = self._rows.row(key)
        if row is not None:
            self._rows.release(row)

    def reason(self, token: int, count: int, prompt_tokens: int, mask: TokenMask | None = None) -> Finish | None:
        """Why a sequence of ``count`` tokens ends with ``token``; None if it goes on."""
        if (self._eos == token).any() or (mask is not None and mask.finished):
            return "stop"
        if count >= self._settings.max_new_tokens:
            return "length"
        return "context" if prompt_tokens + count >= self._limit else None

    def advance(self) -> Step[Key] | None:
        """The next token of every sequence on a row; None if there is none. Raises GenerationError."""
        rows = self._rows
        active = rows.active()
        if not len(active):
            return None
        if self._exhausted and rows.size > 2 and 4 * len(active) <= 3 * rows.size:
            # A free row costs nearly as much as a busy one.
            rows.compact()
            active = rows.active()
        logits = rows.step(exact=self._exact)
        if len(active) < rows.size:
            logits = logits[active]
        counts = rows.counts[active]
        tokens = choose(
            rows.masked(active, logits),
            self._settings,
            rows.noise[active],
            counts,
            None if rows.seen is None else rows.seen[active],
        )
        rows.take(active, tokens)
        keys = rows.keys(active)
        total = rows.prompts[active] + counts + 1
        ended = (
            (tokens[:, None] == self._eos).any(axis=1)
            | (counts + 1 >= self._settings.max_new_tokens)
            | (total >= self._limit)
            | rows.finished(active)
        )
        finished = []
        for row in active[ended].tolist():
            mask = rows.masks[row]
            key, sequence = rows.release(row)
            finish = self.reason(sequence[-1], len(sequence), int(rows.prompts[row]), mask)
            finished.append(Finished(key, sequence, finish or "length"))
        return Step(keys, tokens, logits, finished)


class Cancel(Protocol):
    """What says that work is to end, such as a ``threading.Event``."""

    def is_set(self) -> bool: ...


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
        self._batch = max(2, batch)
        self._eos = eos
        self._stopped = False
        self.steps = 0
        self.row_steps = 0
        self.cancel: Cancel | None = None

    def stop(self) -> None:
        """End a run after its current step, from another thread; its unfinished sequences are given up."""
        self._stopped = True

    def run(self, starts: Iterable[Start[SampleKey]]) -> Iterator[Finished[SampleKey]]:
        """Continue every sequence to its end; results come in the order in which they end.

        ``starts`` is read only as far as there is room, so it may produce them (prefills) as it goes.

        Raises:
            GenerationError: The model's logits are not finite, or out of memory.
        """
        settings = self._settings
        rows = Rows[tuple[str, int]](
            self._session.decoder(self._batch),
            max_new_tokens=settings.max_new_tokens,
            penalised=settings.repetition_penalty != 1.0,
        )
        batch = Batch(
            rows,
            starts,
            settings.generation,
            exact=settings.numerics == "exact",
            eos=self._eos,
            limit=self._session.geometry.limit,
        )
        while not self._stopped:
            yield from batch.fill()
            if self.cancel is not None and self.cancel.is_set():
                return
            step = batch.advance()
            if step is None:
                return
            self.steps += 1
            self.row_steps += len(step.keys)
            yield from step.finished
