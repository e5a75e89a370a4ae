"""Tools of ``run`` and ``chat``: the options; in the terminal, calls are shown and run only once the user agrees."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgedistill.cli import console, generation
from edgedistill.errors import UsageError
from edgedistill.runtime.tools.rounds import REFUSED, STOPPED, ToolRounds

if TYPE_CHECKING:
    import argparse

    from edgedistill.runtime.events import Generation
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.tools.types import Tool, ToolCall


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of tools."""
    group = parser.add_argument_group("tools")
    group.add_argument(
        "--tools",
        action="append",
        type=Path,
        default=[],
        metavar="FILE.py",
        help="let the model call the functions of this file, whose code runs with your rights (repeatable)",
    )
    group.add_argument(
        "--mcp",
        action="append",
        default=[],
        metavar="COMMAND|URL",
        help="let it call the tools of an MCP server, started by COMMAND or at URL (repeatable)",
    )
    group.add_argument("--yes-tools", action="store_true", help="run every call without asking, for scripts")
    group.add_argument(
        "--tool-choice", metavar="CHOICE", help="auto, required, or the tool that the first reply has to call"
    )
    group.add_argument("--tool-rounds", type=int, default=8, metavar="N", help="most replies with calls (default: 8)")


def given(args: argparse.Namespace) -> bool:
    """Whether ``args`` name tools."""
    return bool(args.tools or args.mcp)


def refuse_beside(several: object | None, args: argparse.Namespace) -> None:
    """Refuse options that several trajectories do not take; raises UsageError."""
    names = [
        name for name, wanted in (
            ("tools", given(args)),
            ("a form of the answer", generation.form(args)),
            ("--reasoning-effort", args.reasoning_effort),
        ) if wanted
    ]  # fmt: skip
    if several is not None and names:
        raise UsageError(f"Several trajectories do not take {names[0]}.", hint="Drop one of the two.")


def open_tools(args: argparse.Namespace, stack: ExitStack, *, screen: bool = False) -> ToolRounds:
    """Run the named files and connect to the named servers, whose end goes onto ``stack``.

    Args:
        args: Parsed options.
        stack: Ends the servers.
        screen: A full screen will be drawn, which what servers write to stderr would spoil.

    Raises:
        UsageError: A file or server that cannot be used, or options that need tools without any.
        MissingExtraError: ``--mcp`` without the package ``mcp``.
    """
    if not given(args):
        if args.yes_tools or args.tool_choice:
            raise UsageError("--yes-tools and --tool-choice need tools.", hint="Add --tools FILE.py or --mcp COMMAND.")
        return ToolRounds()
    if args.tool_rounds < 1:
        raise UsageError(f"--tool-rounds is {args.tool_rounds}; expected 1 or more.")
    from edgedistill.runtime.tools.from_function import tools_from_file
    from edgedistill.runtime.tools.types import tools_of

    tools: list[Tool] = []
    for path in args.tools:
        found = tools_from_file(path)
        tools += found
        names = ", ".join(tool.name for tool in found)
        console.note(f"tools of {path}, which runs with your rights: {names}")
    if args.mcp:
        from edgedistill.runtime.tools.mcp_servers import McpServers

        servers = stack.enter_context(McpServers(silent=screen))
        for target in args.mcp:
            names = ", ".join(tool.name for tool in servers.connect(target))
            console.note(f"tools of the MCP server {target}: {names or 'none'}")
        tools += servers.tools
    tools_of(tools)  # names that come twice
    if args.tool_choice not in (None, "auto", "required", *(tool.name for tool in tools)):
        raise UsageError(
            f"--tool-choice is {args.tool_choice!r}; expected auto, required or a tool: "
            f"{', '.join(tool.name for tool in tools)}."
        )
    return ToolRounds(tuple(tools), args.tool_choice, args.tool_rounds, bool(args.yes_tools))


class Toolbox:
    """The tools of one command in the terminal, and what the user has allowed; a context manager that ends servers."""

    def __init__(self, args: argparse.Namespace) -> None:
        """See ``open_tools``; raises UsageError also where nobody can be asked."""
        self._always: set[str] = set()
        self._stack = ExitStack()
        if given(args) and not args.yes_tools and not sys.stdin.isatty():
            raise UsageError(
                "Nobody can be asked before a call runs: stdin is not a terminal.",
                hint="Add --yes-tools to run every call, if you trust the tools and what the model may ask of them.",
            )
        try:
            self.rounds = open_tools(args, self._stack)
        except BaseException:
            self._stack.close()
            raise

    def run(self, call: ToolCall) -> str:
        """The result of ``call``, shown, once the user agrees. Raises KeyboardInterrupt while it asks."""
        from edgedistill.runtime.tools.execute import run_call

        console.note(f"call: {call.name}({_shown(call.arguments)})")
        if not self._allowed(call):
            console.note("not run.")
            return REFUSED
        try:
            result, _ = run_call(self.rounds.tools, call)
        except KeyboardInterrupt:
            console.note("stopped.")
            return STOPPED
        console.note(f"result: {_shown(result)}")
        return result

    def _allowed(self, call: ToolCall) -> bool:
        if self.rounds.unasked or call.name in self._always:
            return True
        while True:
            sys.stderr.write(f"Run {call.name}? [y]es, [n]o, [a]lways: ")
            sys.stderr.flush()
            line = sys.stdin.readline()
            word = line.strip().lower()
            if not line or word in ("n", "no"):
                return False
            if word in ("a", "always"):
                self._always.add(call.name)
            if word in ("y", "yes", "a", "always"):
                return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _shown(text: str, most: int = 400) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def answer(
    model: Model,
    prompt: str | list[dict[str, Any]],
    args: argparse.Namespace,
    box: Toolbox,
    *,
    printer: generation.AnswerPrinter | None,
    raw: bool = False,
) -> tuple[Generation, list[dict[str, Any]]]:
    """The answer once no more calls come, and the messages before it: calls and results.

    Ctrl-C stops a reply and keeps its text; while a call waits for the user or runs, it stops the call.
    """
    from edgedistill.runtime.tools.execute import result_message

    asked = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    steps: list[dict[str, Any]] = []
    number = 0
    while True:
        with generation.cancel_on_interrupt() as cancel:
            messages: str | list[dict[str, Any]] = [*asked, *steps] if steps else prompt
            result = generation.generate(
                model, messages, args, printer=printer, cancel=cancel, raw=raw,
                tools=box.rounds.tools, tool_choice=box.rounds.choice_of(number),
            )  # fmt: skip
        if not result.tool_calls or result.finish_reason == "cancelled":
            return result, steps
        number += 1
        thought = {"reasoning_content": result.reasoning} if result.reasoning else {}
        steps.append({**result.message(), **thought})
        for call in result.tool_calls:
            steps.append(result_message(call, box.run(call)))
