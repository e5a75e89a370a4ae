"""The sampling panel: a form for the sampling settings, seed and system prompt of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static, TextArea

from edgedistill.errors import EdgedistillError
from edgedistill.runtime.text.thinking import EFFORTS

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from edgedistill_tui.engine import Sampling

_NUMBERS: tuple[tuple[str, str, type, str], ...] = (
    ("temperature", "temperature", float, "0 takes the most likely token"),
    ("top_k", "top k", int, "0 keeps all"),
    ("top_p", "top p", float, "1 keeps all"),
    ("min_p", "min p", float, "0 keeps all"),
    ("repetition_penalty", "repetition", float, "1 is off"),
    ("seed", "seed", int, "empty: a new one each time"),
    ("max_new_tokens", "longest reply", int, "tokens, reasoning included"),
    ("think_budget", "think budget", int, "tokens of reasoning; 0: no limit"),
    ("trajectories", "trajectories", int, "decoded together, then a vote; 1: plain"),
)
VOTES = ("majority", "confidence", "universal")
_CHOICES = {
    "thinking": ("auto", "on", "off"),
    "effort": ("auto", *EFFORTS),
    "numerics": ("fast", "exact"),
    "vote": VOTES,
    "deliberate": ("off", "on"),
}
_THINKING: dict[str, bool | None] = {"auto": None, "on": True, "off": False}

Changed = tuple[dict[str, Any], str]


class SamplingPanel(ModalScreen[Changed | None]):
    """A form; gives (settings, system prompt), or None if the user left.

    Args:
        sampling: What holds now.
        system: The system prompt.
    """

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (76, "-normal")]  # noqa: RUF012 - Textual's own declaration
    BINDINGS = [("escape", "dismiss(None)", "Leave"), ("ctrl+s", "accept", "Accept")]  # noqa: RUF012

    def __init__(self, sampling: Sampling, system: str) -> None:
        super().__init__()
        self._sampling = sampling
        self._system = system
        values = sampling.to_dict()
        thinking = next(name for name, value in _THINKING.items() if value is values["thinking"])
        self._chosen = {"thinking": thinking, "numerics": str(values["numerics"])}
        self._chosen["effort"] = values["reasoning_effort"] or "auto"
        parallel = values["parallel"]
        self._chosen["vote"] = str(parallel.get("vote", "majority"))
        self._chosen["deliberate"] = "on" if parallel.get("deliberate") else "off"

    def compose(self) -> ComposeResult:
        """A row per setting."""
        values = self._sampling.to_dict()
        with Vertical(classes="dialog -wide -sampling"):
            yield Static("System prompt of this session", classes="question-text")
            yield TextArea(self._system, id="system", compact=True, show_line_numbers=False)
            yield from self._fields(values)
            yield Static("", id="problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Accept (^S)", id="accept", variant="primary", compact=True)
                yield Button("Bundle's own", id="reset", compact=True)
                yield Button("Leave (Esc)", id="leave", compact=True)

    def _fields(self, values: dict[str, Any]) -> ComposeResult:
        with VerticalScroll(classes="fields"):
            yield Static("Sampling", classes="question-text")
            for name, label, _, hint in _NUMBERS:
                with Horizontal(classes="field"):
                    yield Label(label)
                    value = values[name]
                    yield Input("" if value is None else f"{value:g}" if isinstance(value, float) else str(value),
                                id=name, compact=True)  # fmt: skip
                    yield Static(hint, markup=False, classes="hint")
            with Horizontal(classes="field"):
                yield Label("stop at")
                yield Input(" | ".join(values["stop"]), id="stop", compact=True)
                yield Static("texts, with | between them", markup=False, classes="hint")
            for name, options in _CHOICES.items():
                with Horizontal(classes="field"):
                    yield Label(name)
                    yield Button(self._chosen[name], id=name, compact=True)
                    yield Static(" / ".join(options), markup=False, classes="hint")

    def on_mount(self) -> None:
        """Begin at the top."""
        self.query_one("#temperature", Input).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Turn a choice, or close."""
        name = event.button.id or ""
        if name in _CHOICES:
            options = _CHOICES[name]
            self._chosen[name] = options[(options.index(self._chosen[name]) + 1) % len(options)]
            event.button.label = self._chosen[name]
        elif name == "accept":
            self.action_accept()
        elif name == "reset":
            self.dismiss(({}, self.query_one("#system", TextArea).text.strip()))
        else:
            self.dismiss(None)

    def on_input_submitted(self) -> None:
        """Enter accepts."""
        self.action_accept()

    def action_accept(self) -> None:
        """Check and return the values; for an invalid one, show the error and stay open."""
        try:
            values = self._read()
            self._sampling.merged(values)
        except (EdgedistillError, ValueError) as error:
            self.query_one("#problem", Static).update(str(error))
            return
        self.dismiss((values, self.query_one("#system", TextArea).text.strip()))

    def _read(self) -> dict[str, Any]:
        values: dict[str, Any] = {"thinking": _THINKING[self._chosen["thinking"]], "numerics": self._chosen["numerics"]}
        values["reasoning_effort"] = None if self._chosen["effort"] == "auto" else self._chosen["effort"]
        for name, label, kind, _ in _NUMBERS:
            text = self.query_one(f"#{name}", Input).value.strip()
            if not text and name == "seed":
                values[name] = None
                continue
            try:
                values[name] = kind(text)
            except ValueError:
                wanted = "a whole number" if kind is int else "a number"
                raise ValueError(f"{label} is {text!r}; expected {wanted}.") from None
        values["parallel"] = self._sampling.parallel | {
            "vote": self._chosen["vote"], "deliberate": self._chosen["deliberate"] == "on",
        }  # fmt: skip
        if values["think_budget"] < 0:
            raise ValueError(f"think budget is {values['think_budget']}; expected 0 or more.")
        stops = self.query_one("#stop", Input).value
        values["stop"] = [part for part in (s.strip() for s in stops.split("|")) if part]
        return values
