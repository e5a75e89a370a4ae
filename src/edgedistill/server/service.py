"""The model behind a server, and its requests in progress: from an awaiting handler to the batch's thread and back."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from edgedistill.errors import ContextLengthError
from edgedistill.runtime.batch.live import LiveBatch, LiveSequence, Update
from edgedistill.runtime.batch.places import SharedPlaces, SinglePlace
from edgedistill.runtime.optimum_session import OptimumSession
from edgedistill.runtime.sampling import NoiseKey, Sampler
from edgedistill.runtime.text.transcript import Transcript
from edgedistill.server.errors import ApiError, failure
from edgedistill.server.metrics import Metrics
from edgedistill.trajectories.memory import plan_memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from edgedistill.runtime.batch.live import Ticket
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.text.reasoning import TagPair
    from edgedistill.server.fields import Fields
    from edgedistill.server.options import ServeOptions
    from edgedistill.server.sampling import Sampling

SHORTEST_CONTEXT = 16


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
        )
        rows = min(wanted, plan.rows)
        if rows < wanted:
            self.notes.append(
                f"{rows} instead of {wanted} requests run at a time: the memory does not hold more of {self.limit} "
                "tokens each. A smaller --context allows more."
            )
        return rows

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        opened: TagPair | None = None,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
    ) -> Running:
        """Have the samples of every prompt computed.

        Args:
            prompts: Token ids; sample j of prompt i is sequence ``i * n + j``.
            sampling: How they are drawn; sample j of a seed is what ``Model.generate`` gives, for j = 0.
            opened: Reasoning tags that the prompts have opened.
            logprobs, prompt_logprobs: Records of generated and prompt tokens, with so many of the most likely.

        Raises:
            ApiError: A prompt that is empty or too long, no room in the queue, or the server ends.
        """
        info, model = self.model.bundle.manifest.model, self.model
        for prompt in prompts:
            if not prompt:
                raise ApiError(400, "The prompt has no tokens; expected at least one.", code="invalid_value")
            if len(prompt) > self.limit - sampling.generate:
                error = ContextLengthError(
                    f"The prompt has {len(prompt)} tokens, the context holds {self.limit} with the answer."
                )
                raise ApiError(400, str(error), code="context_length_exceeded")
        settings = sampling.settings
        eos = frozenset() if settings.ignore_eos else frozenset(info.eos_token_ids)
        running = Running(self)
        for prompt in prompts:
            for sample in range(sampling.n):
                running.add(
                    LiveSequence(
                        prompt=prompt,
                        sampler=Sampler(
                            settings, NoiseKey.of(settings.seed or 0, sample=sample), vocab_size=info.vocab_size
                        ),
                        transcript=Transcript(model.tokenizer, settings.stop, model.grammar, opened=opened),
                        max_new_tokens=settings.max_new_tokens if sampling.generate else 0,
                        eos=eos,
                        notify=running.notify(len(running.sequences)),
                        logprobs=logprobs if sampling.generate else None,
                        prompt_logprobs=prompt_logprobs,
                        shaping=sampling.shaping(),
                    )
                )
        running.submit()
        return running

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

    def remarks(self, ignored: Sequence[str], sampling: Sampling) -> dict[str, Any]:
        """What this server says of an answer beyond OpenAI's fields."""
        settings = sampling.settings
        said: dict[str, Any] = {"seed": None if settings.greedy else settings.seed, "numerics": self.options.numerics}
        return said | ({"ignored": list(ignored)} if ignored else {})

    def close(self) -> None:
        """End what runs, and the batch."""
        self.batch.close()


class Running:
    """The sequences of one request while they run. Cancel it in the end, whatever the end is."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[tuple[int, Update]] = asyncio.Queue()
        self._ticket: Ticket | None = None
        self.sequences: list[LiveSequence] = []

    def add(self, one: LiveSequence) -> None:
        """Another sequence, before ``submit``."""
        self.sequences.append(one)

    def notify(self, index: int) -> Notify:
        """What the batch calls with the updates of sequence ``index``."""
        return Notify(self._loop, self._arrived, index)

    def submit(self) -> None:
        """Queue them; raises ApiError."""
        try:
            self._ticket = self._service.batch.submit(self.sequences, seconds=self._service.options.timeout_s)
        except Exception as error:
            raise failure(error) from error
        self._service.active += 1

    def cancel(self) -> None:
        """Give up what has not ended; once is enough."""
        if self._ticket is not None:
            self._ticket.cancel()
            self._ticket = None
            self._service.active -= 1

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
            if update.timings is not None:
                left -= 1
                self._service.metrics.ended(update.timings)
            yield index, update


class Notify:
    """Carries updates of one sequence into the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, arrived: asyncio.Queue[tuple[int, Update]], index: int) -> None:
        self._loop, self._arrived, self._index = loop, arrived, index

    def __call__(self, update: Update) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, (self._index, update))
