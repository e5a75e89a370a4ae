"""Makes untrusted text harmless on the screen: it is drawn as characters and has no other effect.

Textual passes on control characters, escape sequences included, and reads square brackets in notifications, cells and
titles as markup, ``[@click=...]`` included. ``Neutral`` filters every line that is drawn; ``plain`` wraps a string that
a widget would parse as markup.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.text import Text
from textual.app import App
from textual.filter import LineFilter

from edgedistill.safe_text import UNSAFE, visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from textual.color import Color

_PAGE = re.compile(r"https?://[^\s\x00-\x1f]+", re.IGNORECASE)


class Neutral(LineFilter):
    """Removes control and bidirectional characters from every line. They have no width, so the layout stays the
    same."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 - not coloured
        """The same segments, those with such characters without them."""
        if not any(UNSAFE.search(segment.text) for segment in segments):
            return segments
        return [Segment(UNSAFE.sub("", text), style, control) for text, style, control in segments]


def plain(text: str) -> Text:
    """One line of ``text`` that is not parsed as markup."""
    return Text(visible(text, line=True))


class NeutralApp(App[None]):
    """An application that draws no text as markup or control sequence, and opens only links to web pages."""

    def __init__(self) -> None:
        super().__init__()
        self._neutral = Neutral()

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's, and then ``Neutral``."""
        return (*super().get_line_filters(), self._neutral)

    def notify(self, message: str, *, markup: bool = False, **options: Any) -> None:  # noqa: ARG002 - never markup
        """As Textual's, but the message is no markup."""
        super().notify(visible(message), markup=False, **options)

    def open_url(self, url: str, *, new_tab: bool = True) -> None:
        """Open a web page; the target of any other link in a model's answer is only shown."""
        if _PAGE.fullmatch(url):
            super().open_url(url, new_tab=new_tab)
        else:
            self.notify(f"Not opened, since it is not a web address: {url[:200]}", severity="warning")
