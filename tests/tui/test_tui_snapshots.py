"""What people see, as SVG: after a wanted change run with --snapshot-update and look at the difference."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from fake_engine import FakeEngine

from edgedistill_tui.app import ChatApp
from edgedistill_tui.buffer import ReplyBuffer
from edgedistill_tui.screens import chat
from edgedistill_tui.widgets.prompt import Prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.pilot import Pilot

QUESTION = "Mia has 14 apples and buys 3 bags of 6 apples each. How many apples does Mia have now?"
SCRIPT = [
    ("reasoning", "Mia starts with 14 apples.\n3 bags of 6 apples are 3 * 6 = 18 apples.\n"),
    ("reasoning", "Together that is 14 + 18 = 32."),
    ("answer", "Mia has **32** apples now.\n\n- 3 bags of 6 are 18\n- 14 + 18 = 32\n\n"),
    ("answer", "The answer is `\\boxed{32}`."),
]


@pytest.fixture(autouse=True)
def _still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.chain([0.0, 1.0], itertools.repeat(3.0))
    monkeypatch.setattr(chat, "ReplyBuffer", functools.partial(ReplyBuffer, clock=lambda: next(ticks)))


async def ask(pilot: Pilot[None], *keys: str) -> None:
    """Ask the question, wait for the whole reply, press ``keys``."""
    screen = pilot.app.screen
    assert isinstance(screen, chat.ChatScreen)
    while not screen.ready:
        await pilot.pause(0.02)
    prompt = screen.query_one(Prompt)
    prompt.cursor_blink = False
    prompt.insert(QUESTION)
    await pilot.press("enter")
    await pilot.pause()
    while screen.busy:
        await pilot.pause(0.02)
    await pilot.press(*keys)
    await pilot.pause()


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_an_answered_question(size: tuple[int, int], snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(ChatApp(lambda: FakeEngine(SCRIPT)), terminal_size=size, run_before=ask)


def test_with_the_reasoning_unfolded(snap_compare: Callable[..., bool]) -> None:
    async def unfold(pilot: Pilot[Any]) -> None:
        await ask(pilot, "ctrl+t")

    assert snap_compare(ChatApp(lambda: FakeEngine(SCRIPT)), terminal_size=(80, 24), run_before=unfold)


def test_without_colour(snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(ChatApp(lambda: FakeEngine(SCRIPT)), terminal_size=(80, 24), run_before=ask)
