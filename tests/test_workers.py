"""Work is done whatever becomes of the threads: none started, started and never running, all busy, failing."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from edgedistill.workers import Workers


def squares(workers: Workers, count: int = 50) -> list[int]:
    work = [workers.submit(lambda n: n * n, n) for n in range(count)]
    return [one.result() for one in work]


EXPECTED = [n * n for n in range(50)]


@pytest.mark.parametrize("threads", [0, 1, 2, 8])
def test_results_in_order(threads: int) -> None:
    with Workers(threads) as workers:
        assert squares(workers) == EXPECTED
        assert workers.started == max(0, threads - 1)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
@pytest.mark.parametrize("after", [0, 1])
def test_threads_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, error: Exception, after: int) -> None:
    import _thread

    real: Any = _thread.start_new_thread
    started: list[object] = []

    def start(*arguments: object) -> int:
        if len(started) == after:
            raise error
        started.append(1)
        return real(*arguments)

    monkeypatch.setattr("_thread.start_new_thread", start)
    with Workers(4) as workers:
        assert workers.started == after
        assert squares(workers) == EXPECTED


def test_threads_that_start_and_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the system starts a thread that Python has no memory to set up: nobody waits for it."""
    monkeypatch.setattr("_thread.start_new_thread", lambda *_: 1)
    with Workers(4) as workers:
        assert workers.started == 3
        assert squares(workers) == EXPECTED


def test_errors_reach_the_caller_and_what_is_not_begun_is_dropped() -> None:
    release, begun, done = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        release.wait(60)
        done.append("slow")

    with pytest.raises(ZeroDivisionError), Workers(2) as workers:
        workers.submit(slow)
        assert begun.wait(60)
        dropped = [workers.submit(done.append, n) for n in range(5)]
        threading.Timer(0.05, release.set).start()
        workers.submit(lambda: 1 // 0).result()  # nobody has begun it: it is done here
    assert done == ["slow"]  # which was waited for
    assert all(work.future.cancelled() for work in dropped)
