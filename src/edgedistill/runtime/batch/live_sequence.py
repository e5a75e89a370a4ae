"""What goes into a live batch and comes out of it: sequences, updates of them, tickets, counts and seconds."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgedistill.errors import EdgedistillError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from edgedistill.runtime.batch.places import Place
    from edgedistill.runtime.decoder import Scores
    from edgedistill.runtime.events import Event
    from edgedistill.runtime.generate import FinishReason
    from edgedistill.runtime.logprobs import TokenLogprob
    from edgedistill.runtime.sampling import Sampler
    from edgedistill.runtime.speculate.speculation import Speculation
    from edgedistill.runtime.text.transcript import Transcript

    Logits = npt.NDArray[np.float32]


class QueueFullError(EdgedistillError):
    """Too many requests wait."""


class StoppedError(EdgedistillError):
    """The batch takes no more requests."""


class Shaping(Protocol):
    """What changes the logits of a sequence before a token is chosen: biases, penalties, a grammar."""

    def apply(self, logits: Logits) -> Logits:
        """float32 [V] in, float32 [V] out; the argument is not changed."""
        ...

    def observe(self, token: int) -> None:
        """A token was chosen."""
        ...


@dataclass(frozen=True, slots=True)
class Timings:
    """Counts and seconds of one sequence.

    Attributes:
        prompt_tokens, cached_tokens: Of the prompt, and how many of them were not computed again.
        new_tokens, reasoning_tokens: Generated, and inside the reasoning.
        queue_s: Until its prompt was begun. prefill_s: Computing its prompt. ttft_s: From the submission to the first
            token. decode_s: Of the steps that it took part in.
    """

    prompt_tokens: int
    cached_tokens: int
    new_tokens: int
    reasoning_tokens: int
    queue_s: float
    prefill_s: float
    ttft_s: float
    decode_s: float

    def then(self, rest: Timings) -> Timings:
        """Of a sequence in two parts, the second of which is ``rest``: one prompt, one first token."""
        return replace(
            self,
            new_tokens=self.new_tokens + rest.new_tokens,
            reasoning_tokens=self.reasoning_tokens + rest.reasoning_tokens,
            prefill_s=self.prefill_s + rest.prefill_s,
            decode_s=self.decode_s + rest.decode_s,
        )


@dataclass(frozen=True, slots=True)
class Update:
    """What one step brought for a sequence.

    Attributes:
        events: Text that is certain now.
        logprobs: A record a token, where asked for. ``prompt_logprobs``: of prompt tokens but the first, likewise.
        finish: Why it ended; None while it goes on.
        error: What ended it otherwise.
        timings: With its end.
    """

    events: tuple[Event, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    finish: FinishReason | None = None
    error: Exception | None = None
    timings: Timings | None = None

    @property
    def last(self) -> bool:
        """Whether nothing comes after it."""
        return self.finish is not None or self.error is not None


@dataclass(eq=False, slots=True)
class LiveSequence:
    """One continuation that is asked for.

    Attributes:
        prompt: Token ids, at least one and fewer than the context holds.
        sampler, transcript: Its own.
        max_new_tokens: 0 only computes the prompt.
        eos: Ids that end it.
        notify: Called with every update, in the batch's thread; it must not wait.
        logprobs: Also record the generated tokens, with so many of the most likely. ``prompt_logprobs``: the prompt's.
        shaping: Changes the logits.
        guessing: Makes what guesses its tokens while it runs alone; None: nothing does.
        think_budget: Tokens of reasoning after which it ends as ``cancelled``, as in ``think_budget``; 0: no limit.
    """

    prompt: Sequence[int]
    sampler: Sampler
    transcript: Transcript
    max_new_tokens: int
    eos: frozenset[int]
    notify: Callable[[Update], None]
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    shaping: Shaping | None = None
    guessing: Callable[[], Speculation | None] | None = None
    think_budget: int = 0
    # ---- the batch's own ----
    ids: npt.NDArray[np.int64] = field(init=False, repr=False)
    place: Place | None = None
    scores: Iterator[Scores] | None = None
    done: int = 0
    cached: int = 0
    last: int = -1
    thought: int = 0
    over: bool = False
    submitted: float = 0.0
    begun: float = 0.0
    first: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0

    def __post_init__(self) -> None:
        self.ids = np.asarray(self.prompt, dtype=np.int64)

    def timings(self) -> Timings:
        """So far."""
        now = time.perf_counter()
        return Timings(
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached,
            new_tokens=len(self.transcript.tokens),
            reasoning_tokens=self.transcript.reasoning_tokens,
            queue_s=(self.begun or now) - self.submitted,
            prefill_s=self.prefill_s,
            ttft_s=(self.first or now) - self.submitted,
            decode_s=self.decode_s,
        )


class Ticket:
    """The sequences of one request; ``cancel`` ends them from any thread."""

    def __init__(self, sequences: Sequence[LiveSequence], deadline: float) -> None:
        self.waiting = deque(sequences)
        self.running: list[LiveSequence] = []
        self.deadline = deadline
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        """End its sequences after the current step; they report no more."""
        self.cancelled.set()


@dataclass(slots=True)
class Load:
    """What a batch did so far, and what it does now (for monitoring)."""

    steps: int = 0
    row_steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
