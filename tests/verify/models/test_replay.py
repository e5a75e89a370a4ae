"""Replay is plain coupled sampling by another way: the same tokens, and the same distribution."""

from __future__ import annotations

import numpy as np
import pytest
from engine_support import SETTINGS

from edgedistill.errors import VerifyError
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.runtime.batch.sampler import NoiseSource, choose
from edgedistill.verify.metrics.survival import first_divergence
from edgedistill.verify.models.replay import ReplayStats, replay
from edgedistill.verify.stats.sampler_audit import chi_square

EXACT = SETTINGS.replace(numerics="exact", max_new_tokens=60)


@pytest.fixture(scope="module")
def reference_tokens(sampled, prompts):
    model = sampled("fp32", batch=8)
    return {one.key: one.token_ids for one in model.draw(prompts, 6, EXACT)}


@pytest.mark.parametrize(("weight_format", "penalty"), [("int4-b32", 1.0), ("int4-b128", 1.0), ("int4-b32", 1.2)])
def test_replayed_samples_are_the_coupled_ones(sampled, prompts, reference_tokens, weight_format, penalty):
    model = sampled(weight_format, batch=5)
    drawing = EXACT.replace(repetition_penalty=penalty)
    stats = ReplayStats()
    replayed = {one.key: one for one in replay(model, prompts, reference_tokens, drawing, stats=stats)}
    plain = {one.key: one for one in model.draw(prompts, 6, drawing)}
    assert replayed == plain
    assert stats.samples == len(plain)
    assert stats.shared == sum(first_divergence(reference_tokens[key], plain[key].token_ids).position for key in plain)
    assert 0 < stats.shared < stats.tokens  # some of it was replayed, some decoded
    assert stats.unparted == sum(reference_tokens[key] == plain[key].token_ids for key in plain)


def test_a_model_replayed_on_its_own_samples_decodes_nothing(sampled, prompts, reference_tokens):
    stats = ReplayStats()
    own = {one.key: one.token_ids for one in replay(sampled("fp32"), prompts, reference_tokens, EXACT, stats=stats)}
    assert own == reference_tokens
    assert stats.shared == stats.tokens
    assert stats.unparted == stats.samples == 18


def test_any_tokens_lead_to_the_coupled_sample(sampled, prompts, reference_tokens):
    """What is replayed need not be a sample at all: it only decides how much is saved."""
    model = sampled(batch=4)
    generator = np.random.default_rng(0)
    random = {key: tuple(generator.integers(0, 700, size=9).tolist()) for key in reference_tokens}
    replayed = {one.key: one.token_ids for one in replay(model, prompts, random, EXACT)}
    assert replayed == {one.key: one.token_ids for one in model.draw(prompts, 6, EXACT)}


def test_done_samples_and_other_prompts_are_left_out(sampled, prompts, reference_tokens):
    done = set(list(reference_tokens)[::3])
    keys = {one.key for one in replay(sampled(), prompts[:1], reference_tokens, EXACT, done=done)}
    assert keys == {key for key in reference_tokens if key not in done and key[0] == prompts[0].id}


def test_tokens_that_the_settings_forbid_are_refused(sampled, prompts, reference_tokens):
    with pytest.raises(VerifyError, match="expected 1 to 5"):
        list(replay(sampled(), prompts, reference_tokens, EXACT.replace(max_new_tokens=5)))
    with pytest.raises(VerifyError, match="has 0 tokens"):
        list(replay(sampled(), prompts, {(prompts[0].id, 0): ()}, EXACT))


# ---- the marginal distribution --------------------------------------------------------------------------------------


def _conditional(generator, vocab):
    """Logits of the second token given the first: float32 [vocab, vocab]."""
    return (generator.standard_normal((vocab, vocab)) * 1.5).astype(np.float32)


@pytest.mark.parametrize("filters", [{}, {"top_p": 0.8}, {"top_k": 4}])
def test_replayed_pairs_of_tokens_have_the_quantized_models_distribution(filters):
    """Two tokens over a vocabulary of 7: the reference's are drawn, replayed with q's choices, decoded once they part.

    The rule is that of ``replay``: q's own choice at each position under the same noise, and where it differs from the
    reference's token, what follows is drawn from q given its own token.
    """
    vocab, draws = 7, 40_000
    generator = np.random.default_rng(5)
    p_first, q_first = generator.standard_normal((2, vocab)).astype(np.float32) * 1.5
    p_next, q_next = _conditional(generator, vocab), _conditional(generator, vocab)
    rules = DrawSettings(temperature=0.9, **filters).generation
    keys = NoiseSource().keys(11, "prompt", range(draws))
    zero, one = np.zeros(draws, np.int64), np.ones(draws, np.int64)

    def first(logits):
        return choose(np.broadcast_to(logits, (draws, vocab)), rules, keys, zero)

    reference = np.stack([first(p_first), choose(p_next[first(p_first)], rules, keys, one)], axis=1)
    own_first = first(q_first)
    scored_second = choose(q_next[reference[:, 0]], rules, keys, one)  # teacher-forced on the reference's token
    decoded_second = choose(q_next[own_first], rules, keys, one)
    replayed = np.stack([own_first, np.where(own_first == reference[:, 0], scored_second, decoded_second)], axis=1)

    def law(logits):
        from edgedistill.runtime.sampling import candidates

        out = np.zeros(vocab)
        options = candidates(logits, rules)
        out[options.ids] = np.exp(options.logprobs)
        return out

    expected = np.concatenate([law(q_first)[token] * law(q_next[token]) for token in range(vocab)])
    counts = np.bincount(replayed[:, 0] * vocab + replayed[:, 1], minlength=vocab * vocab)
    assert chi_square(counts, expected).p_value > 1e-4
    wrong = np.concatenate([law(p_first)[token] * law(p_next[token]) for token in range(vocab)])
    assert chi_square(counts, wrong + 1e-9).p_value < 1e-12  # the test can fail
