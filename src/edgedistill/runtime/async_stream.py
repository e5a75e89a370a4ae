"""Events of a generation for asyncio: it runs in a thread, and ends when nobody waits for its events any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import AsyncGenerator, Iterator

Item = TypeVar("Item")


async def in_thread(events: Iterator[Item], cancel: threading.Event) -> AsyncGenerator[Item, None]:
    """What ``events`` gives, iterated in a thread.

    Args:
        events: Looks at ``cancel`` and ends soon after it is set.
        cancel: Set when the consumer is cancelled, closes the generator, or raises.
    """
    import asyncio  # an eighth of the time that importing the runtime takes, and most programs do without

    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Item | BaseException | None] = asyncio.Queue()

    def work() -> None:
        try:
            for event in events:
                loop.call_soon_threadsafe(queue.put_nowait, event)
        except BaseException as error:  # every kind: it is raised again where the events are awaited
            loop.call_soon_threadsafe(queue.put_nowait, error)
        else:
            loop.call_soon_threadsafe(queue.put_nowait, None)

    running = loop.run_in_executor(None, work)
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        cancel.set()
        await asyncio.wait([running])
