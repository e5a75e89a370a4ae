"""K continuations of one prompt, decoded together on the rows of a batch or one after the other.

The prompt is computed once; every row begins with a copy of its keys and values. A row's noise depends on the seed,
its number and the position only. In ``exact`` mode its logits depend on its own tokens only, so that trajectory j of a
seed is the same whatever the number of trajectories or rows; ``fast`` steps come up to the same except for what the
kernels do differently for one row and for several (``edgedistill selftest``), for which reason a batch has at least
two rows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgedistill.runtime.batch.slots import Rows
from edgedistill.runtime.sampling import choose
from edgedistill.runtime.stats import Stopwatch
from edgedistill.trajectories.confidence import token_confidence

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy.typing as npt

    from edgedistill.runtime.decoder import Decoder
    from edgedistill.runtime.generate import FinishReason, SequenceDecoder
    from edgedistill.runtime.session import DecoderSession
    from edgedistill.runtime.settings import GenerationSettings

    Logits = npt.NDArray[np.float32]
    Seen = npt.NDArray[np.bool_]

ROOM = 256
"""Tokens that rows have room for at first."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token that came: of which trajectory, how confident (NaN where not asked for), and whether it was the last."""

    index: int
    token: int
    confidence: float
    finish: FinishReason | None


@dataclass(frozen=True, slots=True)
class Start:
    """What all trajectories begin with.

    Attributes:
        prompt: Its token ids.
        logits: float32 [V] after it.
        noise: uint64 [K], key of each trajectory's noise.
        eos: Ids that end a trajectory. ``limit``: tokens of prompt and continuation together.
        exact: Decode in exact mode. ``confident``: measure the confidence of every token.
    """

    prompt: Sequence[int]
    logits: Logits
    noise: npt.NDArray[np.uint64]
    settings: GenerationSettings
    eos: Collection[int]
    limit: int
    exact: bool
    confident: bool

    def reason(self, token: int, count: int) -> FinishReason | None:
        """Why a trajectory of ``count`` tokens ends with ``token``; None if it goes on."""
        if token in self.eos and not self.settings.ignore_eos:
            return "stop"
        if count >= self.settings.max_new_tokens:
            return "length"
        return "context" if len(self.prompt) + count >= self.limit else None

    def seen(self) -> Seen | None:
        """bool [1, V], the prompt's tokens, for a repetition penalty; None without one."""
        if self.settings.repetition_penalty == 1.0:
            return None
        seen = np.zeros((1, len(self.logits)), dtype=np.bool_)
        seen[0, list(self.prompt)] = True
        return seen

    def choose(
        self, logits: Logits, noise: npt.NDArray[np.uint64], counts: Sequence[int], seen: Seen | None
    ) -> list[int]:
        """The next token of each row of ``logits`` float32 [n, V]."""
        positions = np.asarray(counts, dtype=np.int64)
        return [int(token) for token in choose(logits, self.settings, noise, positions, seen)]

    def confidences(self, logits: Logits) -> list[float]:
        """The confidence of each row's distribution."""
        if not self.confident:
            return [float("nan")] * len(logits)
        return [float(value) for value in token_confidence(logits)]


class Decoding(Protocol):
    """Trajectories in progress.

    Attributes:
        watch: Time of the steps.
        kv_bytes: Most bytes of cache held so far.
    """

    watch: Stopwatch
    kv_bytes: int

    def step(self) -> list[Chosen]:
        """One token of each of some trajectories; empty once all have ended. Raises GenerationError."""
        ...

    def stop(self, index: int) -> None:
        """End a trajectory, begun or not; nothing happens if it has ended."""
        ...


