"""Continuous batching: the same samples in any batch, every one once, each as the runtime alone would draw it."""

from __future__ import annotations

import itertools
from dataclasses import asdict

import numpy as np
import pytest
from engine_support import SETTINGS
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.errors import ContextLengthError, GenerationError
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.runtime.sampling import NoiseKey, NoiseSource, Sampler, choose
from edgedistill.runtime.settings import GenerationSettings
from edgedistill.verify.types import Message, Prompt, SuiteSampling


def tokens_of(drawn):
    return {one.key: one.token_ids for one in drawn}


# ---- the choice ----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([5, 64, 768, 3000]),
    st.sampled_from([0, 1, 3, 20, 5000]),
    st.sampled_from([1.0, 0.95, 0.5, 0.05]),
    st.sampled_from([0.0, 0.05, 0.9]),
    st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    st.sampled_from([1.0, 1.3]),
    st.sampled_from([0.1, 3.0]),
)
def test_rows_are_chosen_together_as_each_by_itself(
    seed, vocab, top_k, top_p, min_p, temperature, penalty, spread
) -> None:
    generator = np.random.default_rng(seed)
    logits = (generator.standard_normal((4, vocab)) * spread).astype(np.float32)
    logits[0, : vocab // 2] = logits[0, 0]  # equal ones
    chosen = GenerationSettings(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty
    )
    seen = generator.random((4, vocab)) < 0.3
    keys = NoiseSource().keys(3, "prompt", range(4))
    positions = np.arange(4) * 7
    together = choose(logits, chosen, keys, positions, seen)
    for row in range(4):
        sampler = Sampler(chosen, NoiseKey(int(keys[row])), vocab_size=vocab)
        sampler.observe(np.flatnonzero(seen[row]))
        assert together[row] == sampler.choose(logits[row], int(positions[row]))


def test_a_choice_does_not_depend_on_its_neighbours() -> None:
    generator = np.random.default_rng(1)
    logits = generator.standard_normal((6, 400)).astype(np.float32)
    logits[3] *= 20
    keys, positions = NoiseSource().keys(0, "p", range(6)), np.zeros(6, dtype=np.int64)
    chosen = GenerationSettings(temperature=0.8, top_p=0.9)
    alone = [choose(logits[r : r + 1], chosen, keys[r : r + 1], positions[:1])[0] for r in range(6)]
    assert choose(logits, chosen, keys, positions).tolist() == alone


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(bad) -> None:
    logits = np.zeros((2, 8), dtype=np.float32)
    logits[1, 3] = bad
    with pytest.raises(GenerationError, match="not finite"):
        choose(logits, GenerationSettings(temperature=1.0), NoiseSource().keys(0, "p", [0, 1]), np.zeros(2, np.int64))


# ---- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_format", ["int4-b32", "fp32"])
def test_exact_samples_are_those_of_the_runtime_alone_in_any_batch(sampled, prompts, weight_format) -> None:
    exact = SETTINGS.replace(numerics="exact")
    work = None
    results = []
    for batch in (2, 3, 8):
        model = sampled(weight_format, batch=batch)
        results.append(tokens_of(model.draw(prompts, 4, exact)))
        work = [(model.replies.encode(prompt, None), [0, 1, 2, 3]) for prompt in prompts]
    alone = {one.key: one.tokens for one in model.one_by_one(work, exact)}
    assert results[0] == results[1] == results[2] == alone
    assert len(alone) == 4 * len(prompts)
    assert len(set(alone.values())) > len(prompts)


def test_all_drawn_once_with_texts_and_the_end(sampled, prompts) -> None:
    model = sampled(batch=4)
    drawn = list(model.draw(prompts, 5, SETTINGS.replace(max_new_tokens=150)))
    assert sorted(one.key for one in drawn) == sorted(itertools.product([p.id for p in prompts], range(5)))
    eos = set(model.model.bundle.manifest.model.eos_token_ids)
    for one in drawn:
        assert (one.finish == "stop") == (one.token_ids[-1] in eos)
        assert one.sample.tokens == len(one.token_ids)
        assert (one.sample.kind == "truncated") == (one.finish != "stop")
    assert any(one.sample.kind == "parsed" and one.sample.reasoning_tokens > 0 for one in drawn)


def test_samples_read_as_the_runtime_reads_them(sampled, prompts) -> None:
    model = sampled(batch=4)
    drawn = next(one for one in model.draw(prompts, 3, SETTINGS.replace(max_new_tokens=150)) if one.finish == "stop")
    prompt = next(p for p in prompts if p.id == drawn.sample.prompt_id)
    work = [(model.replies.encode(prompt, None), [drawn.sample.index])]
    from edgedistill.runtime.text.transcript import Transcript

    (alone,) = model.one_by_one(work, SETTINGS.replace(max_new_tokens=150))
    transcript = Transcript(model.model.tokenizer, (), model.model.grammar, opened=work[0][0].opened)
    for token in drawn.token_ids:
        transcript.add(token)
    transcript.finish()
    assert drawn.sample.text == transcript.text("answer").strip()
    assert drawn.sample.reasoning_tokens == transcript.reasoning_tokens
    assert alone.finish == "stop"


def test_done_samples_are_left_out_and_later_ones_are_the_same(sampled, prompts) -> None:
    model = sampled(batch=4)
    exact = SETTINGS.replace(numerics="exact")
    everything = tokens_of(model.draw(prompts, 4, exact))
    done = set(list(everything)[::2])
    assert tokens_of(model.draw(prompts, 4, exact, done=done)) == {k: v for k, v in everything.items() if k not in done}
    tail = tokens_of(model.draw_missing([(prompt, (2, 3)) for prompt in prompts], exact))
    assert tail == {key: tokens for key, tokens in everything.items() if key[1] >= 2}


def test_the_batch_stays_full_until_work_runs_out(sampled, prompts) -> None:
    model = sampled(batch=4)
    engine = model.engine(SETTINGS, longest=80, sequences=30)
    work = [(model.replies.encode(prompt, None), list(range(10))) for prompt in prompts]
    assert len(list(engine.run(model._starts(model.session, work, SETTINGS)))) == 30
    assert engine.row_steps > 3.2 * engine.steps  # of 4; one straggler per run is the most that lockstep would allow


def test_the_end_of_the_context_ends_a_reply(sampled) -> None:
    model = sampled(batch=3)
    long = Prompt("long", (Message("user", "Add 1 and 2 and 3 and 4 and 5. " * 18),))
    room = 256 - len(model.replies.encode(long, None).ids)
    assert 0 < room < 200
    drawn = list(model.draw([long], 4, SETTINGS.replace(max_new_tokens=250, temperature=1.5, top_k=0, top_p=1.0)))
    assert all(len(one.token_ids) <= room for one in drawn)
    assert {one.finish for one in drawn} <= {"stop", "context"}
    assert all((one.finish == "context") <= (len(one.token_ids) == room) for one in drawn)
    too_long = Prompt("too-long", (Message("user", "Add 1 and 2. " * 100),))
    with pytest.raises(ContextLengthError, match="too-long"):
        list(model.draw([too_long], 1, SETTINGS))


def test_a_repetition_penalty_counts_what_a_row_has_seen(sampled, prompts) -> None:
    model = sampled(batch=3)
    penal = SETTINGS.replace(numerics="exact", repetition_penalty=1.4, max_new_tokens=20)
    work = [(model.replies.encode(prompt, None), [0, 1]) for prompt in prompts]
    assert tokens_of(model.draw(prompts, 2, penal)) == {one.key: one.tokens for one in model.one_by_one(work, penal)}


def test_ending_early_keeps_what_was_given_out(sampled, prompts) -> None:
    model = sampled(batch=4)
    exact = SETTINGS.replace(numerics="exact")
    running = model.draw(prompts, 4, exact)
    some = tokens_of(itertools.islice(running, 5))
    running.close()
    rest = tokens_of(model.draw(prompts, 4, exact, done=some.keys()))
    assert some.keys().isdisjoint(rest)
    assert some | rest == tokens_of(model.draw(prompts, 4, exact))


def test_the_batch_fits_the_memory_it_is_given(sampled) -> None:
    small = sampled(memory=3 * 64 * 2048 + 3 * 16 * 768)
    assert small._rows_in_memory(64) == 3
    assert sampled(memory=1)._rows_in_memory(64) == 2


# ---- settings ------------------------------------------------------------------------------------------------------


def test_settings_by_precedence() -> None:
    suite = SuiteSampling(temperature=0.9)
    resolved = DrawSettings.resolve(
        asdict(suite), {"temperature": 0.1, "top_k": 5, "eos_token_id": 3}, top_p=0.5, seed=None
    )
    assert (resolved.temperature, resolved.top_k, resolved.top_p, resolved.seed) == (0.9, 5, 0.5, 0)
    assert DrawSettings.resolve({}, {"do_sample": False, "temperature": 0.6}).deterministic
    assert DrawSettings(**resolved.to_dict()) == resolved
    with pytest.raises(GenerationError, match="temperature"):
        DrawSettings(temperature=-1)


def test_greedy_samples_are_labelled_by_their_settings(sampled, prompts) -> None:
    greedy = SETTINGS.replace(temperature=0.0)
    assert greedy.deterministic
    drawn = tokens_of(sampled(batch=3).draw(prompts[:1], 3, greedy))
    assert len(set(drawn.values())) == 1
