"""Threads that work beside their caller, which does itself what none of them has started.

``ThreadPoolExecutor`` starts its threads when there is work, and waits for each until it runs: where the memory is
short by then, a thread that the system starts but Python cannot set up is waited for for ever (CPython's
``Thread.start`` waits for an event that only the thread sets), and one that cannot be started ends the work. Here the
threads are started beforehand and not waited for; fewer of them, or none, make the work slower and nothing else.
"""

from __future__ import annotations

import _thread
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Work(Generic[T]):
    """A call that a thread may take."""

    def __init__(self, function: Callable[..., T], args: tuple[Any, ...]) -> None:
        self.future: Future[T] = Future()
        self._function = function
        self._args = args

    def do(self) -> None:
        """Make the call, unless it is cancelled or another thread has taken it."""
        if self.future.set_running_or_notify_cancel():
            try:
                self.future.set_result(self._function(*self._args))
            except BaseException as error:
                self.future.set_exception(error)

    def result(self) -> T:
        """What the call returns or raises; made here if no thread has begun it."""
        if self.future.cancel():
            return self._function(*self._args)
        return self.future.result()


class Workers:
    """A context manager; on leaving, work that is not begun is dropped, and what is being done is waited for.

    Args:
        threads: That work at a time, the caller's among them.
    """

    def __init__(self, threads: int) -> None:
        self._queue: SimpleQueue[Work[Any] | None] = SimpleQueue()
        self._given: list[Work[Any]] = []
        self.started = 0
        for _ in range(threads - 1):
            try:
                _thread.start_new_thread(_work, (self._queue,))
            except (RuntimeError, MemoryError):
                break
            self.started += 1

    def submit(self, function: Callable[..., T], *args: Any) -> Work[T]:
        """Offer ``function(*args)`` to the threads."""
        work = Work(function, args)
        self._given = [given for given in self._given if not given.future.done()]
        self._given.append(work)
        self._queue.put(work)
        return work

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        begun = [work.future for work in self._given if not work.future.cancel()]
        for _ in range(self.started):
            self._queue.put(None)
        wait(begun)


def _work(queue: SimpleQueue[Work[Any] | None]) -> None:
    while (work := queue.get()) is not None:
        work.do()
        del work  # its result is held by whoever asked for it alone