class Together:
    """On the rows of one batch; what finds no free row waits for one."""

    def __init__(self, session: DecoderSession, prefix: Decoder, start: Start, *, rows: int) -> None:
        """``prefix``: its first row holds the prompt, and must keep it. ``rows``: at least 2."""
        self._start, self._prefix = start, prefix
        self._waiting = deque(range(len(start.noise)))
        self._seen = start.seen()
        self._rows = Rows[int](
            session.decoder(rows),
            max_new_tokens=start.settings.max_new_tokens,
            penalised=self._seen is not None,
            room=ROOM,
        )
        self.watch = Stopwatch()
        self.kv_bytes = 0

    def step(self) -> list[Chosen]:
        """See ``Decoding``; filling rows is a step by itself."""
        with self.watch:
            admitted = self._admit()
            found = admitted or self._advance()
            self.kv_bytes = max(self.kv_bytes, self._rows.kv_bytes + self._prefix.kv_bytes)
        return found

    def stop(self, index: int) -> None:
        """See ``Decoding``."""
        if index in self._waiting:
            self._waiting.remove(index)
            return
        for row in self._rows.active().tolist():
            if self._rows.key(row) == index:
                self._rows.release(row)

    def _admit(self) -> list[Chosen]:
        start, found = self._start, []
        while self._waiting and self._rows.free:
            index = self._waiting.popleft()
            noise = start.noise[index : index + 1]
            (token,) = start.choose(start.logits[None], noise, [0], self._seen)
            finish = start.reason(token, 1)
            if finish is None:
                self._rows.admit(index, noise[0], self._prefix.cache, 0, len(start.prompt), (token,))
            found.append(Chosen(index, token, start.confidences(start.logits[None])[0], finish))
        return found

    def _advance(self) -> list[Chosen]:
        start = self._start
        active = self._rows.active()
        if not len(active):
            return []
        if not self._waiting and self._rows.size > 2 and 4 * len(active) <= 3 * self._rows.size:
            # A free row costs nearly as much as a busy one.
            self._rows.compact()
            active = self._rows.active()
        rows = self._rows
        logits = rows.step(exact=start.exact)
        if len(active) < rows.size:
            logits = logits[active]
        counts = rows.counts[active]
        tokens = start.choose(
            logits, rows.noise[active], counts.tolist(), None if rows.seen is None else rows.seen[active]
        )
        rows.take(active, np.asarray(tokens, dtype=np.int64))
        found = []
        for row, token, count, sure in zip(
            active.tolist(), tokens, counts.tolist(), start.confidences(logits), strict=True
        ):
            finish = start.reason(token, count + 1)
            found.append(Chosen(rows.key(row), token, sure, finish))
            if finish is not None:
                rows.release(row)
        return found


class OneByOne:
    """One after the other on one sequence: where there is memory for one only, or the graph knows no batches."""

    def __init__(self, decoder: SequenceDecoder, start: Start) -> None:
        """``decoder`` holds the prompt; it holds it again at the end."""
        self._start, self._decoder = start, decoder
        self._waiting = deque(range(len(start.noise)))
        self._current: int | None = None
        self._seen = start.seen()
        self._occurred: Seen | None = None
        self._last, self._count = 0, 0
        self.watch = Stopwatch()
        self.kv_bytes = decoder.kv_bytes

    def step(self) -> list[Chosen]:
        """See ``Decoding``."""
        start = self._start
        with self.watch:
            if self._current is None:
                if not self._waiting:
                    return []
                self._current, self._count = self._waiting.popleft(), 0
                self._occurred = None if self._seen is None else self._seen.copy()
                logits = start.logits[None]
            else:
                logits = self._decoder.feed([self._last], exact=start.exact)[None]
            index = self._current
            noise = start.noise[index : index + 1]
            (self._last,) = start.choose(logits, noise, [self._count], self._occurred)
            self._count += 1
            if self._occurred is not None:
                self._occurred[0, self._last] = True
            finish = start.reason(self._last, self._count)
            sure = start.confidences(logits)[0]
            self.kv_bytes = max(self.kv_bytes, self._decoder.kv_bytes)
        if finish is not None:
            self._end()
        return [Chosen(index, self._last, sure, finish)]

    def stop(self, index: int) -> None:
        """See ``Decoding``."""
        if index in self._waiting:
            self._waiting.remove(index)
        elif index == self._current:
            self._end()

    def _end(self) -> None:
        self._current = None
        self._decoder.truncate(len(self._start.prompt))
