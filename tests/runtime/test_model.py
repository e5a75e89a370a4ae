from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import edgedistill
from edgedistill.errors import BudgetError, BundleError, ContextLengthError, GenerationError
from edgedistill.export.pipeline import export
from edgedistill.runtime.events import Event, Generation
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.reasoning import DEFAULT_TAGS
from edgedistill.runtime.settings import GenerationSettings
from edgedistill.runtime.stopping import StopStrings
from edgedistill.runtime.template import PassThrough
from edgedistill.runtime.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GREEDY = GenerationSettings(temperature=0.0, max_new_tokens=20, ignore_eos=True)
SAMPLED = GenerationSettings(temperature=1.0, max_new_tokens=20, ignore_eos=True, seed=5)


@pytest.fixture(scope="module")
def fp32(tiny_bundle: Callable[[str], Path]) -> Iterator[Model]:
    with open_bundle(tiny_bundle("fp32"), threads=1) as model:
        yield model


@pytest.fixture(scope="module", params=["int4-b32", "int8-b64"])
def quantized(request: pytest.FixtureRequest, tiny_bundle: Callable[[str], Path]) -> Iterator[Model]:
    with open_bundle(tiny_bundle(request.param), threads=1) as model:
        yield model


def reference_tokens(model: Any, ids: list[int], count: int) -> list[int]:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        out = model.generate(
            torch.tensor([ids]), max_new_tokens=count, do_sample=False, eos_token_id=319, pad_token_id=0
        )
    return [int(t) for t in out[0, len(ids) :]]


# ---- tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_64_greedy_tokens_equal_transformers(fp32: Model, checkpoint: tuple[Path, Any], mode: Any) -> None:
    ids = fp32.encode(fp32.render("What is 12 + 30?"))
    expected = reference_tokens(checkpoint[1], ids, 64)
    assert len(set(expected)) > 5  # a model that repeats one token proves nothing
    got = fp32.generate("What is 12 + 30?", settings=GREEDY.replace(max_new_tokens=64), mode=mode)
    assert list(got.tokens) == expected


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_prefill_chunk_does_not_change_the_text(quantized: Model, mode: Any) -> None:
    texts = set()
    chunk = quantized.prefill_chunk
    for size in (2, 7, 16, 256):
        quantized.prefill_chunk = size
        quantized.release()
        texts.add(quantized.generate("größer, naïve?", settings=SAMPLED, mode=mode).tokens)
    quantized.prefill_chunk = chunk
    assert len(texts) == 1


def test_exact_mode_is_what_scoring_says(quantized: Model) -> None:
    """Greedy tokens of exact mode are the argmax of one prefill over prompt and answer, bit for bit."""
    prompt = quantized.encode(quantized.render("What is 12 + 30?"))
    got = quantized.generate("What is 12 + 30?", settings=GREEDY.replace(max_new_tokens=40), mode="exact")
    scores = quantized.session.decoder().score(np.array([prompt + list(got.tokens)]), chunk=64)
    best = np.concatenate([part.logits.argmax(axis=1) for part in scores])
    assert best[len(prompt) - 1 : -1].tolist() == list(got.tokens)


def test_seed_reproduces_and_another_differs(fp32: Model) -> None:
    first = fp32.generate("hello", settings=SAMPLED)
    assert fp32.generate("something else", settings=SAMPLED).tokens != first.tokens
    assert fp32.generate("hello", settings=SAMPLED).tokens == first.tokens
    assert fp32.generate("hello", settings=SAMPLED.replace(seed=6)).tokens != first.tokens
    assert first.stats.seed == 5


def test_without_a_seed_one_is_drawn_and_reported(fp32: Model) -> None:
    first = fp32.generate("hello", settings=SAMPLED.replace(seed=None))
    again = fp32.generate("hello", settings=SAMPLED.replace(seed=first.stats.seed))
    assert again.tokens == first.tokens
    assert fp32.generate("hello", settings=GREEDY).stats.seed is None


def test_repetition_penalty_changes_greedy_text(fp32: Model) -> None:
    plain = fp32.generate("aaaa", settings=GREEDY.replace(max_new_tokens=40))
    fined = fp32.generate("aaaa", settings=GREEDY.replace(max_new_tokens=40, repetition_penalty=5.0))
    assert len(set(fined.tokens)) > len(set(plain.tokens))


