"""Screens: one file for each page.

A new screen is a file here with a subclass of ``page.Page``, an entry in ``screens.page_class``'s table and a line in
``widgets.nav.PAGES``. Start at ``chat.ChatScreen`` or, for a short example, ``help.HelpScreen``;
``application.Application`` is what a page needs of the application.

Pages are imported when they are first opened. They use models through ``edgedistill_tui.engine.Engine``, never the
runtime itself.
"""

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
