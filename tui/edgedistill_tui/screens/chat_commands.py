"""Commands in the chat's prompt (``/name``), search of earlier questions, and editing in the user's editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from textual import work
from textual.app import SuspendNotSupported

from edgedistill.errors import EdgedistillError, UsageError
from edgedistill.runtime.text import commands, kept_texts
from edgedistill_tui.data import writing
from edgedistill_tui.data.database import StoreError
from edgedistill_tui.screens.chat_actions import ChatActions
from edgedistill_tui.screens.dialogs import Recall

if TYPE_CHECKING:
    from edgedistill_tui.widgets.prompt import Prompt


class ChatCommands(ChatActions):
    """The commands of ``runtime.text.commands``, over the actions that keys have."""

    async def command(self, name: str, rest: str) -> None:
        """Carry out ``/name rest``; an error is shown and changes nothing."""
        try:
            said = await self._carry_out(name, rest)
        except EdgedistillError as error:
            self.notify(str(error), severity="warning", timeout=8)
        else:
            if said:
                await self.transcript.add_notice(said, kind="-quiet")
                self.transcript.anchor()

    def on_prompt_too_long(self, message: Prompt.TooLong) -> None:
        """A paste that is too long to be edited goes to a file, which the question sends along."""
        try:
            path = writing.write_new(self.tui.services.config.exports, "pasted", ".txt", message.text)
        except EdgedistillError as error:
            self.notify(f"{len(message.text):,} characters were not pasted. {error}", severity="error", timeout=10)
            return
        before = "" if self.prompt.text[-1:].isspace() or not self.prompt.text else " "
        self.prompt.insert(f'{before}@"{path}" ', self.prompt.document.end)
        self.notify(f"{len(message.text):,} characters pasted: kept in {path}, sent along as a file.", timeout=8)

    async def _carry_out(self, name: str, rest: str) -> str:
        """Carry out the command; returns a sentence for the user, empty if the screen shows the effect itself."""
        said = ""
        if name == "help":
            said = commands.listing()
        elif name == "reset":
            await self.action_new()
        elif name == "system":
            self.session.system = rest
            self.tui.keep_settings()
            said = "System prompt set." if rest else "System prompt removed."
        elif name == "persona" and rest:
            self.session.system = kept_texts.read("personas", rest)
            self.tui.keep_settings()
            said = f"The system prompt is that of {rest}."
        elif name == "prompt" and rest:
            chosen, _, text = rest.partition(" ")
            self.prompt.put(kept_texts.filled(chosen, text.strip()))  # to be looked at before it is sent
        elif name in ("persona", "prompt"):
            said = kept_texts.listing("personas" if name == "persona" else "prompts")
        elif name in ("think", "effort", "trajectories", "defaults"):
            said = self._set(name, rest)
        elif name == "tools":
            said = self.tui.tools.listing()
        elif name == "save":
            if not rest:
                raise UsageError("Use /save FILE.")
            writing.save_as(self.session, Path(rest).expanduser())
            said = f"Saved to {rest}."
        elif name == "stats":
            said = self._statistics()
        elif name == "exit":
            await self.run_action("app.quit")
        return said

    def _set(self, name: str, rest: str) -> str:
        """Change a setting of the session; returns a sentence for the user."""
        settings = self.session.settings
        if name == "think":
            settings["thinking"] = commands.wish_for_thinking(rest)
            said = "Reasoning is left to the template." if rest == "auto" else f"Reasoning is {rest}."
        elif name == "effort":
            settings["reasoning_effort"] = commands.wish_for_effort(rest)
            said = f"Reasoning effort: {rest}."
        elif name == "defaults":
            self.session.settings = {name: v for name, v in settings.items() if name in ("kept_from", "summary")}
            self.session.system = ""
            said = "Settings are the bundle's own, without a system prompt; no others are kept for it."
        else:
            count = settings["trajectories"] = commands.number_of_trajectories(rest)
            settings["parallel"] = self.tui.sampling.parallel | {"deliberate": False}
            said = "One trajectory answers." if count == 1 else f"{count} trajectories vote on every answer."
        self.tui.keep_settings()
        self.title_line()
        return said

    def _statistics(self) -> str:
        reply = next((m for m in reversed(self.session.path()) if m.stats), None)
        if reply is None:
            return "No answer yet."
        shown = {name: value for name, value in reply.stats.items() if isinstance(value, int | float)}
        return "  ".join(f"{name} {value:.4g}" for name, value in shown.items())

    # ---- what was written before, or elsewhere ---------------------------------------------------------------

    def earlier_questions(self) -> list[str]:
        """Texts that were put aside, then the questions of all sessions, the newest first."""
        try:
            asked = [commands.as_typed(text) for text in self.tui.services.store.questions()]
        except (StoreError, OSError) as error:
            self.notify(str(error), severity="warning")
            asked = [message.content for message in reversed(self.session.path()) if message.role == "user"]
        return list(dict.fromkeys([*reversed(self.aside), *asked]))

    @work
    async def action_recall(self) -> None:
        """Find an earlier question, and have it in the prompt again."""
        chosen = await self.app.push_screen_wait(Recall(self.earlier_questions()))
        if chosen is not None:
            if self.prompt.text.strip():
                self.aside.append(self.prompt.text)
            self.prompt.put(chosen)
        self.prompt.focus()

    def action_editor(self) -> None:
        """Write on in the user's editor: ``$VISUAL`` or ``$EDITOR``."""
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
        if not editor:
            self.notify("No editor is set: name one in the environment variable EDITOR.", severity="warning")
            return
        try:
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / "question.md"
                path.write_text(self.prompt.text, encoding="utf-8", errors="replace")
                with self.app.suspend():
                    subprocess.run([*shlex.split(editor), str(path)], check=True)
                written = path.read_text(encoding="utf-8", errors="replace").rstrip("\n")
        except SuspendNotSupported:
            self.notify("There is no terminal here for an editor.", severity="warning")
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            self.notify(f"{editor}: {error}. The prompt is as it was.", severity="warning")
        else:
            self.prompt.put(written)
