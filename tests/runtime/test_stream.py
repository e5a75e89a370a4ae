"""A generation as it streams: events, statistics, and the ways in which it ends."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from runtime_support import GREEDY, SAMPLED

from edgedistill.errors import ContextLengthError
from edgedistill.runtime.events import Event
from edgedistill.runtime.model import Model
from edgedistill.runtime.text.transcript import StopStrings

if TYPE_CHECKING:
    pass


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
    whole = fp32.generate("hi", settings=GREEDY, numerics=mode)
    cancel = threading.Event()
    tokens = 0

    def stop_after_five(event: Event) -> None:
        nonlocal tokens
        tokens += event.tokens
        if tokens >= 5:
            cancel.set()

    got = fp32.generate("hi", settings=GREEDY, numerics=mode, cancel=cancel, on_event=stop_after_five)
    assert got.finish_reason == "cancelled"
    assert 5 <= len(got.tokens) < 20
    assert whole.text.startswith(got.text)
    assert fp32.generate("hi", settings=GREEDY, numerics=mode).tokens == whole.tokens


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

    def cancel_once_started() -> None:
        started.wait()
        cancel.set()

    decoder.feed = slow  # type: ignore[method-assign]
    fp32._idle.append(decoder)
    threading.Thread(target=cancel_once_started).start()
    got = fp32.generate("x" * 50, settings=GREEDY, cancel=cancel)
    assert got.finish_reason == "cancelled"
    fp32.release()


def test_an_abandoned_stream_gives_its_cache_back(fp32: Model) -> None:
    fp32.release()
    stream = fp32.stream("hi", settings=GREEDY)
    next(stream)
    assert not fp32._idle
    cast(Any, stream).close()
    assert len(fp32._idle) == 1


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
