"""The slots of a continuous batch: the sequence in each, its noise and position, the KV cache behind them.

A sequence is admitted with a copy of its prompt's cache entries, stepped together with the others, and gives its place
back when it ends. A row's noise depends on its key and position only (``sampling.choose``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgedistill.runtime.decoder import Decoder
    from edgedistill.runtime.generate import SequenceDecoder
    from edgedistill.runtime.kv_cache import KVCache
    from edgedistill.runtime.structured.masks import TokenMask

    Logits = npt.NDArray[np.float32]

Key = TypeVar("Key")


class Rows(Generic[Key]):
    """Occupied and free rows of one decoder.

    Args:
        decoder: A batch of the wanted size; its rows are free.
        max_new_tokens: Most tokens of one sequence.
        penalised: Keep account of the tokens that occurred, for a repetition penalty.
        room: Tokens to make room for beyond the prompt when a sequence is admitted; None: all that may come. Growing
            moves every row, so that it pays where most sequences stay far below ``max_new_tokens``.

    Attributes:
        size: Number of rows.
        noise: uint64 [size], key of each row's noise.
        counts, prompts: int64 [size], tokens generated so far and tokens of the prompt.
        seen: bool [size, V], tokens that occurred; None unless ``penalised``.
        masks: Which tokens may follow on each row; None: any.
    """

    def __init__(self, decoder: Decoder, *, max_new_tokens: int, penalised: bool, room: int | None = None) -> None:
        self._batch = decoder
        self._decoder: SequenceDecoder = decoder
        self._room = max_new_tokens if room is None else min(room, max_new_tokens)
        self._allocate(decoder.cache.batch, max_new_tokens, decoder.session.info.vocab_size if penalised else None)

    def _allocate(self, size: int, max_new_tokens: int, penalised: int | None) -> None:
        self.size = size
        self._keys: list[Key | None] = [None] * size
        self.masks: list[TokenMask | None] = [None] * size
        self.noise = np.zeros(size, dtype=np.uint64)
        self.counts = np.zeros(size, dtype=np.int64)
        self.prompts = np.zeros(size, dtype=np.int64)
        self._last = np.zeros((size, 1), dtype=np.int64)
        self._tokens = np.zeros((size, max_new_tokens), dtype=np.int32)
        self.seen = None if penalised is None else np.zeros((size, penalised), dtype=np.bool_)

    @property
    def free(self) -> bool:
        """Whether a row is free."""
        return None in self._keys

    @property
    def kv_bytes(self) -> int:
        """Bytes allocated for the cache."""
        return self._decoder.kv_bytes

    def active(self) -> npt.NDArray[np.int64]:
        """int64 [n]: the occupied rows."""
        return np.array([row for row, key in enumerate(self._keys) if key is not None], dtype=np.int64)

    def keys(self, rows: npt.NDArray[np.int64]) -> list[Key]:
        """Who sits on ``rows``; raises ValueError if one is free."""
        keys = [key for row in rows.tolist() if (key := self._keys[row]) is not None]
        if len(keys) < len(rows):
            raise ValueError("a row is free")
        return keys

    def row(self, key: Key) -> int | None:
        """Where ``key`` sits; None if it does not."""
        return self._keys.index(key) if key in self._keys else None

    def admit(
        self,
        key: Key,
        noise: np.uint64,
        cache: KVCache | None,
        row: int,
        prompt_tokens: int,
        tokens: Sequence[int],
        mask: TokenMask | None = None,
    ) -> None:
        """Give a sequence a free row.

        Args:
            key: Its name.
            noise: Key of its noise.
            cache, row: Where the entries of the prompt and of all ``tokens`` but the last lie; they are copied.
            prompt_tokens: Length of the prompt.
            tokens: Generated so far, at least one.
            mask: Which may follow; it has seen ``tokens``.

        Raises:
            ContextLengthError, OutOfMemoryError: See ``KVCache.reserve``.
        """
        place = self._keys.index(None)
        count = len(tokens)
        held = self._hold(place, cache, row, prompt_tokens, count)
        self._keys[place] = key
        self.masks[place] = mask
        self.noise[place] = noise
        self.counts[place] = count
        self.prompts[place] = prompt_tokens
        self._last[place, 0] = tokens[-1]
        self._tokens[place, :count] = tokens
        if self.seen is not None:
            self.seen[place] = False
            self.seen[place, held] = True
            self.seen[place, tokens[-1]] = True

    def _hold(
        self, place: int, cache: KVCache | None, row: int, prompt_tokens: int, count: int
    ) -> npt.NDArray[np.int64]:
        """Put the entries of a sequence at ``place``; their ids."""
        if cache is None:
            raise ValueError("a batch copies its sequences from a cache")
        own, entries = self._batch.cache, prompt_tokens + count - 1
        own.reserve(min(prompt_tokens + max(self._room, count) + 1, own.geometry.limit))
        own.put_row(place, cache, row, entries)
        self._batch.complete(place, entries)
        return own.tokens[place, :entries]

    def step(self, *, exact: bool) -> Logits:
        """float32 [size, V] after feeding every occupied row its last token; garbage on free rows."""
        occupied = np.array([key is not None for key in self._keys])
        return self._batch.step(self._last, occupied, exact=exact)[:, 0]

    def masked(self, active: npt.NDArray[np.int64], logits: Logits) -> Logits:
        """``logits`` float32 [n, V] of the rows ``active`` without the tokens that may not follow."""
        masks = [self.masks[row] for row in active.tolist()]
        if not any(masks):
            return logits
        return np.stack([row if mask is None else mask.apply(row) for mask, row in zip(masks, logits, strict=True)])

    def finished(self, active: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """bool [n]: which of the rows ``active`` are complete, as their masks say."""
        masks = [self.masks[row] for row in active.tolist()]
        return np.array([mask is not None and mask.finished for mask in masks], dtype=np.bool_)

    def take(self, active: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]) -> None:
        """Append a token to each of the rows ``active``."""
        self._tokens[active, self.counts[active]] = tokens
        self.counts[active] += 1
        self._last[active, 0] = tokens
        if self.seen is not None:
            self.seen[active, tokens] = True
        for row, token in zip(active.tolist(), tokens.tolist(), strict=True):
            if (mask := self.masks[row]) is not None:
                mask.observe(token)

    def release(self, row: int) -> tuple[Key, tuple[int, ...]]:
        """Free ``row``; its key and tokens."""
        (key,) = self.keys(np.array([row]))
        self._keys[row] = self.masks[row] = None
        self._drop(row)
        return key, tuple(self._tokens[row, : self.counts[row]].tolist())

    def _drop(self, row: int) -> None:
        self._batch.truncate(0, row=row)

    def compact(self) -> None:
        """Go on with the occupied rows alone, at least one, with a free one beside it if it is alone."""
        kept = self.active()
        size = self.size = max(2, len(kept))
        chosen = [*kept.tolist(), *[int(kept[0])] * (size - len(kept))]
        self._batch.compact(kept.tolist(), size)
        keys = [self._keys[row] for row in kept]
        masks = [self.masks[row] for row in kept]
        self._keys = [*keys, *[None] * (size - len(kept))]
        self.masks = [*masks, *[None] * (size - len(kept))]
        self.noise, self.counts, self.prompts = self.noise[chosen], self.counts[chosen], self.prompts[chosen]
        self._last, self._tokens = self._last[chosen], self._tokens[chosen]
        self.seen = None if self.seen is None else self.seen[chosen]


class OneRow(Rows[Key]):
    """The single place of a decoder whose cache holds the prompt: where memory or graph allow no batch.

    What is admitted starts from that prompt with one token; ``cache`` of ``admit`` is None.
    """

    def __init__(self, decoder: SequenceDecoder, *, max_new_tokens: int, penalised: int | None) -> None:
        """``penalised``: size of the vocabulary, for a repetition penalty."""
        self._decoder = decoder
        self._allocate(1, max_new_tokens, penalised)

    def step(self, *, exact: bool) -> Logits:
        """See ``Rows``."""
        return self._decoder.feed(self._last[0].tolist(), exact=exact)[None]

    def _hold(
        self,
        place: int,  # noqa: ARG002
        cache: KVCache | None,  # noqa: ARG002
        row: int,  # noqa: ARG002
        prompt_tokens: int,
        count: int,  # noqa: ARG002
    ) -> npt.NDArray[np.int64]:
        return self._decoder.cached(exact=False)[:prompt_tokens]

    def _drop(self, row: int) -> None:
        self._decoder.truncate(int(self.prompts[row]))
