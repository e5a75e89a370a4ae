"""Markdown of an answer: Textual's, with aligned table columns and a mark beside lines of code that are cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.widgets import Label, Markdown, Static
from textual.widgets._markdown import (
    MarkdownBlock,
    MarkdownFence,
    MarkdownTable,
    MarkdownTableContent,
    MarkdownTH,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.app import ComposeResult
    from textual.content import Content

_ALIGNMENTS = {"text-align:center": "center", "text-align:right": "right"}


class AlignedTable(MarkdownTable):
    """A table with columns aligned according to ``:---:`` and ``---:``."""

    def on_mount(self) -> None:
        """Align the first cells."""
        self._align()

    async def _update_from_block(self, block: MarkdownBlock) -> None:
        await super()._update_from_block(block)
        self.call_after_refresh(self._align)

    def _align(self) -> None:
        columns = [_ALIGNMENTS.get(str(one._token.attrs.get("style")), "left") for one in _heads(self)]
        for content in self.query(MarkdownTableContent):
            for number, cell in enumerate(content.children):
                cell.styles.text_align = columns[number % len(columns)]  # type: ignore[assignment]


def _heads(block: MarkdownBlock) -> Iterator[MarkdownTH]:
    for inner in block._blocks:
        if isinstance(inner, MarkdownTH):
            yield inner
        yield from _heads(inner)


class MarkedFence(MarkdownFence):
    """Code with an arrow at the right of each line that is longer than there is room."""

    DEFAULT_CSS = """
    MarkedFence .goes-on { dock: right; width: 1; height: auto; padding: 1 0; color: $accent; background: transparent; }
    """

    def compose(self) -> ComposeResult:
        """The code, the marks."""
        yield from super().compose()
        yield Static("", classes="goes-on")

    def on_resize(self) -> None:
        """Other lines are too long now."""
        self._mark()

    def set_content(self, content: Content) -> None:
        """More code."""
        super().set_content(content)
        self._mark()

    def _mark(self) -> None:
        for marks, label in zip(self.query(".goes-on").results(Static), self.query(Label), strict=False):
            room = self.size.width - label.styles.padding.left
            lines = self.code.expandtabs(8).splitlines()
            marks.update("\n".join("→" if cell_len(line) > room else " " for line in lines))


class Answer(Markdown):
    """The Markdown of an answer."""

    def get_block_class(self, block_name: str) -> type[MarkdownBlock]:
        """Own classes for tables and code."""
        return _OWN.get(block_name) or super().get_block_class(block_name)


_OWN: dict[str, type[MarkdownBlock]] = {
    "table_open": AlignedTable, "fence": MarkedFence, "code_block": MarkedFence,
}  # fmt: skip
