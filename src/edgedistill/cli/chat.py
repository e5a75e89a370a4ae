"""``edgedistill chat``: the terminal UI, or with ``--plain`` a line-based loop that stays in the scrollback.

Must not know: how tokens are made; how the terminal UI draws.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.cli import console, generation, parallel, terminal_ui, trajectory_lines
from edgedistill.cli.parser import nearest
from edgedistill.conversation import Conversation, Turn
from edgedistill.errors import EdgedistillError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from edgedistill.bundle import Check
    from edgedistill.cli.kept_files import KeptFiles
    from edgedistill.runtime.model import Model
    from edgedistill.trajectories.options import TrajectoryOptions

_EXAMPLES = """\
examples:
  edgedistill chat my-bundle
  edgedistill chat                        # offers the bundles it knows; none: exports the built-in model first
  edgedistill chat my-bundle --serve      # in a browser, at http://localhost:8000
  edgedistill chat my-bundle --plain --system "Answer briefly."
  edgedistill chat my-bundle --trajectories 8

Ctrl-C stops an answer and keeps its text; at the prompt it leaves. In --plain, /help lists the commands."""

_HELP = """\
/reset               forget the conversation (the system prompt stays)
/system TEXT         set the system prompt; without TEXT remove it
/think on|off        let the model reason, or ask its template for no reasoning
/trajectories K|off  let K trajectories vote on every answer, or answer once
/save FILE           save the conversation: .json as JSON, anything else as Markdown
/stats               statistics of the last answer
/exit                leave (also Ctrl-D, or Ctrl-C at the prompt)"""

_COMMANDS = ("/help", "/reset", "/system", "/think", "/save", "/trajectories", "/stats", "/exit")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``chat``."""
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "bundle", type=Path, nargs="?", metavar="BUNDLE", help="bundle directory; without it, choose one"
    )
    parser.add_argument("--plain", action="store_true", help="a line-based chat instead of the terminal UI")
    parser.add_argument("--hide-reasoning", action="store_true", help="with --plain: print the answers only")
    parser.add_argument("--json", action="store_true", help="with --plain: print the conversation as JSON at the end")
    terminal_ui.add_serve_options(parser)
    generation.add_options(parser)
    parallel.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Chat until the user leaves."""
    if args.plain:
        if args.bundle is None:
            raise UsageError(
                "--plain needs a BUNDLE.", hint="Make one with: edgedistill export tiny-reasoner -o my-bundle"
            )
        return PlainChat(args).loop()
    if args.json:
        raise UsageError("--json needs --plain: the terminal UI has the screen.", hint="Add --plain.")
    if args.serve:
        return terminal_ui.serve(args, _without_serve())
    return _terminal_ui(args)


def _terminal_ui(args: argparse.Namespace) -> int:
    terminal_ui.require_terminal()
    several = parallel.options(args)
    check: Check = "full" if args.verify else "size"
    if args.bundle is not None:
        from edgedistill.bundle import Bundle

        # Options out of range and a path that is no bundle are refused now, on the command line.
        chosen = generation.settings(args, Bundle.open(args.bundle).generation)
        if several is not None and several.count > 1 and chosen.greedy and args.temperature is not None:
            raise UsageError(
                "At temperature 0 all trajectories are equal; expected settings that leave a choice.",
                hint="Use a temperature of 0.6 to 1.",
            )
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop", "max_new_tokens")
    overrides: dict[str, Any] = {name: value for name in names if (value := getattr(args, name)) is not None}
    if args.mode != "fast":
        overrides["mode"] = args.mode
    if (thinking := generation.thinking(args)) is not None:
        overrides["thinking"] = thinking
    if several is not None:
        overrides |= parallel.overrides(several)
    return terminal_ui.run_app(
        page="chat" if args.bundle is not None else "bundles",
        bundle=args.bundle,
        system=args.system or "",
        overrides=overrides,
        threads=args.threads,
        check=check,
        offer_default=args.bundle is None,
    )


def _without_serve() -> str:
    """This command line again, for the browser's terminal: without the options of serving."""
    rest: list[str] = []
    skip = False
    for argument in sys.argv[1:]:
        if skip:
            skip = False
        elif argument in ("--host", "--port"):
            skip = True
        elif argument != "--serve" and not argument.startswith(("--host=", "--port=")):
            rest.append(argument)
    return shlex.join([sys.executable, "-m", "edgedistill", *rest])


