"""A batch that runs for as long as its process: requests join it at any time, each with settings of its own.

One thread computes, in turns: one chunk of one prompt, then one token of every sequence in progress. So a long prompt
delays the others by one chunk a token, and prompts take turns among themselves. A sequence is what ``Model.generate``
gives for its seed: the same sampler, noise and transcript; its logits are those of a lone sequence as far as the
kernels allow (``edgedistill selftest``), and always with ``exact`` numerics.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from edgedistill.runtime.batch.live_sequence import (
    LiveSequence,
    Load,
    QueueFullError,
    StoppedError,
    Ticket,
    Update,
)
from edgedistill.runtime.batch.lone_guesses import LoneGuesses
from edgedistill.runtime.logprobs import TokenLogprob, token_logprobs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt
    from tokenizers import Tokenizer

    from edgedistill.runtime.batch.places import Places
    from edgedistill.runtime.events import Event
    from edgedistill.runtime.generate import FinishReason

    Logits = npt.NDArray[np.float32]

ROOM = 256
"""Tokens that a sequence has room for at first, beyond its prompt."""

_WORTH_WAITING = 16
"""A prompt waits for another one that is being computed if so many tokens more, or all of its own, come of it."""


class LiveBatch:
    """Runs sequences until it is closed.

    Args:
        places: Where they lie.
        tokenizer: For records of log-probabilities.
        limit: Most tokens of a prompt and its continuation.
        chunk: Most tokens of a prompt computed at a time; ``shared_chunk``: while others are being decoded.
        queue: Requests that may wait beside those that run.
    """

    def __init__(
        self, places: Places, tokenizer: Tokenizer, *, limit: int, chunk: int, shared_chunk: int, queue: int
    ) -> None:
        self._places, self._tokenizer, self._limit = places, tokenizer, limit
        self._chunk, self._shared_chunk, self._queue = max(2, chunk), max(2, min(chunk, shared_chunk)), queue
        self._tickets: list[Ticket] = []
        self._prefilling: deque[LiveSequence] = deque()
        self._decoding: list[LiveSequence] = []
        self._guesses = LoneGuesses()
        self._wanted = threading.Condition()
        self._arrived: list[Ticket] = []
        self._closed = False
        self.load = Load()
        self._thread = threading.Thread(target=self._run, name="edgedistill-batch", daemon=True)
        self._thread.start()

    # ---- from any thread ------------------------------------------------------------------------------------

    def submit(
        self, sequences: Sequence[LiveSequence], *, seconds: float = float("inf"), urgent: bool = False
    ) -> Ticket:
        """Have sequences run; those of one request wait together.

        Args:
            sequences: Of one request.
            seconds: Its longest time.
            urgent: Whatever waits: the rest of a request that was taken already.

        Raises:
            QueueFullError: Too many requests wait. StoppedError: The batch is closed.
        """
        now = time.perf_counter()
        for one in sequences:
            one.submitted = now
        ticket = Ticket(sequences, now + seconds)
        with self._wanted:
            if self._closed:
                raise StoppedError("The server is shutting down.", hint="Ask again when it is back.")
            if not urgent and self.waiting >= self._queue:
                raise QueueFullError(f"{self.waiting} requests wait already.", hint="Ask again in a moment.")
            self._arrived.append(ticket)
            self._wanted.notify()
        return ticket

    @property
    def waiting(self) -> int:
        """Requests none of whose sequences has begun."""
        waiting = (*self._arrived, *(ticket for ticket in tuple(self._tickets) if not ticket.running))
        return sum(not ticket.cancelled.is_set() for ticket in waiting)

    @property
    def running(self) -> int:
        """Sequences in progress."""
        return len(self._prefilling) + len(self._decoding)

    @property
    def kv_bytes(self) -> int:
        """Bytes allocated for keys and values."""
        return self._places.kv_bytes

    @property
    def places(self) -> int:
        """Sequences that run at a time."""
        return self._places.size

    def close(self) -> None:
        """End all sequences after the current step, as cancelled, and the thread."""
        with self._wanted:
            self._closed = True
            self._wanted.notify()
        self._thread.join()

    # ---- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wanted:
                while not (self._closed or self._arrived or self._tickets):
                    self._wanted.wait()
                self._tickets += self._arrived
                self._arrived.clear()
            if self._closed:
                for ticket in self._tickets:
                    self._end_ticket(ticket, Update(error=StoppedError("The server is shutting down.")))
                return
            self._end_cancelled()
            self._begin()
            self._prefill()
            self._decode()
            self._tickets = [ticket for ticket in self._tickets if ticket.waiting or ticket.running]

    def _end_cancelled(self) -> None:
        now = time.perf_counter()
        for ticket in self._tickets:
            if ticket.cancelled.is_set():
                self._end_ticket(ticket, None)
            elif now > ticket.deadline:
                self._end_ticket(ticket, Update(error=TimeoutError("The request took longer than this server allows.")))

    def _end_ticket(self, ticket: Ticket, update: Update | None) -> None:
        for one in (*ticket.running, *ticket.waiting):
            self._leave(one)
            if update is not None:
                one.notify(update)
        ticket.running.clear()
        ticket.waiting.clear()

    def _begin(self) -> None:
        """Give free places to what waits: in turn to the request that has the fewest, the oldest first."""
        held = set[int]()
        while self._places.free:
            able = [ticket for ticket in self._tickets if ticket.waiting and id(ticket) not in held]
            if not able:
                return
            ticket = min(able, key=lambda one: len(one.running))
            one = ticket.waiting[0]
            if self._worth_waiting(one):
                held.add(id(ticket))
                continue
            ticket.waiting.popleft()
            ticket.running.append(one)
            self._guarded(self._start, one)

    def _worth_waiting(self, one: LiveSequence) -> bool:
        """Whether a prompt that is being computed will soon hold more of this one's beginning than there is now."""
        if not self._prefilling:
            return False
        if one.prompt_logprobs is not None:
            return False
        shared = self._places.shared(one.ids)
        for other in self._prefilling:
            common = _common(one.ids, other.ids)
            if common > shared and (common - shared >= _WORTH_WAITING or common == len(one.ids) - 1):
                return True
        return False

    def _start(self, one: LiveSequence) -> None:
        one.begun = time.perf_counter()
        room = min(one.max_new_tokens, ROOM, self._limit - len(one.prompt))
        one.place, one.cached = self._places.begin(one.ids, room)
        if one.prompt_logprobs is not None:
            one.cached = 0
            one.scores = self._places.score(one.place, one.ids[None], chunk=self._shared_chunk)
        one.done = one.cached
        one.sampler.observe(list(one.prompt))
        self.load.prompt_tokens += len(one.prompt)
        self.load.cached_tokens += one.cached
        self._prefilling.append(one)

    def _prefill(self) -> None:
        """A chunk of one prompt, of each in turn."""
        if not self._prefilling:
            return
        one = self._prefilling.popleft()
        started = time.perf_counter()
        logits = self._guarded(self._next_chunk, one)
        if one.place is None:
            return
        spent = time.perf_counter() - started
        one.prefill_s += spent
        self.load.prefill_s += spent
        if logits is None:
            self._prefilling.append(one)
            return
        if one.max_new_tokens == 0:
            self._end(one, "length", ())
            return
        one.first = time.perf_counter()
        self._guarded(self._take, one, logits)
        if one.place is not None:
            self._places.promote(one.place)
            self._decoding.append(one)

    def _next_chunk(self, one: LiveSequence) -> Logits | None:
        """The logits after the prompt, once all of it is computed."""
        place = one.place
        assert place is not None
        if one.scores is not None:
            return self._next_scores(one)
        most = self._shared_chunk if self._decoding else self._chunk
        left = len(one.prompt) - one.done
        # Not a lone token at the end: it takes other kernels than several.
        width = left if left <= most else most - 1 if left == most + 1 and most > 2 else most
        stop = one.done + width if left - width != 1 else len(one.prompt)
        logits = self._places.feed(place, one.prompt[one.done : stop], logits=stop == len(one.prompt))
        one.done = stop
        return logits if stop == len(one.prompt) else None

    def _next_scores(self, one: LiveSequence) -> Logits | None:
        assert one.scores is not None
        part = next(one.scores)
        columns = part.columns.tolist()
        one.done = columns[-1] + 1
        scored = [column for column in columns if column + 1 < len(one.prompt)]
        following = [one.prompt[column + 1] for column in scored]
        records = token_logprobs(part.logits[: len(scored)], following, self._tokenizer, top=one.prompt_logprobs or 0)
        one.notify(Update(prompt_logprobs=tuple(records)))
        return part.logits[-1] if one.done == len(one.prompt) else None

    def _decode(self) -> None:
        """A token of every sequence in progress."""
        if not self._decoding:
            return
        started = time.perf_counter()
        rows = list(self._decoding)
        longest = max(len(one.prompt) + len(one.transcript.tokens) for one in rows)
        try:
            guesses = self._guesses.of(rows[0], self._room(rows[0])) if len(rows) == 1 else []
            if guesses:
                logits = self._places.step_all([rows[0].last, *guesses], longest + len(guesses))
            else:
                logits = self._places.step([one.last for one in rows], longest)
        except Exception as error:  # whatever it is, it ends these sequences and not the server
            for one in rows:
                self._fail(one, error)
            return
        if len(rows) == 1:
            self._take_all(rows[0], logits, guesses)
        else:
            for one, row in zip(rows, logits, strict=True):
                self._guarded(self._take, one, row)
        spent = time.perf_counter() - started
        for one in rows:
            one.decode_s += spent
        self.load.decode_s += spent
        self.load.steps += 1
        self.load.row_steps += len(rows)

    def _room(self, one: LiveSequence) -> int:
        """Most tokens that can be guessed after the next one."""
        written = len(one.transcript.tokens)
        return min(one.max_new_tokens - written, self._limit - len(one.prompt) - written) - 1

    def _take_all(self, one: LiveSequence, logits: Logits, guesses: Sequence[int]) -> None:
        """Choose tokens of the only sequence as far as ``guesses`` are what is chosen, and one more."""
        drawn: list[int] = []
        for row, guess in zip(logits, [*guesses, None], strict=True):
            self._guarded(self._take, one, row)
            drawn.append(one.last)
            if one.place is None or one.last != guess:
                break
        if one.place is not None and len(drawn) < len(logits):
            self._places.give_back(len(logits) - len(drawn))
        self._guesses.done(one, len(guesses), drawn)

    def _take(self, one: LiveSequence, logits: Logits) -> None:
        """Choose the next token and tell what it brings; the place is given up with the last one."""
        shaped = logits if one.shaping is None else one.shaping.apply(logits)
        count = len(one.transcript.tokens)
        token = one.sampler.choose(shaped, count)
        one.sampler.observe([token])
        if one.shaping is not None:
            one.shaping.observe(token)
        one.last = token
        records = (
            () if one.logprobs is None else token_logprobs(logits[None], [token], self._tokenizer, top=one.logprobs)
        )
        events = one.transcript.add(token)
        for event in events:
            one.thought += event.tokens if event.kind == "reasoning" else 0
            one.over = 0 < one.think_budget <= one.thought and (one.over or event.kind == "reasoning")
        self.load.new_tokens += 1
        reason = self._reason(one, token, count + 1)
        if reason is None:
            if events or records:
                one.notify(Update(events=tuple(events), logprobs=tuple(records)))
        else:
            self._end(one, reason, (*events, *one.transcript.finish()), tuple(records))

    def _reason(self, one: LiveSequence, token: int, count: int) -> FinishReason | None:
        if one.transcript.stopped:
            return "stop_string"
        if one.sampler.finished:
            return "stop"
        if token in one.eos:
            return "stop"
        if one.over:
            return "cancelled"
        if count >= one.max_new_tokens:
            return "length"
        return "context" if len(one.prompt) + count >= self._limit else None

    # ---- ends -----------------------------------------------------------------------------------------------

    def _end(
        self, one: LiveSequence, reason: FinishReason, events: Sequence[Event], records: tuple[TokenLogprob, ...] = ()
    ) -> None:
        self._forget(one)
        one.notify(Update(events=tuple(events), logprobs=records, finish=reason, timings=one.timings()))

    def _fail(self, one: LiveSequence, error: Exception) -> None:
        self._forget(one, broken=True)
        one.notify(Update(error=error))

    def _forget(self, one: LiveSequence, *, broken: bool = False) -> None:
        self._leave(one, broken=broken)
        for ticket in self._tickets:
            if one in ticket.running:
                ticket.running.remove(one)

    def _leave(self, one: LiveSequence, *, broken: bool = False) -> None:
        """Give up the place of a sequence, wherever it stands."""
        if one in self._prefilling:
            self._prefilling.remove(one)
        if one in self._decoding:
            # The last row takes the place of the one that is given up, as ``Places.retire`` does it.
            index = self._decoding.index(one)
            last = self._decoding.pop()
            if last is not one:
                self._decoding[index] = last
        if one.place is not None:
            self._places.retire(one.place, forget=broken)
            one.place = None

    def _guarded(self, work: Callable[..., Logits | None], one: LiveSequence, *arguments: Logits) -> Logits | None:
        """Do something for one sequence; what goes wrong ends that one alone."""
        try:
            return work(one, *arguments)
        except Exception as error:  # as above
            self._fail(one, error)
            return None


def _common(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> int:
    """Tokens that two prompts begin with alike; the last one of ``a`` does not count."""
    length = min(len(a) - 1, len(b))
    differs = a[:length] != b[:length]
    return int(differs.argmax()) if differs.any() else length
