"""Engines side by side: the samples of one engine, whatever ends the run, and no thread left behind."""

from __future__ import annotations

import itertools
import threading

import pytest
from engine_support import SETTINGS

from edgedistill.errors import GenerationError
from edgedistill.runtime.batch.replicas import run_lanes
from edgedistill.verify.models import bundle as bundle_model

SAMPLES = 6


@pytest.fixture
def model(sampled, monkeypatch):
    """A bundle of 12 rows whose session has three threads, whatever machine this is."""
    opened = sampled(batch=12)
    monkeypatch.setattr(opened.session, "threads", 3)
    before = _threads()
    yield opened
    assert _threads() <= before


def _threads() -> set[threading.Thread]:
    """All but the one that rearranges memory once a session has begun to decode, and then ends by itself."""
    return {thread for thread in threading.enumerate() if thread.name != "huge pages"}


def tokens_of(drawn):
    return {one.key: one.token_ids for one in drawn}


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_the_same_samples_as_one_engine(sampled, model, prompts, mode) -> None:
    settings = SETTINGS.replace(numerics=mode)
    session, engines = model.engines(settings, longest=80, sequences=3 * SAMPLES)
    assert len(engines) == 3
    assert session.threads == 1
    together = list(model.draw(prompts, SAMPLES, settings))
    assert len(together) == SAMPLES * len(prompts)
    assert tokens_of(together) == tokens_of(sampled(batch=6).draw(prompts, SAMPLES, settings))


def test_large_models_and_few_samples_get_one_engine(model, monkeypatch) -> None:
    assert len(model.engines(SETTINGS, longest=80, sequences=7)[1]) == 1
    monkeypatch.setattr(bundle_model, "LANE_BYTES", 0)
    session, engines = model.engines(SETTINGS, longest=80, sequences=100)
    assert session is model.session
    assert len(engines) == 1


def test_ended_early_it_can_go_on(model, prompts) -> None:
    running = model.draw(prompts, SAMPLES, SETTINGS)
    some = tokens_of(itertools.islice(running, 4))
    running.close()
    rest = tokens_of(model.draw(prompts, SAMPLES, SETTINGS, done=some.keys()))
    assert some.keys().isdisjoint(rest)
    assert some | rest == tokens_of(model.draw(prompts, SAMPLES, SETTINGS))


def test_what_starts_and_engines_raise_is_raised(model, prompts, monkeypatch) -> None:
    session, engines = model.engines(SETTINGS, longest=80, sequences=100)
    work = [(model.replies.encode(prompt, None), list(range(SAMPLES))) for prompt in prompts]

    def starts():
        yield from itertools.islice(model._starts(session, work, SETTINGS), 8)
        raise GenerationError("out of memory")

    with pytest.raises(GenerationError, match="out of memory"):
        list(run_lanes(engines, starts()))
    _, engines = model.engines(SETTINGS, longest=80, sequences=100)
    monkeypatch.setattr(engines[1], "run", lambda _: (_ for _ in ()).throw(GenerationError("not finite")))
    with pytest.raises(GenerationError, match="not finite"):
        list(run_lanes(engines, model._starts(session, work, SETTINGS)))
