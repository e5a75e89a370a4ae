"""What ``chat`` and ``tui`` share: the application with everything behind it, and serving it to a browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.cli import console
from edgedistill.errors import ChildError, ExportError, UsageError
from edgedistill.extras import missing, require_export
from edgedistill.system.child import run_in_child
from edgedistill.system.host_names import LOOPBACK

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from edgedistill.bundle.bundle import Check
    from edgedistill.progress import Progress
    from edgedistill.runtime.tools.rounds import ToolRounds
    from edgedistill_tui.engine import Engine

DEFAULT_MODEL = "tiny-reasoner"


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Options of the browser."""
    serving = parser.add_argument_group("in a browser")
    serving.add_argument("--serve", action="store_true", help="serve the UI to a browser (extra: serve)")
    serving.add_argument("--host", default="localhost", help="address to listen on (localhost)")
    serving.add_argument("--port", type=int, default=8000, help="port to listen on (8000)")
    serving.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="also accept requests for this host name, for instance a proxy's (repeatable)",
    )
    serving.add_argument(
        "--max-sessions", type=int, default=4, metavar="N", help="maximum number of pages open at once (4)"
    )


def require_terminal() -> None:
    """Raises UsageError where there is nothing to draw on; a served UI is drawn in the browser."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) and "TEXTUAL_DRIVER" not in os.environ:
        raise UsageError("The terminal UI needs a terminal.", hint="Use: edgedistill chat --plain BUNDLE")


def is_dumb() -> bool:
    """Whether there is a terminal, but none that anything can be drawn on."""
    return os.environ.get("TERM") == "dumb" and sys.stdin.isatty() and sys.stdout.isatty()


def run_app(
    *,
    page: str = "chat",
    bundle: Path | None = None,
    system: str = "",
    overrides: dict[str, Any] | None = None,
    threads: int | None = None,
    check: Check = "size",
    reasoning_tags: Sequence[str] | None = None,
    template_vars: Mapping[str, Any] | None = None,
    prompt_cache: bool = False,
    draft: Path | None = None,
    tools: ToolRounds | None = None,
    offer_default: bool = False,
) -> int:
    """Run the UI in this terminal; its exit code.

    Raises:
        UsageError: No terminal.
    """
    require_terminal()
    # Read when Textual is imported: frames of animations and of scrolling, which no terminal needs 60 of.
    os.environ.setdefault("TEXTUAL_FPS", "10" if os.environ.get("SSH_CONNECTION") else "30")
    from edgedistill_tui.app import TuiApp
    from edgedistill_tui.services import Services

    def open_engine(path: Path) -> Engine:
        from edgedistill_tui.runtime_engine import RuntimeEngine

        return RuntimeEngine.open(
            path, threads=threads, check=check, lease=True, reasoning_tags=reasoning_tags, template_vars=template_vars,
            prompt_cache=prompt_cache, draft=draft,
        )  # fmt: skip

    app = TuiApp(
        Services.of_user(open_engine, make_default),
        bundle=bundle,
        page=page,
        system=system,
        overrides=overrides,
        tools=tools,
        offer_default=offer_default,
    )
    try:
        app.run()
    finally:
        app.close_engine()
    code = app.return_code or 0
    if app.unfinished:
        # A thread is within native code, which the interpreter's own end would take the ground from under. The screen
        # is gone, the session is saved, and loading writes nothing.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def make_default(home: Path, progress: Progress) -> Path:
    """Export the built-in model into ``home``, in a process of its own: an exporter's memory is not a chat's.

    Raises:
        EdgedistillError: What the export said, or that its process ended early.
    """
    out = home / DEFAULT_MODEL
    if (out / "manifest.json").is_file():
        return out
    require_export("Making the built-in model's bundle")
    home.mkdir(parents=True, exist_ok=True)
    try:
        run_in_child(export_default, str(out), progress=progress)
    except ChildError as error:
        raise ExportError(
            f"The export ended early ({error}).", hint=f"Try: edgedistill export {DEFAULT_MODEL} -o DIR"
        ) from error
    return out


def export_default(out: str, progress: Progress) -> None:
    """Export the built-in model to ``out`` in this process."""
    from edgedistill.export.options import ExportOptions
    from edgedistill.workflow.export import export

    export(DEFAULT_MODEL, Path(out), ExportOptions(verify=False), progress=progress)


def serve(args: argparse.Namespace, command: Sequence[str]) -> int:
    """Serve ``command``, which opens the UI, to browsers until Ctrl-C."""
    try:
        from edgedistill.cli.serving import LocalServer
    except ImportError as error:
        raise missing("--serve needs textual-serve, which is not installed.", "serve") from error
    if not 0 < args.port < 65536:
        raise UsageError(f"--port is {args.port}; expected 1 to 65535.")
    if args.host not in LOOPBACK:
        console.note(f"warning: {args.host} can be reached from other machines, and what is sent is not encrypted.")
    if args.max_sessions < 1:
        raise UsageError(f"--max-sessions is {args.max_sessions}; expected 1 or more.")
    server = LocalServer(command, args.host, args.port, names=args.allow_host or (), sessions=args.max_sessions)
    try:
        server.serve()
    except OSError as error:
        raise UsageError(
            f"Cannot listen on {args.host}, port {args.port}: {error.strerror or error}.",
            hint="Choose another one with --port.",
        ) from error
    return 0
