"""Everything that a user does, without the modules, calls and signals that Windows lacks."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py")) + sorted((ROOT / "tui").rglob("*.py"))
POSIX_ONLY = {"fcntl", "resource", "termios", "pwd", "grp", "tty", "pty"}
BLOCKED = ROOT / "tests" / "support" / "without_posix"

SCRIPT = """
import asyncio, importlib, os, pkgutil, sys
from pathlib import Path

checkpoint, work = map(Path, sys.argv[1:])
for package in ("edgedistill", "edgedistill_tui"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if module.name not in ("edgedistill.__main__", "edgedistill.cli.serving"):
            importlib.import_module(module.name)
for gone in ("fcntl", "resource", "termios"):
    assert gone not in sys.modules, gone
assert not hasattr(os, "pread")

from edgedistill.cli import main

suite = work / "suite.jsonl"
suite.write_text("".join('{"id": "p%d", "prompt": "Say %d", "extract": "text"}\\n' % (i, i) for i in range(4)))
out, small = str(work / "out"), ("--suite", str(suite), "--samples", "2", "-n", "64", "--store", str(work / "samples"))
for code, *command in (
    (0, "plan", str(checkpoint), "--no-measure"),
    (0, "export", str(checkpoint), "-o", out, "--no-verify"),
    (2, "export", str(checkpoint), "-o", out, "--no-verify"),
    (0, "export", str(checkpoint), "-o", out, "--no-verify", "--force"),
    (0, "inspect", out, "--verify"),
    (0, "run", out, "hello", "-n", "4"),
    (None, "verify", out, "--reference", out, *small),
    (None, "audit", out, *small),
):
    found = main(command)
    assert found in ((0, 1, 3) if code is None else (code,)), (command, found)
assert sorted(p.name for p in work.iterdir()) == ["out", "samples", "suite.jsonl"], list(work.iterdir())

from edgedistill_tui.app import TuiApp
from edgedistill_tui.data.bundles import Registry
from edgedistill_tui.data.config import Config
from edgedistill_tui.data.store import Store
from edgedistill_tui.runtime_engine import RuntimeEngine
from edgedistill_tui.services import Services

config = Config(export_dir=str(work))
config.path = work / "tui.toml"
services = Services(
    open_engine=lambda path: RuntimeEngine.open(path, lease=True), store=Store(work / "data" / "sessions.db"),
    config=config, registry=Registry(work / "data" / "bundles.json", cwd=work), machine="",
)
app = TuiApp(services, bundle=Path(out), overrides={"max_new_tokens": 4})


async def session():
    async with app.run_test() as pilot:
        while app.engine is None:
            await pilot.pause(0.05)
        app.chat.prompt.insert("hello")
        await pilot.press("enter")
        while not any(m.finish_reason for m in app.session.messages.values() if m.role == "assistant"):
            await pilot.pause(0.05)
        await pilot.press("ctrl+s", "f3")
        await pilot.pause()


asyncio.run(session())
app.close_engine()
assert len(services.store.sessions()) == 1
print("all done")
"""


@pytest.mark.slow
def test_import_export_run_verify_and_a_session_of_the_terminal_ui(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(BLOCKED), *(path for path in sys.path if path)]),
        "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config"),
        "TEXTUAL_DRIVER": "textual.drivers.headless_driver:HeadlessDriver", "PYTHONWARNINGS": "ignore",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_checkpoint_dir), str(work)],
        env=environment, capture_output=True, text=True, timeout=500, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("all done\n")


def test_modules_that_windows_lacks_are_imported_where_they_may_be_missing() -> None:
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            assert not names & POSIX_ONLY, f"{path.name} imports {', '.join(names & POSIX_ONLY)} at its top"


def test_no_name_of_a_file_here_is_one_that_windows_refuses() -> None:
    import re

    from edgedistill.safe_text import FILE_NAME

    for folder in ("src", "tui", "tests", "docs", "bench", "examples", "profiles"):
        for path in (ROOT / folder).rglob("*"):
            assert re.fullmatch(FILE_NAME, path.name), path