def test_score_is_the_log_probability(fp32: Model, checkpoint: tuple[Path, Any]) -> None:
    torch = pytest.importorskip("torch")
    ids = fp32.encode("The answer is 42. größer", raw=True)
    with torch.no_grad():
        logits = checkpoint[1](torch.tensor([ids])).logits[0].double()
    expected = torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()
    got = fp32.score(ids)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-4)
    with pytest.raises(GenerationError, match="at least two"):
        fp32.score([1])


# ---- conversations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_a_second_turn_reuses_the_cache_and_changes_nothing(fp32: Model, mode: Any) -> None:
    settings = GREEDY.replace(max_new_tokens=12)
    turns = [{"role": "user", "content": "What is 12 + 30?"}]
    fp32.release()
    first = fp32.generate(turns, settings=settings, mode=mode)
    assert first.stats.cached_tokens == 0
    turns += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "Sure?"}]
    second = fp32.generate(turns, settings=settings, mode=mode)
    # All of the first prompt stays; the template writes no reasoning for earlier answers, so they differ behind it.
    assert second.stats.cached_tokens >= first.stats.prompt_tokens
    fp32.release()
    fresh = fp32.generate(turns, settings=settings, mode=mode)
    assert fresh.stats.cached_tokens == 0
    assert fresh.tokens == second.tokens
    assert second.stats.prefill_tps > 0


def test_exact_mode_does_not_build_on_fast_entries(quantized: Model) -> None:
    quantized.release()
    fast = quantized.generate("Say abc", settings=GREEDY, mode="fast", raw=True)
    prompt = "Say abc" + fast.text
    exact = quantized.generate(prompt, settings=GREEDY, mode="exact", raw=True)
    assert exact.stats.cached_tokens <= len(quantized.encode("Say abc", raw=True))
    quantized.release()
    assert quantized.generate(prompt, settings=GREEDY, mode="exact", raw=True).tokens == exact.tokens


