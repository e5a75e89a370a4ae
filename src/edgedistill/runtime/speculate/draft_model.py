"""Guesses from a second, smaller model with the same tokens.

The draft draws from its own logits under the same settings and with the very noise that the sampler will use at that
place. So the two agree as often as their distributions do, with a probability of at least (1 - d) / (1 + d) for a
total variation distance d (Daliri, Musco and Suresh, arXiv 2408.07978), and what is written stays the target's own
draw: the text of a seed is the one without a draft.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgedistill.runtime.chunks import chunk_bounds
from edgedistill.runtime.speculate.lookup import TOP_CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from edgedistill.runtime.sampling import Sampler

PRIOR = 0.7
"""Share of right guesses before any was seen."""


class Interruptible(Protocol):
    """What runs for a while and can be ended (see ``decoder.Decoder``)."""

    def interrupt(self) -> None:
        """End the run in progress, from another thread, with InterruptedRunError; refuse further ones."""
        ...

    def resume(self) -> None:
        """Allow runs again."""
        ...


class DraftDecoder(Interruptible, Protocol):
    """One sequence of the draft (see ``decoder.Decoder``)."""

    def cached(self, *, exact: bool) -> npt.NDArray[np.int64]:
        """Ids in the cache."""
        ...

    def feed(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append tokens; float32 [V] after the last one."""
        ...

    def truncate(self, length: int) -> None:
        """Give tokens back."""
        ...


@dataclass(slots=True)
class Pace:
    """Seconds that a draft takes for a guess: a moving mean that no single outlier moves far. 0: not measured yet."""

    seconds: float = 0.0

    def record(self, seconds: float) -> None:
        """A guess took ``seconds``."""
        known = self.seconds
        self.seconds = known + 0.2 * (min(seconds, 2 * known) - known) if known else seconds


class DraftModel:
    """Guesses how one sequence goes on.

    Attributes:
        decoder: See below.

    Args:
        decoder: Of the draft; what its cache holds of the sequence is not computed again.
        sampler: Draws as the target's does, with the same key.
        pace: Outlives the sequence.
        vocab_size: Tokens that both models have.
        limit: Context of the draft.
        chunk: Tokens of a prompt computed at a time.
    """

    def __init__(
        self,
        decoder: DraftDecoder,
        sampler: Sampler,
        pace: Pace,
        *,
        vocab_size: int,
        limit: int,
        chunk: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.decoder, self._sampler, self._pace = decoder, sampler, pace
        self._vocab_size, self._limit, self._chunk, self._clock = vocab_size, limit, chunk, clock
        self._tokens: list[int] = []
        self._prompt = 0
        self._agreed = 0
        self._able = True

    @property
    def seconds_per_guess(self) -> float:
        """What a guess costs."""
        return self._pace.seconds

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens of the sequence. The first call brings the prompt, which is computed at once."""
        self._tokens += tokens
        self._sampler.observe(list(tokens))
        self._able = self._able and max(tokens, default=0) < self._vocab_size
        if self._prompt:
            return
        self._prompt = len(self._tokens)
        if self.confidence():
            self._logits()
            if not self._pace.seconds:  # the first guess also makes the arrays of its shape
                for _ in range(2):
                    self._pace.seconds = 0.0
                    self.propose(2)

    def confidence(self) -> int:
        """The highest, for all guesses alike, while the draft can follow: it has all tokens, and room for a guess."""
        return TOP_CONFIDENCE if self._able and len(self._tokens) < self._limit else 0

    def propose(self, count: int) -> list[int]:
        """Guess the next ``count`` tokens, or fewer where the draft's context ends."""
        begun = self._clock()
        count = min(count, self._limit - len(self._tokens))
        logits, position, found = self._logits(), len(self._tokens) - self._prompt, list[int]()
        while True:
            found.append(self._sampler.choose(logits[: self._vocab_size], position + len(found)))
            if len(found) == count:
                break
            logits = self.decoder.feed(found[-1:])
        self._pace.record((self._clock() - begun) / count)
        return found

    def _logits(self) -> npt.NDArray[np.float32]:
        """float32 [V] after the sequence; what the cache lacks of it is computed, and wrong guesses are given back."""
        held, known = self.decoder.cached(exact=False), self._tokens
        while self._agreed < min(len(held), len(known) - 1) and held[self._agreed] == known[self._agreed]:
            self._agreed += 1
        self.decoder.truncate(self._agreed)
        rest = known[self._agreed :]
        for start, stop in chunk_bounds(len(rest), self._chunk):
            logits = self.decoder.feed(rest[start:stop])
        return logits
