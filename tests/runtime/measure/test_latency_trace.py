"""A trace is measured in a process of its own, which ends with it, whatever happens to either."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import psutil
import pytest
from bundle_files import copy_bundle

from edgedistill.errors import BundleError, GenerationError
from edgedistill.runtime.measure.latency_trace import SWEEP, TraceEvent, trace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def events(tiny_bundle: Callable[[str], Path]) -> list[TraceEvent]:
    return list(trace(tiny_bundle("int4-b32"), seconds=1, threads=1))


def children() -> list[psutil.Process]:
    return [
        p
        for p in psutil.Process().children()
        if p.cmdline()[-1:] == ["edgedistill.runtime.measure.latency_trace:measure_events"]
    ]


def test_loading_memory_prefill_and_decoding_come_in_this_order(events: list[TraceEvent]) -> None:
    kinds = [event.kind for event in events]
    assert [kind for number, kind in enumerate(kinds) if kinds[number - 1 : number] != [kind]] == [
        "loaded", "memory", "prefill", "decode", "done",
    ]  # fmt: skip
    assert events[0].seconds > 0
    # The child's own memory, not that of this process with all its test libraries.
    assert 20e6 < events[0].rss < 300e6


def test_memory_is_measured_over_the_context_and_prefill_over_the_prompt(events: list[TraceEvent]) -> None:
    memory = [event for event in events if event.kind == "memory"]
    assert memory[0].tokens == 0
    assert all(a.tokens < b.tokens and a.kv <= b.kv for a, b in pairwise(memory))
    assert memory[-1].kv > 0
    prefill = [event for event in events if event.kind == "prefill"]
    assert [event.tokens for event in prefill] == [n for n in SWEEP if n <= memory[-1].tokens]
    assert len(prefill) > 1
    assert all(event.seconds > 0 for event in prefill)


def test_every_decoded_token_has_a_latency(events: list[TraceEvent]) -> None:
    decode = [event for event in events if event.kind == "decode"]
    assert decode
    for event in decode:
        assert len(event.steps) == event.tokens > 0
        # The interval is its steps and little else.
        assert min(event.steps) > 0
        assert sum(event.steps) <= event.seconds
    assert all(a.at < b.at for a, b in pairwise(decode))


def test_cancel_ends_it_and_its_process_even_while_nothing_is_reported(tiny_bundle: Callable[[str], Path]) -> None:
    cancel = threading.Event()
    found = []
    for event in trace(tiny_bundle("int4-b32"), seconds=3600, cancel=cancel):
        found.append(event)
        (child,) = children()
        cancel.set()
    assert "done" not in [event.kind for event in found]
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    # Before the process could even read its request.
    assert list(trace(tiny_bundle("int4-b32"), seconds=3600, cancel=cancel)) == []
    assert not children()


def test_a_measuring_process_that_dies_is_an_error_that_says_so(tiny_bundle: Callable[[str], Path]) -> None:
    running = trace(tiny_bundle("int4-b32"), seconds=3600)
    assert next(running).kind == "loaded"
    children()[0].kill()
    with pytest.raises(BundleError, match=r"ended early \(exit code -9\).*enough memory"):
        list(running)


def test_what_cannot_be_measured_is_refused_before_or_reported_by_the_process(
    tiny_bundle: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(GenerationError, match=r"seconds is 0\.5; expected 1 to 3600"):
        next(trace(tiny_bundle("int4-b32"), seconds=0.5))
    with pytest.raises(BundleError, match="nothing"):
        next(trace(tmp_path / "nowhere"))
    damaged = copy_bundle(tiny_bundle("int4-b32"), tmp_path / "damaged", model_onnx=b"")
    with pytest.raises(BundleError, match=r"cannot load model-widened\.onnx"):
        list(trace(damaged))
