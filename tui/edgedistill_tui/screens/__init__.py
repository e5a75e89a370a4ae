"""Screens: one file each; pages are made by name, and loaded when they are first wanted."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedistill_tui.screens.page import Page

_CLASSES = {
    "chat": "ChatScreen",
    "sessions": "SessionsScreen",
    "bundles": "BundlesScreen",
    "profiler": "ProfilerScreen",
    "ab": "CompareScreen",
    "consistency": "ConsistencyScreen",
    "settings": "SettingsScreen",
    "help": "HelpScreen",
}


def page_class(name: str) -> type[Page]:
    """The class of a page by its name in ``nav.PAGES``; raises KeyError."""
    found: type[Page] = getattr(import_module(f"edgedistill_tui.screens.{name}"), _CLASSES[name])
    return found


def make_page(name: str) -> Page:
    """A new page."""
    return page_class(name)()
