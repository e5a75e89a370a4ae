"""Tools in the chat page: a call is shown, the user asked, the result given to the model, and all of it kept."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any, Literal

import pytest
from fake_engine import FakeEngine, ask, chat_of, drive, make_app, services, until
from textual.widgets import Markdown, Static

from edgedistill.runtime.tools.rounds import REFUSED, STOPPED, ToolRounds
from edgedistill.runtime.tools.types import Tool, ToolCall
from edgedistill_tui.app import TuiApp
from edgedistill_tui.data.writing import to_json, to_markdown
from edgedistill_tui.runtime_engine import RuntimeEngine
from edgedistill_tui.screens.dialogs import AllowCall
from edgedistill_tui.widgets.steps import called
from edgedistill_tui.widgets.transcript import ReplyView

if TYPE_CHECKING:
    from pathlib import Path

    from textual.pilot import Pilot

SCRIPT = [("reasoning", "I look it up."), ("answer", "Rome is sunny.")]
ROME = ToolCall("aaaaaaaaa", "weather", '{"city": "Rome", "days": 2}')
OSLO = ToolCall("bbbbbbbbb", "weather", '{"city": "Oslo"}')


def weather(city: str, days: int = 1) -> str:
    """The weather of a city.

    Args:
        city: Where.
        days: How many.
    """
    return f"{city}: sun, {days} d"


ROUNDS = ToolRounds((Tool.of(weather),))


def app_of(tmp_path: Path, *calls: tuple[ToolCall, ...], rounds: ToolRounds = ROUNDS) -> tuple[TuiApp, FakeEngine]:
    engine = FakeEngine(SCRIPT, calls=calls)
    return make_app(tmp_path, engine, tools=rounds), engine


def lines(pilot: Pilot[None]) -> list[str]:
    view = list(pilot.app.screen.query(ReplyView))[-1]
    return [str(one.render()) for one in view.steps.query(Static) if one.has_class("call") or one.has_class("result")]


async def dialog(pilot: Pilot[None]) -> None:
    await until(pilot, lambda: isinstance(pilot.app.screen, AllowCall))
    await pilot.pause()


async def answered(pilot: Pilot[None]) -> None:
    await until(pilot, lambda: not chat_of(pilot).busy)
    await pilot.pause()


def test_a_call_that_is_allowed_once_runs_and_its_result_goes_to_the_model(tmp_path: Path) -> None:
    app, engine = app_of(tmp_path, (ROME,), (OSLO,))

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, wait=False)
        await dialog(pilot)
        shown = "\n".join(str(one.render()) for one in pilot.app.screen.query(Static))
        assert "The model calls weather" in shown
        assert "The weather of a city." in shown
        assert '"city": "Rome"' in shown
        assert len(engine.requests) == 1
        await pilot.press("right", "enter")  # allow once
        await dialog(pilot)  # so the next call is asked about again
        await pilot.press("enter")  # the refusal has the focus
        await answered(pilot)
        assert lines(pilot) == [
            '→ weather(city="Rome", days=2)', "← Rome: sun, 2 d", '→ weather(city="Oslo")', f"← {REFUSED}",
        ]  # fmt: skip
        view = list(pilot.app.screen.query(ReplyView))[-1]
        assert view.query_one(Markdown).source == "Rome is sunny."
        assert view.reasoning.text == "I look it up."
        await ask(pilot, "And now?")

    drive(app, steps)
    first, second, third, later = engine.requests
    assert [tool.name for tool in first.tools] == ["weather"]
    assert [message["role"] for message in second.messages] == ["user", "assistant", "tool"]
    assert second.messages[1]["tool_calls"][0]["function"]["arguments"] == ROME.arguments
    assert second.messages[1]["reasoning_content"] == "I look it up."
    assert second.messages[2]["content"] == "Rome: sun, 2 d"
    assert third.messages[-1]["content"] == REFUSED
    assert [message["role"] for message in later.messages] == [
        "user", "assistant", "tool", "assistant", "tool", "assistant", "user",
    ]  # fmt: skip

    async def again(pilot: Pilot[None]) -> None:
        assert lines(pilot)[:2] == ['→ weather(city="Rome", days=2)', "← Rome: sun, 2 d"]

    stored = app.services.store.load(app.session.id)
    assert len(stored.path()[1].steps) == 4
    assert stored.path()[1].stats["new_tokens"] == 3 * 56
    shown = make_app(tmp_path, engine, services=app.services)
    stored.leaf = stored.path()[1].id
    shown.session = stored
    drive(shown, again)
    assert "*calls* `weather(" in to_markdown(stored)
    assert json.loads(to_json(stored))["messages"][1]["steps"][1]["content"] == "Rome: sun, 2 d"


def test_a_tool_allowed_in_this_chat_is_not_asked_about_again_but_is_in_a_new_one(tmp_path: Path) -> None:
    app, _ = app_of(tmp_path, (ROME,), (OSLO,), (), (ROME,))

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, wait=False)
        await dialog(pilot)
        await pilot.press("right", "right", "enter")
        await answered(pilot)
        assert lines(pilot)[-1] == "← Oslo: sun, 1 d"
        await pilot.press("ctrl+n")
        await ask(pilot, wait=False)
        await dialog(pilot)
        await pilot.press("escape")
        await answered(pilot)
        assert lines(pilot)[-1] == f"← {REFUSED}"

    drive(app, steps)


def test_typing_on_while_the_question_appears_allows_nothing(tmp_path: Path) -> None:
    app, _ = app_of(tmp_path, (ROME,))

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, wait=False)
        await dialog(pilot)
        await pilot.press(*"yes always", "enter")
        await answered(pilot)
        assert lines(pilot)[-1] == f"← {REFUSED}"

    drive(app, steps)


def test_escape_leaves_a_tool_that_does_not_end_and_the_reply_can_be_gone_on_with(tmp_path: Path) -> None:
    free, began = threading.Event(), threading.Event()

    def slow() -> str:
        """Wait."""
        began.set()
        free.wait(60)
        return "late"

    call = ToolCall("ccccccccc", "slow", "{}")
    app, engine = app_of(tmp_path, (call, call), rounds=ToolRounds((Tool.of(slow),), unasked=True))

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, wait=False)
        await until(pilot, began.is_set)
        await pilot.press("escape")
        await answered(pilot)
        assert lines(pilot) == ["→ slow()", "→ slow()", f"← {STOPPED}", f"← {STOPPED}"]
        assert chat_of(pilot).session.path()[-1].finish_reason == "cancelled"
        await pilot.press("ctrl+g")
        await answered(pilot)
        assert [message["role"] for message in engine.requests[-1].messages] == ["user", "assistant", "tool", "tool"]
        assert chat_of(pilot).session.path()[-1].content == "Rome is sunny."

    drive(app, steps)
    free.set()


def test_rounds_end_and_errors_of_a_tool_are_results(tmp_path: Path) -> None:
    def fail() -> str:
        """Fail."""
        raise ValueError("sold out")

    call = ToolCall("ddddddddd", "fail", "{}")
    app, engine = app_of(
        tmp_path, (call,), (call,), rounds=ToolRounds((Tool.of(fail),), choice="fail", most=2, unasked=True)
    )

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        assert lines(pilot)[1] == "← Error: ValueError: sold out"

    drive(app, steps)
    forced = {"type": "function", "function": {"name": "fail"}}
    assert [request.tool_choice for request in engine.requests] == [forced, "auto", "none"]


def test_commands_list_tools_and_set_the_effort(tmp_path: Path) -> None:
    app, engine = app_of(tmp_path)

    async def steps(pilot: Pilot[None]) -> None:
        chat = chat_of(pilot)
        for text in ("/tools", "/effort low", "/effort very"):
            chat.prompt.insert(text)
            await pilot.press("enter")
            await pilot.pause()
        said = " ".join(str(one.render()) for one in chat.query(".notice").results(Static))
        assert "weather  The weather of a city." in said
        assert "Reasoning effort: low." in said
        assert chat.prompt.text == ""
        await ask(pilot)

    drive(app, steps)
    assert engine.requests[0].sampling.reasoning_effort == "low"
    assert "--tools" in ToolRounds().listing()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [("", "f()"), ('{"a": [1, "x"]}', 'f(a=[1, "x"])'), ("{", "f({)"), ("[1]", "f([1])")],
)
def test_calls_as_lines(arguments: str, line: str) -> None:
    assert called("f", arguments) == line


def test_a_real_model_calls_and_goes_on(roomy_bundle_dir: Path, tmp_path: Path) -> None:
    def pick(color: Literal["red", "blue"]) -> str:
        """Choose."""
        return f"It is {color}."

    overrides = {"temperature": 1.0, "seed": 1, "max_new_tokens": 60, "thinking": False}
    engine: Any = RuntimeEngine.open(roomy_bundle_dir, overrides=overrides)
    rounds = ToolRounds((Tool.of(pick),), choice="required", most=1, unasked=True)
    app = TuiApp(services(tmp_path, lambda _: engine), bundle=roomy_bundle_dir, tools=rounds)

    async def go() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: app.engine is not None)
            await ask(pilot, "hello")
            message = chat_of(pilot).session.path()[-1]
            asked, result = message.steps
            given = json.loads(asked["tool_calls"][0]["function"]["arguments"])
            assert result["content"] == pick(**given)
            assert message.finish_reason in ("stop", "length")
            assert lines(pilot)[0].startswith("→ pick(color=")

    asyncio.run(go())
