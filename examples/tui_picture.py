"""The terminal chat answering a question with a real bundle, as an SVG picture: ``tui_picture.py BUNDLE OUT.svg``.

``make picture`` runs it for the README. What the picture shows is what the model wrote and what it took.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from edgedistill.bundle import Bundle
from edgedistill.runtime.settings import GenerationSettings
from edgedistill_tui.app import ChatApp
from edgedistill_tui.runtime_engine import RuntimeEngine
from edgedistill_tui.screens.chat import ChatScreen
from edgedistill_tui.widgets.prompt import Prompt

QUESTION = (
    "Mia has 14 apples. Then Mia finds 3 bags of 6 apples. Mia gives away 7 apples. How many apples does Mia have now?"
)


async def take(bundle: Path, out: Path, question: str, size: tuple[int, int]) -> None:
    """Ask ``question`` greedily, unfold the reasoning, write the screen to ``out``."""
    settings = GenerationSettings.from_defaults(Bundle.open(bundle).generation, temperature=0.0)
    app = ChatApp(lambda: RuntimeEngine.open(bundle, settings=settings))
    async with app.run_test(size=size) as pilot:
        while not (isinstance(app.screen, ChatScreen) and app.screen.ready):
            await pilot.pause(0.05)
        prompt = app.screen.query_one(Prompt)
        prompt.cursor_blink = False
        prompt.insert(question)
        await pilot.press("enter")
        await pilot.pause(0.1)
        while app.screen.busy:
            await pilot.pause(0.05)
        await pilot.press("ctrl+t")
        await pilot.pause(0.2)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(app.export_screenshot(title="edgedistill chat"), encoding="utf-8")


def main() -> None:
    """Parse the command line and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--size", type=int, nargs=2, default=(92, 26), metavar=("COLUMNS", "ROWS"))
    args = parser.parse_args()
    asyncio.run(take(args.bundle, args.out, args.question, tuple(args.size)))


if __name__ == "__main__":
    main()