class PlainChat:
    """The line-based chat.

    Args:
        args: Parsed command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._conversation = Conversation(system=args.system)
        self._several = parallel.options(args)
        self._last = ""

    def loop(self) -> int:
        """Read lines until the end; errors of one answer do not end the chat."""
        from edgedistill.cli.kept_files import keep_files
        from edgedistill.runtime.model import open_bundle

        check: Check = "full" if self._args.verify else "size"
        with (
            open_bundle(self._args.bundle, threads=self._args.threads, check=check) as model,
            keep_files(model.bundle) as files,
            _history(),
        ):
            # Options out of range are refused now and not with the first question.
            generation.settings(self._args, model.bundle.generation)
            console.note(f"{self._args.bundle}: /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.")
            while (line := _read_line()) is not None:
                if line.startswith("/"):
                    if not self._command(line):
                        break
                elif line:
                    self._ask(model, files, line)
                if files.lost:
                    break
            if self._args.json:
                sys.stdout.write(self._conversation.to_json(self._about()))
        return 0

    def _ask(self, model: Model, files: KeptFiles, line: str) -> None:
        try:
            files.check()
        except EdgedistillError as error:
            console.note(f"error: {error}")
            return
        self._conversation.ask(line)
        if self._several is not None:
            self._ask_in_parallel(model, self._several)
            return
        # With --json stdout belongs to the one document at the end.
        printer = None if self._args.json else generation.AnswerPrinter(show_reasoning=not self._args.hide_reasoning)
        try:
            with generation.cancel_on_interrupt() as cancel:
                result = generation.generate(
                    model, self._conversation.messages(), self._args, printer=printer, cancel=cancel
                )
        except (EdgedistillError, KeyboardInterrupt) as error:
            self._conversation.withdraw()
            console.note(f"\nerror: {error}" if isinstance(error, EdgedistillError) else "\nstopped.")
            return
        self._conversation.answer(
            Turn("assistant", result.answer, result.reasoning, result.finish_reason, result.stats.to_dict())
        )
        self._last = generation.stats_line(result.stats, result.finish_reason)
        if result.finish_reason == "cancelled":
            console.note("stopped; the text so far is kept.")

    def _ask_in_parallel(self, model: Model, several: TrajectoryOptions) -> None:
        try:
            with generation.cancel_on_interrupt() as cancel:
                result, lost = parallel.solve(model, self._conversation.messages(), self._args, several, cancel=cancel)
        except (EdgedistillError, KeyboardInterrupt) as error:
            self._conversation.withdraw()
            console.note(f"\nerror: {error}" if isinstance(error, EdgedistillError) else "\nstopped.")
            return
        self._last = trajectory_lines.stats_line(result.stats)
        console.note(trajectory_lines.outcome(result))
        if not self._args.json:
            parallel.print_answer(result, show_reasoning=not self._args.hide_reasoning)
        stats = {**result.stats.to_dict(), "decided_by": result.decided_by, "vote": result.vote.to_dict()}
        reason = "cancelled" if result.cancelled or lost else "stop" if result.answer else "length"
        kept = tuple(parallel.record(trajectory) for trajectory in result.trajectories)
        self._conversation.answer(Turn("assistant", result.answer, result.reasoning, reason, stats, kept))
        if lost is not None:
            console.note(f"error: {lost}")
        elif result.cancelled:
            console.note("stopped; the trajectories so far are kept.")

    def _command(self, line: str) -> bool:
        """Carry out a slash command; False ends the chat."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name in ("/exit", "/quit"):
            return False
        if name == "/help":
            console.note(_HELP)
        elif name == "/reset":
            self._conversation.reset()
            console.note("The conversation is forgotten.")
        elif name == "/system":
            self._conversation.system = rest or None
            console.note("System prompt set." if rest else "System prompt removed.")
        elif name == "/think":
            self._think(rest)
        elif name == "/save":
            self._save(rest)
        elif name == "/trajectories":
            self._trajectories(rest)
        elif name == "/stats":
            console.note(self._last or "No answer yet.")
        else:
            near = nearest(name, _COMMANDS)
            console.note(f"There is no command {name}. " + (f"Did you mean {near}?" if near else "See /help."))
        return True

    def _think(self, choice: str) -> None:
        if choice not in ("on", "off"):
            console.note("Use /think on or /think off.")
            return
        self._args.think = choice == "on"
        console.note(f"Reasoning is {choice}.")

    def _trajectories(self, choice: str) -> None:
        if choice == "off":
            self._several = None
            console.note("One trajectory answers.")
            return
        if not choice.isdecimal():
            console.note("Use /trajectories 8 or /trajectories off.")
            return
        from edgedistill.trajectories.options import TrajectoryOptions

        try:
            several = replace(self._several or TrajectoryOptions(), count=int(choice))
        except EdgedistillError as error:
            console.note(f"error: {error}")
            return
        self._several = several
        console.note(f"{several.count} trajectories vote on every answer.")

    def _save(self, name: str) -> None:
        if not name:
            console.note("Use /save FILE.")
            return
        try:
            self._conversation.save(Path(name).expanduser(), self._about())
        except EdgedistillError as error:
            console.note(f"error: {error}")
        else:
            console.note(f"Saved to {name}.")

    def _about(self) -> dict[str, Any]:
        return {"bundle": str(self._args.bundle)}


def _read_line() -> str | None:
    """The next line, stripped; None at the end of input or after Ctrl-C at the prompt."""
    interactive = sys.stdin.isatty()
    try:
        # readline draws the prompt itself, so that editing a line does not eat it; it does so on stdout.
        line = input("> ") if interactive else sys.stdin.readline()
    except (EOFError, KeyboardInterrupt):
        console.note("")
        return None
    if not interactive and not line:
        return None
    return line.strip()


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Line editing with a history that lasts, where the platform has readline and there is a person typing."""
    if not sys.stdin.isatty():
        yield
        return
    try:
        import readline
    except ImportError:
        yield
        return
    import platformdirs

    path = platformdirs.user_state_path("edgedistill", appauthor=False) / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