def test_threads_generate_side_by_side(fp32: Model) -> None:
    prompts = [f"number {i}" for i in range(4)]
    expected = {p: fp32.generate(p, settings=SAMPLED).tokens for p in prompts}
    got: dict[str, tuple[int, ...]] = {}
    threads = [
        threading.Thread(target=lambda p=p: got.update({p: fp32.generate(p, settings=SAMPLED).tokens})) for p in prompts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == expected


# ---- the stream ---------------------------------------------------------------------------------------------------


def test_events_join_to_the_text_and_count_all_tokens(fp32: Model) -> None:
    events: list[Event] = []
    got = fp32.generate("größer", settings=SAMPLED.replace(max_new_tokens=60), on_event=events.append)
    assert events[0].kind == "prefill"
    assert events[-1].kind == "done"
    assert events[-1].generation is got
    texts = [e for e in events if e.kind in ("reasoning", "answer", "marker")]
    assert "".join(e.text for e in texts) == got.text
    assert 0 < sum(e.tokens for e in texts) <= got.stats.new_tokens
    assert (events[0].done, events[0].total) == (got.stats.prompt_tokens, got.stats.prompt_tokens)


def test_prefill_reports_every_chunk(fp32: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp32, "prefill_chunk", 10)
    fp32.release()
    events = list(fp32.stream("x" * 30, settings=GREEDY, raw=True))
    done = [e.done for e in events if e.kind == "prefill"]
    assert len(done) >= 3
    assert done == sorted(done)
    assert done[-1] == events[0].total


def test_statistics_add_up(fp32: Model) -> None:
    fp32.release()
    stats = fp32.generate("What is 12 + 30?", settings=GREEDY).stats
    assert stats.new_tokens == 20
    assert stats.kv_tokens == stats.prompt_tokens + 19  # the last token is given out, not fed
    assert stats.kv_bytes == 160 * fp32.bundle.manifest.kv_cache.bytes_per_token
    assert stats.ttft_s >= stats.prefill_s > 0
    assert stats.decode_s >= stats.step_p95_s >= stats.step_p50_s > 0
    assert stats.decode_tps == pytest.approx(19 / stats.decode_s)
    assert stats.prefill_tps == pytest.approx(stats.prompt_tokens / stats.prefill_s)
    assert stats.peak_rss_bytes >= stats.rss_bytes > 10_000_000


def test_results_are_json(fp32: Model) -> None:
    got = json.loads(json.dumps(fp32.generate("hi", settings=SAMPLED).to_dict()))
    assert got["finish_reason"] == "length"
    assert got["stats"]["decode_tps"] > 0
    assert len(got["tokens"]) == 20


# ---- ends -----------------------------------------------------------------------------------------------------------


def test_end_of_sequence_stops(fp32: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    free = fp32.generate("hi", settings=GREEDY)
    end = free.tokens[7]
    first = free.tokens.index(end)
    info = fp32.bundle.manifest.model
    fake = type(info)(**{f: getattr(info, f) for f in info.__slots__} | {"eos_token_ids": (end,)})
    manifest = fp32.bundle.manifest
    changed = type(manifest)(**{f: getattr(manifest, f) for f in manifest.__slots__} | {"model": fake})
    monkeypatch.setattr(fp32, "bundle", type(fp32.bundle)(fp32.bundle.path, changed))
    got = fp32.generate("hi", settings=GREEDY.replace(ignore_eos=False))
    assert got.finish_reason == "stop"
    assert got.tokens == free.tokens[: first + 1]
    assert fp32.generate("hi", settings=GREEDY).tokens == free.tokens  # ignore_eos goes on


def test_stop_string_ends_before_itself(fp32: Model) -> None:
    free = fp32.generate("hi", settings=GREEDY.replace(max_new_tokens=40))
    stop = free.text[10:13]
    got = fp32.generate("hi", settings=GREEDY.replace(max_new_tokens=40, stop=(stop, "never there")))
    assert got.finish_reason == "stop_string"
    assert got.text == free.text[: free.text.index(stop)]
    assert len(got.tokens) < 40


def test_full_context_ends_generation(fp32: Model) -> None:
    got = fp32.generate("x" * 60, settings=GREEDY.replace(max_new_tokens=1000))
    assert got.finish_reason == "context"
    assert got.stats.prompt_tokens + got.stats.new_tokens == 160


def test_prompt_longer_than_the_context(fp32: Model) -> None:
    with pytest.raises(ContextLengthError, match=r"\d+ tokens.* 160 .*--context"):
        fp32.generate("word " * 200, settings=GREEDY)
    assert fp32.generate("hi", settings=GREEDY).finish_reason == "length"


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_cancel_between_tokens_keeps_the_text(fp32: Model, mode: Any) -> None:
    whole = fp32.generate("hi", settings=GREEDY, mode=mode)
    cancel = threading.Event()
    tokens = 0

    def stop_after_five(event: Event) -> None:
        nonlocal tokens
        tokens += event.tokens
        if tokens >= 5:
            cancel.set()

    got = fp32.generate("hi", settings=GREEDY, mode=mode, cancel=cancel, on_event=stop_after_five)
    assert got.finish_reason == "cancelled"
    assert 5 <= len(got.tokens) < 20
    assert whole.text.startswith(got.text)
    assert fp32.generate("hi", settings=GREEDY, mode=mode).tokens == whole.tokens


def test_cancel_before_and_during_prefill(fp32: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = threading.Event()
    cancel.set()
    got = fp32.generate("hi", settings=GREEDY, cancel=cancel)
    assert (got.finish_reason, got.tokens, got.text) == ("cancelled", (), "")
    assert got.stats.prefill_tps == 0.0
    monkeypatch.setattr(fp32, "prefill_chunk", 4)
    cancel.clear()
    got = fp32.generate("x" * 50, settings=GREEDY, cancel=cancel, on_event=lambda e: cancel.set())
    assert (got.finish_reason, got.tokens) == ("cancelled", ())


def test_cancel_ends_a_run_in_progress(fp32: Model) -> None:
    """The event is set while a chunk is being computed: the watcher must end that run."""
    started, cancel = threading.Event(), threading.Event()
    decoder = fp32.session.decoder()
    feed = decoder.feed

    def slow(*args: Any, **kwargs: Any) -> Any:
        started.set()
        for _ in range(100_000):  # the same chunk again until it is interrupted
            feed(*args, **kwargs)
            decoder.truncate(0)
        pytest.fail("was not interrupted")

    decoder.feed = slow  # type: ignore[method-assign]
    fp32._idle.append(decoder)
    threading.Thread(target=lambda: (started.wait(), cancel.set())).start()
    got = fp32.generate("x" * 50, settings=GREEDY, cancel=cancel)
    assert got.finish_reason == "cancelled"
    fp32.release()


def test_an_abandoned_stream_gives_its_cache_back(fp32: Model) -> None:
    fp32.release()
    stream = fp32.stream("hi", settings=GREEDY)
    next(stream)
    assert not fp32._idle
    stream.close()
    assert len(fp32._idle) == 1


# ---- prompts --------------------------------------------------------------------------------------------------------


def test_thinking_raw_and_messages(fp32: Model) -> None:
    assert fp32.render("q").endswith("<|im_start|>assistant\n")
    assert fp32.render("q", thinking=False).endswith("<think>\n\n</think>\n\n")
    assert fp32.render("q", raw=True) == "q"
    assert "system\nbe brief" in fp32.render(
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": "q"}]
    )
    with pytest.raises(GenerationError, match="raw prompt"):
        fp32.render([{"role": "user", "content": "q"}], raw=True)
    with pytest.raises(GenerationError, match="no tokens"):
        fp32.generate("", settings=GREEDY, raw=True)
    with pytest.raises(GenerationError, match="fast or exact"):
        fp32.generate("q", mode="wild")  # type: ignore[arg-type]


def test_default_settings_come_with_the_bundle(fp32: Model) -> None:
    assert fp32.default_settings.temperature == 0.6
    assert fp32.default_settings.top_p == 0.95


def test_transcript_splits_reasoning_and_counts_its_tokens(fp32: Model) -> None:
    tokenizer = fp32.tokenizer
    ids = tokenizer.encode("<think>12+30 is 42</think>42", add_special_tokens=False).ids
    transcript = Transcript(tokenizer, (), DEFAULT_TAGS, opened=None)
    events = [e for i in ids for e in transcript.add(i)] + transcript.finish()
    assert [e.kind for e in events if e.kind == "marker"] == ["marker", "marker"]
    assert transcript.text("reasoning") == "12+30 is 42"
    assert transcript.text("answer") == "42"
    assert transcript.reasoning_tokens == ids.index(tokenizer.token_to_id("</think>")) + 1
    assert sum(e.tokens for e in events) == len(ids)
    opened = Transcript(tokenizer, (), DEFAULT_TAGS, opened=DEFAULT_TAGS[0])
    for i in tokenizer.encode("thinking on", add_special_tokens=False).ids:
        opened.add(i)
    opened.finish()
    assert (opened.text("reasoning"), opened.closed) == ("thinking on", False)


def test_bundle_without_a_template(checkpoint: Any, tmp_path: Path) -> None:
    from runtime_support import CONTEXT, save_checkpoint

    save_checkpoint(tmp_path / "hf", template=None)
    export(tmp_path / "hf", tmp_path / "out", weight_format="fp32", context_length=CONTEXT, check=False)
    with open_bundle(tmp_path / "out") as model:
        assert isinstance(model.template, PassThrough)
        got = model.generate("Once upon", settings=GREEDY)
        assert got.note is not None
        assert "no chat template" in got.note
        assert model.generate("Once upon", settings=GREEDY, raw=True).tokens == got.tokens


def test_damaged_tokenizer_is_a_bundle_error(tiny_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "b"
    shutil.copytree(tiny_bundle("fp32"), broken)
    size = (broken / "tokenizer.json").stat().st_size
    (broken / "tokenizer.json").write_bytes(b"x" * size)
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read"):
        open_bundle(broken)


@pytest.mark.parametrize("cuts", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("stops", "text", "expected", "found"),
    [
        (("END",), "abc END def", "abc ", "END"),
        (("END",), "abc EN", "abc EN", None),
        (("\n\n", "\n\nQ"), "a\n\nQ: b", "a", "\n\n"),
        (("aab",), "aaab", "a", "aab"),
        (("xyz", "y"), "wxyz", "wx", "y"),  # what is complete first ends the text
        ((), "anything", "anything", None),
    ],
)
def test_stop_strings(stops: tuple[str, ...], text: str, expected: str, found: str | None, cuts: int) -> None:
    stopper = StopStrings(stops)
    out = "".join(stopper.feed(text[i : i + cuts]) for i in range(0, len(text), cuts))
    out += stopper.finish()
    assert (out, stopper.found) == (expected, found)


def test_generation_is_exported_lazily() -> None:
    assert edgedistill.open_bundle is open_bundle
    assert edgedistill.Model is Model
    assert isinstance(Generation, type)


def test_too_little_memory_is_said_before_loading(tiny_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedistill.runtime.loading.available_memory", lambda: 1000)
    with pytest.raises(BudgetError, match=r"take .* of memory.*are available.*Close other programs"):
        open_bundle(tiny_bundle_dir)
