"""``edgedistill tui``: the terminal UI, opened on the bundle manager; also in a browser on this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgedistill.cli import terminal_ui

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
examples:
  edgedistill tui
  edgedistill tui --serve                 # in a browser, at http://localhost:8000
  edgedistill tui --serve --port 9000

Sessions, known bundles and the default bundle are in the user's data directory; EDGEDISTILL_DATA moves them.
--serve prints an address with a token, new with every run: whoever has it can use the UI until the server ends."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tui``."""
    terminal_ui.add_serve_options(parser)


def run(args: argparse.Namespace) -> int:
    """Open the UI until the user leaves."""
    if args.serve:
        return terminal_ui.serve(args, [sys.executable, "-m", "edgedistill", "tui"])
    return terminal_ui.run_app(page="bundles")
