"""Tools in ``run`` and ``chat --plain``: calls are shown, run only once the user agrees, and their results go back."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgedistill.cli import console, generation
from edgedistill.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edgedistill.runtime.events import Generation
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.tools.types import Tool, ToolCall

_REFUSED = "The user did not allow this call."
_STOPPED = "The user stopped this call."


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


class Toolbox:
    """The tools of one command, and what the user has allowed; a context manager that ends their servers."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Run the named files and connect to the named servers.

        Raises:
            UsageError: A file or server that cannot be used, or nobody to ask.
            MissingExtraError: ``--mcp`` without the package ``mcp``.
        """
        self.tools: list[Tool] = []
        self._yes = bool(args.yes_tools)
        self._always: set[str] = set()
        self._rounds = args.tool_rounds
        self._choice = args.tool_choice
        self._stack = ExitStack()
        if not given(args):
            if args.yes_tools or args.tool_choice:
                raise UsageError(
                    "--yes-tools and --tool-choice need tools.", hint="Add --tools FILE.py or --mcp COMMAND."
                )
            return
        if self._rounds < 1:
            raise UsageError(f"--tool-rounds is {self._rounds}; expected 1 or more.")
        if not self._yes and not sys.stdin.isatty():
            raise UsageError(
                "Nobody can be asked before a call runs: stdin is no terminal.",
                hint="Add --yes-tools to run every call, if you trust the tools and what the model may ask of them.",
            )
        try:
            self._open(args)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, args: argparse.Namespace) -> None:
        from edgedistill.runtime.tools.from_file import tools_from_file
        from edgedistill.runtime.tools.types import tools_of

        for path in args.tools:
            found = tools_from_file(path)
            self.tools += found
            names = ", ".join(tool.name for tool in found)
            console.note(f"tools of {path}, which runs with your rights: {names}")
        if args.mcp:
            from edgedistill.runtime.tools.mcp_servers import McpServers

            servers = self._stack.enter_context(McpServers())
            for target in args.mcp:
                names = ", ".join(tool.name for tool in servers.connect(target))
                console.note(f"tools of the MCP server {target}: {names or 'none'}")
            self.tools += servers.tools
        tools_of(self.tools)  # names that come twice
        if self._choice not in (None, "auto", "required", *(tool.name for tool in self.tools)):
            raise UsageError(
                f"--tool-choice is {self._choice!r}; expected auto, required or a tool: "
                f"{', '.join(tool.name for tool in self.tools)}."
            )

    def choice(self, number: int) -> str | dict[str, Any]:
        """What the reply of round ``number`` may call."""
        if number >= self._rounds:
            return "none"
        if number or self._choice in (None, "auto"):
            return "auto"
        return "required" if self._choice == "required" else {"type": "function", "function": {"name": self._choice}}

    def run(self, call: ToolCall) -> str:
        """The result of ``call``, shown, once the user agrees. Raises KeyboardInterrupt while it asks."""
        from edgedistill.runtime.tools.execute import run_call

        console.note(f"call: {call.name}({_shown(call.arguments)})")
        if not self._allowed(call):
            console.note("not run.")
            return _REFUSED
        try:
            result, _ = run_call(self.tools, call)
        except KeyboardInterrupt:
            console.note("stopped.")
            return _STOPPED
        console.note(f"result: {_shown(result)}")
        return result

    def _allowed(self, call: ToolCall) -> bool:
        if self._yes or call.name in self._always:
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
                model, messages, args, printer=printer, cancel=cancel, raw=raw, tools=box.tools,
                tool_choice=box.choice(number),
            )  # fmt: skip
        if not result.tool_calls or result.finish_reason == "cancelled":
            return result, steps
        number += 1
        steps.append(result.message())
        for call in result.tool_calls:
            steps.append(result_message(call, box.run(call)))
