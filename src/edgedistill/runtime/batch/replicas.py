"""Several engines side by side over one stream of starts, each in a thread of its own.

The operators of a small model are too short to be shared by processor cores: its threads wait for each other as long as
they compute. Engines whose session has one thread do not wait. Which engine continues a sequence changes nothing about
it (see ``scheduler``); only the order in which sequences end does.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edgedistill.runtime.batch.request import SampleKey
    from edgedistill.runtime.batch.scheduler import Engine, Finished, Start


def run_lanes(engines: Sequence[Engine], starts: Iterable[Start[SampleKey]]) -> Iterator[Finished[SampleKey]]:
    """Continue every sequence to its end on one of the engines; results come in the order in which they end.

    ``starts`` is read by one engine at a time, in its thread. What it or an engine raises is raised here. Ended early
    (``close``, Ctrl-C), the engines stop after their current step, and no thread is left. A single engine runs in the
    caller's thread.
    """
    if len(engines) == 1:
        yield from engines[0].run(starts)
        return
    ended: queue.SimpleQueue[Finished[SampleKey] | BaseException | None] = queue.SimpleQueue()
    shared = _Shared(starts)

    def work(engine: Engine) -> None:
        try:
            for finished in engine.run(shared):
                ended.put(finished)
        except BaseException as error:  # every kind: it is raised again by whoever waits for the results
            ended.put(error)
        else:
            ended.put(None)

    threads = [threading.Thread(target=work, args=(engine,), daemon=True) for engine in engines]
    try:
        for thread in threads:
            thread.start()
        running = len(threads)
        while running:
            one = ended.get()
            if one is None:
                running -= 1
            elif isinstance(one, BaseException):
                raise one
            else:
                yield one
    finally:
        for engine in engines:
            engine.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


class _Shared:
    """An iterator that several threads may read."""

    def __init__(self, items: Iterable[Start[SampleKey]]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def __iter__(self) -> _Shared:
        return self

    def __next__(self) -> Start[SampleKey]:
        with self._lock:
            return next(self._items)
