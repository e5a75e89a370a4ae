"""A scripted engine: gives out chunks one by one, each when the test allows it; and an application around it."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from waiting import PATIENCE_S

from edgedistill.runtime.settings import GenerationSettings
from edgedistill.trajectories import RunStats, Trajectory, TrajectoryEvent, TrajectoryResult
from edgedistill.trajectories.vote import Ballot, majority
from edgedistill_tui.app import TuiApp
from edgedistill_tui.data.bundles import Registry
from edgedistill_tui.data.config import Config
from edgedistill_tui.data.store import Store
from edgedistill_tui.engine import Answer, Chunk, Facts, Reply, Request, Sampling
from edgedistill_tui.screens.chat import ChatScreen
from edgedistill_tui.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from textual.pilot import Pilot

    from edgedistill.runtime.tools.types import ToolCall

STATS: dict[str, Any] = {
    "prompt_tokens": 41, "new_tokens": 56, "reasoning_tokens": 44, "decode_tps": 42.0, "prefill_tps": 900.0,
    "ttft_s": 0.05, "step_p50_s": 0.021, "step_p95_s": 0.03, "kv_tokens": 97, "kv_bytes": 2_000_000,
    "rss_bytes": 180_000_000, "decode_s": 1.3, "seed": 7,
}  # fmt: skip

FACTS = Facts(
    bundle="demo-bundle", path="/bundles/demo-bundle", hash="36b4ab96d4bdb7df", model="qwen3 2.1 M, 6.1 bits/weight",
    profile="laptop-cpu", context_length=2048, kv_bytes_per_token=2048, kv_budget=4 << 20, ram_budget=5_800_000_000,
    predicted={"ram_bytes": 158_000_000, "decode_tps": 45.0},
)  # fmt: skip


class FakeEngine:
    """Answers every question with the same script.

    Args:
        script: (kind, text) pairs.
        gated: True: each chunk waits for ``allow``; the reply ends at the script's end or on cancel.
        error: Raised instead of a reply.
        answers: What the samples say.
        calls: Of tools, one entry a reply; replies after them have none.
    """

    def __init__(
        self,
        script: Sequence[tuple[Any, str]],
        *,
        gated: bool = False,
        error: Exception | None = None,
        answers: Sequence[str | None] = (),
        calls: Sequence[tuple[ToolCall, ...]] = (),
        facts: Facts = FACTS,
    ) -> None:
        self.script = list(script)
        self.error = error
        self.answers = answers
        self.calls = list(calls)
        self.requests: list[Request] = []
        self.closed = False
        self.secured: bool | None = None
        self._facts = facts
        self._gate = threading.Semaphore(0) if gated else None

    @property
    def facts(self) -> Facts:
        return self._facts

    @property
    def defaults(self) -> Sampling:
        return Sampling(GenerationSettings(temperature=0.6))

    def hold(self, gated: bool = True) -> None:
        """From the next reply on, chunks and samples wait for ``allow``, or come at once again."""
        self._gate = threading.Semaphore(0) if gated else None

    def allow(self, chunks: int) -> None:
        """Let the next chunks through."""
        assert self._gate is not None
        self._gate.release(chunks)

    def reply(self, request: Request, *, cancel: threading.Event, on_chunk: Callable[[Chunk], None]) -> Reply:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        gate = self._gate
        done: dict[str, list[str]] = {"reasoning": [], "answer": [], "marker": []}
        for kind, text in self.script:
            while gate is not None and not gate.acquire(timeout=0.01):
                if cancel.is_set():
                    break
            if cancel.is_set():
                return self._reply(done, "cancelled")
            done[kind].append(text)
            on_chunk(Chunk(kind, text))
        return self._reply(done, "stop")

    def _reply(self, done: dict[str, list[str]], reason: str) -> Reply:
        tokens = tuple(ord(c) for c in "".join(text for _, text in self.script))
        return Reply("".join(done["reasoning"]).strip(), "".join(done["answer"]).strip(), reason, dict(STATS), tokens,
                     calls=self.calls.pop(0) if self.calls and reason == "stop" else ())  # fmt: skip

    def trajectories(
        self, request: Request, *, cancel: threading.Event, on_event: Callable[[TrajectoryEvent], None]
    ) -> TrajectoryResult:
        """One trajectory per entry of ``answers``, a word of each in turn; a gated engine waits before each round."""
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        texts = [("It is", f" {answer}.") for answer in self.answers]
        said = ["" for _ in texts]
        on_event(TrajectoryEvent("prefill", done=41, total=41))
        on_event(TrajectoryEvent("start", total=len(texts)))
        for part in range(2):
            while self._gate is not None and not cancel.is_set() and not self._gate.acquire(timeout=0.01):
                pass
            if cancel.is_set():
                break
            for index, text in enumerate(texts):
                said[index] += text[part]
                on_event(TrajectoryEvent("answer", index, text[part], 1))
        ended = tuple(
            Trajectory(
                index, "cancelled" if cancel.is_set() else "answered", None if cancel.is_set() else answer,
                said[index], "", said[index], (1, 2), 0, "cancelled" if cancel.is_set() else "stop",
            )
            for index, answer in enumerate(self.answers)
        )  # fmt: skip
        for one in ended:
            on_event(TrajectoryEvent("finished", one.index, trajectory=one))
        vote = majority([Ballot(one.index, one.kind, one.vote) for one in ended])
        on_event(TrajectoryEvent("vote", vote=vote))
        options = request.sampling.trajectory_options()
        assert options is not None
        deliberate = options.deliberate and vote.winner is not None
        if deliberate:
            on_event(TrajectoryEvent("stage", stage="deliberation"))
            on_event(TrajectoryEvent("answer", None, "Having read them: 32.", 4))
        winner = None if deliberate else vote.winner
        result = TrajectoryResult(
            "Having read them: 32." if deliberate else "" if winner is None else ended[winner].answer, "", vote.answer,
            "deliberation" if deliberate else "none" if winner is None else "majority", winner, vote.winner, vote,
            ended, None, None, (), cancel.is_set(),
            RunStats(41, 0, 2 * len(ended), 4 if deliberate else 0, 0, len(ended), 0.05, 0.04, 1.0, 0.1, 1.2,
                     1000, 180_000_000, 7),
        )  # fmt: skip
        on_event(TrajectoryEvent("done", result=result))
        return result

    def count(self, text: str) -> int:
        return len(text.split())

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    def samples(
        self, messages: Sequence[dict[str, Any]], count: int, sampling: Sampling, *, cancel: threading.Event
    ) -> Iterator[Answer]:
        gate = self._gate
        for number in range(count):
            while gate is not None and not gate.acquire(timeout=0.01):
                if cancel.is_set():
                    break
            if cancel.is_set():
                return
            answer = self.answers[number % len(self.answers)]
            yield Answer("unparsed" if answer is None else "parsed", answer, f"It is {answer}.", 50)

    def secure(self) -> bool | None:
        return self.secured

    def memory(self) -> int:
        return 180_000_000

    def close(self) -> None:
        self.closed = True


def services(directory: Path, engine: FakeEngine | Callable[[Path], FakeEngine], **others: Any) -> Services:
    """Services that keep everything in ``directory``."""
    config = Config(export_dir=str(directory))
    config.path = directory / "tui.toml"
    return Services(
        open_engine=(lambda path: engine) if isinstance(engine, FakeEngine) else engine,
        store=Store(directory / "data" / "sessions.db"),
        config=config,
        registry=Registry(directory / "data" / "bundles.json", cwd=directory / "work"),
        machine="Test CPU, 2 cores",
        **others,
    )


def make_app(directory: Path, engine: FakeEngine | Callable[[Path], FakeEngine], **options: Any) -> TuiApp:
    """An application with the engine loaded."""
    options.setdefault("bundle", Path("/bundles/demo-bundle"))
    given = options.pop("services", None) or services(directory, engine)
    return TuiApp(given, **options)


def drive(
    app: TuiApp,
    steps: Callable[[Pilot[None]], Coroutine[Any, Any, None]],
    size: tuple[int, int] = (80, 24),
    *,
    ready: bool = True,
    notifications: bool = False,
) -> TuiApp:
    """Run the app and ``steps`` in it; with ``notifications`` they are shown."""

    async def go() -> None:
        async with app.run_test(size=size, notifications=notifications) as pilot:
            if ready:
                await until(pilot, lambda: app.engine is not None)
            await pilot.pause()
            await steps(pilot)

    idle = functools.partial(_idle, app)
    with mock.patch("textual.pilot.wait_for_idle", idle), mock.patch("textual.app.wait_for_idle", idle):
        asyncio.run(go())
    return app


async def _idle(app: TuiApp, _: float = 0.0) -> None:
    """Until no widget has anything to do, drawing at once.

    Textual's own sleeps 20 ms at least, three times a key, until the processor is idle: most of the tests' time.
    """
    end, calm = time.monotonic() + 1.0, 0
    while calm < 3 and time.monotonic() < end:
        await asyncio.sleep(0.001)
        app.screen._on_timer_update()
        busy = any(not node._message_queue.empty() or node._next_callbacks for node in [app, *app._registry])
        calm = 0 if busy else calm + 1


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Let the app work until ``condition`` holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            pytest.fail("the screen never got there")
        await pilot.pause(0.01)


async def ask(pilot: Pilot[None], text: str = "How many?", *, wait: bool = True) -> None:
    """Type a question, send it, wait for the reply."""
    chat = chat_of(pilot)
    known, notices = set(chat.session.messages), len(chat.query(".notice"))
    chat.prompt.insert(text)
    await pilot.press("enter")
    await pilot.pause()
    if wait:
        # That the chat is not busy may also mean that Enter has not reached it yet.
        await until(pilot, lambda: _answered(chat, known) or len(chat.query(".notice")) > notices)
        await until(pilot, lambda: not chat.busy)
        await pilot.pause()


def _answered(chat: ChatScreen, known: set[int]) -> bool:
    new = [message for number, message in chat.session.messages.items() if number not in known]
    return any(message.role == "assistant" and message.finish_reason != "interrupted" for message in new)


def chat_of(pilot: Pilot[None]) -> ChatScreen:
    """The chat page."""
    assert isinstance(pilot.app, TuiApp)
    return pilot.app.chat
