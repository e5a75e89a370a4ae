"""What each key that takes a message of the chat does, one case a key: copy, save, fork, move among them."""

from __future__ import annotations

import json

from keys_of_chat import ANSWER, asked, focused, two_replies
from scene import Scene, proves

from edgedistill_tui.widgets.transcript import MessageView, QuestionView, ReplyView


@proves("ChatScreen", "copy_answer")
async def _copy(scene: Scene) -> None:
    await asked(scene)
    await scene.press()
    assert scene.app.clipboard == ANSWER


@proves("ChatScreen", "copy_code")
async def _copy_code(scene: Scene) -> None:
    await asked(scene)
    await scene.press()
    assert scene.app.clipboard == "print(32)"


@proves("ChatScreen", "copy_message")
async def _copy_message(scene: Scene) -> None:
    await asked(scene)
    scene.chat.action_select(-1)
    await scene.press()
    assert scene.app.clipboard == f"<think>\n14 + 18 = 32.\n</think>\n\n{ANSWER}"
    scene.chat.prompt.focus()  # as the palette finds it
    scene.app.copy("", "nothing")
    scene.chat.action_copy_message()
    assert scene.app.clipboard.startswith("<think>")


@proves("ChatScreen", "save")
async def _save(scene: Scene) -> None:
    await asked(scene)
    before = set(scene.directory.glob("conversation-*.md"))
    await scene.press()
    (made,) = set(scene.directory.glob("conversation-*.md")) - before
    assert ANSWER in made.read_text()


@proves("ChatScreen", "save_json")
async def _save_json(scene: Scene) -> None:
    await asked(scene)
    before = set(scene.directory.glob("conversation-*.json"))
    await scene.press()
    (made,) = set(scene.directory.glob("conversation-*.json")) - before
    assert json.loads(made.read_text())["messages"][1]["content"] == ANSWER


@proves("ChatScreen", "fork")
async def _fork(scene: Scene) -> None:
    await asked(scene)
    old = scene.chat.session
    await scene.press()
    assert scene.chat.session.title == f"{old.title} (fork)"
    assert [m.content for m in scene.path] == [m.content for m in old.path()]


@proves("ChatScreen", "select(-1)")
async def _above(scene: Scene) -> None:
    await asked(scene)
    await scene.press()
    assert isinstance(focused(scene), ReplyView)
    await scene.press()
    assert isinstance(focused(scene), QuestionView)


@proves("ChatScreen", "select(1)")
async def _below(scene: Scene) -> None:
    await asked(scene)
    scene.screen.query(MessageView).first().focus()
    await scene.press()
    assert isinstance(focused(scene), ReplyView)
    await scene.press()
    assert focused(scene) is scene.chat.prompt


@proves("ChatScreen", "sibling(-1)")
async def _previous_alternative(scene: Scene) -> None:
    await two_replies(scene)
    await scene.press()
    assert scene.path[-1].content == ANSWER


@proves("ChatScreen", "sibling(1)")
async def _next_alternative(scene: Scene) -> None:
    await two_replies(scene)
    await scene.press()  # past the last one is the first
    assert scene.path[-1].content == ANSWER


async def _long(scene: Scene) -> None:
    for number in range(15):
        scene.chat.session.begin_reply(scene.chat.session.ask(f"question {number}"), {}).content = "answer"
    await scene.chat.session_changed()
    await scene.pilot.pause()


@proves("ChatScreen", "earlier")
async def _earlier_from_a_message(scene: Scene) -> None:
    await _long(scene)
    scene.screen.query(MessageView).last().focus()
    await scene.press()
    assert len(scene.screen.query(MessageView)) == 30


@proves("Transcript", "screen.earlier")
async def _earlier_from_between(scene: Scene) -> None:
    await _long(scene)
    scene.chat.transcript.focus()
    await scene.press()
    assert len(scene.screen.query(MessageView)) == 30
