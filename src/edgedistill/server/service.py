"""The model behind a server, and its requests in progress: from an awaiting handler to the batch's thread and back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from edgedistill.errors import EdgedistillError
from edgedistill.runtime.batch.live import LiveBatch
from edgedistill.runtime.batch.live_sequence import LiveSequence, Timings, Update
from edgedistill.runtime.batch.places import SharedPlaces, SinglePlace
from edgedistill.runtime.optimum_session import OptimumSession
from edgedistill.runtime.sampling import NoiseKey, Sampler
from edgedistill.runtime.speculate.speculation import speculation
from edgedistill.runtime.state import with_copies
from edgedistill.runtime.text.reasoning import opened_by
from edgedistill.runtime.text.transcript import Transcript
from edgedistill.runtime.think_budget import closing_events
from edgedistill.server.errors import ApiError, failure, refusal
from edgedistill.server.metrics import Metrics
from edgedistill.trajectories.memory import plan_memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from edgedistill.runtime.batch.live_sequence import Ticket
    from edgedistill.runtime.generation_request import Request
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.settings import GenerationSettings
    from edgedistill.runtime.speculate.speculation import Speculation
    from edgedistill.server.fields import Fields
    from edgedistill.server.options import ServeOptions
    from edgedistill.server.sampling import Sampling


class Service:
    """A loaded model that answers many requests at a time.

    Attributes:
        model: The model.
        options: Of the server.
        batch: Where its sequences run.
        limit: Most tokens of a prompt with its answer.
        created: When it was started, in seconds since 1970.
        identity: Of the bundle.
        metrics: What it did so far.
        voting, votes_waiting: Held by the one run of trajectories; how many there are with those that wait for it.
        active: Requests that were started and not cancelled, as each is in the end.
        notes: Sentences for whoever started it.
    """

    def __init__(self, model: Model, options: ServeOptions) -> None:
        """Start the batch of ``model``; raises BudgetError where the memory does not hold one sequence."""
        self.model, self.options = model, options
        info = model.bundle.manifest.model
        self.limit = min(options.context or info.context_length, info.context_length)
        self.created = int(time.time())
        self.metrics = Metrics()
        self.active = 0
        self.voting, self.votes_waiting = asyncio.Semaphore(1), 0
        self.notes: list[str] = []
        self.identity = model.bundle.identity()
        session = model.session
        if isinstance(session, OptimumSession):
            places: SharedPlaces | SinglePlace = SinglePlace(session, numerics=options.numerics)
            self.notes.append("The graph of this bundle takes one sequence: requests are answered one after the other.")
        else:
            places = SharedPlaces(session, self._rows(), numerics=options.numerics)
        self.batch = LiveBatch(
            places,
            model.tokenizer,
            limit=self.limit,
            chunk=model.prefill_chunk,
            shared_chunk=options.prefill_chunk,
            queue=options.queue,
        )
        self._draft_decoder = None if model.draft is None else model.draft.model.session.decoder()

    def guesses(self, settings: GenerationSettings, key: NoiseKey) -> Speculation | None:
        """What guesses the tokens of the sequence that runs alone, as ``settings.speculate`` says; None: nothing."""
        model, draft = self.model, None
        if model.bundle.manifest.model.states:  # which cannot be taken back
            return None
        if model.draft is not None and self._draft_decoder is not None:
            draft = model.draft.over(self._draft_decoder, settings, key)
        return speculation(settings, self.options.numerics, model.step_costs, draft)

    def _rows(self) -> int:
        """Sequences at a time: what was asked for, or what the memory holds at their longest."""
        model, wanted = self.model, self.options.parallel
        manifest = model.bundle.manifest
        plan = plan_memory(
            count=wanted,
            tokens=self.limit,
            step=model.session.config.kv_step,
            context=manifest.model.context_length,
            bytes_per_token=manifest.kv_cache.bytes_per_token,
            vocab_size=manifest.model.vocab_size,
            profile=manifest.profile,
            predicted=manifest.predicted,
            state_bytes=with_copies(manifest.model.state_bytes),
        )
        rows = min(wanted, plan.rows)
        if rows < wanted:
            self.notes.append(
                f"{rows} instead of {wanted} requests run at a time: the memory does not hold more of {self.limit} "
                "tokens each. A smaller --context allows more."
            )
        return rows

    async def start(
        self, prompts: Sequence[Asked], sampling: Sampling, *, prompt_logprobs: int | None = None
    ) -> Running:
        """Have the samples of every prompt computed.

        Args:
            prompts: What is asked; sample j of prompt i is sequence ``i * n + j``.
            sampling: How they are drawn; sample j of a seed is what ``Model.generate`` gives, for j = 0.
            prompt_logprobs: Also give records of the prompts' tokens, with so many of the most likely.

        Raises:
            ApiError: A prompt that is empty or too long, a form of the answer that cannot be, no room in the queue, or
                the server ends.
        """
        for asked in prompts:
            self.require_room(asked.tokens, new=int(sampling.generate))
        running = Running(self, sampling, prompt_logprobs)
        try:
            await asyncio.to_thread(running.prepare, prompts)
        except EdgedistillError as error:
            raise refusal(error) from error
        running.submit()
        return running

    def require_room(self, tokens: Sequence[int], *, new: int = 1) -> None:
        """Refuse a prompt that is empty, or has no room for ``new`` tokens behind it; raises ApiError."""
        if not tokens:
            raise ApiError(400, "The prompt has no tokens; expected at least one.", code="invalid_value")
        if len(tokens) > self.limit - new:
            said = f"The prompt has {len(tokens)} tokens, the context holds {self.limit} with the answer."
            raise ApiError(400, said, code="context_length_exceeded")

    def require_name(self, name: object) -> None:
        """Refuse a request to another model; raises ApiError."""
        if name is not None and name != self.options.name:
            raise ApiError(
                404,
                f"There is no model {str(name)[:80]!r} here; the one that is served is {self.options.name!r}.",
                param="model",
                code="model_not_found",
            )

    def require_model(self, fields: Fields) -> None:
        """``require_name`` for the field ``model``, which may be left out."""
        self.require_name(fields.text("model"))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        return str(self.model.tokenizer.decode(list(tokens), skip_special_tokens=False))

    def remarks(self, ignored: Sequence[str], sampling: Sampling, request: Request) -> dict[str, Any]:
        """What this server says of an answer beyond OpenAI's fields."""
        settings = sampling.settings
        said: dict[str, Any] = {"seed": None if settings.greedy else settings.seed, "numerics": self.options.numerics}
        note = self.model.note(request)
        return said | ({"ignored": list(ignored)} if ignored else {}) | ({"note": note} if note else {})

    def close(self) -> None:
        """End what runs, and the batch."""
        self.batch.close()


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt.

    Attributes:
        request: In the runtime's words. text: Rendered. tokens: Its ids.
    """

    request: Request
    text: str
    tokens: Sequence[int]


class Running:
    """The sequences of one request while they run. Cancel it in the end, whatever the end is."""

    def __init__(self, service: Service, sampling: Sampling, prompt_logprobs: int | None) -> None:
        self._service, self._sampling, self._prompt_logprobs = service, sampling, prompt_logprobs
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[tuple[int, Update]] = asyncio.Queue()
        self._tickets: list[Ticket] = []
        self._asked: list[tuple[Asked, int]] = []
        self._written: list[str] = []
        self._before: dict[int, Timings] = {}
        self._deadline = time.monotonic() + service.options.timeout_s
        self.sequences: list[LiveSequence] = []

    def prepare(self, prompts: Sequence[Asked]) -> None:
        """Make the sequences, before ``submit``; grammars take a while. Raises EdgedistillError."""
        for asked in prompts:
            for sample in range(self._sampling.n):
                self._asked.append((asked, sample))
                self._written.append("")
                tokens, most = asked.tokens, asked.request.settings.max_new_tokens
                self.sequences.append(self._sequence(len(self.sequences), tokens, most))

    def _sequence(self, index: int, tokens: Sequence[int], max_new_tokens: int, begun: str = "") -> LiveSequence:
        (asked, sample), model = self._asked[index], self._service.model
        request, info = asked.request, model.bundle.manifest.model
        settings = request.settings
        mask = model.mask(replace(request, continuing=begun), asked.text)
        key = NoiseKey.of(settings.seed or 0, sample=sample)
        return LiveSequence(
            prompt=tokens,
            sampler=Sampler(settings, key, vocab_size=info.vocab_size, mask=mask),
            transcript=Transcript(
                model.tokenizer, settings.stop, model.grammar,
                opened=None if request.raw else opened_by(asked.text, model.grammar), begun=begun,
                tools=request.offered, formats=model.tools.formats if request.offered else (),
            ),
            max_new_tokens=max_new_tokens if self._sampling.generate else 0,
            eos=frozenset() if settings.ignore_eos else frozenset(info.eos_token_ids),
            notify=Notify(self._loop, self._arrived, index),
            logprobs=request.logprobs if self._sampling.generate else None,
            prompt_logprobs=None if begun else self._prompt_logprobs,
            shaping=self._sampling.shaping(),
            guessing=partial(self._service.guesses, settings, key),
            think_budget=0 if begun else request.think_budget,
        )  # fmt: skip

    def submit(self) -> None:
        """Queue them; raises ApiError."""
        try:
            self._tickets.append(self._service.batch.submit(self.sequences, seconds=self._service.options.timeout_s))
        except Exception as error:
            raise failure(error) from error
        self._service.active += 1

    def cancel(self) -> None:
        """Give up what has not ended; once is enough."""
        for ticket in self._tickets:
            ticket.cancel()
        self._service.active -= bool(self._tickets)
        self._tickets.clear()

    async def updates(self) -> AsyncIterator[tuple[int, Update]]:
        """(number of the sequence, update) until all have ended; raises ApiError as ``watched`` does."""
        async for item in self.watched(None):
            if item is not None:
                yield item

    async def watched(self, every_s: float | None) -> AsyncIterator[tuple[int, Update] | None]:
        """The same, and None where nothing came for ``every_s`` seconds.

        Raises:
            ApiError: What ended one of them; the others are given up.
        """
        left = len(self.sequences)
        while left:
            try:
                async with asyncio.timeout(every_s):
                    index, update = await self._arrived.get()
            except TimeoutError:
                yield None
                continue
            if update.error is not None:
                raise failure(update.error) from update.error
            self._written[index] += "".join(event.text for event in update.events)
            if update.timings is not None:
                update = self._ended(index, update)
                left -= update.last
            yield index, update

    def _ended(self, index: int, update: Update) -> Update:
        """The last update of a sequence, or, where its reasoning has used up its budget, one that it goes on after."""
        timings = update.timings
        assert timings is not None
        if (before := self._before.pop(index, None)) is not None:
            timings = before.then(timings)
        asked, _ = self._asked[index]
        room = asked.request.settings.max_new_tokens - timings.new_tokens
        if update.finish != "cancelled" or room < 1:
            self._service.metrics.ended(timings)
            return replace(update, timings=timings)
        model = self._service.model
        closing = closing_events(model, asked.text, self._written[index])
        self._written[index] += "".join(event.text for event in closing)
        tokens = model.encode(asked.text + self._written[index])
        if len(tokens) >= self._service.limit:
            return replace(update, finish="context", timings=timings, events=(*update.events, *closing))
        self._before[index] = timings
        rest = self.sequences[index] = self._sequence(index, tokens, room, begun=self._written[index])
        try:
            seconds = self._deadline - time.monotonic()
            self._tickets.append(self._service.batch.submit([rest], seconds=seconds, urgent=True))
        except Exception as error:
            raise failure(error) from error
        return replace(update, finish=None, timings=None, events=(*update.events, *closing))


class Notify:
    """Carries updates of one sequence into the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, arrived: asyncio.Queue[tuple[int, Update]], index: int) -> None:
        self._loop, self._arrived, self._index = loop, arrived, index

    def __call__(self, update: Update) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, (self._index, update))
