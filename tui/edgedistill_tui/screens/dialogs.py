"""Dialogs over a page: yes or no, one line of text, a choice from a list, a key, permission to run a tool."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

from edgedistill_tui.tool_desk import Permission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.binding import Binding
    from textual.events import Key

    from edgedistill.runtime.tools.types import ToolCall

_LEAVE = "[@click=screen.dismiss(None)]Esc leaves[/]"
_ESCAPE: list[Binding | tuple[str, str] | tuple[str, str, str]] = [("escape", "dismiss(None)", "Cancel")]


class Confirm(ModalScreen[bool]):
    """A question with a dangerous answer: the safe one has the focus."""

    BINDINGS = [("escape", "dismiss(False)", "No"), ("n", "dismiss(False)", "No"), ("y", "dismiss(True)", "Yes")]  # noqa: RUF012

    def __init__(self, question: str, yes: str = "Yes", no: str = "No") -> None:
        super().__init__()
        self._question, self._yes, self._no = question, yes, no

    def compose(self) -> ComposeResult:
        """Question and two buttons."""
        with Vertical(classes="dialog"):
            yield Static(self._question, markup=False, classes="question-text")
            with Horizontal(classes="buttons"):
                yield Button(self._no, id="no", compact=True)
                yield Button(self._yes, id="yes", variant="error", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Give the answer."""
        self.dismiss(event.button.id == "yes")


class Ask(ModalScreen[str | None]):
    """Asks for one line of text; None if the user left."""

    BINDINGS = _ESCAPE

    def __init__(self, question: str, value: str = "", placeholder: str = "") -> None:
        super().__init__()
        self._question, self._value, self._placeholder = question, value, placeholder

    def compose(self) -> ComposeResult:
        """Question and field."""
        with Vertical(classes="dialog"):
            yield Static(self._question, markup=False, classes="question-text")
            yield Input(self._value, placeholder=self._placeholder, compact=True)
            yield Static(f"[@click=screen.accept]Enter accepts[/] · {_LEAVE}", classes="hint")

    def on_input_submitted(self) -> None:
        """Enter."""
        self.action_accept()

    def action_accept(self) -> None:
        """Give the text."""
        self.dismiss(self.query_one(Input).value.strip() or None)


class Choose(ModalScreen[int | None]):
    """Asks for one entry of a list; its index, or None if the user left."""

    BINDINGS = _ESCAPE

    def __init__(self, question: str, options: Sequence[str]) -> None:
        super().__init__()
        self._question, self._options = question, options

    def compose(self) -> ComposeResult:
        """Question and list."""
        with Vertical(classes="dialog"):
            yield Static(self._question, markup=False, classes="question-text")
            yield OptionList(*(Option(text) for text in self._options), markup=False, compact=True)
            yield Static(f"Enter or a click chooses · {_LEAVE}", classes="hint")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Give its number."""
        self.dismiss(event.option_index)


class AllowCall(ModalScreen[Permission | None]):
    """Whether a call of a tool may run; None refuses.

    No letter key answers, and the refusal has the focus, so that typing when the dialog appears allows nothing.
    """

    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        ("escape", "dismiss(None)", "Refuse"),
        ("left", "app.focus_previous", "Button before"),
        ("right", "app.focus_next", "Next button"),
    ]

    def __init__(self, call: ToolCall, about: str) -> None:
        """``about``: the tool's own description."""
        super().__init__()
        self._call, self._about = call, about

    def compose(self) -> ComposeResult:
        """Name, description, arguments, three buttons."""
        with Vertical(classes="dialog -wide"):
            yield Static(f"The model calls {self._call.name}", markup=False, classes="question-text")
            if self._about:
                yield Static(self._about.partition("\n")[0], markup=False, classes="hint")
            with VerticalScroll(classes="arguments", can_focus=False):
                yield Static(_pretty(self._call.arguments), markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Refuse (Esc)", id="refuse", compact=True)
                yield Button("Allow once", id="once", variant="warning", compact=True)
                yield Button("Allow in this chat", id="always", variant="error", compact=True)
            yield Static("It runs with your rights. Arrows choose a button, Enter presses it.", classes="hint")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Give the answer."""
        name = event.button.id
        self.dismiss("once" if name == "once" else "always" if name == "always" else None)


def _pretty(arguments: str) -> str:
    try:
        given = json.loads(arguments or "{}")
    except ValueError:
        return arguments
    return json.dumps(given, indent=2, ensure_ascii=False) if given else "without arguments"


class Recall(ModalScreen[str | None]):
    """One of many texts, found by typing a part of it; None if the user left."""

    BINDINGS = [*_ESCAPE, ("down", "app.focus_next", "To the list")]  # noqa: RUF012 - Textual's own declaration

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__()
        self._texts = self._shown = list(texts)

    def compose(self) -> ComposeResult:
        """Field and list."""
        with Vertical(classes="dialog -wide"):
            yield Input(placeholder="Part of an earlier question", compact=True)
            yield OptionList(*self._options(), markup=False, compact=True)
            yield Static(f"Enter takes the first one, Down goes to the list · {_LEAVE}", classes="hint")

    def _options(self) -> list[Option]:
        return [Option(" ".join(text.split())[:200]) for text in self._shown[:100]]

    def on_input_changed(self, event: Input.Changed) -> None:
        """Keep those that hold what was typed."""
        words = event.value.lower().split()
        self._shown = [text for text in self._texts if all(word in text.lower() for word in words)]
        self.query_one(OptionList).clear_options().add_options(self._options())

    def on_input_submitted(self) -> None:
        """Give the first one."""
        self.dismiss(self._shown[0] if self._shown else None)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Give the chosen one."""
        self.dismiss(self._shown[event.option_index])


class PressKey(ModalScreen[str | None]):
    """The next key that is pressed; None for Escape."""

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """The question."""
        with Vertical(classes="dialog"):
            yield Static(self._question, markup=False, classes="question-text")
            yield Static(f"Press the new key · {_LEAVE}", classes="hint")

    def on_key(self, event: Key) -> None:
        """Take it."""
        event.stop()
        self.dismiss(None if event.key == "escape" else event.key)
