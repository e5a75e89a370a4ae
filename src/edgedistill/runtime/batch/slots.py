"""The places of a batch that is decoded continuously: what sits on each, its noise and position, the cache behind them.

A sequence is admitted with a copy of its prompt's cache entries, stepped together with the others, and gives its place
back when it ends. A row's noise depends on its key and position only (``choice``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgedistill.runtime.decoder import Decoder
    from edgedistill.runtime.kv_cache import KVCache

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
    """

    def __init__(self, decoder: Decoder, *, max_new_tokens: int, penalised: bool, room: int | None = None) -> None:
        size = self.size = decoder.cache.batch
        self._room = max_new_tokens if room is None else min(room, max_new_tokens)
        self._decoder = decoder
        self._keys: list[Key | None] = [None] * size
        self.noise = np.zeros(size, dtype=np.uint64)
        self.counts = np.zeros(size, dtype=np.int64)
        self.prompts = np.zeros(size, dtype=np.int64)
        self._last = np.zeros((size, 1), dtype=np.int64)
        self._tokens = np.zeros((size, max_new_tokens), dtype=np.int32)
        self.seen = np.zeros((size, decoder.session.info.vocab_size), dtype=np.bool_) if penalised else None

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

    def key(self, row: int) -> Key:
        """Who sits on ``row``; raises ValueError if it is free."""
        key = self._keys[row]
        if key is None:
            raise ValueError(f"row {row} is free")
        return key

    def row(self, key: Key) -> int:
        """Where ``key`` sits; raises ValueError if it does not."""
        return self._keys.index(key)

    def admit(
        self, key: Key, noise: np.uint64, cache: KVCache, row: int, prompt_tokens: int, tokens: Sequence[int]
    ) -> None:
        """Give a sequence a free row.

        Args:
            key: Its name.
            noise: Key of its noise.
            cache, row: Where the entries of the prompt and of all ``tokens`` but the last lie; they are copied.
            prompt_tokens: Length of the prompt.
            tokens: Generated so far, at least one.

        Raises:
            ContextLengthError, OutOfMemoryError: See ``KVCache.reserve``.
        """
        place = self._keys.index(None)
        own = self._decoder.cache
        count = len(tokens)
        entries = prompt_tokens + count - 1
        own.reserve(min(prompt_tokens + max(self._room, count) + 1, own.geometry.limit))
        own.put_row(place, cache, row, entries)
        self._keys[place] = key
        self.noise[place] = noise
        self.counts[place] = count
        self.prompts[place] = prompt_tokens
        self._last[place, 0] = tokens[-1]
        self._tokens[place, :count] = tokens
        if self.seen is not None:
            self.seen[place] = False
            self.seen[place, own.tokens[place, :entries]] = True
            self.seen[place, tokens[-1]] = True

    def step(self, *, exact: bool) -> Logits:
        """float32 [size, V] after feeding every occupied row its last token; garbage on free rows."""
        occupied = np.array([key is not None for key in self._keys])
        return self._decoder.step(self._last, occupied, exact=exact)[:, 0]

    def take(self, active: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]) -> None:
        """Append a token to each of the rows ``active``."""
        self._tokens[active, self.counts[active]] = tokens
        self.counts[active] += 1
        self._last[active, 0] = tokens
        if self.seen is not None:
            self.seen[active, tokens] = True

    def release(self, row: int) -> tuple[Key, tuple[int, ...]]:
        """Free ``row``; its key and tokens."""
        key = self.key(row)
        self._keys[row] = None
        self._decoder.truncate(0, row=row)
        return key, tuple(self._tokens[row, : self.counts[row]].tolist())

    def compact(self) -> None:
        """Go on with the occupied rows alone, at least one, with a free one beside it if it is alone."""
        kept = self.active()
        size = self.size = max(2, len(kept))
        chosen = [*kept.tolist(), *[int(kept[0])] * (size - len(kept))]
        self._decoder.compact(kept.tolist(), size)
        keys = [self._keys[row] for row in kept]
        self._keys = [*keys, *[None] * (size - len(kept))]
        self.noise, self.counts, self.prompts = self.noise[chosen], self.counts[chosen], self.prompts[chosen]
        self._last, self._tokens = self._last[chosen], self._tokens[chosen]
        self.seen = None if self.seen is None else self.seen[chosen]
