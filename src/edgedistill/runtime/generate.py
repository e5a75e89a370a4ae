"""The loop that turns a prompt into tokens: chunked prefill, then one step per token.

Two numerical paths. ``fast`` decodes with one-token steps. ``exact`` computes every token together with the one before
it, so that each token's logits are bit-identical to a prefill of the text so far, at two thirds to four fifths of
the speed (docs/benchmarks.md). The prefill itself is exact in both. Where tokens are guessed (``speculate``) a step
computes several; every token is drawn from the logits at its place all the same.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from edgedistill.errors import ContextLengthError, GenerationError
from edgedistill.runtime.chunks import chunk_bounds
from edgedistill.runtime.decoder import InterruptedRunError
from edgedistill.runtime.settings import GenerationSettings, Numerics
from edgedistill.runtime.stats import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from edgedistill.runtime.sampling import Sampler
    from edgedistill.runtime.speculate.draft_model import Interruptible
    from edgedistill.runtime.speculate.speculation import Speculation

__all__ = ["FinishReason", "GenerationSettings", "Numerics", "SequenceDecoder", "TokenLoop"]

FinishReason = Literal["stop", "length", "cancelled", "stop_string", "context"]
_POLL_SECONDS = 0.02


class SequenceDecoder(Protocol):
    """One sequence over a KV cache, as the loop needs it (see ``decoder.Decoder``)."""

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        ...

    @property
    def kv_bytes(self) -> int:
        """Bytes allocated for the cache."""
        ...

    def cached(self, *, exact: bool) -> npt.NDArray[np.int64]:
        """Ids in the cache; with ``exact`` only as far as they are bit-identical to a prefill."""
        ...

    def feed(self, tokens: Sequence[int], *, exact: bool = False, logits: bool = True) -> npt.NDArray[np.float32]:
        """Append tokens; float32 [V] after the last one."""
        ...

    def feed_all(self, tokens: Sequence[int], *, exact: bool = False) -> npt.NDArray[np.float32]:
        """Append two tokens or more; float32 [tokens, V] after each of them."""
        ...

    def truncate(self, length: int) -> None:
        """Give tokens back."""
        ...

    def rewind(self, length: int) -> int:
        """Give tokens back, down to ``length`` or less where that cannot be had at once; how many are left."""
        ...

    def interrupt(self) -> None:
        """End the run in progress."""
        ...

    def resume(self) -> None:
        """Allow runs again."""
        ...


class TokenLoop:
    """Tokens of one continuation, drawn one after the other by iterating.

    Attributes:
        finish_reason: Why the iteration ended; None before.
        cached_tokens: Prompt tokens that were in the cache already.
        prefill_watch, step_watch: Time of the prefill chunks and of the decode steps (with the choice of the tokens).
        first_choice: Time of choosing the first token.
    """

    def __init__(
        self,
        decoder: SequenceDecoder,
        sampler: Sampler,
        settings: GenerationSettings,
        *,
        context_length: int,
        eos: Collection[int],
        numerics: Numerics = "fast",
        cancel: threading.Event | None = None,
        on_choice: Callable[[npt.NDArray[np.float32], int], None] | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        """Prepare a continuation.

        Args:
            decoder: Its cache may hold tokens; their common beginning with the prompt is reused.
            on_choice: Called with the logits float32 [V] and the token chosen from them, before the next step.
            speculation: Guesses tokens, so that a step may compute several; None: one token a step.
        """
        self._decoder = decoder
        self._sampler = sampler
        self._settings = settings
        self._limit = context_length
        self._eos = frozenset() if settings.ignore_eos else frozenset(eos)
        self._exact = numerics == "exact"
        self._cancel = cancel
        self._on_choice = on_choice
        self._speculation = speculation
        self.finish_reason: FinishReason | None = None
        self.cached_tokens = 0
        self.prefill_watch, self.step_watch, self.first_choice = Stopwatch(), Stopwatch(), Stopwatch()

    def prefill(self, prompt: Sequence[int], *, chunk: int) -> Iterator[tuple[int, int]]:
        """Compute the prompt chunk by chunk, giving (tokens done, tokens in all) after each; then iterate.

        Ends early, with ``finish_reason`` "cancelled", when the cancel event is set, even within a chunk.

        Raises:
            GenerationError: An empty prompt.
            ContextLengthError: A prompt that leaves no room for one new token.
        """
        if not prompt:
            raise GenerationError("The prompt has no tokens; expected at least one.")
        if len(prompt) >= self._limit:
            raise ContextLengthError(
                f"The prompt has {len(prompt)} tokens, the context of this bundle holds {self._limit} with the answer.",
                hint="Shorten the prompt or export with a larger --context.",
            )
        self._reuse(prompt)
        self._sampler.observe(list(prompt))
        rest = prompt[self.cached_tokens :]
        for start, stop in chunk_bounds(len(rest), chunk):
            try:
                with self._interruptible(self._decoder), self.prefill_watch:
                    self._logits = self._decoder.feed(rest[start:stop], exact=True, logits=stop == len(rest))
            except InterruptedRunError:
                self.finish_reason = "cancelled"
                return
            yield self.cached_tokens + stop, len(prompt)
        if self._speculation is not None:
            try:
                with self._interruptible(self._speculation.decoder), self.prefill_watch:  # a draft computes it, too
                    self._speculation.extend(prompt)
            except InterruptedRunError:
                self.finish_reason = "cancelled"

    @property
    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [V] after the prompt, once ``prefill`` is exhausted; a view that the next step overwrites."""
        return self._logits

    def __iter__(self) -> Iterator[int]:
        """Tokens until the end, the end-of-sequence token included; ``prefill`` has to be exhausted first."""
        if self.finish_reason is not None:
            return
        with self.first_choice:
            drawn = [self._choose(self._logits, 0)]
        if self._speculation is not None:
            self._speculation.extend(drawn)
        count = 0
        prompt_tokens = self._decoder.length
        try:
            while True:
                for place, token in enumerate(drawn, 1):
                    count += 1
                    # Whoever consumes a token may cancel, so the reasons to end are looked at after it was given out.
                    yield token
                    complete = place == len(drawn) and self._sampler.finished
                    self.finish_reason = "stop" if complete else self._reason(token, count, prompt_tokens + count)
                    if self.finish_reason is not None:
                        return
                with self.step_watch:
                    drawn = self._step(token, count)
        finally:
            # What was drawn and not given out is no part of the text.
            if self._speculation is not None and self._decoder.length >= prompt_tokens + count:
                self._decoder.truncate(prompt_tokens + count - 1)

    def _step(self, token: int, count: int) -> list[int]:
        """The tokens after ``token``, the ``count``-th: one, or several where guesses turn out right."""
        speculation, decoder = self._speculation, self._decoder
        room = min(self._settings.max_new_tokens - count, self._limit - decoder.length - 1) - 1
        guesses = [] if speculation is None else speculation.guesses(room)
        self._sampler.observe([token])
        if not guesses:
            drawn = [self._choose(decoder.feed([token], exact=self._exact), count)]
        else:
            drawn = self._verify([token, *guesses], count)
        if speculation is not None:
            speculation.done(len(guesses), drawn)
        return drawn

    def _verify(self, tokens: list[int], count: int) -> list[int]:
        """Compute ``tokens``, all but the first guessed, and draw as far as the guesses are what is drawn."""
        before = self._decoder.length
        drawn: list[int] = []
        for logits, guess in zip(self._decoder.feed_all(tokens, exact=self._exact), [*tokens[1:], None], strict=True):
            drawn.append(self._choose(logits, count + len(drawn)))
            if drawn[-1] != guess or guess in self._eos or self._sampler.finished:
                break
            self._sampler.observe(drawn[-1:])
        self._decoder.truncate(before + len(drawn))
        return drawn

    def _choose(self, logits: npt.NDArray[np.float32], position: int) -> int:
        token = self._sampler.choose(logits, position)
        if self._on_choice is not None:
            self._on_choice(logits, token)
        return token

    def _reason(self, token: int, count: int, tokens: int) -> FinishReason | None:
        if token in self._eos:
            return "stop"
        if self._cancel is not None and self._cancel.is_set():
            return "cancelled"
        if count >= self._settings.max_new_tokens:
            return "length"
        return "context" if tokens >= self._limit else None

    def _reuse(self, prompt: Sequence[int]) -> None:
        """Keep the cache's common beginning with the prompt; the last prompt token is always computed."""
        held = self._decoder.cached(exact=self._exact)
        common = 0
        for cached, wanted in zip(held.tolist(), prompt[:-1], strict=False):
            if cached != wanted:
                break
            common += 1
        self.cached_tokens = self._decoder.rewind(common)

    @contextmanager
    def _interruptible(self, decoder: Interruptible | None) -> Iterator[None]:
        """Let the cancel event end the run of ``decoder`` inside, from a thread that watches it."""
        cancel = self._cancel
        if cancel is None or decoder is None:
            yield
            return
        if cancel.is_set():
            raise InterruptedRunError
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                if cancel.wait(_POLL_SECONDS):
                    if not done.is_set():
                        decoder.interrupt()
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            decoder.resume()
