"""Pictures of the terminal UI at work with a real bundle, as SVG: ``tui_screenshots.py BUNDLE OUT_DIR``.

``make screenshots`` runs it for the README. What the pictures show is what the model wrote and what it took.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from edgedistill.runtime.tools.rounds import ToolRounds
from edgedistill.runtime.tools.types import Tool
from edgedistill_tui.app import TuiApp
from edgedistill_tui.data.bundles import Registry
from edgedistill_tui.data.config import Config
from edgedistill_tui.data.store import Store
from edgedistill_tui.runtime_engine import RuntimeEngine
from edgedistill_tui.screens.dialogs import AllowCall
from edgedistill_tui.services import Services

QUESTION = (
    "Mia has 14 apples. Then Mia finds 3 bags of 6 apples. Mia gives away 7 apples. How many apples does Mia have now?"
)


def clock(zone: Literal["UTC", "local"]) -> str:
    """The date and time.

    Args:
        zone: Where.
    """
    return datetime.now(UTC if zone == "UTC" else None).isoformat(timespec="minutes")


def services_in(home: Path) -> Services:
    """Services that keep everything in ``home``."""
    return Services(
        RuntimeEngine.open, Store(home / "sessions.db"), Config(), Registry(home / "bundles.json", cwd=home)
    )


async def take_tools(bundle: Path, out: Path) -> None:
    """The question before a call: the first reply has to call the clock."""
    with tempfile.TemporaryDirectory() as folder:
        rounds = ToolRounds((Tool.of(clock),), choice="clock", most=1)
        app = TuiApp(services_in(Path(folder)), bundle=bundle, overrides={"temperature": 0.0}, tools=rounds)
        async with app.run_test(size=(100, 24)) as pilot:
            while app.engine is None:
                await pilot.pause(0.05)
            app.chat.prompt.cursor_blink = False
            app.chat.prompt.insert("What time is it?")
            await pilot.press("enter")
            while not isinstance(app.screen, AllowCall):
                await pilot.pause(0.05)
            await pilot.pause(0.2)
            (out / "tui-tools.svg").write_text(app.export_screenshot(title="edgedistill chat"), encoding="utf-8")
            await pilot.press("escape")
            while app.chat.busy:
                await pilot.pause(0.05)
        app.close_engine()


async def take(bundle: Path, out: Path, seconds: float) -> None:
    """The chat with its reasoning unfolded, then the profiler after a run of ``seconds``."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        app = TuiApp(services_in(Path(folder)), bundle=bundle, overrides={"temperature": 0.0})
        async with app.run_test(size=(100, 30)) as pilot:
            while app.engine is None:
                await pilot.pause(0.05)
            chat = app.chat
            chat.prompt.cursor_blink = False
            chat.prompt.insert(QUESTION)
            await pilot.press("enter")
            await pilot.pause(0.2)
            while chat.busy:
                await pilot.pause(0.05)
            await pilot.press("ctrl+t")
            await pilot.pause(0.2)
            (out / "tui-chat.svg").write_text(app.export_screenshot(title="edgedistill chat"), encoding="utf-8")
            await pilot.resize_terminal(100, 36)
            await pilot.press("f5")
            await pilot.pause(0.2)
            page: Any = app.screen
            page.seconds = seconds
            await pilot.press("s")
            await pilot.pause(0.2)
            while page.running:
                await pilot.pause(0.2)
            await pilot.pause(0.2)
            (out / "tui-profiler.svg").write_text(app.export_screenshot(title="edgedistill"), encoding="utf-8")
        app.close_engine()


def main() -> None:
    """Parse the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the profiler decodes (20)")
    args = parser.parse_args()
    asyncio.run(take(args.bundle, args.out, args.seconds))
    asyncio.run(take_tools(args.bundle, args.out))


if __name__ == "__main__":
    main()
