"""What the UI needs from a model, and the one real implementation over the runtime.

The UI never imports the runtime itself; tests drive it with a scripted engine.

Must not know: Textual, screens, widgets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence


ChunkKind = Literal["prefill", "reasoning", "answer"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a reply: text of the reasoning or the answer and the tokens it took; for ``prefill`` tokens only."""

    kind: ChunkKind
    text: str = ""
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished reply. ``stats`` is the runtime's GenerationStats as a dict; empty for engines without clocks."""

    reasoning: str
    answer: str
    finish_reason: str
    stats: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """A loaded model that answers conversations."""

    @property
    def about(self) -> dict[str, Any]:
        """Short facts for the title and for saved conversations: bundle, model, profile."""
        ...

    def reply(
        self, messages: Sequence[dict[str, Any]], *, cancel: threading.Event, on_chunk: Callable[[Chunk], None]
    ) -> Reply:
        """Answer; ``on_chunk`` is called in this thread. Setting ``cancel`` ends it early with what there is."""
        ...
