"""Lists all key bindings that have a name, for the settings, the help and the tests."""

from __future__ import annotations

from textual.binding import Binding

from edgedistill_tui.screens import page_class
from edgedistill_tui.widgets.nav import PAGES

APP_BINDINGS = (
    Binding("ctrl+q", "quit", "Quit", id="app.quit", priority=True),
    Binding("ctrl+c", "interrupt", "Stop, or leave", id="app.interrupt", show=False),
    Binding("ctrl+z", "suspend_process", "Suspend", id="app.suspend", show=False),
    *(
        Binding(key, f"go('{page}')", title, id=f"go.{page}", show=False, priority=True)
        for page, key, title, _ in PAGES
    ),
)
"""Bindings of every page."""


def declared(cls: type) -> list[Binding]:
    """The bindings that a class and its bases declare as ``Binding``, its own first."""
    return [
        binding
        for base in cls.__mro__
        for binding in vars(base).get("BINDINGS", ())
        if isinstance(binding, Binding)
    ]  # fmt: skip


def all_bindings() -> dict[str, tuple[Binding, str]]:
    """Name to (binding, page); "app" for those that hold everywhere."""
    found: dict[str, tuple[Binding, str]] = {}
    sources = [("app", APP_BINDINGS), *((name, page_class(name).BINDINGS) for name, *_ in PAGES)]
    for page, bindings in sources:
        for binding in bindings:
            if isinstance(binding, Binding) and binding.id:
                found[binding.id] = (binding, page)
    return found
