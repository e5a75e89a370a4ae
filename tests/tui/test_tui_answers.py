"""What answers look like: tables, code; what pages say that hold nothing yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fake_engine import FakeEngine, ask, chat_of, drive, make_app, until
from textual.widgets import Static
from textual.widgets._markdown import MarkdownTableContent

from edgedistill_tui.widgets.answer import MarkedFence

if TYPE_CHECKING:
    from pathlib import Path

    from textual.pilot import Pilot

TABLE = "| a | b | c | d |\n|:--|:-:|--:|---|\n"
CODE = "```python\nshort = 1\nname = " + "x" * 90 + "\n```\n"


GROWN = ["| 1 | 2 | 3 | 4 |\n", "| 5 | 6 | 7 | 8 |\n\nEnd."]


@pytest.mark.parametrize("pieces", [["whole"], GROWN], ids=["whole", "grown"])
def test_columns_of_tables_stand_as_they_should(tmp_path: Path, pieces: list[str]) -> None:
    rows = "| 1 | 2 | 3 | 4 |\n| 5 | 6 | 7 | 8 |\n"
    texts = [TABLE + rows] if pieces == ["whole"] else [TABLE + pieces[0], pieces[1]]
    engine = FakeEngine([("answer", text) for text in texts], gated=True)

    def columns(pilot: Pilot[None]) -> list[list[str]]:
        cells = list(chat_of(pilot).query_one(MarkdownTableContent).children)
        return [[str(cell.styles.text_align) for cell in cells[at : at + 4]] for at in range(0, len(cells), 4)]

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, wait=False)
        for _ in texts:
            engine.allow(1)
            await pilot.pause(0.2)
        await until(pilot, lambda: not chat_of(pilot).busy)
        await until(pilot, lambda: columns(pilot) == [["left", "center", "right", "left"]] * 3)

    drive(make_app(tmp_path, engine), steps)


def test_lines_of_code_that_go_on_are_marked_at_every_width(tmp_path: Path) -> None:
    def marks(pilot: Pilot[None]) -> str:
        return str(chat_of(pilot).query_one(MarkedFence).query_one(".goes-on", Static).render())

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await until(pilot, lambda: marks(pilot) == " \n→")
        await pilot.resize_terminal(120, 30)
        await until(pilot, lambda: marks(pilot).strip() == "")
        await pilot.resize_terminal(60, 20)
        await until(pilot, lambda: marks(pilot) == " \n→")

    drive(make_app(tmp_path, FakeEngine([("answer", CODE)])), steps)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("f3", "No sessions yet"),
        ("f4", "No bundles yet"),
        ("f5", "decode speed over time"),
        ("f6", "The reply of bundle A"),
        ("f7", "entropy in bits"),
    ],
)
def test_an_empty_page_says_what_it_will_show(tmp_path: Path, key: str, words: str) -> None:
    def said(pilot: Pilot[None]) -> str:
        return "\n".join(str(one.render()) for one in pilot.app.screen.query(Static) if one.display)

    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press(key)
        await until(pilot, lambda: words in said(pilot))
        if key == "f3":
            await pilot.press("slash", *"apples")
            await until(pilot, lambda: "No session holds all these words" in said(pilot))

    drive(make_app(tmp_path, FakeEngine([]), bundle=None), steps, (60, 20), ready=False)
