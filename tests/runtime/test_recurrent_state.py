"""Models with states beside the KV cache: whatever is done with rows, the numbers are those of a fresh prefill."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hybrid_checkpoints import WRITERS
from shared import made_once

from edgedistill.errors import BundleError, ContextLengthError, UsageError
from edgedistill.runtime.batch.places import SharedPlaces
from edgedistill.runtime.decoder import InterruptedRunError
from edgedistill.runtime.measure.selftest import selftest
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.session import DecoderSession
from edgedistill.runtime.state import MOST_KEPT, RecurrentStates

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

TOKENS = np.random.default_rng(3).integers(3, 300, 160).tolist()


@pytest.fixture(scope="module", params=sorted(WRITERS))
def bundle_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(out: Path) -> Path:
        from exporting import export

        source = WRITERS[request.param](out.parent / f"{request.param}-source")
        return export(source, out, format="int4-b32", context=192, kv_cache="int8", check=False).path

    return made_once(tmp_path_factory, f"bundles/{request.param}-int8-cache", make)


@pytest.fixture(scope="module")
def model(bundle_dir: Path) -> Iterator[Model]:
    with open_bundle(bundle_dir) as opened:
        yield opened


@pytest.fixture
def session(model: Model) -> DecoderSession:
    assert isinstance(model.session, DecoderSession)
    return model.session


def prefill(session: DecoderSession, tokens: Sequence[int]) -> np.ndarray:
    return session.decoder().feed(tokens, exact=True).copy()


def test_the_manifest_names_the_states(model: Model) -> None:
    info = model.bundle.manifest.model
    found = {state.name: state.shape for state in info.states}
    if info.family == "lfm2":
        assert found == {"0.conv": (2, 64), "2.conv": (2, 64)}
        assert info.attention_layers == (1, 3)
        assert model.bundle.manifest.kv_cache.bytes_per_token == 2 * 2 * 2 * 16  # two layers, not four
    elif info.family == "granitemoehybrid":
        shapes = {"conv": (3, 128 + 2 * 24), "ssm": (8, 16, 24)}
        assert found == {f"{i}.{name}": shape for i in (0, 2, 3) for name, shape in shapes.items()}
        assert info.attention_layers == (1,)
    else:
        shapes = {"conv": (3, 2 * 2 * 16 + 4 * 16), "delta": (4, 16, 16)}
        assert found == {f"{i}.{name}": shape for i in range(3) for name, shape in shapes.items()}
        assert info.attention_layers == (3,)


@pytest.mark.parametrize("cuts", [[1] * 60, [59, 1], [17, 33, 10], [2, 3, 55]])
def test_exact_steps_are_the_prefill(session: DecoderSession, cuts: list[int]) -> None:
    decoder, start = session.decoder(), 0
    for count in cuts:
        found = decoder.feed(TOKENS[start : start + count], exact=True)
        start += count
    np.testing.assert_array_equal(found, prefill(session, TOKENS[:60]))


def test_rows_of_unequal_length_are_single_rows(session: DecoderSession) -> None:
    """Also with a row that is idle at first: padding enters no state."""
    rows = [TOKENS[:40], TOKENS[50:73], TOKENS[90:107]]
    decoder = session.decoder(3)
    for counts in ([21, 17, 0], [1, 6, 15], [18, 0, 2]):
        before = decoder.cache.lengths.copy()
        ids = np.full((3, max(counts)), 299, dtype=np.int64)
        for row, count in enumerate(counts):
            ids[row, :count] = rows[row][before[row] : before[row] + count]
        logits = decoder.step(ids, counts, exact=True)
        for row, count in enumerate(counts):
            if count:
                expected = prefill(session, rows[row][: before[row] + count])
                np.testing.assert_array_equal(logits[row, 0], expected)


@pytest.mark.parametrize("length", [0, 1, 63, 92, 93, 99, 100])
def test_tokens_given_back_leave_a_fresh_prefill(session: DecoderSession, length: int) -> None:
    decoder = session.decoder()
    decoder.feed(TOKENS[:64], exact=True, logits=False)
    decoder.feed(TOKENS[64:100], exact=True)
    decoder.truncate(length)
    assert decoder.length == length
    other = TOKENS[120:140]
    np.testing.assert_array_equal(decoder.feed(other, exact=True), prefill(session, [*TOKENS[:length], *other]))


def test_a_row_of_a_batch_is_cut_alone(session: DecoderSession) -> None:
    decoder = session.decoder(2)
    decoder.step(np.array([TOKENS[:50], TOKENS[60:110]]), exact=True)
    decoder.truncate(20, row=1)
    assert decoder.cache.lengths.tolist() == [50, 20]
    logits = decoder.step(np.array([TOKENS[50:53], TOKENS[80:83]]), exact=True)
    np.testing.assert_array_equal(logits[0, 0], prefill(session, TOKENS[:53]))
    np.testing.assert_array_equal(logits[1, 0], prefill(session, TOKENS[60:83]))


def test_rewinding_computes_nothing_and_says_how_far_it_went(session: DecoderSession) -> None:
    decoder = session.decoder()
    decoder.feed(TOKENS[:64], exact=True, logits=False)
    decoder.feed(TOKENS[64:100], exact=True)
    assert decoder.rewind(95) == 92  # the end of a prompt is computed by itself
    assert decoder.rewind(91) == 64
    assert decoder.rewind(63) == 0
    np.testing.assert_array_equal(decoder.feed(TOKENS[:9], exact=True), prefill(session, TOKENS[:9]))


def test_forks_swaps_and_copies_go_on_alike(session: DecoderSession) -> None:
    decoder = session.decoder()
    decoder.feed(TOKENS[:30], exact=True)
    fork = decoder.select([0, 0])
    fork.step(np.array([TOKENS[30:34], TOKENS[60:64]]), exact=True)
    fork.cache.swap(0, 1)
    fork.compact([1], 1)
    np.testing.assert_array_equal(fork.feed(TOKENS[34:40], exact=True), prefill(session, TOKENS[:40]))
    np.testing.assert_array_equal(decoder.feed(TOKENS[30:40], exact=True), prefill(session, TOKENS[:40]))
    other = session.decoder(2)
    assert other.cache.put_row(1, decoder.cache, 0, 40) == 40
    logits = other.step(np.array([TOKENS[:4], TOKENS[40:44]]), exact=True)
    np.testing.assert_array_equal(logits[1, 0], prefill(session, TOKENS[:44]))
    assert other.cache.put_row(0, decoder.cache, 0, 37) == 30
    other.complete(0, 37)
    logits = other.step(np.array([TOKENS[37:40], TOKENS[44:47]]), exact=True)
    np.testing.assert_array_equal(logits[0, 0], prefill(session, TOKENS[:40]))


def test_a_run_that_was_ended_leaves_a_state_that_is_known(session: DecoderSession) -> None:
    decoder = session.decoder()
    decoder.feed(TOKENS[:40], exact=True)
    decoder.feed(TOKENS[40:41], exact=True)
    decoder.interrupt()
    with pytest.raises(InterruptedRunError):
        decoder.feed(TOKENS[41:60], exact=True)
    decoder.resume()
    length = decoder.length
    assert length in (40, 41)
    np.testing.assert_array_equal(decoder.feed(TOKENS[length:60], exact=True), prefill(session, TOKENS[:60]))


def test_exact_steps_up_to_the_last_token_of_the_context(session: DecoderSession) -> None:
    tokens = (TOKENS * 2)[:192]
    decoder = session.decoder()
    decoder.feed(tokens[:188], exact=True, logits=False)
    for token in tokens[188:]:
        found = decoder.feed([token], exact=True)
    np.testing.assert_array_equal(found, prefill(session, tokens))
    with pytest.raises(ContextLengthError):
        decoder.feed([5])
    rows = session.decoder(2)
    rows.step(np.array([tokens[:191], tokens[:191]]), exact=True)
    np.testing.assert_array_equal(rows.step(np.array([[tokens[191]]] * 2), exact=True)[1, 0], found)


def test_greedy_64_tokens_alone_in_a_batch_and_served(model: Model, session: DecoderSession) -> None:
    prompts = ["How many apples?", "the there then three", "Ann has 3 apples and buys 4 more apples."]
    keywords: Any = {"temperature": 0.0, "max_new_tokens": 64, "numerics": "exact"}
    alone = [model.generate(prompt, **keywords).tokens for prompt in prompts]
    assert len(alone[0]) == 64
    assert [one.tokens for one in model.generate_batch(prompts, **keywords)] == alone
    model.release()
    places = SharedPlaces(session, 2, numerics="exact")
    for prompt, expected in [*zip(prompts, alone, strict=True), (prompts[2], alone[2])]:
        ids = np.array(model.encode(model.render(prompt)))
        place, cached = places.begin(ids, 64)
        tokens = [int(places.feed(place, ids[cached:].tolist(), logits=True).argmax())]
        places.promote(place)
        while len(tokens) < len(expected):
            tokens.append(int(places.step(tokens[-1:], len(ids) + len(tokens))[0].argmax()))
        places.retire(place)
        assert tuple(tokens) == expected
    assert cached > 0  # the second time, the prompt's beginning was there


def test_a_conversation_goes_on_from_what_it_holds(model: Model) -> None:
    settings: Any = {"temperature": 0.0, "max_new_tokens": 20, "numerics": "exact"}
    chat = model.chat()
    chat.ask("Ann has 3 apples and buys 4 more apples. How many apples does Ann have now?", **settings)
    second = chat.ask("the there then three", **settings)
    assert second.stats.cached_tokens > 0
    messages = list(chat.messages)[:3]
    with open_bundle(model.bundle.path) as fresh:
        assert fresh.generate(messages, **settings).tokens == second.tokens


def test_what_needs_tokens_taken_back_says_so(model: Model) -> None:
    with pytest.raises(UsageError, match="recurrent layers"):
        model.draft_with(model)
    guessed = model.generate("the there then three", speculate=4, max_new_tokens=3)
    assert guessed.note is not None
    assert "cannot be taken back" in guessed.note
    assert guessed.stats.drafted_tokens == 0
    assert model.generate("the there then three", max_new_tokens=3).note is None


def test_cancelling_a_prompt_keeps_what_is_known(model: Model) -> None:
    cancel = threading.Event()
    cancel.set()
    assert model.generate("the " * 40, max_new_tokens=3, cancel=cancel).finish_reason == "cancelled"
    keywords: Any = {"temperature": 0.0, "max_new_tokens": 3, "numerics": "exact"}
    again = model.generate("the " * 40, **keywords)
    model.release()
    assert model.generate("the " * 40, **keywords).tokens == again.tokens


def test_the_self_test_finds_what_exact_numerics_rely_on(bundle_dir: Path) -> None:
    assert selftest(bundle_dir).passed


def test_a_manifest_with_other_states_is_refused(bundle_dir: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "changed"
    shutil.copytree(bundle_dir, copy)
    manifest = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace('"2.conv"', '"1.conv"'))
    with pytest.raises(BundleError, match="states"):
        open_bundle(copy)


def test_copies_stay_few_and_lie_denser_towards_the_end() -> None:
    states = RecurrentStates([(3,)], 1, lambda shape: np.zeros(shape, np.float32))
    for length in range(1, 400):
        states.arrays[0][0] = length
        states.keep(0, length)
    ends = [length for length in range(1, 400) if states.reach(0, 1000, length) == length]
    assert len(ends) == MOST_KEPT
    assert ends[-3:] == [397, 398, 399]
    assert ends[0] < 200
    assert states.rewind(0, 399, 250) in ends
    assert states.arrays[0][0, 0] == states.reach(0, 1000, 250)
