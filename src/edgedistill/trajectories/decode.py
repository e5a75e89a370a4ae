"""K continuations of one prompt, decoded together on the rows of a batch or one after the other.

The prompt is computed once; every row begins with a copy of its keys and values. A row's noise depends on the seed,
its number and the position only. In ``exact`` mode its logits depend on its own tokens only, so that trajectory j of a
seed is the same whatever the number of trajectories or rows; ``fast`` steps come up to the same except for what the
kernels do differently for one row and for several (``edgedistill selftest``), for which reason a batch has at least
two rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.runtime.batch.scheduler import Batch
from edgedistill.runtime.batch.scheduler import Start as Begin
from edgedistill.runtime.batch.slots import OneRow, Rows
from edgedistill.runtime.sampling import choose
from edgedistill.runtime.stats import Stopwatch
from edgedistill.trajectories.vote import token_confidence

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

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
        exact: Decode in exact numerics. ``confident``: measure the confidence of every token.
    """

    prompt: Sequence[int]
    logits: Logits
    noise: npt.NDArray[np.uint64]
    settings: GenerationSettings
    eos: Collection[int]
    limit: int
    exact: bool
    confident: bool

    def seen(self) -> Seen | None:
        """bool [1, V], the prompt's tokens, for a repetition penalty; None without one."""
        if self.settings.repetition_penalty == 1.0:
            return None
        seen = np.zeros((1, len(self.logits)), dtype=np.bool_)
        seen[0, list(self.prompt)] = True
        return seen

    def confidences(self, logits: Logits) -> list[float]:
        """The confidence of each row's distribution."""
        if not self.confident:
            return [float("nan")] * len(logits)
        return [float(value) for value in token_confidence(logits)]


class Decoding:
    """Trajectories in progress; what finds no free row waits for one.

    Attributes:
        watch: Time of the steps.
        kv_bytes: Most bytes of cache held so far.
    """

    def __init__(self, rows: Rows[int], start: Start, prefix: Decoder | None = None) -> None:
        """``prefix``: its first row holds the prompt and must keep it; None where the row of ``rows`` holds it."""
        self._start, self._prefix = start, prefix
        self._dropped: set[int] = set()
        self._begun: list[tuple[int, int]] = []
        eos = () if start.settings.ignore_eos else start.eos
        self._batch = Batch(rows, self._starts(), start.settings, exact=start.exact, eos=eos, limit=start.limit)
        self._sure = start.confidences(start.logits[None])[0]
        self.watch = Stopwatch()
        self.kv_bytes = 0

    def step(self) -> list[Chosen]:
        """One token of each of some trajectories; empty once all have ended. Raises GenerationError.

        Filling rows is a step by itself.
        """
        with self.watch:
            chosen = self._fill() or self._advance()
            self.kv_bytes = max(self.kv_bytes, self._batch.kv_bytes + (self._prefix.kv_bytes if self._prefix else 0))
        return chosen

    def stop(self, index: int) -> None:
        """End a trajectory, begun or not; nothing happens if it has ended."""
        self._dropped.add(index)
        self._batch.drop(index)

    def _starts(self) -> Iterator[Begin[int]]:
        start, seen = self._start, self._start.seen()
        cache = self._prefix.cache if self._prefix else None
        for index in range(len(start.noise)):
            if index not in self._dropped:
                noise = start.noise[index : index + 1]
                token = int(choose(start.logits[None], start.settings, noise, np.zeros(1, np.int64), seen)[0])
                self._begun.append((index, token))
                yield Begin(index, noise[0], cache, 0, len(start.prompt), (token,))

    def _fill(self) -> list[Chosen]:
        ended = {one.key: one.finish for one in self._batch.fill()}
        begun, self._begun = self._begun, []
        return [Chosen(index, token, self._sure, ended.get(index)) for index, token in begun]

    def _advance(self) -> list[Chosen]:
        step = self._batch.advance()
        if step is None:
            return []
        ended = {one.key: one.finish for one in step.finished}
        sure = self._start.confidences(step.logits)
        return [
            Chosen(key, token, confidence, ended.get(key))
            for key, token, confidence in zip(step.keys, step.tokens.tolist(), sure, strict=True)
        ]


def together(session: DecoderSession, prefix: Decoder, start: Start, *, rows: int) -> Decoding:
    """On the rows of one batch, at least 2."""
    settings = start.settings
    places = Rows[int](
        session.decoder(rows),
        max_new_tokens=settings.max_new_tokens,
        penalised=settings.repetition_penalty != 1.0,
        room=ROOM,
    )
    return Decoding(places, start, prefix)


def one_by_one(decoder: SequenceDecoder, start: Start) -> Decoding:
    """One after the other on the sequence that holds the prompt: where there is memory or a graph for one only."""
    settings = start.settings
    penalised = len(start.logits) if settings.repetition_penalty != 1.0 else None
    return Decoding(OneRow[int](decoder, max_new_tokens=settings.max_new_tokens, penalised=penalised), start)
