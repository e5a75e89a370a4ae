"""``edgedistill chat``: the terminal UI, or with ``--plain`` a line-based loop that stays in the scrollback."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.cli import console, generation, parallel, terminal_ui, tool_rounds
from edgedistill.cli.bundle_options import MODEL_HELP, bundle_path
from edgedistill.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edgedistill.bundle.bundle import Check

EXAMPLES = """\
examples:
  edgedistill chat my-bundle
  edgedistill chat student.Q4_K_M.gguf    # a model is exported once, into the user's cache
  edgedistill chat                        # offers the bundles it knows; none: exports the built-in model first
  edgedistill chat my-bundle --serve      # in a browser, at http://localhost:8000
  edgedistill chat my-bundle --plain --system "Answer briefly."
  edgedistill chat my-bundle --trajectories 8
  edgedistill chat my-bundle --tools tools.py --mcp http://localhost:9000/mcp

Ctrl-C stops an answer and keeps its text; at the prompt it leaves. In --plain, /help lists the commands."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``chat``."""
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help=f"{MODEL_HELP}; without it, choose one")
    parser.add_argument("--plain", action="store_true", help="a line-based chat instead of the terminal UI")
    parser.add_argument("--hide-reasoning", action="store_true", help="with --plain: print the answers only")
    parser.add_argument("--json", action="store_true", help="with --plain: print the conversation as JSON at the end")
    terminal_ui.add_serve_options(parser)
    generation.add_options(parser)
    tool_rounds.add_options(parser)
    parallel.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Chat until the user leaves."""
    dumb = not args.serve and terminal_ui.is_dumb()
    if args.plain or dumb:
        if dumb and not args.plain:
            console.note(
                "This terminal (TERM=dumb) cannot show the terminal UI: the line-based chat starts, as with --plain."
            )
        if args.bundle is None:
            raise UsageError(
                "--plain needs a BUNDLE.", hint="Make one with: edgedistill export tiny-reasoner -o my-bundle"
            )
        from edgedistill.cli.plain_chat import PlainChat

        args.bundle = bundle_path(args.bundle)
        return PlainChat(args).loop()
    if args.json:
        raise UsageError("--json needs --plain: the terminal UI prints no JSON.", hint="Add --plain.")
    if args.serve:
        return terminal_ui.serve(args, _without_serve())
    return _terminal_ui(args)


def _terminal_ui(args: argparse.Namespace) -> int:
    terminal_ui.require_terminal()
    several = parallel.options(args)
    tool_rounds.refuse_beside(several, args)
    check: Check = "full" if args.verify else "size"
    if args.bundle is not None:
        from edgedistill.bundle.bundle import Bundle

        args.bundle = bundle_path(args.bundle)
        # Options out of range and a path that is no bundle are refused now, on the command line.
        chosen = generation.settings(args, Bundle.open(args.bundle).generation)
        if several is not None and several.count > 1 and chosen.greedy and args.temperature is not None:
            raise UsageError(
                "At temperature 0 all trajectories are equal; expected settings that leave a choice.",
                hint="Use a temperature of 0.6 to 1.",
            )
    overrides: dict[str, Any] = {
        name: value for name in generation.SAMPLING if (value := getattr(args, name)) is not None
    }
    if args.numerics != "fast":
        overrides["numerics"] = args.numerics
    if (thinking := generation.thinking(args)) is not None:
        overrides["thinking"] = thinking
    if args.think_budget:
        overrides["think_budget"] = args.think_budget
    if args.reasoning_effort is not None:
        overrides["reasoning_effort"] = args.reasoning_effort
    if several is not None:
        overrides |= parallel.overrides(several)
    with ExitStack() as stack:
        return terminal_ui.run_app(
            page="chat" if args.bundle is not None else "bundles",
            bundle=args.bundle,
            system=args.system or "",
            overrides=overrides,
            threads=args.threads,
            check=check,
            reasoning_tags=args.reasoning_tags,
            template_vars=generation.template_vars(args),
            prompt_cache=args.prompt_cache,
            draft=generation.draft_path(args),
            tools=tool_rounds.open_tools(args, stack, screen=True),
            offer_default=args.bundle is None,
        )


def _without_serve() -> list[str]:
    """This command line again, for the browser's terminal: without the options of serving."""
    with_value = ("--host", "--port", "--allow-host", "--max-sessions")
    rest: list[str] = []
    skip = False
    for argument in sys.argv[1:]:
        if skip:
            skip = False
        elif argument in with_value:
            skip = True
        elif argument != "--serve" and argument.partition("=")[0] not in with_value:
            rest.append(argument)
    return [sys.executable, "-m", "edgedistill", *rest]
