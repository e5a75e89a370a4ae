"""The chat page: accepts questions, shows the model's replies, and keeps all alternatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import work
from textual.widgets import Static

from edgedistill.errors import ContextLengthError, EdgedistillError, UsageError
from edgedistill.runtime.text import commands
from edgedistill.runtime.text.attachments import Attached, attach
from edgedistill_tui.engine import Engine, Request
from edgedistill_tui.neutral import plain
from edgedistill_tui.screens.chat_room import ChatRoom
from edgedistill_tui.screens.page import key
from edgedistill_tui.screens.parallel_run import ParallelRun
from edgedistill_tui.screens.reply_run import ReplyRun
from edgedistill_tui.widgets.prompt import Prompt
from edgedistill_tui.widgets.strip import MetricsStrip
from edgedistill_tui.widgets.transcript import PAGE, MessageView, QuestionView, ReplyView, Transcript

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from textual.widget import Widget
    from textual.widgets import TextArea

    from edgedistill_tui.data.session import Message, Session


class ChatScreen(ChatRoom):
    """One conversation with the loaded bundle."""

    PAGE = "chat"
    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        key("chat.stop", "escape", "escape", "Stop"),
        key("chat.continue", "ctrl+g", "continue_reply", "Go on", show=False, priority=True),
        key("chat.regenerate", "alt+r", "regenerate", "Again", show=False, priority=True),
        key("chat.recall", "ctrl+r", "recall", "Earlier questions", show=False, priority=True),
        key("chat.editor", "alt+e", "editor", "Write in your editor", show=False, priority=True),
        key("chat.edit", "ctrl+e", "edit", "Edit", show=False, priority=True),
        key("chat.reasoning", "ctrl+t", "toggle_reasoning", "Reasoning", show=False, priority=True),
        key("chat.new", "ctrl+n", "new", "New", priority=True),
        key("chat.sampling", "ctrl+l", "sampling", "Sampling", priority=True),
        key("chat.bundle", "alt+m", "switch_bundle", "Bundle", show=False, priority=True),
        key("chat.room", "f10", "room", "Make room in the context", show=False, priority=True),
        key("chat.parallel", "f9", "parallel", "Trajectories", show=False, priority=True),
        key("chat.trajectory", "alt+down", "trajectory(1)", "Next trajectory", show=False, priority=True),
        key("chat.trajectory_back", "alt+up", "trajectory(-1)", "Previous trajectory", show=False, priority=True),
        key("chat.copy", "ctrl+y", "copy_answer", "Copy", show=False, priority=True),
        key("chat.copy_code", "ctrl+o", "copy_code", "Copy code", show=False, priority=True),
        key("chat.save", "ctrl+s", "save", "Save", show=False, priority=True),
        key("chat.save_json", "alt+s", "save_json", "Save as JSON", show=False, priority=True),
        key("chat.fork", "ctrl+f", "fork", "Fork into a new session", show=False, priority=True),
        key("chat.up", "ctrl+up", "select(-1)", "Message above", show=False, priority=True),
        key("chat.down", "ctrl+down", "select(1)", "Message below", show=False, priority=True),
        key("chat.previous", "alt+left", "sibling(-1)", "Previous alternative", show=False, priority=True),
        key("chat.next", "alt+right", "sibling(1)", "Next alternative", show=False, priority=True),
        key("chat.copy_message", "c", "copy_message", "Copy message", show=False),
        key("chat.earlier", "home", "earlier", "Earlier messages", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.transcript = Transcript(id="transcript")
        self.prompt = Prompt()
        self.prompt.recall = self.earlier_questions
        self.strip = MetricsStrip()
        self.editing: Message | None = None
        self.drafts: dict[int | None, str] = {}
        self.waiting = ""
        self.aside: list[str] = []
        self.run: ReplyRun | None = None
        self._shown = PAGE

    def body(self) -> Iterator[Widget]:
        """Conversation, prompt, numbers."""
        yield self.transcript
        yield self.prompt
        yield self.strip

    async def on_mount(self) -> None:
        """Show the session; the prompt can be written in while the model loads."""
        self.prompt.focus()
        if self.tui.engine is not None:
            self.engine_changed(self.tui.engine)
        elif self.tui.loading is None:
            self.strip.say("no bundle · F4 opens one")
        await self.session_changed()

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self.tui.engine is not None

    @property
    def busy(self) -> bool:
        """Whether a reply is being written, or a summary."""
        return self.run is not None or self._summarising is not None

    @property
    def running(self) -> bool:
        """As the other pages that keep the model busy call it."""
        return self.busy

    # ---- told by the application -----------------------------------------------------------------------------

    def loading_started(self, path: Path) -> None:
        """A bundle is being loaded."""
        self.strip.say(f"loading {path.name}…")

    def loading_failed(self, message: str) -> None:
        """Loading failed; the previous model, if any, stays."""
        self.strip.say("ready" if self.ready else "no bundle · F4 opens one")
        self.take_back()
        if self.is_mounted:
            self.run_worker(self.transcript.add_notice(f"error: {message}"))

    def engine_changed(self, engine: Engine) -> None:
        """Another model answers from now on."""
        facts = engine.facts
        self.strip.facts = facts
        self.strip.say("ready")
        self.title_line()
        if self.session.messages and self.is_mounted:
            self.run_worker(self.transcript.add_notice(f"{facts.bundle} answers from here on.", kind="-quiet"))
        if self.waiting and self.is_mounted:
            text, self.waiting = self.waiting, ""
            self.run_worker(self._ask(text))

    async def session_changed(self) -> None:
        """Another session, or another path through it: draw it."""
        self.take_back()
        self.leave_edit()
        self._shown = PAGE
        self.title_line()
        await self.show_path()

    def title_line(self, hint: str = "") -> None:
        """Show on the prompt's frame which model answers and what the prompt is for."""
        engine = self.tui.engine
        self.prompt.border_title = hint or ("editing: this forks the conversation · Esc leaves" if self.editing else "")
        if engine is not None:
            facts = engine.facts
            title = f"{facts.bundle} · {facts.model} · {facts.profile}"
            sampling = self.tui.sampling
            if sampling.trajectory_options() is not None:
                pass_ = " + deliberation" if sampling.parallel.get("deliberate") else ""
                title = f"{sampling.trajectories} trajectories{pass_} · {facts.bundle}"
            self.prompt.border_subtitle = plain(title)

    @property
    def session(self) -> Session:
        """The current session."""
        return self.tui.session

    # ---- drawing ---------------------------------------------------------------------------------------------

    async def show_path(self) -> None:
        """Draw the end of the active path; earlier messages are drawn on request."""
        await self.transcript.clear()
        path = self.session.path()
        hidden = max(0, len(path) - self._shown)
        if not path:
            await self.transcript.mount(Static(self._welcome(), id="welcome"))
            return
        if hidden:
            await self.transcript.mount(
                Static(f"{hidden} earlier messages · Home shows them", markup=False, classes="notice -quiet")
            )  # fmt: skip
        first = self.session.kept_from
        for message in path[hidden:]:
            if message is first:
                how = (
                    "are summarised for the model" if self.session.settings.get("summary") else "do not go to the model"
                )
                said = f"▲ The messages above {how} · F10 takes that back"
                await self.transcript.add_notice(said, kind="-quiet")
            await self.transcript.mount(self._view(message))
        self.transcript.anchor()

    def _view(self, message: Message) -> MessageView:
        same = self.session.siblings(message)
        place = (same.index(message) + 1, len(same))
        if message.role == "user":
            return QuestionView(message, place)
        return ReplyView(message, place, folded=not self.tui.services.config.unfold_reasoning)

    def _welcome(self) -> str:
        return (
            "[bold $primary]edgedistill[/]  [dim]a model on this machine, and nothing leaves it[/]\n\n"
            "Ask something below. [bold]Enter[/] sends, [bold]Ctrl+J[/] breaks the line, [bold]Esc[/] stops a reply.\n"
            "[bold]Ctrl+P[/] finds every command, [bold]F1[/] explains the keys.\n\n"
            "[dim]Try: What is 17 + 25 * 3?[/]"
        )

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        """List the commands that what is typed may become."""
        if event.text_area is self.prompt:
            found = commands.matching(self.prompt.text)
            hint = f"{found[0].usage}: {found[0].about}" if len(found) == 1 else "  ".join(c.usage for c in found)
            self.title_line(hint)

    # ---- asking ----------------------------------------------------------------------------------------------

    async def on_prompt_submitted(self, message: Prompt.Submitted) -> None:
        """Ask; while a model is being loaded, wait for it. Not while one is answering. Or carry out a command."""
        if message.text.startswith("/"):
            try:
                name, rest = commands.parse(message.text)
            except UsageError as error:
                self.notify(str(error), severity="warning")
                return
            if name:
                self.prompt.take(message.text)
                await self.command(name, rest)
                return
        try:
            attach(message.text)  # reports files that cannot be attached, and keeps the text in the prompt
        except UsageError as error:
            self.notify(str(error), severity="warning", timeout=8)
            return
        if self.run is None and self.tui.loading is not None:
            await self._wait(message.text)
        elif not self.ready:
            self.notify("There is no model to ask: F4 opens a bundle.", severity="warning")
        elif self._idle() and self._may_answer():
            self.prompt.take(message.text)
            await self._ask(message.text)

    async def _wait(self, text: str) -> None:
        """Keep a question until the model is loaded."""
        if self.waiting:
            self.notify("One question is waiting already: Esc takes it back.")
            return
        self.prompt.take(text)
        self.waiting = text
        await self.transcript.mount(Static(f"{text}\n… is asked once the model is loaded", markup=False, id="waiting"))
        self.transcript.anchor()

    def take_back(self) -> bool:
        """Put a waiting question back into the prompt; returns whether there was one."""
        text, self.waiting = self.waiting, ""
        if text:
            self.query("#waiting").remove()
            self.prompt.put(f"{text}\n{self.prompt.text}" if self.prompt.text else text)
        return bool(text)

    async def _ask(self, text: str) -> None:
        typed, (_, text) = text, commands.parse(text)  # without the second slash
        attached = self._attached(text)
        if attached is None:
            self.prompt.put(typed)
            return
        text = attached.text
        await self.query("#welcome, #waiting").remove()
        if self.editing is not None:
            question = self.session.edit(self.editing, text)
            self.drafts.pop(self.editing.id, None)
            self.leave_edit(keep=False)
            await self.show_path()
        else:
            question = self.session.ask(text)
            await self.transcript.mount(self._view(question))
        await self._tell_attached(attached)
        self.transcript.anchor()
        await self.reply_to(question)

    def _attached(self, text: str) -> Attached | None:
        """The question with its files; None, with a notification, if they cannot be read or do not fit."""
        try:
            attached = attach(text)
        except UsageError as error:
            self.notify(str(error), severity="warning", timeout=8)
            return None
        engine = self.tui.engine
        length = engine.facts.context_length if engine is not None else 0
        for name, content in attached.files:
            if engine is not None and length and (tokens := engine.count(content)) >= length:
                what = f"{name} has {tokens:,} tokens; the context of this bundle holds {length:,}."
                self.notify(what, severity="warning", timeout=8)
                return None
        return attached

    async def _tell_attached(self, attached: Attached) -> None:
        engine = self.tui.engine
        if attached.files and engine is not None:
            said = ", ".join(f"{name}: {engine.count(content):,} tokens" for name, content in attached.files)
            await self.transcript.add_notice(said, kind="-quiet")

    async def reply_to(self, question: Message) -> None:
        """Have ``question`` answered by a new reply."""
        engine = self.tui.engine
        if engine is None:
            return
        messages = self.session.template_messages(until=question)
        reply = self.session.begin_reply(question, engine.facts.about())
        view = self._view(reply)
        if isinstance(view, ReplyView):
            view.begin()
            await self.transcript.mount(view)
            self._begin(engine, Request(messages, self.tui.sampling), reply, view)

    def _begin(self, engine: Engine, request: Request, reply: Message, view: ReplyView) -> None:
        self.tui.save()
        view.begin()
        several = request.sampling.trajectory_options() is not None and not request.continuing
        run = ParallelRun if several else ReplyRun
        desk = None if several else self.tui.tool_desk()
        self.run = run(engine, request, reply, view, self.strip, save=self.tui.save, fps=self.tui.fps, desk=desk)
        self.run.start()
        self._follow(self.run)

    @work
    async def _follow(self, run: ReplyRun) -> None:
        try:
            await run.follow()
        finally:
            self.run = None
        if isinstance(run.error, EdgedistillError):
            await self._failed(run)
            return
        self.strip.final(run.message.stats, "stopped" if run.message.finish_reason == "cancelled" else "ready")
        self.tell_room(int(run.message.stats.get("kv_tokens") or 0))
        if run.note:
            self.notify(run.note, timeout=8)

    async def _failed(self, run: ReplyRun) -> None:
        """Without a reply, put the question back into the prompt and show the error."""
        self.strip.say("ready")
        message = run.message
        # What was written before the error stays.
        if message.raw or message.steps or message.parallel.get("trajectories"):
            message.finish_reason = "cancelled"
            await run.view.finish()
        else:
            question = self.session.messages.get(message.parent or 0)
            self.session.withdraw(message)
            if question is not None:
                self.session.withdraw(question)
                if question.id not in self.session.messages:
                    below = f"\n{self.prompt.text}" if self.prompt.text else ""
                    self.prompt.put(commands.as_typed(question.content) + below)
            await self.show_path()
        await self.transcript.add_notice(f"error: {run.error}")
        self.tui.save()
        if isinstance(run.error, ContextLengthError):
            self.action_room()

    def stop(self) -> None:
        """End the reply that is being written, if any, and keep what there is."""
        if self.run is not None:
            self.run.stop()
        if self._summarising is not None:
            self._summarising.set()

    def cut_reply(self) -> None:
        """Keep what the reply has so far, because the program ends."""
        if self.run is not None:
            self.run.cut()
