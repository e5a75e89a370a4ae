from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime_support import open_tiny

from edgedistill.errors import ContextLengthError
from edgedistill.runtime import decoder as decoder_module
from edgedistill.runtime.chunks import chunk_bounds
from edgedistill.runtime.decoder import InterruptedRunError
from edgedistill.runtime.session import DecoderSession

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTEXT = 160
FORMATS = ["fp32", "int4-b32", "int4-b128", "int8-b64"]


def tokens(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(3, 300, count).tolist()


def all_logits(session: DecoderSession, ids: list[int], chunk: int = 64) -> np.ndarray:
    """Logits after every position by prefill, float32 [S, V]."""
    return np.concatenate([s.logits for s in session.decoder().score(np.array([ids]), chunk=chunk)])


@pytest.fixture(scope="module", params=FORMATS)
def session(request: pytest.FixtureRequest, tiny_bundle: Callable[[str], Path]) -> DecoderSession:
    return open_tiny(tiny_bundle(request.param))


@pytest.fixture(scope="module")
def fp32(tiny_bundle: Callable[[str], Path]) -> DecoderSession:
    return open_tiny(tiny_bundle("fp32"))


# ---- against transformers -----------------------------------------------------------------------------------------


def test_prefill_and_steps_match_transformers(fp32: DecoderSession, checkpoint: tuple[Path, Any]) -> None:
    torch = pytest.importorskip("torch")
    ids = tokens(70)
    with torch.no_grad():
        expected = checkpoint[1](torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(all_logits(fp32, ids), expected, atol=2e-4)
    decoder = fp32.decoder()
    stepped = np.stack([decoder.feed([t]).copy() for t in ids])
    np.testing.assert_allclose(stepped, expected, atol=2e-4)
    assert decoder.length == 70
    assert decoder.cache.capacity == 80  # grown in steps of 16, never the whole context


# ---- the same bits, whichever way -----------------------------------------------------------------------------------


def test_chunking_does_not_change_a_bit(session: DecoderSession) -> None:
    ids = tokens(100, 1)
    whole = all_logits(session, ids, chunk=100)
    for chunk in (2, 3, 5, 32, 33, 65):
        assert np.array_equal(all_logits(session, ids, chunk), whole)


def test_no_width_leaves_a_token_alone(session: DecoderSession) -> None:
    """ONNX Runtime computes an odd row, and a single one at the end of a query block (here 32), by other kernels."""
    ids = tokens(100, 1)
    whole = all_logits(session, ids, chunk=100)
    for width in (2, 3, 7, 17, 33, 65):
        assert np.array_equal(session.decoder().feed(ids[:width], exact=True), whole[width - 1])
        after = session.decoder()
        after.feed(ids[:3], exact=True)
        assert np.array_equal(after.feed(ids[3 : 3 + width], exact=True), whole[width + 2])
        assert np.array_equal(session.decoder().step(np.array([ids[:width]]), exact=True)[0, 0], whole[width - 1])


def test_exact_steps_are_bit_identical_to_prefill(session: DecoderSession) -> None:
    ids = tokens(40, 2)
    whole = all_logits(session, ids)
    decoder = session.decoder()
    for i in range(40):
        assert np.array_equal(decoder.feed(ids[i : i + 1], exact=True), whole[i])
    assert decoder.cache.tokens[0, :40].tolist() == ids


def test_exact_steps_of_a_batch_are_bit_identical_to_prefill(session: DecoderSession) -> None:
    texts = [tokens(n, n) for n in (12, 30, 21)]
    whole = [all_logits(session, text) for text in texts]
    batch = session.decoder(3)
    taken = [0, 0, 0]
    while taken != [12, 30, 21]:
        counts = [min(len(text) - n, 1 + (row == 1)) for row, (text, n) in enumerate(zip(texts, taken, strict=True))]
        ids = np.zeros((3, 2), dtype=np.int64)
        for row, count in enumerate(counts):
            ids[row, :count] = texts[row][taken[row] : taken[row] + count]
        got = batch.step(ids, counts, exact=True)
        taken = [n + count for n, count in zip(taken, counts, strict=True)]
        for row, count in enumerate(counts):
            if count:
                assert np.array_equal(got[row, 0], whole[row][taken[row] - 1]), (row, taken)
    for row, text in enumerate(texts):
        assert batch.cache.tokens[row, : len(text)].tolist() == text


def test_rollback_leaves_no_trace(session: DecoderSession) -> None:
    ids = tokens(30, 3)
    clean = session.decoder()
    clean.feed(ids[:20])
    expected = clean.feed(ids[20:]).copy()
    decoder = session.decoder()
    decoder.feed(ids[:20])
    decoder.feed(tokens(25, 4))
    decoder.truncate(20)
    assert np.array_equal(decoder.feed(ids[20:]), expected)


def test_ragged_batch_equals_single_sequences(session: DecoderSession) -> None:
    """Rows with other pasts and other numbers of new tokens, idle ones among them, and one that starts late."""
    texts = [tokens(60, seed) for seed in range(4)]
    plan = [(9, 4, 0, 2), (3, 0, 0, 7), (2, 5, 6, 0), (4, 4, 2, 2)]
    batch = session.decoder(4)
    taken = np.zeros(4, dtype=int)
    for counts in plan:
        width = max(counts)
        ids = np.full((4, width), 299)
        for row, count in enumerate(counts):
            ids[row, :count] = texts[row][taken[row] : taken[row] + count]
        got = batch.step(ids, counts, exact=True).copy()
        taken += counts
        assert batch.cache.lengths.tolist() == taken.tolist()
        for row, count in enumerate(counts):
            if count:
                assert np.array_equal(got[row, 0], all_logits(session, texts[row][: taken[row]])[-1]), (counts, row)


def test_logit_index_chooses_positions(session: DecoderSession) -> None:
    texts = np.array([tokens(12, 5), tokens(12, 6)])
    got = session.decoder(2).step(texts, None, np.array([[0, 11, 3], [7, 7, 1]]), exact=True)
    for row, columns in enumerate(([0, 11, 3], [7, 7, 1])):
        assert np.array_equal(got[row], all_logits(session, texts[row].tolist())[columns])


def test_one_prefix_expands_to_a_batch_and_compacts(session: DecoderSession) -> None:
    prefix, tails = tokens(21, 7), [tokens(6, 8), tokens(6, 9), tokens(6, 10)]
    single = session.decoder()
    single.feed(prefix, exact=True)
    batch = single.select([0, 0, 0])
    got = batch.step(np.array(tails), exact=True).copy()
    for row, tail in enumerate(tails):
        assert np.array_equal(got[row, 0], all_logits(session, prefix + tail)[-1])
    compact = batch.select([2, 0])
    more = np.array([tokens(3, 11), tokens(3, 12)])
    got = compact.step(more, exact=True).copy()
    for row, source in enumerate((2, 0)):
        assert np.array_equal(got[row, 0], all_logits(session, prefix + tails[source] + more[row].tolist())[-1])
    assert single.length == 21  # the source is untouched


def test_compacting_in_place_keeps_the_rows_and_allocates_nothing(session: DecoderSession) -> None:
    batch = session.decoder(4)
    ids = np.array([tokens(9, seed) for seed in range(4)])
    batch.step(ids, [9, 4, 9, 6])
    twin = batch.select([1, 3])
    twin.cache.reserve(batch.cache.capacity)
    before = list(batch.cache.buffers)
    batch.compact([1, 3], 3)
    assert (batch.cache.batch, batch.cache.lengths.tolist()) == (3, [4, 6, 0])
    assert all(np.shares_memory(old, new) for old, new in zip(before, batch.cache.buffers, strict=True))
    for seed in range(20):  # beyond the capacity: the buffers move once
        new = np.array([tokens(3, seed), tokens(3, seed + 50), tokens(3, seed + 100)])
        expected = twin.step(new[:2], [2, 3], exact=True)
        np.testing.assert_array_equal(batch.step(new, [2, 3, 0], exact=True)[:2], expected)
    assert batch.cache.tokens[0, :4].tolist() == ids[1, :4].tolist()
    with pytest.raises(ValueError, match="cannot be the first"):
        batch.compact([2, 1], 3)


@pytest.mark.parametrize("score_bytes", [1 << 25, 320 * 4 * 3 * 3])
def test_score_gives_wanted_positions_in_slices(
    session: DecoderSession, score_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "SCORE_BYTES", score_bytes)
    texts = [tokens(n, 20 + n) for n in (33, 1, 18)]
    ids = np.zeros((3, 33), dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
    wanted = np.random.default_rng(0).random((3, 33)) < 0.6
    wanted[1, 0] = True
    decoder = session.decoder(3)
    references = [all_logits(session, text) for text in texts]
    seen = set()
    for scores in decoder.score(ids, [33, 1, 18], wanted=wanted, chunk=10):
        for row, column, logits in zip(scores.rows, scores.columns, scores.logits, strict=True):
            seen.add((row, column))
            assert np.array_equal(logits, references[row][column]), (row, column)
    assert seen == {(r, c) for r, n in enumerate((33, 1, 18)) for c in range(n) if wanted[r, c]}
    assert decoder.cache.lengths.tolist() == [33, 1, 18]


# ---- the end of the context ---------------------------------------------------------------------------------------


def test_the_context_can_be_filled_and_not_more(fp32: DecoderSession) -> None:
    ids = tokens(CONTEXT, 30)
    decoder = fp32.decoder()
    decoder.feed(ids[:-1])
    last = decoder.feed(ids[-1:]).copy()
    decoder.truncate(CONTEXT - 1)
    assert np.array_equal(decoder.feed(ids[-1:], exact=True), all_logits(fp32, ids)[-1])
    np.testing.assert_allclose(last, all_logits(fp32, ids)[-1], atol=1e-4)
    assert decoder.cache.capacity == CONTEXT
    with pytest.raises(ContextLengthError, match=rf"161 tokens.*{CONTEXT}"):
        decoder.feed([5])
    assert decoder.length == CONTEXT


def test_ragged_steps_work_up_to_the_last_slot(fp32: DecoderSession) -> None:
    """A nearly full row beside an empty one: its padding would not fit, and once full it stays idle."""
    full, short = tokens(CONTEXT, 31), tokens(40, 32)
    batch = fp32.decoder(2)
    batch.step(np.array([full[:157], [0] * 157]), [157, 0])
    ids = np.zeros((2, 30), dtype=np.int64)
    ids[0, :3], ids[1] = full[157:], short[:30]
    twin = batch.select([0, 1])
    got = twin.step(ids, [3, 30], np.array([[0, 2], [11, 29]]), exact=True).copy()
    assert np.array_equal(got[0], all_logits(fp32, full)[[157, 159]])
    assert np.array_equal(got[1], all_logits(fp32, short)[[11, 29]])
    got = batch.step(ids, [3, 30], np.array([[0, 2], [11, 29]])).copy()
    assert batch.cache.lengths.tolist() == [160, 30]
    np.testing.assert_allclose(got[0], all_logits(fp32, full)[[157, 159]], atol=1e-4)
    np.testing.assert_allclose(got[1], all_logits(fp32, short)[[11, 29]], atol=1e-4)
    got = batch.step(np.array([[0], [short[30]]]), [0, 1])
    np.testing.assert_allclose(got[1, 0], all_logits(fp32, short[:31])[-1], atol=1e-4)
    with pytest.raises(ContextLengthError):
        batch.step(np.array([[1], [1]]), [1, 1])


def test_shapes_that_do_not_fit_are_refused(fp32: DecoderSession) -> None:
    batch = fp32.decoder(2)
    for ids, valid in [((3, 4), None), ((2, 4), [5, 1]), ((2, 4), [-1, 1]), ((2, 4), [1])]:
        with pytest.raises(ValueError, match="do not fit"):
            batch.step(np.zeros(ids, dtype=np.int64), valid)


# ---- memory -------------------------------------------------------------------------------------------------------


def test_values_survive_garbage_collection(fp32: DecoderSession) -> None:
    """ONNX Runtime only aliases the arrays: a forgotten reference shows as NaN or a crash."""
    ids = tokens(60, 40)
    expected = all_logits(fp32, ids)
    decoders = [fp32.decoder() for _ in range(4)]
    for i, token in enumerate(ids):
        for decoder in decoders:
            got = decoder.feed([token])
            np.testing.assert_allclose(got, expected[i], atol=1e-4)
        if i % 10 == 0:
            gc.collect()
            _ = [np.full(50_000, np.nan, dtype=np.float32) for _ in range(20)]


# ---- control ------------------------------------------------------------------------------------------------------


def test_interrupt_ends_a_run_and_leaves_the_cache_usable(fp32: DecoderSession) -> None:
    ids = tokens(120, 50)
    decoder = fp32.decoder()
    decoder.feed(ids[:50])
    decoder.interrupt()
    with pytest.raises(InterruptedRunError):
        decoder.feed(ids[50:])
    assert decoder.length == 50
    decoder.resume()
    assert np.array_equal(decoder.feed(ids[50:], exact=True), all_logits(fp32, ids)[-1])


def test_interrupt_from_another_thread(fp32: DecoderSession) -> None:
    decoder = fp32.decoder()
    timer = threading.Timer(0.05, decoder.interrupt)
    timer.start()
    with pytest.raises(InterruptedRunError):
        while True:
            decoder.feed(tokens(100, 51))
            decoder.truncate(0)
    timer.join()


@given(st.integers(0, 300), st.integers(2, 40))
def test_chunk_bounds(count: int, chunk: int) -> None:
    bounds = list(chunk_bounds(count, chunk))
    assert [i for a, b in bounds for i in range(a, b)] == list(range(count))
    widths = [b - a for a, b in bounds]
    assert all(w >= 2 for w in widths) or count == 1
    assert all(w <= max(chunk, 3) for w in widths)
