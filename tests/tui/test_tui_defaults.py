"""What a user set for a bundle is there again with the next conversation, until it is taken back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fake_engine import FakeEngine, ask, chat_of, drive, make_app, services
from textual.widgets import Input, TextArea

from edgedistill_tui.data.bundles import Registry

if TYPE_CHECKING:
    from textual.pilot import Pilot

SCRIPT = [("answer", "Yes.")]
BUNDLE = Path("/bundles/demo-bundle")


def begun(tmp_path: Path, **options: Any) -> tuple[dict[str, Any], str]:
    """Settings and system prompt of the first conversation of a new start."""
    engine = FakeEngine(SCRIPT)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)

    app = drive(make_app(tmp_path, engine, **options), steps)
    [request] = engine.requests
    return request.sampling.to_dict(), app.session.system


def test_settings_system_prompt_and_commands_are_kept_for_the_bundle_and_forgotten_again(tmp_path: Path) -> None:
    async def change(pilot: Pilot[None]) -> None:
        await pilot.press("ctrl+l")
        await pilot.pause()
        pilot.app.screen.query_one("#temperature", Input).value = "0.25"
        pilot.app.screen.query_one("#system", TextArea).text = "Be brief."
        await pilot.press("ctrl+s")
        await pilot.pause()
        chat_of(pilot).prompt.insert("/think off")
        await pilot.press("enter")
        await pilot.pause()

    drive(make_app(tmp_path, FakeEngine(SCRIPT)), change)
    settings, system = begun(tmp_path)
    assert (settings["temperature"], settings["thinking"], system) == (0.25, False, "Be brief.")
    # What the command line says counts more, and another bundle has its own.
    settings, system = begun(tmp_path, overrides={"temperature": 0.5}, system="Be long.")
    assert (settings["temperature"], settings["thinking"], system) == (0.5, False, "Be long.")
    assert Registry(tmp_path / "data" / "bundles.json").settings_of(Path("/bundles/other")) == ({}, "")

    # What it said is not kept with what is changed meanwhile.
    async def effort(pilot: Pilot[None]) -> None:
        chat_of(pilot).prompt.insert("/effort low")
        await pilot.press("enter")
        await pilot.pause()

    drive(make_app(tmp_path, FakeEngine(SCRIPT), overrides={"temperature": 0.5, "top_k": 3}, system="Be long."), effort)
    settings, system = begun(tmp_path)
    assert (settings["temperature"], settings["top_k"], settings["reasoning_effort"]) == (0.25, 0, "low")
    assert system == "Be brief."

    async def back(pilot: Pilot[None]) -> None:
        chat_of(pilot).prompt.insert("/defaults")
        await pilot.press("enter")
        await pilot.pause()

    drive(make_app(tmp_path, FakeEngine(SCRIPT)), back)
    settings, system = begun(tmp_path)
    assert (settings["temperature"], settings["thinking"], system) == (0.6, None, "")


def test_a_damaged_file_and_settings_out_of_range_are_the_bundles_own(tmp_path: Path) -> None:
    given = services(tmp_path, FakeEngine(SCRIPT))
    given.registry.keep_settings(BUNDLE, {"temperature": "hot"}, "")
    assert begun(tmp_path)[0]["temperature"] == 0.6
    (tmp_path / "data" / "bundle-settings.json").write_text("{")
    assert begun(tmp_path)[0]["temperature"] == 0.6
