"""Divergences on given tokens: against one pass over everything, in any grouping and slicing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from engine_support import SETTINGS
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.token_divergence import divergence, log_softmax
from edgedistill.verify.models.sampler_check import check_sampler
from edgedistill.verify.models.teacher_forcing import force_one
from edgedistill.verify.references.top_tokens import coarse_divergence, top_tokens
from edgedistill.verify.sampling import protocol as models
from edgedistill.verify.sampling.protocol import Slice, slices
from edgedistill.verify.scoring import compare_on, path_distance


@pytest.fixture(scope="module")
def sequences(sampled, prompts):
    drawn = sampled("fp32", batch=8).draw(prompts[:1], 5, SETTINGS.replace(temperature=1.3, top_k=0, top_p=1.0))
    return [one.token_ids[: 40 - 7 * one.key[1]] for one in sorted(drawn, key=lambda one: one.key)]


def whole(model, prompt, tokens):
    """Logits before each token, by one step over prompt and tokens."""
    ids = [*model.replies.encode(prompt, None).ids, *tokens[:-1]]
    decoder = model.session.decoder()
    first = len(ids) - len(tokens)
    index = np.arange(first, len(ids))[None]
    return decoder.step(np.array([ids]), None, index, exact=True)[0].copy()


def test_divergences_are_those_of_a_single_pass(sampled, prompts, sequences, monkeypatch) -> None:
    p, q = sampled("fp32"), sampled("int4-b32")
    expected = [divergence(whole(p, prompts[0], s), whole(q, prompts[0], s)) for s in sequences]
    for size in (32 << 20, 2 * 768 * 4 * 3):
        monkeypatch.setattr(models, "SCORE_BYTES", size)
        found = compare_on(p, q, prompts[0], sequences)
        assert len(found) == len(sequences)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.kl, other.kl)
            np.testing.assert_array_equal(one.entropy_q, other.entropy_q)
            np.testing.assert_array_equal(one.top_agrees, other.top_agrees)
    assert np.concatenate([one.kl for one in expected]).max() > 0


def test_a_model_does_not_differ_from_itself(sampled, prompts, sequences) -> None:
    q = sampled("int4-b32")
    assert all((one.kl == 0).all() and one.top_agrees.all() for one in compare_on(q, q, prompts[0], sequences))


def test_one_sequence_by_itself_is_scored_like_several(sampled, prompts, sequences) -> None:
    """As for graphs that know no batches."""
    model = sampled("int4-b32")
    ids, longest = model.replies.encode(prompts[0], None).ids, sequences[0]
    parts = slices([len(longest)], model.identity.vocab_size, widest=16)
    found = list(force_one(model.model.session.decoder(), ids, longest, parts, chunk=model.model.prefill_chunk))
    assert len(found) == len(parts) > 1
    np.testing.assert_array_equal(np.concatenate(found), whole(model, prompts[0], longest))


def test_two_bits_are_further_off_than_four(sampled, prompts, sequences) -> None:
    reference = sampled("fp32")
    four, two = (
        np.concatenate([one.kl for one in compare_on(reference, sampled(name), prompts[0], sequences)]).mean()
        for name in ("int4-b32", "int2-b32-rtn")
    )
    assert two > 20 * four


def test_the_paths_of_scoring_and_decoding(sampled, prompts, sequences) -> None:
    """In fp32 they are one; the first token of a reply comes from the prefill in both."""
    full = path_distance(sampled("fp32"), prompts[0], sequences[:2])
    assert full.kl.max() < 1e-6
    assert len(full.kl) == len(sequences[0]) + len(sequences[1])
    quantized = path_distance(sampled("int4-b128"), prompts[0], sequences[:2])
    assert quantized.kl[0] == 0
    assert quantized.kl[len(sequences[0])] == 0
    with pytest.raises(VerifyError, match="no tokens"):
        path_distance(sampled("fp32"), prompts[0], [])


def test_other_vocabularies_are_refused(sampled, prompts, sequences) -> None:
    p, q = sampled("fp32"), sampled("int4-b32")
    q.identity = dataclasses.replace(q.identity, tokenizer_sha256="0" * 64)
    with pytest.raises(VerifyError, match="different tokenizers"):
        compare_on(p, q, prompts[0], sequences)
    q.identity = dataclasses.replace(p.identity, vocab_size=800)
    with pytest.raises(VerifyError, match="vocabulary of 768 tokens"):
        compare_on(p, q, prompts[0], sequences)


@given(st.lists(st.integers(1, 900), min_size=1, max_size=40), st.integers(2, 300_000))
def test_slices_cover_every_position_within_the_bound(lengths, vocab) -> None:
    parts = slices(lengths, vocab)
    assert [part.start for part in parts] == [0, *[part.stop for part in parts[:-1]]]
    assert parts[-1].stop == max(lengths)
    for part in parts:
        width = part.stop - part.start
        assert width >= 2 or parts == [Slice(0, 1)]
        assert width <= 3 or width * len(lengths) * vocab * 4 <= models.SCORE_BYTES


# ---- distributions cut to their top -------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4, 20, 64]))
def test_cut_divergences_are_lower_bounds_and_whole_ones_with_all_tokens(seed, k) -> None:
    generator = np.random.default_rng(seed)
    p, q = (generator.standard_normal((2, 5, 64)) * 3).astype(np.float32)
    exact, cut = divergence(p, q), coarse_divergence(top_tokens(p, k), [q[:2], q[2:]])
    assert (cut.kl <= exact.kl + 1e-5).all()
    assert (cut.entropy_p <= exact.entropy_p + 1e-5).all()
    np.testing.assert_array_equal(cut.top_agrees, exact.top_agrees)
    top = top_tokens(p, k)
    np.testing.assert_allclose(np.exp(top.logprobs).sum(axis=1) + top.tail, 1, rtol=1e-5)
    np.testing.assert_array_equal(top.ids[:, 0], p.argmax(axis=1))
    if k == 64:
        np.testing.assert_allclose(cut.kl, exact.kl, atol=1e-5)
        np.testing.assert_allclose(cut.entropy_q, exact.entropy_q, atol=1e-5)
        np.testing.assert_allclose(top.logprobs[:, :1], log_softmax(p).max(axis=1, keepdims=True), rtol=1e-5)


# ---- the audit of the sampler -------------------------------------------------------------------------------------


class SeedIgnored:
    """The fault that toolkits have shipped: every sample under every seed gets the same noise."""

    def keys(self, seed, prompt_id, indices):
        return np.full(len(indices), 12345, dtype=np.uint64)


class Biased:
    """Noise drawn from a handful of keys: reproducible, different by seed, and no sample of the distribution."""

    def keys(self, seed, prompt_id, indices):
        return np.array([(seed * 7 + i) % 3 + 1 for i in indices], dtype=np.uint64)


HOT = SETTINGS.replace(temperature=1.5, top_k=0, top_p=1.0)


def test_the_sampler_passes_its_audit(sampled, prompts) -> None:
    found = check_sampler(sampled(), prompts, HOT, draws=4000)
    assert found.sound
    assert found.varies
    assert found.chi_square.degrees > 1


def test_a_sampler_that_ignores_its_seed_stops_the_run(sampled, prompts) -> None:
    found = check_sampler(sampled(noise=SeedIgnored()), prompts, HOT, draws=4000)
    assert found.reproduces
    assert found.varies is False
    with pytest.raises(VerifyError, match="different seeds gave the same tokens"):
        found.require_sound("m")


def test_a_sampler_with_the_wrong_frequencies_stops_the_run(sampled, prompts) -> None:
    found = check_sampler(sampled(noise=Biased()), prompts, HOT, draws=4000)
    with pytest.raises(VerifyError, match="chi-square"):
        found.require_sound("m")


def test_deterministic_decoding_has_no_sampler_to_audit(sampled, prompts) -> None:
    with pytest.raises(VerifyError, match="deterministic"):
        check_sampler(sampled(), prompts, SETTINGS.replace(temperature=0.0))
