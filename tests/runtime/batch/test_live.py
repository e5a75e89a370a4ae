"""A live batch: every sequence as the runtime alone generates it, whatever joins, leaves and shares its beginning."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedistill.runtime.batch.live import LiveBatch
from edgedistill.runtime.batch.live_sequence import LiveSequence, QueueFullError, StoppedError, Ticket, Update
from edgedistill.runtime.batch.places import SharedPlaces
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.sampling import NoiseKey, Sampler
from edgedistill.runtime.session import DecoderSession
from edgedistill.runtime.settings import GenerationSettings
from edgedistill.runtime.speculate.control import DraftControl, StepCosts
from edgedistill.runtime.speculate.lookup import PromptLookup
from edgedistill.runtime.speculate.speculation import Drafter, Speculation
from edgedistill.runtime.text.transcript import Transcript

SETTINGS = GenerationSettings(temperature=0.9, max_new_tokens=24, ignore_eos=True, seed=7)
PROMPTS = ["What is 12 + 30?", "What is 12 + 31? The answer", "größer café", "0123456789 " * 6, "What is 12 + 30?"]


@pytest.fixture(scope="module")
def fp32(tiny_bundle: Callable[[str], Path]) -> Iterator[Model]:
    with open_bundle(tiny_bundle("fp32"), threads=1) as model:
        yield model


class Client:
    """Submits prompts and waits for their ends."""

    def __init__(self, model: Model, *, rows: int = 3, numerics: Any = "exact", **options: Any) -> None:
        assert isinstance(model.session, DecoderSession)
        self.model, self.updates = model, queue.SimpleQueue[tuple[int, Update]]()
        limit = model.bundle.manifest.model.context_length
        options = {"limit": limit, "chunk": 16, "shared_chunk": 8, "queue": 64} | options
        self.places = SharedPlaces(model.session, rows, numerics=numerics)
        self.batch = LiveBatch(self.places, model.tokenizer, **options)
        self.ended: dict[int, Update] = {}
        self.made: list[LiveSequence] = []

    def sequence(
        self, prompt: str | list[int], settings: GenerationSettings = SETTINGS, **options: Any
    ) -> LiveSequence:
        model, number = self.model, len(self.made)
        info = model.bundle.manifest.model
        ids = model.encode(prompt, raw=True) if isinstance(prompt, str) else prompt
        one = LiveSequence(
            prompt=ids,
            sampler=Sampler(settings, NoiseKey.of(settings.seed or 0), vocab_size=info.vocab_size),
            transcript=Transcript(model.tokenizer, settings.stop, model.grammar, opened=None),
            max_new_tokens=settings.max_new_tokens,
            eos=frozenset() if settings.ignore_eos else frozenset(info.eos_token_ids),
            notify=lambda update: self.updates.put((number, update)),
            **options,
        )
        self.made.append(one)
        return one

    def submit(self, *sequences: LiveSequence) -> Ticket:
        return self.batch.submit(sequences)

    def wait(self, *sequences: LiveSequence) -> None:
        """Until all of them have ended."""
        wanted = {self.made.index(one) for one in sequences}
        while not wanted <= self.ended.keys():
            number, update = self.updates.get(timeout=60)
            if update.last:
                assert number not in self.ended
                self.ended[number] = update

    def end(self, one: LiveSequence) -> Update:
        return self.ended[self.made.index(one)]


@pytest.fixture
def client(fp32: Model) -> Iterator[Client]:
    made = Client(fp32)
    yield made
    made.batch.close()


def alone(model: Model, prompt: str, settings: GenerationSettings = SETTINGS, **options: Any) -> list[int]:
    return list(model.generate(prompt, settings=settings, raw=True, **options).tokens)


def test_each_sequence_is_what_generate_gives(client: Client, fp32: Model) -> None:
    settings = [
        SETTINGS,
        SETTINGS.replace(seed=8, top_k=5, max_new_tokens=9),
        SETTINGS.replace(temperature=0.0),
        SETTINGS.replace(repetition_penalty=1.3, top_p=0.9),
        SETTINGS.replace(ignore_eos=False, min_p=0.05, stop=("e",)),
    ]
    made = [client.sequence(prompt, each) for prompt, each in zip(PROMPTS, settings, strict=True)]
    for one in made:
        client.submit(one)
    client.wait(*made)
    for prompt, each, one in zip(PROMPTS, settings, made, strict=True):
        told = fp32.generate(prompt, settings=each, raw=True, numerics="exact")
        assert one.transcript.tokens == list(told.tokens)
        assert one.transcript.text() == told.text
        assert client.end(one).finish == told.finish_reason


def test_with_fast_numerics_full_precision_is_the_same_as_well(fp32: Model) -> None:
    client = Client(fp32, numerics="fast", rows=4)
    made = [client.sequence(prompt) for prompt in PROMPTS]
    client.submit(*made)
    client.wait(*made)
    for prompt, one in zip(PROMPTS, made, strict=True):
        assert one.transcript.tokens == alone(fp32, prompt)
    client.batch.close()


class _Three(DraftControl):
    """Guesses three tokens wherever there is room."""

    def guesses(self, confidence: int, room: int, price: float = 0.0) -> int:
        return 3 if confidence and room >= 3 else 0


@pytest.mark.parametrize("draft", ["int4-b32", None])
def test_guesses_for_a_lone_sequence_change_no_token(tiny_bundle: Callable[[str], Path], draft: str | None) -> None:
    """The first one runs alone, beside the second, and alone again."""
    drafting = None if draft is None else tiny_bundle(draft)
    with open_bundle(tiny_bundle("int8-b32"), threads=1, draft=drafting) as model:
        client, prompt = Client(model), PROMPTS[3]
        decoder = None if model.draft is None else model.draft.model.session.decoder()
        made: list[Speculation] = []

        def guessing() -> Speculation:
            drafter: Drafter = PromptLookup()
            if model.draft is not None and decoder is not None:
                drafter = model.draft.over(decoder, SETTINGS, NoiseKey.of(SETTINGS.seed or 0))
            made.append(Speculation(drafter, _Three(StepCosts(1))))
            return made[-1]

        joins = threading.Event()
        first = client.sequence(prompt, SETTINGS.replace(max_new_tokens=60), guessing=guessing)
        second = client.sequence(PROMPTS[0], SETTINGS.replace(max_new_tokens=6), guessing=guessing)
        tell = first.notify

        def notify(update: Update) -> None:
            tell(update)
            if not joins.is_set() and len(first.transcript.tokens) > 20:
                joins.set()
                client.submit(second)

        first.notify = notify
        client.submit(first)
        client.wait(first, second)
        client.batch.close()
        for one, most in ((first, 60), (second, 6)):
            told = model.generate(
                model.tokenizer.decode(list(one.prompt)), raw=True, numerics="exact", speculate="off",
                settings=SETTINGS.replace(max_new_tokens=most),
            )  # fmt: skip
            assert one.transcript.tokens == list(told.tokens)
        assert sum(one.drafted for one in made) > 0
        assert draft is None or made[0].accepted > 0


def test_a_draft_that_fails_ends_its_sequence_and_not_the_batch(fp32: Model) -> None:
    def guessing() -> Speculation:
        raise RuntimeError("no draft")

    client = Client(fp32)
    broken, other = client.sequence(PROMPTS[0], guessing=guessing), client.sequence(PROMPTS[1])
    client.submit(broken)
    client.wait(broken)
    assert str(client.end(broken).error) == "no draft"
    client.submit(other)
    client.wait(other)
    client.batch.close()
    assert other.transcript.tokens == alone(fp32, PROMPTS[1], numerics="exact")


def test_one_prompt_is_computed_once_for_all_its_samples(client: Client, fp32: Model) -> None:
    ids = fp32.encode(PROMPTS[3], raw=True)
    made = [client.sequence(PROMPTS[3], SETTINGS.replace(seed=seed)) for seed in range(5)]
    client.submit(*made)
    client.wait(*made)
    assert [one.cached for one in made] == [0, *[len(ids) - 1] * 4]
    for seed, one in enumerate(made):
        assert one.transcript.tokens == alone(fp32, PROMPTS[3], SETTINGS.replace(seed=seed), numerics="exact")


def test_a_conversation_goes_on_from_what_is_held(client: Client, fp32: Model) -> None:
    first = client.sequence(PROMPTS[0])
    client.submit(first)
    client.wait(first)
    longer = [*first.prompt, *first.transcript.tokens, *fp32.encode(" And twice that?", raw=True)]
    other, second = client.sequence(PROMPTS[2]), client.sequence(longer)
    client.submit(other)
    client.submit(second)
    client.wait(other, second)
    assert second.cached == len(first.prompt) + len(first.transcript.tokens) - 1  # the last token was never fed
    fresh = Client(fp32)
    again = fresh.sequence(longer)
    fresh.submit(again)
    fresh.wait(again)
    assert again.cached == 0
    assert second.transcript.tokens == again.transcript.tokens
    fresh.batch.close()


def test_log_probabilities_are_those_of_the_model(client: Client, fp32: Model) -> None:
    one = client.sequence(PROMPTS[1], SETTINGS.replace(max_new_tokens=5), logprobs=3, prompt_logprobs=2)
    beside = client.sequence(PROMPTS[3])
    client.submit(beside)
    client.submit(one)
    seen: list[Update] = []
    while not (seen and seen[-1].last):
        number, update = client.updates.get(timeout=60)
        if number == 0:
            seen.append(update)
    prompt = [record for update in seen for record in update.prompt_logprobs]
    assert prompt == fp32.logprobs(list(one.prompt), top=2)
    told = fp32.generate(
        PROMPTS[1], settings=SETTINGS.replace(max_new_tokens=5), raw=True, numerics="exact", logprobs=3
    )
    assert tuple(record for update in seen for record in update.logprobs) == told.logprobs
    np.testing.assert_allclose([record.logprob for record in prompt], fp32.score(list(one.prompt)), atol=1e-5)


def test_a_prompt_alone_can_be_scored(client: Client, fp32: Model) -> None:
    one = client.sequence(PROMPTS[0], prompt_logprobs=0)
    one.max_new_tokens = 0
    client.submit(one)
    client.wait(one)
    assert client.end(one).finish == "length"
    assert one.transcript.tokens == []


def test_a_short_request_does_not_wait_for_a_long_one(fp32: Model) -> None:
    """Steps of the batch, not seconds: the short one joins and ends while the long one goes on."""
    client = Client(fp32, rows=2, chunk=4, shared_chunk=4)
    long = client.sequence("0123456789 " * 8, SETTINGS.replace(max_new_tokens=40))
    short = client.sequence(PROMPTS[2], SETTINGS.replace(max_new_tokens=3))
    client.submit(long)
    client.submit(short)
    client.wait(short, long)
    assert list(client.ended) == [1, 0]
    client.batch.close()


def test_requests_take_turns(fp32: Model) -> None:
    """Eight sequences of one request do not keep the second request from a place."""
    client = Client(fp32, rows=2)
    many = [client.sequence(f"{number} cafés", SETTINGS.replace(max_new_tokens=12)) for number in range(8)]
    single = client.sequence("12")
    client.submit(*many)
    client.submit(single)
    client.wait(*many, single)
    assert list(client.ended).index(8) < 6
    client.batch.close()


def test_a_cancelled_request_gives_its_place_back_and_reports_nothing_more(client: Client, fp32: Model) -> None:
    endless = SETTINGS.replace(max_new_tokens=120)
    made = [client.sequence("0", endless) for _ in range(3)]
    tickets = [client.submit(one) for one in made]
    kept = client.sequence(PROMPTS[0])
    client.submit(kept)
    for ticket in tickets:
        ticket.cancel()
    client.wait(kept)
    assert kept.transcript.tokens == alone(fp32, PROMPTS[0], numerics="exact")
    assert set(client.ended) <= {0, 1, 2, 3}
    assert client.batch.running == 0


def test_a_queue_has_an_end(fp32: Model) -> None:
    client = Client(fp32, rows=1, queue=1)
    running = threading.Event()
    first = client.sequence("0", SETTINGS.replace(max_new_tokens=120))
    notify = first.notify
    first.notify = lambda update: (running.set(), notify(update))[1]  # type: ignore[func-returns-value]
    ticket = client.submit(first)
    assert running.wait(60)
    second = client.sequence("1")
    client.submit(second)
    with pytest.raises(QueueFullError, match="1 requests wait"):
        client.submit(client.sequence("2"))
    ticket.cancel()
    client.wait(second)
    client.batch.close()


def test_one_that_fails_takes_nobody_with_it(client: Client, fp32: Model) -> None:
    class Broken:
        def apply(self, logits: Any) -> Any:
            return np.full_like(logits, np.nan)

        def observe(self, token: int) -> None: ...

    bad, good = client.sequence(PROMPTS[1], shaping=Broken()), client.sequence(PROMPTS[0])
    client.submit(bad)
    client.submit(good)
    client.wait(bad, good)
    assert "not finite" in str(client.end(bad).error)
    assert good.transcript.tokens == alone(fp32, PROMPTS[0], numerics="exact")


def test_a_closed_batch_ends_what_runs_and_takes_no_more(fp32: Model) -> None:
    client = Client(fp32)
    one = client.sequence("0", SETTINGS.replace(max_new_tokens=140))
    client.submit(one)
    client.batch.close()
    client.wait(one)
    assert isinstance(client.end(one).error, StoppedError)
    with pytest.raises(StoppedError):
        client.submit(client.sequence("1"))


def test_a_request_over_its_time_ends(client: Client) -> None:
    one = client.sequence("0", SETTINGS.replace(max_new_tokens=140))
    client.batch.submit([one], seconds=0.0)
    client.wait(one)
    assert isinstance(client.end(one).error, TimeoutError)
