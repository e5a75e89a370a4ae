"""The line-based chat: questions and slash commands from stdin, answers to the scrollback."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.cli import console, generation, parallel, tool_rounds, trajectory_lines
from edgedistill.cli.conversation import Conversation, Turn
from edgedistill.errors import EdgedistillError, UsageError
from edgedistill.runtime.text import commands, kept_texts
from edgedistill.runtime.text.attachments import attach

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from edgedistill.cli.kept_files import KeptFiles
    from edgedistill.runtime.model import Model
    from edgedistill.trajectories.options import TrajectoryOptions


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

        tool_rounds.refuse_beside(self._several, self._args)
        with (
            tool_rounds.Toolbox(self._args) as self._box,
            generation.open_model(self._args, prompt_cache=self._args.prompt_cache) as model,
            keep_files(model.bundle) as files,
            _history(),
        ):
            # Options out of range are refused now and not with the first question.
            generation.settings(self._args, model.bundle.generation)
            console.note(f"{self._args.bundle}: /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.")
            while (line := _read_line()) is not None:
                try:
                    name, rest = commands.parse(line)
                    if name == "prompt" and rest:
                        name, rest = "", kept_texts.filled(*_name_and_text(rest))
                except UsageError as error:
                    console.note(str(error))
                    continue
                if name and not self._command(name, rest):
                    break
                if not name and rest:
                    self._ask(model, files, rest)
                if files.lost:
                    break
            if self._args.json:
                console.out_json_text(self._conversation.to_json(self._about()))
        return 0

    def _ask(self, model: Model, files: KeptFiles, line: str) -> None:
        try:
            files.check()
            attached = attach(line)
        except EdgedistillError as error:
            console.note(f"error: {error}")
            return
        for name, content in attached.files:
            console.note(f"{name}: {len(model.encode(content)):,} tokens")
        self._conversation.ask(attached.text)
        if self._several is not None:
            self._ask_in_parallel(model, self._several)
            return
        # With --json stdout belongs to the one document at the end.
        printer = None if self._args.json else generation.AnswerPrinter(show_reasoning=not self._args.hide_reasoning)
        try:
            result, steps = tool_rounds.answer(
                model, self._conversation.messages(), self._args, self._box, printer=printer
            )
        except (EdgedistillError, KeyboardInterrupt) as error:
            self._conversation.withdraw()
            console.note("")
            console.note(f"error: {error}" if isinstance(error, EdgedistillError) else "stopped.")
            return
        stats = result.stats.to_dict()
        turn = Turn("assistant", result.answer, result.reasoning, result.finish_reason, stats, steps=tuple(steps))
        self._conversation.answer(turn)
        self._last = generation.stats_line(result.stats, result.finish_reason)
        if result.finish_reason == "cancelled":
            console.note("stopped; the text so far is kept.")

    def _ask_in_parallel(self, model: Model, several: TrajectoryOptions) -> None:
        try:
            with generation.cancel_on_interrupt() as cancel:
                result, lost = parallel.solve(model, self._conversation.messages(), self._args, several, cancel=cancel)
        except (EdgedistillError, KeyboardInterrupt) as error:
            self._conversation.withdraw()
            console.note("")
            console.note(f"error: {error}" if isinstance(error, EdgedistillError) else "stopped.")
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

    def _command(self, name: str, rest: str) -> bool:
        """Carry out a slash command; False ends the chat."""
        if name == "exit":
            return False
        try:
            if name == "help":
                console.note(commands.listing())
            elif name == "reset":
                self._conversation.reset()
                console.note("The conversation is forgotten.")
            elif name == "system":
                self._conversation.system = rest or None
                console.note("System prompt set." if rest else "System prompt removed.")
            elif name == "persona" and rest:
                self._conversation.system = kept_texts.read("personas", rest)
                console.note(f"The system prompt is that of {rest}.")
            elif name in ("persona", "prompt"):
                console.note(kept_texts.listing("personas" if name == "persona" else "prompts"))
            elif name in ("think", "effort", "defaults"):
                self._set(name, rest)
            elif name == "tools":
                console.note(self._box.rounds.listing())
            elif name == "save":
                self._save(rest)
            elif name == "trajectories":
                self._trajectories(commands.number_of_trajectories(rest))
            elif name == "stats":
                console.note(self._last or "No answer yet.")
        except UsageError as error:
            console.note(str(error))
        return True

    def _set(self, name: str, rest: str) -> None:
        if name == "defaults":
            for option in generation.SAMPLING:
                setattr(self._args, option, None)
            self._args.think, self._args.reasoning_effort, self._args.think_budget = None, None, 0
            self._conversation.system, self._several = None, None
            console.note("Settings are the bundle's own, without a system prompt.")
            return
        if name == "think":
            self._args.think = commands.wish_for_thinking(rest)
            console.note("Reasoning is left to the template." if rest == "auto" else f"Reasoning is {rest}.")
            return
        wish = commands.wish_for_effort(rest)
        if wish is not None and self._several is not None:
            raise UsageError("Several trajectories do not take a reasoning effort: /trajectories off first.")
        self._args.reasoning_effort = wish
        console.note(f"Reasoning effort: {rest}.")

    def _trajectories(self, count: int) -> None:
        if count == 1:
            self._several = None
            console.note("One trajectory answers.")
            return
        from edgedistill.trajectories.options import TrajectoryOptions

        tool_rounds.refuse_beside(count, self._args)
        self._several = replace(self._several or TrajectoryOptions(), count=count)
        console.note(f"{count} trajectories vote on every answer.")

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


def _name_and_text(rest: str) -> tuple[str, str]:
    name, _, text = rest.partition(" ")
    return name, text.strip()


def _read_line() -> str | None:
    """The next line, stripped; None at the end of input or after Ctrl-C at the prompt.

    A line that is no UTF-8 is refused and read over.
    """
    interactive = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper) and sys.stdin.errors != "surrogateescape":
        sys.stdin.reconfigure(errors="surrogateescape")  # one bad byte is not the end of the chat
    try:
        # readline draws the prompt itself, so that editing a line does not eat it; it does so on stdout.
        line = input("> ") if interactive else sys.stdin.readline()
    except (EOFError, KeyboardInterrupt):
        console.note("")
        return None
    if not interactive and not line:
        return None
    if any("\udc80" <= character <= "\udcff" for character in line):
        console.note("error: That line is not UTF-8 text, so it was not sent to the model. Send it as UTF-8.")
        return ""
    return line.strip()


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Line editing with a history that lasts, where the platform has readline and there is a person typing."""
    if sys.platform == "win32" or not sys.stdin.isatty():
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
