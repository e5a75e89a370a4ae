"""A/B comparison: one prompt and one seed on two bundles, side by side, with the first token that differs.

The bundles run one after the other: two at once would share the cores and measure neither, and a small machine may
not hold both.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual import work
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Input, Static

from edgedistill.errors import EdgedistillError
from edgedistill.units import format_bytes, format_rate, format_seconds
from edgedistill_tui.buffer import ReplyBuffer
from edgedistill_tui.divergence import Parting, part_texts, part_tokens
from edgedistill_tui.engine import Request
from edgedistill_tui.opening import LeftError
from edgedistill_tui.screens.dialogs import Choose
from edgedistill_tui.screens.page import Page, key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.widget import Widget

    from edgedistill_tui.engine import Facts, Reply


@dataclass(slots=True)
class Side:
    """One side: its bundle, and its reply so far."""

    path: Path | None = None
    facts: Facts | None = None
    buffer: ReplyBuffer | None = None
    reply: Reply | None = None
    text: str = ""
    problem: str = ""

    def clear(self) -> None:
        """Forget the last run."""
        self.facts = self.buffer = self.reply = None
        self.text = self.problem = ""


_EMPTY = (
    "The reply of bundle A, with its speed and memory.",
    "The reply of bundle B to the same prompt and seed; the first token that differs is marked in both.",
)


class CompareScreen(Page):
    """A page with a prompt above two panes."""

    PAGE = "ab"
    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        key("ab.run", "ctrl+r", "run", "Run", priority=True),
        key("ab.stop", "escape", "stop", "Stop"),
        key("ab.first", "alt+a", "choose(0)", "Bundle A", priority=True),
        key("ab.second", "alt+b", "choose(1)", "Bundle B", priority=True),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.sides = (Side(), Side())
        self.parting: Parting | None = None
        self.prompt = Input(
            placeholder="One prompt for both (empty: the chat's last question)", id="ab-prompt", compact=True
        )
        self.seed = Input(placeholder="seed", type="integer", id="ab-seed", compact=True)
        self._buttons = (Button("A: choose", id="side-0", compact=True), Button("B: choose", id="side-1", compact=True))
        self._panes = (Static("", markup=False), Static("", markup=False))
        self._note = Static("", markup=False, classes="note")
        self._cancel = threading.Event()
        self.running = False
        self._stage = ""

    def body(self) -> Iterator[Widget]:
        """Prompt, seed, panes."""
        with Vertical(classes="page"):
            with Horizontal(classes="bar"):
                yield self.prompt
                yield self.seed
            yield self._note
            with Horizontal(classes="columns"):
                for button, pane in zip(self._buttons, self._panes, strict=True):
                    with Vertical():
                        yield button
                        with VerticalScroll(classes="pane"):
                            yield pane

    def on_mount(self) -> None:
        """Draw while something runs."""
        self.set_interval(1 / self.tui.fps, self._draw_running)
        self.prompt.focus()

    def on_screen_resume(self) -> None:
        """Fill empty sides with the loaded bundle and the next one known."""
        known = [k.path for k in self.tui.services.registry.bundles() if k.bundle is not None]
        engine = self.tui.engine
        first = Path(engine.facts.path) if engine is not None else next(iter(known), None)
        if self.sides[0].path is None:
            self.sides[0].path = first
        if self.sides[1].path is None:
            self.sides[1].path = next((p for p in known if p != self.sides[0].path), first)
        self.draw()

    def on_unmount(self) -> None:
        """Let a running reply end."""
        self._cancel.set()

    # ---- running ---------------------------------------------------------------------------------------------

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Choose a bundle for a side."""
        self.action_choose(int((event.button.id or "side-0")[-1]))

    @work
    async def action_choose(self, number: int) -> None:
        """Which bundle stands on one side."""
        known = [k for k in self.tui.services.registry.bundles() if k.bundle is not None]
        if not known:
            self.notify("No bundles are known: F4 adds some.", severity="warning")
        elif not self.running:
            chosen = await self.app.push_screen_wait(
                Choose(f"Bundle {'AB'[number]}", [f"{k.name}  {k.path}" for k in known])
            )
            if chosen is not None:
                self.sides[number].path = known[chosen].path
                self.sides[number].clear()
                self.parting = None
                self.draw()

    def on_input_submitted(self) -> None:
        """Enter runs."""
        self.action_run()

    def action_stop(self) -> None:
        """End both."""
        self.stop()

    def stop(self) -> None:
        """End what runs, if anything."""
        self._cancel.set()

    def action_run(self) -> None:
        """Send the prompt to both, with the same random numbers."""
        if self.running:
            self.notify("Already running: Esc stops.")
            return
        asked = [m.content for m in self.tui.session.path() if m.role == "user"]
        prompt = self.prompt.value.strip() or (asked[-1] if asked else "")
        paths = [side.path for side in self.sides]
        if not prompt or paths[0] is None or paths[1] is None:
            self.notify("A prompt and two bundles are needed.", severity="warning")
            return
        if what := self.tui.occupied():
            self.notify(f"{what} Two measurements at once would disturb each other.", severity="warning")
            return
        text = self.seed.value.strip()
        seed = int(text) if text.isdecimal() else secrets.randbits(31)
        self.seed.value = str(seed)
        self.prompt.value = prompt
        self._cancel, self.parting, self.running = threading.Event(), None, True
        for side in self.sides:
            side.clear()
        self._run_both([Path(p) for p in paths if p is not None], prompt, seed, self._cancel)

    @work(thread=True)
    def _run_both(self, paths: list[Path], prompt: str, seed: int, cancel: threading.Event) -> None:
        try:
            self.parting = self._compare(paths, prompt, seed, cancel)
        except LeftError:
            return
        finally:
            self.running = False
            self._stage = ""
            self.app.call_from_thread(self.draw)

    def _compare(self, paths: list[Path], prompt: str, seed: int, cancel: threading.Event) -> Parting | None:
        sampling: Any = None
        for number, (side, path) in enumerate(zip(self.sides, paths, strict=True)):
            self._stage = f"{'AB'[number]}: loading {path.name}…"
            engine = None
            try:
                engine = self.tui.load(path)
                # Both use the first one's settings, so that only the bundles differ.
                sampling = sampling or engine.defaults.merged(self.tui.session.settings)
                sampling = replace(sampling, generation=sampling.generation.replace(seed=seed))
                side.facts, side.buffer = engine.facts, ReplyBuffer()
                self._stage = f"{'AB'[number]}: answering…"
                messages = [{"role": "user", "content": prompt}]
                if self.tui.session.system:
                    messages.insert(0, {"role": "system", "content": self.tui.session.system})
                side.reply = engine.reply(Request(messages, sampling), cancel=cancel, on_chunk=side.buffer.append)
                side.text = side.buffer.text()
                if number == 1 and self.sides[0].reply is not None:
                    return self._part(engine.decode)
            except (EdgedistillError, OSError) as error:
                side.problem = str(error)
            finally:
                if engine is not None:
                    engine.close()
            if cancel.is_set():
                return None
        return None

    def _part(self, decode: Any) -> Parting:
        first, second = self.sides
        if first.reply is None or second.reply is None:
            raise RuntimeError("both replies are needed")
        parting = part_tokens(first.reply.tokens, second.reply.tokens, decode)
        # The second tokenizer reads the first one's ids as the first one did only if they are the same tokenizer.
        same = decode(first.reply.tokens).strip() == first.text.strip()
        return parting if same else part_texts(first.text, second.text)

    # ---- drawing ---------------------------------------------------------------------------------------------

    def _draw_running(self) -> None:
        if self.running and self.is_current:
            self.draw()

    def draw(self) -> None:
        """Both panes."""
        if not self.is_mounted:
            return
        self._note.update(self._sentence())
        for number, (side, button, pane) in enumerate(zip(self.sides, self._buttons, self._panes, strict=True)):
            button.label = Content(f"{'AB'[number]}: {side.path.name if side.path else 'choose'}")
            pane.update(self._pane(number, side))

    def _sentence(self) -> str:
        if self.running:
            return f"{self._stage} Esc stops."
        parting = self.parting
        if parting is None:
            return "Enter asks both with the same seed, one after the other; Alt+A and Alt+B choose the bundles."
        if parting.equal:
            return "The replies are equal, token by token."
        if parting.token is None:
            return "The bundles have different tokens; the first differing character is marked."
        one, two = parting.first_token or "the end", parting.second_token or "the end"
        return f"They differ from token {parting.token + 1}: A says {one!r}, B says {two!r}."

    def _pane(self, number: int, side: Side) -> Text:
        if side.problem:
            return Text(side.problem, "red")
        if self.parting is not None:
            own = (self.parting.first, self.parting.second)[number]
            mark = (self.parting.first_token, self.parting.second_token)[number]
            text = Text.assemble((self.parting.common, "dim"))
            if not self.parting.equal:
                text.append(mark or "⟨end⟩", "bold reverse")
                text.append(own[len(mark) :])
        else:
            text = Text(side.text or (side.buffer.text() if side.buffer is not None else ""))
            if not text and not self.running:
                text = Text(_EMPTY[number], "dim")
        if side.reply is not None:
            s, predicted = side.reply.stats, (side.facts.predicted if side.facts else {})
            text.append("\n\n")
            rows = [
                ("decode", format_rate(s.get("decode_tps", 0))),
                ("predicted", format_rate(predicted["decode_tps"]) if predicted.get("decode_tps") else "–"),
                ("prefill", format_rate(s.get("prefill_tps", 0))),
                ("TTFT", format_seconds(s.get("ttft_s", 0))),
                ("p50/p95", f"{format_seconds(s.get('step_p50_s', 0))} / {format_seconds(s.get('step_p95_s', 0))}"),
                ("tokens", f"{s.get('new_tokens', 0)} ({s.get('reasoning_tokens', 0)} reasoning)"),
                ("KV", format_bytes(s.get("kv_bytes", 0))),
                ("model", side.facts.model if side.facts else ""),
            ]
            for name, value in rows:
                text.append(f"{name:<10}", "dim").append(f"{value}\n")
        return text
