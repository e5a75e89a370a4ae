"""The engine that is a bundle: edgedistill's runtime behind the UI's protocol.

Must not know: Textual, screens, widgets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedistill.runtime.model import open_bundle
from edgedistill.units import format_count
from edgedistill_tui.engine import Chunk, Reply

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgedistill.bundle import Check
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.settings import GenerationSettings, Mode


class RuntimeEngine:
    """A loaded bundle with the settings of this chat.

    Args:
        model: The loaded model.
        settings: How to sample; None: the bundle's defaults.
        mode: Decode mode.
        thinking: False asks the chat template for no reasoning.
    """

    def __init__(
        self,
        model: Model,
        *,
        settings: GenerationSettings | None = None,
        mode: Mode = "fast",
        thinking: bool | None = None,
    ) -> None:
        self._model = model
        self._settings = settings
        self._mode = mode
        self._thinking = thinking

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        settings: GenerationSettings | None = None,
        mode: Mode = "fast",
        thinking: bool | None = None,
        threads: int | None = None,
        check: Check = "size",
    ) -> RuntimeEngine:
        """Open the bundle at ``path``; raises BundleError."""
        return cls(open_bundle(path, threads=threads, check=check), settings=settings, mode=mode, thinking=thinking)

    @property
    def about(self) -> dict[str, Any]:
        """Bundle, model and profile."""
        manifest = self._model.bundle.manifest
        return {
            "bundle": self._model.bundle.path.name or str(self._model.bundle.path),
            "model": f"{manifest.model.family} {format_count(manifest.parameters)}, "
            f"{manifest.bits_per_weight:.1f} bits/weight",
            "profile": str(manifest.profile.get("name", "")),
        }

    def reply(
        self, messages: Sequence[dict[str, Any]], *, cancel: threading.Event, on_chunk: Callable[[Chunk], None]
    ) -> Reply:
        """Answer the last message."""
        result = None
        for event in self._model.stream(
            messages, settings=self._settings, mode=self._mode, thinking=self._thinking, cancel=cancel
        ):
            if event.kind in ("reasoning", "answer"):
                on_chunk(Chunk("reasoning" if event.kind == "reasoning" else "answer", event.text, event.tokens))
            elif event.kind == "marker":
                # The tags are tokens of the reasoning without a text to show.
                on_chunk(Chunk("reasoning", "", event.tokens))
            result = event.generation or result
        if result is None:
            raise RuntimeError("a generation ended without its last event")
        return Reply(result.reasoning, result.answer, result.finish_reason, result.stats.to_dict())

    def close(self) -> None:
        """Release the model."""
        self._model.close()
