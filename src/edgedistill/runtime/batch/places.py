"""Places of a batch that sequences join and leave while it runs, over one KV cache that shares beginnings.

The first ``decoding`` rows of the cache are stepped together; behind them lie the rows that are being prefilled and the
free ones, which keep what their last sequence left. A prompt that begins as any row does takes that row's entries
instead of computing them: the questions under one system prompt, the next turn of a conversation, several samples of
one prompt. Steps go over exactly the rows in use, so that a lone sequence is decoded as ``Model.generate`` does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgedistill.runtime.chunks import chunk_bounds
from edgedistill.runtime.decoder import SCORE_BYTES, Decoder, Scores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from edgedistill.runtime.optimum_session import OptimumSession
    from edgedistill.runtime.session import DecoderSession
    from edgedistill.runtime.settings import Numerics

    Ids = npt.NDArray[np.int64]
    Logits = npt.NDArray[np.float32]


class Place:
    """Where one sequence lies; ``row`` changes as others come and go. ``used``: when it was last begun."""

    def __init__(self, row: int) -> None:
        self.row = row
        self.busy = False
        self.used = 0


class Places(Protocol):
    """What a live batch needs: ``SharedPlaces``, or ``SinglePlace`` where the graph takes one sequence."""

    @property
    def size(self) -> int:
        """Most sequences at a time."""
        ...

    @property
    def kv_bytes(self) -> int:
        """Bytes allocated for keys and values."""
        ...

    @property
    def free(self) -> bool:
        """Whether a place is free."""
        ...

    def shared(self, prompt: Ids) -> int:
        """Tokens of ``prompt`` that some place holds already."""
        ...

    def begin(self, prompt: Ids, room: int) -> tuple[Place, int]:
        """A free place that holds the longest known beginning of ``prompt``, and how many tokens that is."""
        ...

    def feed(self, place: Place, tokens: Sequence[int], *, logits: bool) -> Logits:
        """Compute further tokens of a prompt: float32 [V] after the last one (empty without ``logits``)."""
        ...

    def score(self, place: Place, ids: Ids, *, chunk: int) -> Iterator[Scores]:
        """Compute a whole prompt [1, S] and give the logits of all its positions in slices."""
        ...

    def promote(self, place: Place) -> None:
        """The prompt is computed: from now on the place takes part in ``step``, as the last one."""
        ...

    def step(self, tokens: Sequence[int], longest: int) -> Logits:
        """float32 [n, V] after feeding each decoding place, in their order, its token."""
        ...

    def step_all(self, tokens: Sequence[int], longest: int) -> Logits:
        """float32 [n, V] after each of ``tokens``, two or more, fed to the only decoding place."""
        ...

    def give_back(self, count: int) -> None:
        """Forget the last ``count`` tokens of the only decoding place."""
        ...

    def retire(self, place: Place, *, forget: bool = False) -> None:
        """Free a place; ``forget`` where its entries cannot be relied on."""
        ...


class SharedPlaces:
    """Rows of one cache; see the top of this file.

    Args:
        session: Of the model.
        size: Rows, at least 1.
        numerics: ``exact``: every entry and every logit is that of a prefill, whatever runs beside it.

    Attributes:
        decoding: How many rows are stepped together.
    """

    def __init__(self, session: DecoderSession, size: int, *, numerics: Numerics = "fast") -> None:
        self._session = session
        self._exact = numerics == "exact"
        self._cache = session.decoder(size).cache
        self._limit = session.geometry.limit
        self._places = [Place(row) for row in range(size)]
        self._views: dict[tuple[int, int], Decoder] = {}
        self._generation = self._cache.generation
        self._clock = 0
        self.decoding = 0

    @property
    def size(self) -> int:
        """Most sequences at a time."""
        return len(self._places)

    @property
    def kv_bytes(self) -> int:
        """Bytes allocated for keys and values."""
        return self._cache.nbytes

    @property
    def free(self) -> bool:
        """Whether a place is free."""
        return not all(place.busy for place in self._places)

    def shared(self, prompt: Ids) -> int:
        """Tokens of ``prompt`` that some place holds already; the last one, always computed, does not count."""
        return max(self._reach(row, prompt) for row in range(self.size))

    def begin(self, prompt: Ids, room: int) -> tuple[Place, int]:
        """A free place that holds the longest known beginning of ``prompt``, and how many tokens that is.

        Args:
            prompt: int64 [n], at least one.
            room: Tokens to make room for beyond the prompt.

        Raises:
            ContextLengthError, OutOfMemoryError: See ``KVCache.reserve``.
        """
        self._reserve(len(prompt) + room)
        common = [self._reach(row, prompt) for row in range(self.size)]
        free = [place for place in self._places if not place.busy]
        source = max(range(self.size), key=lambda row: (common[row], not self._places[row].busy))
        place = min(free, key=lambda one: one.used)
        if not self._places[source].busy and 2 * common[source] >= int(self._cache.lengths[source]):
            place = self._places[source]  # most of what it holds is the beginning of this prompt
        if place.row == source:
            self._cache.truncate(place.row, common[source])
        else:
            self._cache.put_row(place.row, self._cache, source, common[source])
        self._clock += 1
        place.busy, place.used = True, self._clock
        return place, common[source]

    def feed(self, place: Place, tokens: Sequence[int], *, logits: bool) -> Logits:
        """Compute further tokens of a prompt: float32 [V] after the last one (empty without ``logits``)."""
        self._reserve(int(self._cache.lengths[place.row]) + len(tokens))
        return self._view(place.row, place.row + 1).feed(tokens, exact=True, logits=logits)

    def score(self, place: Place, ids: Ids, *, chunk: int) -> Iterator[Scores]:
        """Compute a whole prompt [1, S] and give the logits of all its positions in slices.

        Other places may be stepped, begun and retired between two slices.
        """
        self._cache.truncate(place.row, 0)
        # One slice a view: the cache may grow, and the view be another one, before the next.
        most = min(chunk, SCORE_BYTES // (4 * self._session.info.vocab_size))
        for start, stop in chunk_bounds(ids.shape[1], max(2, most)):
            self._reserve(ids.shape[1])
            for part in self._view(place.row, place.row + 1).score(ids[:, start:stop], chunk=stop - start + 1):
                yield Scores(part.rows, part.columns + start, part.logits)

    def promote(self, place: Place) -> None:
        """The prompt is computed: from now on the place takes part in ``step``, as the last one."""
        self._swap(place.row, self.decoding)
        self.decoding += 1

    def step(self, tokens: Sequence[int], longest: int) -> Logits:
        """float32 [n, V] after feeding each decoding place, in their order, its token; a view until the next step.

        ``longest``: most tokens of a decoding sequence, with this one.
        """
        self._reserve(longest)
        view = self._view(0, self.decoding)
        if self.decoding == 1:
            return view.feed(tokens, exact=self._exact)[None]
        return view.step(np.array(tokens, dtype=np.int64)[:, None], exact=self._exact)[:, 0]

    def step_all(self, tokens: Sequence[int], longest: int) -> Logits:
        """float32 [n, V] after each of ``tokens``, two or more, fed to the only decoding place.

        ``longest``: tokens of its sequence, with these.
        """
        self._reserve(longest)
        return self._view(0, 1).feed_all(tokens, exact=self._exact)

    def give_back(self, count: int) -> None:
        """Forget the last ``count`` tokens of the only decoding place."""
        self._cache.truncate(0, int(self._cache.lengths[0]) - count)

    def retire(self, place: Place, *, forget: bool = False) -> None:
        """Free a place; its entries stay for whom they help, unless they are to be forgotten."""
        if place.row < self.decoding:
            self.decoding -= 1
            self._swap(place.row, self.decoding)
        if forget:
            self._cache.truncate(place.row, 0)
        place.busy = False

    def _reach(self, row: int, prompt: Ids) -> int:
        return self._cache.reach(row, self._common(row, prompt))

    def _common(self, row: int, prompt: Ids) -> int:
        held = self._cache.tokens[row, : min(int(self._cache.lengths[row]), len(prompt) - 1)]
        differs = held != prompt[: len(held)]
        return int(differs.argmax()) if differs.any() else len(held)

    def _reserve(self, tokens: int) -> None:
        # Two more than are held: exact steps add a column of padding.
        self._cache.reserve(max(tokens, min(tokens + 2, self._limit)))
        if self._generation != self._cache.generation:
            self._views.clear()
            self._generation = self._cache.generation

    def _view(self, start: int, stop: int) -> Decoder:
        view = self._views.get((start, stop))
        if view is None:
            view = self._views[start, stop] = Decoder(self._session, self._cache.rows(start, stop))
        return view

    def _swap(self, a: int, b: int) -> None:
        if a == b:
            return
        self._cache.swap(a, b)
        first, second = self._places[a], self._places[b]
        first.row, second.row = b, a
        self._places[a], self._places[b] = second, first


class SinglePlace:
    """The one sequence of a graph that takes no batch (the fallback exporter's)."""

    size = 1

    def __init__(self, session: OptimumSession, *, numerics: Numerics = "fast") -> None:
        self._decoder = session.decoder()
        self._exact = numerics == "exact"
        self._place = Place(0)

    @property
    def kv_bytes(self) -> int:
        """Bytes of the cache."""
        return self._decoder.kv_bytes

    @property
    def free(self) -> bool:
        """Whether no sequence runs."""
        return not self._place.busy

    def shared(self, prompt: Ids) -> int:
        """Tokens of ``prompt`` that the cache holds already."""
        held = self._decoder.cached(exact=self._exact)[: len(prompt) - 1]
        differs = held != prompt[: len(held)]
        return int(differs.argmax()) if differs.any() else len(held)

    def begin(self, prompt: Ids, room: int) -> tuple[Place, int]:  # noqa: ARG002
        """The place, with the beginning that it shares with ``prompt``."""
        common = self.shared(prompt)
        self._decoder.truncate(common)
        self._place.busy = True
        return self._place, common

    def feed(self, place: Place, tokens: Sequence[int], *, logits: bool) -> Logits:  # noqa: ARG002
        """See ``Places``."""
        return self._decoder.feed(tokens, exact=True, logits=logits)

    def score(self, place: Place, ids: Ids, *, chunk: int) -> Iterator[Scores]:  # noqa: ARG002
        """See ``Places``."""
        self._decoder.truncate(0)
        yield from self._decoder.score(ids, chunk=chunk)

    def promote(self, place: Place) -> None:
        """Nothing to do: there is one."""

    def step(self, tokens: Sequence[int], longest: int) -> Logits:  # noqa: ARG002
        """float32 [1, V]."""
        return self._decoder.feed(tokens, exact=self._exact)[None]

    def step_all(self, tokens: Sequence[int], longest: int) -> Logits:  # noqa: ARG002
        """See ``Places``."""
        return self._decoder.feed_all(tokens, exact=self._exact)

    def give_back(self, count: int) -> None:
        """See ``Places``."""
        self._decoder.truncate(self._decoder.length - count)

    def retire(self, place: Place, *, forget: bool = False) -> None:
        """Free the place."""
        if forget:
            self._decoder.truncate(0)
        place.busy = False
