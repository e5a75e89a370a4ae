"""The actions behind the keys of the chat page: stop, continue, regenerate, edit, show alternatives, copy, save."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from textual import work

from edgedistill.errors import EdgedistillError
from edgedistill.runtime.text.commands import as_typed
from edgedistill_tui import clipboard
from edgedistill_tui.data import writing
from edgedistill_tui.data.session import Message, Session
from edgedistill_tui.engine import Engine, Request
from edgedistill_tui.screens.dialogs import Choose
from edgedistill_tui.screens.page import Page
from edgedistill_tui.screens.sampling import SamplingPanel
from edgedistill_tui.widgets.transcript import PAGE, MessageView, ReplyView, Transcript

TRAJECTORIES = 4
"""Default number of trajectories; a laptop decodes this many together at little cost."""

if TYPE_CHECKING:
    from edgedistill_tui.screens.reply_run import ReplyRun
    from edgedistill_tui.widgets.prompt import Prompt
    from edgedistill_tui.widgets.strip import MetricsStrip


class ChatActions(Page):
    """The actions; the page itself has the widgets."""

    transcript: Transcript
    prompt: Prompt
    strip: MetricsStrip
    editing: Message | None
    drafts: dict[int | None, str]
    waiting: str
    aside: list[str]
    run: ReplyRun | None
    _shown: int

    @property
    def session(self) -> Session:
        """The current session."""
        raise NotImplementedError

    async def show_path(self) -> None:
        """Draw the active path again."""
        raise NotImplementedError

    async def reply_to(self, question: Message) -> None:
        """Have a question answered."""
        raise NotImplementedError

    def take_back(self) -> bool:
        """Put a question that waits for its model back into the prompt; returns whether there was one."""
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        """Whether the model writes for this page."""
        raise NotImplementedError

    def stop(self) -> None:
        """End what it writes."""
        raise NotImplementedError

    def title_line(self, hint: str = "") -> None:
        """Say on the frame what the prompt is for."""
        raise NotImplementedError

    def _begin(self, engine: Engine, request: Request, reply: Message, view: ReplyView) -> None:
        raise NotImplementedError

    # ---- which message ---------------------------------------------------------------------------------------

    def _selected(self, role: str) -> Message | None:
        """The message with the focus if it has this role, else the last one on the path that has."""
        focused = self.focused
        if isinstance(focused, MessageView) and focused.message.role == role:
            return focused.message
        return next((m for m in reversed(self.session.path()) if m.role == role), None)

    def _idle(self) -> bool:
        """Whether the conversation may be changed now."""
        if self.busy:  # not on the strip, which shows the reply's next numbers at once
            self.notify("Still answering: Esc stops.")
        return not self.busy

    def _may_answer(self) -> bool:
        """Whether the model is free; notifies the user if another page uses it."""
        what = "" if self.busy else self.tui.occupied()
        if what:
            self.notify(what, severity="warning")
        return not self.busy and not what

    def action_select(self, step: int) -> None:
        """Move the focus from message to message; below the last one is the prompt."""
        views = list(self.transcript.query(MessageView))
        at = views.index(self.focused) if isinstance(self.focused, MessageView) else len(views)
        at = max(0, at + step)
        if at >= len(views):
            self.prompt.focus()
        elif views:
            views[at].focus()
            views[at].scroll_visible()

    # ---- replies ---------------------------------------------------------------------------------------------

    def action_escape(self) -> None:
        """Stop the reply and keep what there is; take back a question that waits; leave an edit; go to the prompt."""
        if self.busy:
            self.stop()
            self.strip.say("stopping…")
        elif not self.take_back():
            self.leave_edit()
        self.prompt.focus()

    async def interrupt(self) -> None:
        """As Ctrl-C in a shell: stop what runs, else copy what is selected, else put the line aside, else leave."""
        selected = self.prompt.selected_text if self.focused is self.prompt else self.get_selected_text()
        if self.busy or self.waiting:
            self.action_escape()
        elif selected:
            self.tui.copy(selected, "Selection")
        elif self.editing is not None:
            self.leave_edit()
        elif self.prompt.text:
            self.aside.append(self.prompt.text)
            self.prompt.clear()
            self.notify("The text is put aside; Up brings it back. Ctrl+C again quits.")
        else:
            await self.run_action("app.quit")

    def leave_edit(self, *, keep: bool = True) -> None:
        """Restore the prompt of before the edit; ``keep`` stores the edited text among earlier questions."""
        if self.editing is not None:
            if keep:
                self.drafts[self.editing.id] = self.prompt.text
            self.editing = None
            self.prompt.put(self.drafts.pop(None, ""))
        self.title_line()

    async def action_continue_reply(self) -> None:
        """Let the model go on where a reply was stopped or cut."""
        engine, path = self.tui.engine, self.session.path()
        if not self._idle() or engine is None or not self._may_answer():
            return
        if not path or not path[-1].can_continue or not (path[-1].raw or path[-1].steps):
            self.notify("There is nothing to continue: Alt+R asks again.")
            return
        reply = path[-1]
        view = next((v for v in self.transcript.query(ReplyView) if v.message is reply), None)
        if view is None:
            return
        if reply.about.get("hash") not in ("", engine.facts.hash):
            self.notify(f"{engine.facts.bundle} continues what {reply.about.get('bundle', '?')} began.")
        messages = self.session.template_messages(until=self.session.messages[reply.parent or 0])
        messages += map(dict, reply.steps)
        self._begin(engine, Request(messages, self.tui.sampling, continuing=reply.raw), reply, view)

    async def action_regenerate(self) -> None:
        """Another reply to the same question; the one before stays as an alternative."""
        if not self._idle() or self.tui.engine is None or not self._may_answer():
            return
        reply = self._selected("assistant")
        question = self.session.messages.get(reply.parent or 0) if reply else self._selected("user")
        if question is None:
            self.notify("There is no question yet.")
            return
        self.session.leaf = question.id
        await self.show_path()
        await self.reply_to(question)
        # The new reply has a sibling now, and its tag says so.
        self._refresh_place()

    def _refresh_place(self) -> None:
        for view in self.transcript.query(MessageView):
            same = self.session.siblings(view.message)
            view.place = (same.index(view.message) + 1, len(same))

    def action_edit(self) -> None:
        """Edit a question: a fork; the old question and everything after it stay unchanged."""
        if not self._idle():
            return
        question = self._selected("user")
        if question is None:
            self.notify("There is no question yet.")
            return
        if self.editing is not question:
            self.drafts[None if self.editing is None else self.editing.id] = self.prompt.text
            self.editing = question
            self.prompt.put(self.drafts.get(question.id, as_typed(question.content)))
        self.prompt.focus()
        self.title_line()

    async def action_sibling(self, step: int) -> None:
        """Show another alternative of the selected message, or of the last one that has any."""
        if not self._idle():
            return
        focused = self.focused.message if isinstance(self.focused, MessageView) else None
        candidates = [focused] if focused else list(reversed(self.session.path()))
        message = next((m for m in candidates if len(self.session.siblings(m)) > 1), None)
        if message is None:
            self.notify("No alternatives here: Alt+R asks again, Ctrl+E edits.")
            return
        chosen = self.session.show_sibling(message, step)
        await self.show_path()
        self.tui.save()
        if focused is not None:
            next(v for v in self.transcript.query(MessageView) if v.message is chosen).focus()

    def action_toggle_reasoning(self) -> None:
        """Fold or unfold the reasoning: of the selected reply, else of all after the last one's state."""
        focused = self.focused
        views = [focused] if isinstance(focused, ReplyView) else list(self.query(ReplyView))
        if views:
            folded = not views[-1].reasoning.collapsed
            for view in views:
                view.reasoning.collapsed = folded

    async def action_earlier(self) -> None:
        """Lay out more of a long conversation."""
        if self._shown < len(self.session.path()):
            self._shown += PAGE
            await self.show_path()
        self.transcript.scroll_home(animate=False)

    # ---- sessions --------------------------------------------------------------------------------------------

    async def action_new(self) -> None:
        """A new session with the same system prompt and settings; the old one is in the list."""
        if self._idle():
            old = self.session
            settings = {name: value for name, value in old.settings.items() if name not in ("kept_from", "summary")}
            await self.tui.show_session(Session(system=old.system, settings=settings, bundle=old.bundle))
            self.strip.say("new conversation")
            self.prompt.focus()

    async def action_fork(self) -> None:
        """Go on in a new session that shares the conversation up to the selected message."""
        path = self.session.path()
        if not self._idle() or not path:
            return
        until = self.focused.message if isinstance(self.focused, MessageView) else path[-1]
        await self.tui.show_session(self.session.fork(until))
        self.tui.save()
        self.notify("This is a new session with the same beginning.")

    @work
    async def action_sampling(self) -> None:
        """Settings and system prompt of this session."""
        changed = await self.app.push_screen_wait(SamplingPanel(self.tui.sampling, self.session.system))
        if changed is not None:
            kept = {name: v for name, v in self.session.settings.items() if name in ("kept_from", "summary")}
            self.session.settings, self.session.system = changed[0] | kept, changed[1]
            self.tui.keep_settings()
            self.title_line()
            self.tui.save()

    def action_parallel(self) -> None:
        """Several trajectories for every question from now on, or one again."""
        if not self._idle():
            return
        sampling = self.tui.sampling
        settings = self.session.settings
        if sampling.trajectory_options() is None:
            settings["trajectories"] = int(settings.get("trajectories_before", TRAJECTORIES))
            self.strip.say(f"{settings['trajectories']} trajectories")
        else:
            settings |= {"trajectories_before": max(2, sampling.trajectories), "trajectories": 1}
            settings["parallel"] = sampling.parallel | {"deliberate": False}
            self.strip.say("one trajectory")
        self.title_line()
        self.tui.save()

    def action_trajectory(self, step: int) -> None:
        """Read the next trajectory of the selected or last reply that has any."""
        focused = self.focused
        views = [focused] if isinstance(focused, ReplyView) else list(self.transcript.query(ReplyView))[::-1]
        view = next((v for v in views if v.trajectories is not None), None)
        if view is None or view.trajectories is None:
            self.notify("No trajectories here: F9 asks for several from the next question on.")
        else:
            view.trajectories.step(step)

    @work
    async def action_switch_bundle(self) -> None:
        """Go on with another bundle."""
        if not self._idle():
            return
        known = [k for k in self.tui.services.registry.bundles() if k.bundle is not None]
        if not known:
            self.tui.go("bundles")
            return
        lines = [
            f"{k.name}  {k.bundle.manifest.bits_per_weight:.1f} bits/weight  {k.path.parent}" for k in known if k.bundle
        ]
        chosen = await self.app.push_screen_wait(Choose("Continue with which bundle?", lines))
        if chosen is not None:
            self.tui.open_bundle(known[chosen].path)

    # ---- out of here -----------------------------------------------------------------------------------------

    def _save_as(self, suffix: str) -> None:
        if not self.session.messages:
            self.notify("There is nothing to save yet.")
            return
        try:
            path = writing.save(self.session, self.tui.services.config.exports, suffix)
        except EdgedistillError as error:
            self.notify(str(error), severity="error", timeout=8)
        else:
            self.notify(f"Saved to {_short(path)}.")

    def action_save(self) -> None:
        """The conversation as Markdown."""
        self._save_as(".md")

    def action_save_json(self) -> None:
        """The conversation with all alternatives as JSON."""
        self._save_as(".json")

    def action_copy_answer(self) -> None:
        """The selected or last answer, without its reasoning."""
        reply = self._selected("assistant")
        self._copy(reply.content if reply else "", "Answer")

    def action_copy_message(self) -> None:
        """The whole message with the focus, else the last one, reasoning included."""
        focused, path = self.focused, self.session.path()
        message = focused.message if isinstance(focused, MessageView) else path[-1] if path else None
        thought = f"<think>\n{message.reasoning}\n</think>\n\n" if message and message.reasoning else ""
        self._copy(thought + message.content if message else "", "Message")

    def action_copy_code(self) -> None:
        """The last code block of the selected or last answer."""
        reply = self._selected("assistant")
        blocks = clipboard.code_blocks(reply.content) if reply else []
        self._copy(blocks[-1] if blocks else "", "Code block")

    def _copy(self, text: str, what: str) -> None:
        if text:
            self.tui.copy(text, what)
        else:
            self.notify(f"{what}: there is nothing to copy.")


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
