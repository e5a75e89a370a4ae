"""What each key of the chat page does, one case a key."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from fake_engine import ask
from scene import Scene, proves
from textual.events import Paste

from edgedistill_tui.data.session import Session
from edgedistill_tui.widgets.trajectories import LaneLine
from edgedistill_tui.widgets.transcript import ReplyView

if TYPE_CHECKING:
    from textual.widget import Widget

SCRIPT = [
    ("marker", "<think>"),
    ("reasoning", "14 + 18 = 32."),
    ("marker", "</think>"),
    ("answer", "There are **32**."),
    ("answer", "\n\n```python\nprint(32)\n```\n"),
]
ANSWER = "There are **32**.\n\n```python\nprint(32)\n```"


async def quiet(scene: Scene) -> None:
    """A new conversation behind whatever page there is: drawing another one takes longer than most cases."""
    scene.engine.hold(False)
    scene.engine.script, scene.engine.answers = list(SCRIPT), ["32", "23", "32"]
    scene.engine.requests.clear()
    await scene.app.show_session(Session())


async def begin(scene: Scene) -> None:
    """A new conversation on the screen with the focus in the prompt."""
    await scene.go("chat")
    await quiet(scene)
    scene.chat.prompt.clear()
    scene.chat.prompt.focus()
    await scene.pilot.pause()


async def asked(scene: Scene, question: str = "How many?") -> None:
    await ask(scene.pilot, question)


async def half_answered(scene: Scene) -> None:
    """A reply of which three chunks came."""
    scene.engine.hold()
    await ask(scene.pilot, wait=False)
    scene.engine.allow(4)
    await scene.until(lambda: scene.chat.strip.state.startswith("4 tok"))


async def two_replies(scene: Scene) -> None:
    await asked(scene)
    scene.engine.script = [("answer", "Another one.")]
    await scene.chat.action_regenerate()
    await scene.until(lambda: not scene.chat.busy)
    await scene.pilot.pause()


def focused(scene: Scene) -> Widget | None:
    return scene.pilot.app.focused


@proves("Prompt", "submit")
async def _send(scene: Scene) -> None:
    await scene.type("h", "i")
    await scene.press()
    await scene.until(lambda: bool(scene.engine.requests) and not scene.chat.busy)
    assert scene.engine.requests[0].messages[-1]["content"] == "hi"
    assert scene.chat.prompt.text == ""


@proves("Prompt", "newline")
async def _newline(scene: Scene) -> None:
    await scene.type("a")
    await scene.press()
    await scene.type("b")
    assert scene.chat.prompt.text == "a\nb"


@proves("Prompt", "app.interrupt")
async def _stops_or_puts_the_line_aside(scene: Scene) -> None:
    await half_answered(scene)
    await scene.type("n", "e", "x", "t")
    await scene.press()
    await scene.until(lambda: not scene.chat.busy)
    assert (scene.path[-1].finish_reason, scene.chat.prompt.text) == ("cancelled", "next")
    await scene.press()
    assert (scene.chat.prompt.text, scene.app.return_code) == ("", None)
    await scene.type("up")
    assert scene.chat.prompt.text == "next"


@proves("Prompt", "end_of_file")
async def _deletes_within_a_text(scene: Scene) -> None:
    await scene.type("a", "b", "home")
    await scene.press()
    assert (scene.chat.prompt.text, scene.app.return_code) == ("b", None)


async def suspended(scene: Scene) -> None:
    """The key under test suspends the program, which there is no terminal for here."""
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.app, "action_suspend_process", lambda: done.append("suspended"))
        await scene.press()
    assert done == ["suspended"]


@proves("Prompt", "app.suspend_process")
async def _suspend(scene: Scene) -> None:
    await suspended(scene)


@proves("Prompt", "undo")
async def _undo(scene: Scene) -> None:
    await scene.type("a", "b")
    scene.chat.prompt.clear()
    await scene.press()
    assert scene.chat.prompt.text == "ab"


@proves("Prompt", "_on_key")
async def _other_keys_are_the_text_areas(scene: Scene) -> None:
    await scene.type("a", "b", "backspace", "home", "c")
    assert scene.chat.prompt.text == "ca"


@proves("Prompt", "_on_paste")
async def _a_short_paste_is_the_text_areas(scene: Scene) -> None:
    scene.app.post_message(Paste("a\nb"))
    await scene.until(lambda: scene.chat.prompt.text == "a\nb")


@proves("ChatScreen", "on_prompt_submitted")
async def _not_while_answering(scene: Scene) -> None:
    await half_answered(scene)
    await scene.type("x", "enter")
    assert scene.chat.prompt.text == "x"
    assert "Still answering" in scene.said
    scene.chat.action_escape()
    await scene.until(lambda: not scene.chat.busy)
    assert len(scene.engine.requests) == 1


@proves("ChatScreen", "escape")
async def _stop(scene: Scene) -> None:
    await half_answered(scene)
    await scene.press()
    await scene.until(lambda: not scene.chat.busy)
    assert (scene.path[-1].finish_reason, scene.path[-1].content) == ("cancelled", "There are **32**.")
    await scene.type(*"next")
    scene.chat.action_edit()
    scene.chat.transcript.focus()
    await scene.press()
    assert scene.chat.editing is None
    assert scene.chat.prompt.text == "next"
    assert focused(scene) is scene.chat.prompt


@proves("ChatScreen", "continue_reply")
async def _continue(scene: Scene) -> None:
    await half_answered(scene)
    scene.chat.action_escape()
    await scene.until(lambda: not scene.chat.busy)
    scene.engine.script = [("answer", " So it is 32.")]
    scene.engine.hold(False)
    await scene.press()
    await scene.until(lambda: not scene.chat.busy)
    assert scene.engine.requests[-1].continuing == "<think>14 + 18 = 32.</think>There are **32**."
    assert scene.path[-1].content == "There are **32**. So it is 32."


@proves("ChatScreen", "regenerate")
async def _regenerate(scene: Scene) -> None:
    await asked(scene)
    first = scene.path[-1]
    await scene.press()
    await scene.until(lambda: not scene.chat.busy)
    assert scene.path[-1] is not first
    assert scene.chat.session.siblings(first) == [first, scene.path[-1]]


@proves("ChatScreen", "recall")
async def _recall(scene: Scene) -> None:
    await asked(scene, "How many pears?")
    await scene.press()
    await scene.until_screen("Recall")
    await scene.type(*"pears", "enter")
    await scene.until_screen("ChatScreen")
    assert scene.chat.prompt.text == "How many pears?"


@proves("ChatScreen", "editor")
async def _editor(scene: Scene) -> None:
    scene.chat.prompt.insert("So far")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISUAL", "sed -i s/far/good/")
        patch.setattr(scene.pilot.app, "suspend", contextlib.nullcontext)
        await scene.press()
        assert scene.chat.prompt.text == "So good"
        patch.setenv("VISUAL", "false")
        scene.chat.action_editor()
        await scene.until(lambda: "The prompt is as it was" in scene.said)


@proves("ChatScreen", "edit")
async def _edit(scene: Scene) -> None:
    await asked(scene)
    await scene.press()
    assert (scene.chat.prompt.text, scene.chat.editing) == ("How many?", scene.path[0])


@proves("ChatScreen", "toggle_reasoning")
async def _reasoning(scene: Scene) -> None:
    await asked(scene)
    view = scene.screen.query(ReplyView).last()
    await scene.press()
    assert not view.reasoning.collapsed
    assert "14 + 18 = 32." in view.reasoning.text
    await scene.press()
    assert view.reasoning.collapsed


@proves("ChatScreen", "new")
async def _new(scene: Scene) -> None:
    await asked(scene)
    old = scene.chat.session
    await scene.press()
    assert scene.chat.session.id != old.id
    assert scene.path == []
    assert scene.app.services.store.load(old.id).path()[-1].content == ANSWER


@proves("ChatScreen", "sampling")
async def _sampling(scene: Scene) -> None:
    await scene.press()
    await scene.until_screen("SamplingPanel")
    await scene.type("escape")


@proves("ChatScreen", "switch_bundle")
async def _switch(scene: Scene) -> None:
    before = scene.chat.session.bundle
    await scene.press()
    await scene.until_screen("Choose")
    await scene.type("end", "enter")
    await scene.until(lambda: scene.app.loading is None and scene.chat.session.bundle != before)


@proves("ChatScreen", "room")
async def _room(scene: Scene) -> None:
    await asked(scene)
    await asked(scene, "And now?")
    await scene.press()
    await scene.until_screen("Choose")
    await scene.type("enter")
    await scene.until_screen("ChatScreen")
    await scene.until(lambda: "do not go to the model" in scene.text)
    assert next(m["content"] for m in scene.chat.session.template_messages()) == "And now?"


@proves("ChatScreen", "parallel")
async def _parallel(scene: Scene) -> None:
    await scene.press()
    assert scene.app.sampling.trajectories == 4
    await scene.press()
    assert scene.app.sampling.trajectories == 1


async def _voted(scene: Scene) -> None:
    scene.chat.session.settings["trajectories"] = 3
    await asked(scene)


@proves("ChatScreen", "trajectory(1)")
async def _next_trajectory(scene: Scene) -> None:
    await _voted(scene)
    await scene.press()
    assert scene.screen.query(ReplyView).last().trajectories.selected == 0


@proves("ChatScreen", "trajectory(-1)")
async def _previous_trajectory(scene: Scene) -> None:
    await _voted(scene)
    await scene.press()
    assert scene.screen.query(ReplyView).last().trajectories.selected == 2


@proves("LaneLine", "on_click")
async def _click_a_trajectory(scene: Scene) -> None:
    await _voted(scene)
    line = list(scene.screen.query(LaneLine))[1]
    await scene.pilot.click(line)
    assert scene.screen.query(ReplyView).last().trajectories.selected == 1
    await scene.pilot.click(line)
    assert scene.screen.query(ReplyView).last().trajectories.selected is None


@proves("TrajectoriesView", "on_lane_line_picked")
async def _a_picked_trajectory_is_read(scene: Scene) -> None:
    await _voted(scene)
    list(scene.screen.query(LaneLine))[1].on_click()
    await scene.pilot.pause()
    assert "It is 23." in scene.text
