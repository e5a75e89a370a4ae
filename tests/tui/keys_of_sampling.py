"""What each key of the sampling panel does, one case a key."""

from __future__ import annotations

from scene import Scene, proves
from textual.widgets import Input, TextArea


async def _panel(scene: Scene) -> None:
    await scene.chat.run_action("sampling")
    await scene.until_screen("SamplingPanel")
    scene.screen.query_one("#temperature", Input).value = "0.9"


@proves("SamplingPanel", "accept")
async def _accept(scene: Scene) -> None:
    await _panel(scene)
    scene.screen.query_one("#system", TextArea).text = "Be terse."
    await scene.press()
    await scene.until_screen("ChatScreen")
    assert scene.app.sampling.generation.temperature == 0.9
    assert scene.chat.session.system == "Be terse."


@proves("SamplingPanel", "dismiss(None)")
async def _leave(scene: Scene) -> None:
    await _panel(scene)
    await scene.press()
    await scene.until_screen("ChatScreen")
    assert scene.chat.session.settings == {}


@proves("SamplingPanel", "on_input_submitted")
async def _enter_accepts(scene: Scene) -> None:
    await _panel(scene)
    await scene.type("enter")
    await scene.until_screen("ChatScreen")
    assert scene.app.sampling.generation.temperature == 0.9


@proves("SamplingPanel", "on_button_pressed")
async def _buttons(scene: Scene) -> None:
    scene.chat.session.settings = {"temperature": 0.1}
    for button, expected in (("leave", 0.1), ("accept", 0.9), ("reset", 0.6)):
        await _panel(scene)
        before = scene.screen._chosen["thinking"]
        await scene.pilot.click("#thinking")
        assert scene.screen._chosen["thinking"] != before
        await scene.pilot.click(f"#{button}")
        await scene.until_screen("ChatScreen")
        assert scene.app.sampling.generation.temperature == expected
