"""Every key of the UI, found in its classes: declared in BINDINGS, or taken by a method that Textual calls."""

from __future__ import annotations

import re
from importlib import import_module
from pkgutil import walk_packages

from textual.app import App
from textual.binding import Binding
from textual.dom import DOMNode
from textual.screen import Screen

import edgedistill_tui

_HANDLER = re.compile(r"_?on_(key|paste|click|mouse_\w+|\w+_(pressed|submitted|selected|picked))|key_\w+")


def classes() -> list[type[DOMNode]]:
    """Every class of the package that can have bindings, by import of all its modules."""
    modules = [import_module(found.name) for found in walk_packages(edgedistill_tui.__path__, "edgedistill_tui.")]
    found = {
        cls
        for module in modules
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, DOMNode) and cls.__module__.startswith("edgedistill_tui")
    }
    return sorted(found, key=lambda cls: cls.__name__)


def bindings() -> dict[tuple[str, str], list[str]]:
    """(class, action) to its keys; Textual's own of the application and of every screen among them."""
    found: dict[tuple[str, str], list[str]] = {}
    every: list[type[DOMNode]] = [App, Screen, *classes()]
    for cls in every:
        for binding in Binding.make_bindings(vars(cls).get("BINDINGS", ())):
            found.setdefault((cls.__name__, binding.action), []).append(binding.key)
    found["App", "command_palette"] = [App.COMMAND_PALETTE_BINDING]
    return found


def handlers() -> set[tuple[str, str]]:
    """(class, method) for keys, clicks and what widgets make of them."""
    return {(cls.__name__, name) for cls in classes() for name in vars(cls) if _HANDLER.fullmatch(name)}
