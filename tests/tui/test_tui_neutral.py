"""Texts of files and models on the screen: drawn, never obeyed, never markup."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from fake_engine import FACTS, FakeEngine, ask, chat_of, drive, make_app, until

from edgedistill_tui.data.writing import write_new
from edgedistill_tui.widgets.reasoning import ReasoningView

if TYPE_CHECKING:
    from textual.pilot import Pilot

MARKUP = "[@click=app.quit]x[/]"
ATTACK = f"\x1b]52;c;QQ==\x07\x9b2J\u202e{MARKUP}"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
FACTS_OF_A_STRANGER = dataclasses.replace(FACTS, bundle=MARKUP, model=ATTACK, profile=ATTACK)


def drawn(pilot: Pilot[None]) -> str:
    """What the terminal is given of the screen, without Textual's own codes."""
    text = "\n".join(strip.text for strip in pilot.app.screen._compositor.render_strips())
    assert not OBEYED.search(text)
    return text


def test_a_reply_and_the_names_of_a_bundle(tmp_path: Path) -> None:
    engine = FakeEngine([("reasoning", ATTACK), ("answer", ATTACK)], facts=FACTS_OF_A_STRANGER)

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, MARKUP)
        chat_of(pilot).query_one(ReasoningView).collapsed = False
        await pilot.pause()
        assert drawn(pilot).count(MARKUP) >= 3  # question, answer, the prompt's frame
        pilot.app.notify(ATTACK, severity="error")
        await pilot.pause()
        assert MARKUP in list(pilot.app._notifications)[-1].message
        drawn(pilot)
        await until(
            pilot, lambda: MARKUP in chat_of(pilot).tui.services.store.questions()
        )  # the page lists what is stored
        await pilot.press("f3")
        await until(pilot, lambda: MARKUP in drawn(pilot))

    drive(make_app(tmp_path, engine), steps, size=(140, 40))


def test_bundles_on_the_disk(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    bundle = shutil.copytree(tiny_bundle_dir, tmp_path / "work" / "[red]a")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["model"]["family"] = manifest["profile"]["name"] = manifest["source"]["name"] = MARKUP
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    damaged = shutil.copytree(tiny_bundle_dir, tmp_path / "work" / "[red]b")
    (damaged / "manifest.json").write_text(json.dumps({"schema_version": ATTACK}))
    engine = FakeEngine([])

    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press("f4")
        await pilot.pause()
        text = drawn(pilot)
        assert "[red]a" in text
        assert "[red]b" in text
        assert MARKUP in text
        await pilot.press("down")
        await pilot.pause()
        drawn(pilot)

    drive(make_app(tmp_path, engine, bundle=None), steps, size=(140, 40), ready=False)


@pytest.mark.parametrize(
    ("url", "opened"),
    [("https://onnxruntime.ai/docs", True), ("javascript:alert(1)", False), ("file:///etc/passwd", False),
     ("https://a\x1b]0;x\x07", False)],
)  # fmt: skip
def test_links_lead_to_pages_alone(url: str, opened: bool, tmp_path: Path) -> None:
    async def steps(pilot: Pilot[None]) -> None:
        with mock.patch.object(type(pilot.app._driver), "open_url") as open_url:
            pilot.app.open_url(url)
        assert open_url.called is opened
        await pilot.pause()
        drawn(pilot)

    drive(make_app(tmp_path, FakeEngine([])), steps)


def test_a_name_is_no_path_to_write_to(tmp_path: Path) -> None:
    path = write_new(tmp_path, "profile-../../a\x1b:b", ".json", "{}")
    assert path.parent == tmp_path
    assert path.name == "profile-..-..-a-b.json"
